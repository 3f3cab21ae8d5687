package leveldb

import (
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	goleveldb "github.com/syndtr/goleveldb/leveldb"
	"github.com/syndtr/goleveldb/leveldb/storage"

	"svcindex/index"
)

var (
	_ index.Store  = (*DB)(nil)
	_ index.Writer = (*DB)(nil)
)

// Options say where the store is and how it behaves. Only Path must be set.
type Options struct {
	Path      string                 // directory; made 0700, its files 0600
	Sync      bool                   // db.sync. False loses acknowledged writes with the power
	MinFree   int64                  // db.min_free: bytes of free disk below which writes are Full; 0: off
	Memory    int64                  // most bytes of a store that is never on disk, beyond which writes are Full; 0: it is on disk
	Now       func() time.Time       // nil: time.Now
	Log       *slog.Logger           // nil: discard
	Integrity *index.IntegrityCounts // nil: own
	Audit     bool                   // every mutation leaves an entry; somebody must take them away

	// For tests: what lies between us and the disk.
	wrap func(storage.Storage) storage.Storage
	free func(dir string) (int64, error)
}

// A DB is the store.
type DB struct {
	// Immutable.
	opt       Options
	log       *slog.Logger
	now       func() time.Time
	integrity *index.IntegrityCounts
	space     *space
	memory    *memory   // nil: on disk
	roster    *roster   // what is not there
	born      time.Time // the origin of our monotonic times

	// The ways to the writer.
	gate     chan struct{}   // held by whoever builds
	waiting  chan struct{}   // somebody's part of a batch is built
	marks    chan index.CID  // manifests whose bytes were found damaged
	faults   chan fault      // why the store should be closed for writes
	proofs   chan chan error // somebody wants a canary written and read
	keepings chan keeping    // entries of the audit that are kept elsewhere
	audited  chan struct{}   // there are new ones
	quit     chan struct{}
	close    sync.Once
	idle     sync.WaitGroup // the writer and the keeper

	// Shared, each a value of its own.
	engine    atomic.Pointer[engine]
	epoch     atomic.Pointer[epoch]
	suspect   atomic.Pointer[suspect]
	canary    [2]atomic.Pointer[string] // what stands, and what is being written
	tally     atomic.Pointer[tally]
	auditMark atomic.Pointer[index.AuditMark]
	auditLost atomic.Bool     // it could not be read
	writeAt   [2]atomic.Int64 // when the building and the syncing under way began; 0: none
	roundAt   atomic.Int64    // when the keeper's round under way began; 0: none
	bytes     atomic.Int64    // on disk
	free      atomic.Int64    // on the disk
	damaged   quarantine
	fileStats fileStats
	counts    counts

	// Belong to whoever has the gate.
	open   *group // it is being built
	before *txn   // what it is built upon, durable or about to be; nil: what the engine holds
	txns   [2]txn // of the group that is open, and of the one before
	turns  int

	// Belong to the writer.
	batch   goleveldb.Batch
	keeping keeping       // under way
	rows    []auditRow    // those written last, oldest first
	wroteAt time.Time     // when somebody's write was last through
	healed  time.Time     // when the store was last closed for writes and healed
	backoff time.Duration // how long the next attempt to heal waits
	cursor  []byte        // where the sweep goes on
}

// Open opens the store, or says why it must not be opened and what to do. A
// store that opens has proved that it can write and read.
func Open(o Options) (*DB, error) {
	d, err := newDB(o)
	if err != nil {
		return nil, err
	}
	e, t, err := d.openEngine(false)
	if err != nil {
		return nil, err
	}
	if err := d.adopt(e, t); err != nil {
		return nil, errors.Join(err, e.retire(nil))
	}
	d.measure()
	d.idle.Add(2)
	go d.write()
	go d.keep()
	return d, nil
}

