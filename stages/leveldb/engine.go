package leveldb

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"sync"

	goleveldb "github.com/syndtr/goleveldb/leveldb"
	ldberrors "github.com/syndtr/goleveldb/leveldb/errors"
	"github.com/syndtr/goleveldb/leveldb/filter"
	"github.com/syndtr/goleveldb/leveldb/iterator"
	"github.com/syndtr/goleveldb/leveldb/opt"
	"github.com/syndtr/goleveldb/leveldb/storage"
	"github.com/syndtr/goleveldb/leveldb/util"

	"svcindex/index"
)

// An engine is one opening of the directory. A store that heals goes through
// several.
type engine struct {
	// mu is held for reading by whoever uses db. Retiring takes it for good, so
	// that nobody reads from a file that is being closed.
	mu sync.RWMutex

	// Immutable.
	db       *goleveldb.DB
	files    *files
	released chan struct{} // closed when nobody holds db any more
	found    inspection    // what was there before
	roster   *roster       // of the DB
	after    *tally        // what the store ended with when it was last open here; nil: it was not
	damage   error         // met while opening; nil: none

	format byte // of the store; 0: a new one. Belongs to the writer once open
}

const (
	writeBuffer  = 8 << 20  // bytes of journal before they become a table; two are in memory at worst
	blockCache   = 32 << 20 // bytes of blocks kept
	openTables   = 64       // descriptors for tables, of a process that needs them for sockets
	tableSize    = 8 << 20  // bytes of a table; larger ones make 64 descriptors go further
	bloomBitsKey = 10       // a miss then reads a table once in a hundred
)

func engineOptions(readOnly bool) *opt.Options {
	return &opt.Options{
		Filter:                 filter.NewBloomFilter(bloomBitsKey),
		BlockCacheCapacity:     blockCache,
		OpenFilesCacheCapacity: openTables,
		WriteBuffer:            writeBuffer,
		CompactionTableSize:    tableSize,
		Compression:            opt.SnappyCompression,
		// StrictJournal is left out: it refuses the torn tail that every crash
		// leaves. inspect tells the two apart.
		Strict: opt.DefaultStrict,
		// A batch larger than the write buffer would go round the journal, and
		// round our numbers.
		DisableLargeBatchTransaction: true,
		NoWriteMerge:                 true, // there is one writer
		DisableSeeksCompaction:       true, // a read must not make the disk write
		ReadOnly:                     readOnly,
		ErrorIfMissing:               readOnly,
	}
}

// openEngine locks the directory, inspects it and, when nothing is wrong,
// opens it. The tally is that of the last batch.
func (d *DB) openEngine(readOnly bool) (*engine, tally, error) {
	e := &engine{roster: d.roster, after: d.tally.Load(), files: &files{dir: d.opt.Path, log: d.log, stat: &d.fileStats, failed: d.fileFailed, memory: d.memory}}
	var stor storage.Storage
	var err error
	if d.memory != nil {
		stor = d.memory
	} else if stor, err = openFiles(d.opt.Path, readOnly); err != nil {
		return nil, tally{}, err
	} else if d.opt.Sync && !readOnly {
		stor = inPlace{stor}
	}
	e.files.Storage = stor
	t, err := e.open(d.opt.Path, readOnly, d.opt.wrap)
	if err != nil {
		return nil, tally{}, errors.Join(err, stor.Close())
	}
	return e, t, nil
}

func (e *engine) open(dir string, readOnly bool, wrap func(storage.Storage) storage.Storage) (t tally, err error) {
	if e.files.memory == nil {
		if err := e.inspect(dir, readOnly); err != nil {
			return t, err
		}
	}
	if wrap != nil {
		e.files.Storage = wrap(e.files.Storage)
	}
	stor := storage.Storage(e.files)
	if readOnly {
		stor = joinJournals(stor, e.found.journals)
	}
	if e.db, err = openSafely(stor, engineOptions(readOnly)); err != nil {
		return t, explain(dir, err)
	}
	e.released = make(chan struct{})
	runtime.AddCleanup(e.db, func(released chan struct{}) { close(released) }, e.released)
	if t, err = e.checkTally(dir); err == nil {
		err = e.follows(dir, &t)
	}
	if err != nil {
		return t, errors.Join(err, e.db.Close())
	}
	return t, nil
}

// inspect looks at what is in the directory, before goleveldb changes it.
func (e *engine) inspect(dir string, readOnly bool) (err error) {
	if e.found, err = inspect(dir); err != nil {
		return explain(dir, err)
	}
	if err := e.found.err(dir); err != nil {
		return err
	}
	if e.found.fresh || e.found.last.Batch != 0 { // else only the tables tell, once it is open
		if err := e.follows(dir, &e.found.last); err != nil {
			return err
		}
	}
	e.files.ends = e.found.ends
	if readOnly {
		return nil
	}
	for _, name := range e.found.leftover {
		if err := os.Remove(filepath.Join(dir, name)); err != nil {
			return explain(dir, err)
		}
	}
	if err := unmarkClean(dir); err != nil {
		return explain(dir, err)
	}
	return nil
}

