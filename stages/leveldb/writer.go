package leveldb

import (
	"fmt"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	goleveldb "github.com/syndtr/goleveldb/leveldb"

	"svcindex/index"
)

const (
	groupCalls = 1024        // calls that share one sync, at most
	groupBytes = 4 << 20     // and their bytes: half a write buffer
	batchKept  = 2 * 1 << 20 // a batch buffer that grew past this is not reused

	// callsWaiting is how many calls the writer finds when it comes by. To take
	// each from its caller's hand would wake him only to have him wait again.
	callsWaiting = 256
)

// A call is one Commit on its way to the writer.
type call struct {
	ms    []*index.Mutation
	done  chan error
	taken atomic.Bool // by the writer, or back by its caller: whose ms are
}

// take makes the call the taker's, unless the other has it.
func (c *call) take() bool { return c.taken.CompareAndSwap(false, true) }

var callPool = sync.Pool{New: func() any { return &call{done: make(chan error, 1)} }}

// Counts of the writer.
type counts struct {
	commits  atomic.Uint64 // calls that were made durable
	batches  atomic.Uint64 // writes they shared
	refused  atomic.Uint64 // mutations
	failures atomic.Uint64 // writes that failed
	heals    atomic.Uint64
	purged   atomic.Uint64 // rows past their time
	scrubbed atomic.Uint64 // rows the keeper looked at
}

// Commit implements index.Writer. Many callers share one batch and one sync;
// the mutations of one call are always in the same. When Commit fails, a
// mutation may yet be found stored after the store has healed; it is whole or
// not there.
func (d *DB) Commit(ms []*index.Mutation) error {
	if len(ms) == 0 {
		return nil
	}
	if err := d.space.room(d.opt.MinFree); err != nil {
		return err
	}
	ep := d.epoch.Load()
	select {
	case <-ep.shut: // asked first: select would pick either
		return ep.err
	default:
	}
	c := callPool.Get().(*call)
	c.ms = ms
	c.taken.Store(false)
	select {
	case d.calls <- c:
	case <-ep.shut:
		return ep.err
	case <-d.quit:
		return errAway
	}
	return d.answer(c, ep)
}

// answer waits for what becomes of a call. One that is taken back lies where it
// is until the writer comes by, and is not used again.
func (d *DB) answer(c *call, ep *epoch) (err error) {
	select {
	case err = <-c.done:
	case <-ep.shut:
		if c.take() {
			return ep.err
		}
		err = <-c.done
	case <-d.quit:
		if c.take() {
			return errAway
		}
		err = <-c.done
	}
	c.ms = nil
	callPool.Put(c)
	return err
}

// write is the writer: whoever changes the store does it here.
func (d *DB) write() {
	defer d.idle.Done()
	sweep := time.NewTicker(sweepEvery)
	defer sweep.Stop()
	lull := time.NewTimer(lullAfter)
	defer lull.Stop()
	defer func() { d.keeping.end(errAway) }()
	for {
		keepings := d.keepings
		if d.keeping.done != nil {
			keepings = nil // one at a time
		}
		var err error
		select {
		case c := <-d.calls:
			if c.take() {
				err = d.commit(d.gather(c))
			}
		case c := <-d.marks:
			err = d.mark(c)
		case d.keeping = <-keepings:
			err = d.keepOn(lull)
		case <-lull.C:
			err = d.keepOn(lull)
		case done := <-d.proofs:
			err = d.prove(d.engine.Load())
			done <- err
		case f := <-d.faults:
			if e := d.engine.Load(); e != nil && e.files == f.files {
				err = f.err
			}
		case <-sweep.C:
			err = d.sweep()
		case <-d.quit:
			return
		}
		if err != nil {
			d.keeping.end(err)
			if !d.heal(err) {
				return
			}
		}
	}
}

// gather takes what else is waiting, so that one sync serves all.
func (d *DB) gather(c *call) []*call {
	group, size := []*call{c}, c.size()
	for len(group) < groupCalls && size < groupBytes {
		select {
		case c := <-d.calls:
			if c.take() {
				group = append(group, c)
				size += c.size()
			}
		default:
			return group
		}
	}
	return group
}

func (c *call) size() (n int) {
	for _, m := range c.ms {
		n += len(m.Manifest)
	}
	return n
}

// commit writes one group and answers it. Its error closes the store for
// writes.
func (d *DB) commit(group []*call) error {
	d.writeAt.Store(d.clock()) // building reads, and a read can be stuck too
	defer d.writeAt.Store(0)
	t := d.begin()
	err := d.build(t, group)
	failed := false
	if err == nil {
		d.dropKept(t, keptShare*len(t.ops)+keptLeast)
		err = d.flush(t)
		failed = err != nil
	}
	d.wroteAt = time.Now()
	why := err
	switch {
	case failed:
		d.shut(err)
		err = d.epoch.Load().err
	case err != nil:
		err = cause(err)
	default:
		d.counts.commits.Add(uint64(len(group)))
	}
	for _, c := range group {
		c.done <- err
	}
	if failed {
		return why
	}
	return nil
}

func (d *DB) begin() *txn {
	d.txn.begin(d.engine.Load(), *d.tally.Load(), *d.auditMark.Load(), d.now().Unix())
	return &d.txn
}

// build applies the group's mutations. A bug in one costs its group, not the
// process: nothing has been written yet.
func (d *DB) build(t *txn, group []*call) (err error) {
	defer func() {
		if p := recover(); p != nil {
			d.log.Error("leveldb: a bug while building a batch", "panic", p, "stack", string(debug.Stack()))
			err = fmt.Errorf("leveldb: a bug while building a batch: %v: %w", p, index.Broken)
		}
	}()
	for _, c := range group {
		for _, m := range c.ms {
			m.Created, m.Stored, m.Current, m.Record, m.TaskID, m.News = false, 0, 0, index.NameRecord{}, "", false
			if m.Err = d.auditable(t); m.Err != nil {
				continue
			}
			changes := t.changes
			if m.Err = t.apply(m); m.Err != nil {
				d.counts.refused.Add(1)
				continue
			}
			t.applied(m, changes, d.opt.Audit)
		}
	}
	return nil
}

// flush makes the batch durable. A batch without rows already is.
func (d *DB) flush(t *txn) error {
	if len(t.ops) == 0 {
		return nil
	}
	t.seal()
	t.render(&d.batch)
	d.writeAt.Store(d.clock())
	err := t.e.write(&d.batch, d.opt.Sync)
	d.writeAt.Store(0)
	if cap(d.batch.Dump()) > batchKept {
		d.batch = goleveldb.Batch{}
	}
	if err != nil {
		d.counts.failures.Add(1)
		return err
	}
	d.counts.batches.Add(1)
	last, mark := t.tally, t.mark
	d.tally.Store(&last)
	if was := d.auditMark.Swap(&mark); was.Last != mark.Last {
		d.tellAudited()
	}
	d.damaged.drop(t.heals)
	if d.keeping.done != nil && mark.Kept >= d.keeping.entry.N {
		d.keeping.end(nil)
	}
	return nil
}