func newDB(o Options) (*DB, error) {
	if o.Path == "" {
		return nil, fmt.Errorf("leveldb: no directory given; set db.path: %w", index.Invalid)
	}
	o.Path = filepath.Clean(o.Path)
	d := &DB{
		opt: o, log: o.Log, now: o.Now, integrity: o.Integrity,
		space:    &space{dir: o.Path, free: o.free},
		born:     time.Now(),
		roster:   newRoster(),
		gate:     make(chan struct{}, 1),
		waiting:  make(chan struct{}, 1),
		marks:    make(chan index.CID, marksWaiting),
		faults:   make(chan fault, 1),
		proofs:   make(chan chan error),
		keepings: make(chan keeping),
		audited:  make(chan struct{}, 1),
		quit:     make(chan struct{}),
		open:     new(group),
		backoff:  backoffMin,
	}
	if o.Memory > 0 {
		d.memory = newMemory()
		d.space.any = true
		d.opt.MinFree, d.space.free = memoryLeft, func(string) (int64, error) { return o.Memory - d.memory.bytes(), nil }
	}
	if d.log == nil {
		d.log = slog.New(slog.DiscardHandler)
	}
	if d.now == nil {
		d.now = time.Now
	}
	if d.integrity == nil {
		d.integrity = new(index.IntegrityCounts)
	}
	if d.space.free == nil {
		d.space.free = freeBytes
	}
	d.epoch.Store(newEpoch())
	return d, nil
}

// adopt makes e the engine, once it proved that it can write and read.
func (d *DB) adopt(e *engine, t tally) error {
	d.fail(errAway) // of what was built upon another engine nothing holds
	d.tally.Store(&t)
	if t.Batch == 0 { // it is empty
		d.roster.whole.Store(true)
	}
	if t.Batch == 0 && e.found.torn == 0 {
		d.log.Info("leveldb: a new store", "path", d.opt.Path)
	}
	if torn := e.found.torn - e.found.blank; torn > 0 {
		d.log.Warn("leveldb: the journal ends torn, as after a crash; what was not acknowledged is dropped", "bytes", torn)
	}
	marked, err := e.quarantined()
	if e.damage == nil {
		e.damage = err
	}
	for _, c := range marked {
		d.damaged.add(c)
	}
	if err := d.readMark(e, &t); err != nil {
		return err
	}
	d.noteTables(e)
	if err := d.prove(e); err != nil {
		return err
	}
	d.engine.Store(e)
	return nil
}

// noteTables makes damage that was met at opening a reason not to be ready. A
// table of the wrong length stays one: only a restored backup makes it whole.
func (d *DB) noteTables(e *engine) {
	for _, f := range e.found.tables {
		d.log.Error("leveldb: a table is damaged; "+advice, "where", f.Where, "what", f.What)
		d.suspectIs(fmt.Errorf("leveldb: %s; %s: %w", f, advice, index.Broken), func(*engine) error { return index.Broken })
	}
	if e.damage != nil {
		d.scrubEnd(nil, e.damage)
	}
}

// use returns the engine, held for reading, or nil when there is none right
// now. It never waits. The user unlocks e.mu.
func (d *DB) use() *engine {
	e := d.engine.Load()
	if e == nil || !e.mu.TryRLock() {
		return nil
	}
	return e
}

// The two that a write waits for.
const (
	building = iota
	syncing
)

// clock is a monotonic time in nanoseconds, never 0. How long something takes
// must not depend on what the wall clock does meanwhile.
func (d *DB) clock() int64 { return int64(time.Since(d.born)) + 1 }

// Close waits for the write under way, refuses what waits, and closes.
func (d *DB) Close() error {
	var err error
	d.close.Do(func() {
		close(d.quit)
		d.idle.Wait()
		if e := d.engine.Swap(nil); e != nil {
			err = e.retire(d.markClosed)
		}
	})
	return err
}

// Released returns a channel that is closed once a closed store is out of memory,
// or would be if it were not on disk. goleveldb keeps what it held for up to a
// second after its close, and the collector has to come by.
func (d *DB) Released() <-chan struct{} {
	if e := d.engine.Load(); e != nil {
		return e.released
	}
	none := make(chan struct{})
	close(none)
	return none
}

// markClosed leaves the mark of a good end. A store that does not sync has
// none: what the mark promises might reach the disk before what it speaks of.
func (d *DB) markClosed() {
	if !d.opt.Sync || d.ReadOnly() || d.memory != nil {
		return
	}
	if err := markClean(d.opt.Path); err != nil {
		d.log.Warn("leveldb: closed, but without the mark of it", "path", d.opt.Path, "err", err)
	}
}
