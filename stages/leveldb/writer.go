package leveldb

import (
	"fmt"
	"runtime/debug"
	"sync/atomic"
	"time"

	goleveldb "github.com/syndtr/goleveldb/leveldb"

	"svcindex/index"
)

const (
	groupCalls = 1024        // calls that share one sync, at most
	groupBytes = 4 << 20     // and their bytes: half a write buffer
	batchKept  = 2 * 1 << 20 // a batch buffer that grew past this is not reused
)

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

// A group is the calls that share a batch. Whoever commits builds his part of
// it himself, while the writer makes the group before durable.
type group struct {
	txn   *txn // nil: nobody has begun
	calls int
	size  int           // bytes of their manifests
	done  chan struct{} // closed when it is durable, or is not going to be
	err   error         // set before done is closed
}

// end answers all calls of a group.
func (g *group) end(err error) {
	g.err = err
	close(g.done)
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
	for {
		g, full, err := d.join(ms)
		if err != nil {
			return err
		}
		if !full {
			select {
			case d.waiting <- struct{}{}:
			default:
			}
		}
		<-g.done // the writer ends each group, at its own end too
		if !full {
			return g.err
		}
	}
}

// join builds a call's part of the group that is open. Full: that group takes
// no more; the caller waits for its end.
func (d *DB) join(ms []*index.Mutation) (g *group, full bool, err error) {
	ep := d.epoch.Load()
	select {
	case d.gate <- struct{}{}:
	case <-ep.shut:
		return nil, false, ep.err
	case <-d.quit:
		return nil, false, errAway
	}
	d.writeAt[building].Store(d.clock()) // building reads, and a read can be stuck
	defer d.leave()
	select { // asked again: the gate may have opened after the end
	case <-ep.shut:
		return nil, false, ep.err
	case <-d.quit:
		return nil, false, errAway
	default:
	}
	e := d.use()
	if e == nil {
		return nil, false, errAway
	}
	defer e.mu.RUnlock()
	g = d.opened(e)
	if g.calls >= groupCalls || g.size >= groupBytes {
		return g, true, nil
	}
	if err := d.build(g.txn, ms); err != nil {
		d.open.end(err) // half of a call may be in it
		d.open = new(group)
		return nil, false, err
	}
	g.calls++
	for _, m := range ms {
		g.size += len(m.Manifest)
	}
	return g, false, nil
}

func (d *DB) leave() {
	d.writeAt[building].Store(0)
	<-d.gate
}

// opened returns the open group, begun. The caller has the gate.
func (d *DB) opened(e *engine) *group {
	g := d.open
	if g.txn == nil {
		g.txn, g.done = &d.txns[d.turns%2], make(chan struct{})
		last, mark := d.tally.Load(), d.auditMark.Load()
		if d.before != nil {
			last, mark = &d.before.tally, &d.before.mark
		}
		g.txn.begin(e, d.before, *last, *mark)
	}
	g.txn.now = d.now().Unix()
	return g
}

// take takes the open group for the writer, with what add adds to it, or
// returns nil when there is nothing in it. What comes then is built upon it.
func (d *DB) take(e *engine, add func(*txn)) *group {
	d.gate <- struct{}{}
	d.writeAt[building].Store(d.clock())
	defer d.leave()
	g := d.opened(e)
	if add != nil {
		add(g.txn)
	}
	g.txn.seal()
	if g.calls == 0 && len(g.txn.ops) == 0 {
		d.open, d.before = new(group), nil
		return nil
	}
	d.before, d.open = g.txn, new(group)
	d.turns++
	return g
}

// fail answers those whose part is built, when what it is built upon is not
// going to be there.
func (d *DB) fail(err error) {
	d.gate <- struct{}{}
	defer d.leave()
	if d.open.txn != nil {
		d.open.end(err)
	}
	d.open, d.before = new(group), nil
}

// write is the writer: whoever changes the store does it here.
func (d *DB) write() {
	defer d.idle.Done()
	sweep := time.NewTicker(sweepEvery)
	defer sweep.Stop()
	lull := time.NewTimer(lullAfter)
	defer lull.Stop()
	defer func() {
		d.keeping.end(errAway)
		d.fail(errAway)
	}()
	for {
		keepings := d.keepings
		if d.keeping.done != nil {
			keepings = nil // one at a time
		}
		var err error
		select {
		case <-d.waiting:
			err = d.commit()
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

// commit makes durable what waits. Its error closes the store for writes.
func (d *DB) commit() error {
	err := d.turn(d.engine.Load(), func(t *txn) {
		t.putEntries()
		switch {
		case t.auditFull(): // no write gets in before some have ended
			d.dropKept(t, auditDrop)
		case len(t.ops) > 0:
			d.dropKept(t, len(t.rows)+keptMore)
		}
	})
	d.wroteAt = time.Now()
	return err
}

// turn makes durable what waits, and what add adds to it.
func (d *DB) turn(e *engine, add func(*txn)) error {
	g := d.take(e, add)
	if g == nil {
		return nil
	}
	err := d.flush(g.txn)
	if err != nil {
		d.shut(err)
		g.end(d.epoch.Load().err)
		return err
	}
	d.counts.commits.Add(uint64(g.calls))
	d.settled()
	g.end(nil)
	return nil
}

// settled forgets the batch before, unless somebody builds upon it: from now on
// the engine's word counts, and its damage.
func (d *DB) settled() {
	select {
	case d.gate <- struct{}{}:
		if d.open.txn == nil {
			d.before = nil
		}
		<-d.gate
	default: // somebody does
	}
}

// build applies a call's mutations. A bug in one costs its group, not the
// process: nothing has been written yet.
func (d *DB) build(t *txn, ms []*index.Mutation) (err error) {
	defer func() {
		if p := recover(); p != nil {
			d.log.Error("leveldb: a bug while building a batch", "panic", p, "stack", string(debug.Stack()))
			err = fmt.Errorf("leveldb: a bug while building a batch: %v: %w", p, index.Broken)
		}
	}()
	for _, m := range ms {
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
	return nil
}

// flush makes a sealed batch durable. A batch without rows already is.
func (d *DB) flush(t *txn) error {
	if len(t.ops) == 0 {
		return nil
	}
	t.render(&d.batch)
	d.writeAt[syncing].Store(d.clock())
	err := t.e.write(&d.batch, d.opt.Sync)
	d.writeAt[syncing].Store(0)
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
	d.know(t.rows, mark.Kept)
	d.damaged.drop(t.heals)
	if d.keeping.done != nil && mark.Kept >= d.keeping.entry.N {
		d.keeping.end(nil)
	}
	return nil
}
