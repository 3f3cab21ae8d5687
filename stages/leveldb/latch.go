package leveldb

import (
	"errors"
	"fmt"
	"strconv"
	"time"

	"svcindex/index"
)

// A write that failed leaves goleveldb in a state that must not be built upon:
// its next acknowledged batch would carry the failed one's sequence and be
// skipped at replay. So the first failure closes the store for writes, reads
// go on, and the writer reopens until the store has proved itself.

const (
	backoffMin = 50 * time.Millisecond // a single failed sync should cost little
	backoffMax = 5 * time.Second
	calmAfter  = time.Minute // healthy for so long, the next failure is a new one
	reopenRoom = 1 << 20     // bytes that reopening needs, beside a copy of the journal
)

// An epoch is a time in which the store takes writes. It ends with err.
type epoch struct {
	shut chan struct{} // closed at the end
	err  error         // set before shut is closed
}

func newEpoch() *epoch { return &epoch{shut: make(chan struct{})} }

// A fault is a file that failed outside of a write of ours.
type fault struct {
	files *files
	err   error
}

// fileFailed tells the writer of a fault. One is enough.
func (d *DB) fileFailed(f *files, err error) {
	select {
	case d.faults <- fault{f, err}:
	default:
	}
}

// cause gives the error of a write its Kind.
func cause(err error) error {
	switch {
	case isFull(err):
		return fmt.Errorf("leveldb: the disk is full; reads go on, writes resume by themselves once there is room: %w: %w", err, index.Full)
	case index.KindOf(err) == index.Full, index.KindOf(err) == index.Broken:
		return err
	}
	return fmt.Errorf("leveldb: a write failed; reads go on, writes resume once the store was reopened and proved itself: %w: %w", err, index.Down)
}

// shut closes the store for writes, unless it is. Only the writer does, and
// before it answers the write that failed: whoever was refused finds the store
// as it was told.
func (d *DB) shut(why error) {
	ep := d.epoch.Load()
	select {
	case <-ep.shut:
	default:
		ep.err = cause(why)
		close(ep.shut)
		d.log.Error("leveldb: closed for writes", "path", d.opt.Path, "err", why)
	}
}

// heal closes the store for writes and reopens it until that works; false: the
// store was closed first. It runs in the writer, so nothing is written
// meanwhile.
func (d *DB) heal(why error) bool {
	d.shut(why)
	d.fail(d.epoch.Load().err)
	if time.Since(d.healed) > calmAfter {
		d.backoff = backoffMin
	}
	began := time.Now()
	for said := ""; ; {
		if !d.pause(d.backoff) {
			return false
		}
		d.backoff = min(2*d.backoff, backoffMax)
		err := d.reopen()
		if err == nil {
			break
		}
		if s := err.Error(); s != said {
			said = s
			d.log.Error("leveldb: still closed for writes", "path", d.opt.Path, "err", err)
		}
	}
	d.healed = time.Now()
	d.counts.heals.Add(1)
	d.epoch.Store(newEpoch())
	d.log.Info("leveldb: open for writes again", "path", d.opt.Path, "after", time.Since(began))
	return true
}

// pause waits, or reports false when the store is closed meanwhile.
func (d *DB) pause(wait time.Duration) bool {
	t := time.NewTimer(wait)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-d.quit:
		return false
	}
}

// reopen closes the engine and opens it anew. When that fails, what is there
// is opened for reading only, if it can be trusted.
func (d *DB) reopen() error {
	need := max(d.opt.MinFree, d.journalBytes()+reopenRoom)
	d.space.forget() // what it was before the fault says nothing
	if err := d.space.room(need); err != nil {
		return err // the old engine still reads
	}
	if e := d.engine.Swap(nil); e != nil {
		if err := e.retire(nil); err != nil {
			d.log.Warn("leveldb: closing before reopening", "err", err)
		}
	}
	e, t, err := d.openEngine(false)
	if err == nil {
		if err = d.adopt(e, t); err == nil {
			return nil
		}
		err = errors.Join(err, e.retire(nil))
	}
	d.openReadOnly()
	return err
}

// openReadOnly opens for reading only. A journal that is damaged stays closed:
// what could be read would be older than what was acknowledged.
func (d *DB) openReadOnly() {
	e, t, err := d.openEngine(true)
	if err != nil {
		return
	}
	d.tally.Store(&t)
	d.engine.Store(e)
}

// prove writes a canary and reads it back. The engine is given, because it is
// not everybody's until it proved itself.
func (d *DB) prove(e *engine) error {
	song := ""
	err := d.turn(e, func(t *txn) {
		song = strconv.FormatUint(t.tally.Batch+1, 10) + " " + strconv.FormatInt(t.now, 10)
		t.put([]byte(keyCanary), []byte(song))
		d.canary[1].Store(&song)
	})
	if err != nil {
		return err
	}
	payload, err := e.read([]byte(keyCanary))
	if err != nil {
		return err
	}
	if string(payload) != song {
		return fmt.Errorf("leveldb: the canary that was written does not read back: %w", index.Broken)
	}
	d.canary[0].Store(&song)
	return nil
}

// ReadOnly reports whether writes are refused until the store has healed.
func (d *DB) ReadOnly() bool {
	select {
	case <-d.epoch.Load().shut:
		return true
	default:
		return false
	}
}

var (
	errStuckWrite = fmt.Errorf("leveldb: a write has been under way for more than %v; the disk or a compaction is slow: %w", stuckAfter, index.Down)
	errStuckRead  = fmt.Errorf("leveldb: a read has been under way for more than %v; the disk does not answer: %w", stuckAfter, index.Down)
)

// stuckAfter is when waiting for the disk becomes a reason not to be ready.
const stuckAfter = time.Second

// Ready returns nil, or why the store cannot be trusted right now. It looks at
// what the keeper and the writer know, and costs a statfs now and then.
func (d *DB) Ready() error {
	select {
	case <-d.quit:
		return errAway
	default:
	}
	ep := d.epoch.Load()
	select {
	case <-ep.shut:
		return ep.err
	default:
	}
	if s := d.suspect.Load(); s != nil {
		return s.err
	}
	now := d.clock()
	switch {
	case stuck(now, d.writeAt[building].Load()), stuck(now, d.writeAt[syncing].Load()):
		return errStuckWrite
	case stuck(now, d.roundAt.Load()):
		return errStuckRead
	}
	return d.space.room(d.opt.MinFree) // reads are served, but writes would be refused
}

func stuck(now, since int64) bool { return since != 0 && now-since > int64(stuckAfter) }