// openSafely opens, and survives the damage that makes goleveldb panic.
func openSafely(s storage.Storage, o *opt.Options) (db *goleveldb.DB, err error) {
	defer func() {
		if p := recover(); p != nil {
			db, err = nil, fmt.Errorf("goleveldb gave up: %v: %w\n%s", p, index.Broken, debug.Stack())
		}
	}()
	db, err = goleveldb.Open(s, o)
	if ldberrors.IsCorrupted(err) {
		err = fmt.Errorf("%w: %w", err, index.Broken)
	}
	return db, err
}

// checkTally holds what goleveldb replayed to what its journals held: the last
// batch of the journals must be the last batch of the store. A damaged table
// can hide that row; then the journals' word stands, so that what is not
// damaged can still be served.
func (e *engine) checkTally(dir string) (tally, error) {
	key, last := []byte(keyBatch), e.found.last
	value, err := e.db.Get(key, nil)
	switch {
	case errors.Is(err, goleveldb.ErrNotFound):
		if last.Batch == 0 && e.isEmpty() {
			return tally{}, nil
		}
		return tally{}, refusal(dir, "it holds rows, but not the number of the last batch")
	case ldberrors.IsCorrupted(err) && last.Batch != 0:
		e.damage = err
		return last, nil
	case ldberrors.IsCorrupted(err):
		return tally{}, refusal(dir, "the number of the last batch cannot be read: "+err.Error())
	case err != nil:
		return tally{}, explain(dir, err)
	}
	payload, ok := unframe(key, value)
	t, whole := parseTally(payload)
	if !ok || !whole {
		return tally{}, refusal(dir, "the number of the last batch does not match its digest")
	}
	if last.Batch != 0 && t != last {
		return tally{}, refusal(dir, fmt.Sprintf("the journals end with batch %d, but after their replay the store ends with %d", last.Batch, t.Batch))
	}
	return t, e.checkFormat(dir)
}

func (e *engine) checkFormat(dir string) error {
	key := []byte(keyFormat)
	value, err := e.db.Get(key, nil)
	if ldberrors.IsCorrupted(err) {
		e.damage = err
		return nil
	}
	if err != nil {
		return refusal(dir, "it does not say its format: "+err.Error())
	}
	payload, ok := unframe(key, value)
	if !ok || len(payload) != 1 || payload[0] < formatMin || payload[0] > format {
		return refusal(dir, fmt.Sprintf("format %v was found, this program knows %d to %d: use the program that wrote it", payload, formatMin, format))
	}
	e.format = payload[0]
	return nil
}

// follows holds what a store ends with to what it ended with when it was last
// open here: that batch, or the next, which failed and may be there all the
// same. With anything else acknowledged writes are gone, as where the disk under
// the directory is, or it is another store, of which nothing is true that is
// known of this one: to go on would be to call absent what is not.
func (e *engine) follows(dir string, t *tally) error {
	if e.after == nil || *t == *e.after || t.Batch == e.after.Batch+1 {
		return nil
	}
	return refusal(dir, fmt.Sprintf("it ends with batch %d, but with batch %d when it was last open: what was acknowledged is not there; if it was replaced, start the server anew", t.Batch, e.after.Batch))
}

func refusal(dir, what string) error {
	return fmt.Errorf("leveldb: %s: %s; %s: %w", dir, what, advice, index.Broken)
}

func (e *engine) isEmpty() bool {
	it := e.iterate(nil, nil)
	defer it.Release()
	return !it.First() && it.Error() == nil
}

// iterate walks the rows from start up to limit (nil: to the end), without
// pushing what readers use out of the cache. The caller releases it before it
// returns: an iterator keeps files from being deleted.
func (e *engine) iterate(start, limit []byte) iterator.Iterator {
	return e.db.NewIterator(&util.Range{Start: start, Limit: limit}, &opt.ReadOptions{DontFillCache: true})
}

// write makes a batch durable.
func (e *engine) write(b *goleveldb.Batch, sync bool) error {
	return e.db.Write(b, &opt.WriteOptions{Sync: sync, NoWriteMerge: true})
}

// retire waits for the last reader and closes. There is no way back: later
// readers find the engine taken.
// last, if given, is called when all is closed and the directory still ours.
func (e *engine) retire(last func()) error {
	e.mu.Lock()
	err := e.db.Close()
	if err == nil && last != nil {
		last()
	}
	return errors.Join(err, e.files.Close())
}

// read returns the payload of key: Missing when there is none, Broken when it
// is not what was put, Down when it could not be read. The payload belongs to
// the caller.
func (e *engine) read(key []byte) ([]byte, error) {
	value, err := e.db.Get(key, nil)
	if err != nil {
		return nil, readError(err)
	}
	payload, ok := unframe(key, value)
	if !ok {
		return nil, errDigest
	}
	return payload, nil
}

func readError(err error) error {
	switch {
	case errors.Is(err, goleveldb.ErrNotFound):
		return index.Missing
	case ldberrors.IsCorrupted(err):
		return fmt.Errorf("leveldb: reading: %w: %w", err, index.Broken)
	}
	return fmt.Errorf("leveldb: reading: %w: %w", err, index.Down)
}
