package leveldb

import (
	"bytes"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"svcindex/index"
)

const (
	roundEvery   = time.Second
	scrubRows    = 256     // rows a round looks at, at most
	scrubBytes   = 1 << 20 // and their bytes; a scrub must not be felt
	marksWaiting = 256     // damaged manifests on their way to the writer
	markedMax    = 1 << 16 // and known in memory; beyond it each read finds out anew
)

// A suspect is a place that could not be read or trusted. While there is one,
// the store is not ready.
type suspect struct {
	err     error
	recheck func(*engine) error // nil once the place is sound again
}

// noteDamage remembers what a read of key found.
func (d *DB) noteDamage(key []byte, err error) {
	key = bytes.Clone(key)
	if index.KindOf(err) == index.Broken {
		d.integrity.DB.Add(1)
		if key[0] == rowContent {
			d.isolate(index.CID(key[1:]))
			if err == errDigest {
				return // just these bytes; they are out of the way now
			}
		}
	}
	d.suspectIs(fmt.Errorf("leveldb: a row of kind %q cannot be trusted; %s: %w", key[0], advice, err), func(e *engine) error {
		if _, err := e.read(key); err != nil && err != index.Missing {
			return err
		}
		return nil
	})
}

// suspectIs keeps the first suspect; one is reason enough.
func (d *DB) suspectIs(err error, recheck func(*engine) error) {
	if d.suspect.CompareAndSwap(nil, &suspect{err, recheck}) {
		d.log.Error("leveldb: not ready", "err", err)
	}
}

// isolate puts a manifest in quarantine: at once for readers, and by the
// writer for good.
func (d *DB) isolate(c index.CID) {
	if !d.damaged.add(c) {
		return
	}
	d.log.Error("leveldb: a manifest's bytes do not match its cid; it is quarantined until it is put again")
	select {
	case d.marks <- c:
	default: // the next start finds it again
	}
}

// mark makes a quarantine durable, unless the bytes were put again meanwhile.
func (d *DB) mark(c index.CID) error {
	return d.turn(d.engine.Load(), func(t *txn) {
		key := cidKey(rowQuarantine, &c)
		switch _, err := t.read(cidKey(rowContent, &c)); index.KindOf(err) {
		case index.OK, index.Missing:
			d.damaged.drop([]index.CID{c})
			return
		case index.Down:
			return
		}
		if _, err := t.read(key); err != index.Missing {
			return
		}
		t.tally.Quarantined++
		t.put(key, appendU64(nil, uint64(t.now)))
	})
}

// A quarantine is the manifests known to be damaged. The zero value is empty.
type quarantine struct {
	n   atomic.Int64 // so that the usual reader, who finds none, takes no lock
	mu  sync.Mutex   // protects the field below
	set map[index.CID]struct{}
}

func (q *quarantine) has(c *index.CID) bool {
	if q.n.Load() == 0 {
		return false
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	_, ok := q.set[*c]
	return ok
}

// add reports whether c is new to the quarantine.
func (q *quarantine) add(c index.CID) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	if _, ok := q.set[c]; ok || len(q.set) >= markedMax {
		return false
	}
	if q.set == nil {
		q.set = map[index.CID]struct{}{}
	}
	q.set[c] = struct{}{}
	q.n.Store(int64(len(q.set)))
	return true
}

func (q *quarantine) drop(cs []index.CID) {
	if len(cs) == 0 || q.n.Load() == 0 {
		return
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, c := range cs {
		delete(q.set, c)
	}
	q.n.Store(int64(len(q.set)))
}

// quarantined reads the marks of earlier times.
func (e *engine) quarantined() (marked []index.CID, err error) {
	it := e.iterate([]byte{rowQuarantine}, []byte{rowQuarantine + 1})
	defer it.Release()
	for it.Next() && len(marked) < markedMax {
		if key := it.Key(); len(key) == 33 {
			marked = append(marked, index.CID(key[1:]))
		}
	}
	return marked, it.Error()
}

// keep is the keeper: it finds out what nobody asked for yet.
func (d *DB) keep() {
	defer d.idle.Done()
	tick := time.NewTicker(roundEvery)
	defer tick.Stop()
	var cursor []byte // where the scrub goes on
	for {
		select {
		case <-tick.C:
			cursor = d.round(cursor)
		case <-d.quit:
			return
		}
	}
}

// round listens to the canary, looks at the suspect again, and goes on with
// the scrub. It returns where the scrub goes on.
func (d *DB) round(cursor []byte) []byte {
	d.roundAt.Store(d.clock())
	defer d.roundAt.Store(0)
	d.measure()
	s, cleared, cursor := d.look(cursor)
	if cleared && d.ask() {
		d.suspect.CompareAndSwap(s, nil)
		d.log.Info("leveldb: what was suspect reads well again")
	}
	return cursor
}

func (d *DB) look(cursor []byte) (s *suspect, cleared bool, next []byte) {
	e := d.use()
	if e == nil {
		return nil, false, cursor
	}
	defer e.mu.RUnlock()
	if err := d.listen(e); err != nil {
		d.fileFailed(e.files, err)
		return nil, false, cursor
	}
	if s = d.suspect.Load(); s != nil {
		return s, s.recheck(e) == nil, cursor
	}
	d.roster.learn(e)
	return nil, false, d.scrub(e, cursor)
}

// listen reads the canary.
func (d *DB) listen(e *engine) error {
	payload, err := e.read([]byte(keyCanary))
	if err != nil {
		return fmt.Errorf("leveldb: the canary cannot be read: %w", err)
	}
	for i := range d.canary {
		if song := d.canary[i].Load(); song != nil && *song == string(payload) {
			return nil
		}
	}
	return fmt.Errorf("leveldb: the canary reads %q, which is not what was written: %w", payload, index.Broken)
}

// ask has the writer write a canary and read it back, and reports whether that
// went well. It holds no engine: the writer may have to close it.
func (d *DB) ask() bool {
	done := make(chan error, 1)
	select {
	case d.proofs <- done:
	case <-d.epoch.Load().shut:
		return false
	case <-d.quit:
		return false
	}
	return <-done == nil
}

// scrub looks at the next rows and returns where it stopped: nil at the end.
func (d *DB) scrub(e *engine, from []byte) []byte {
	it := e.iterate(from, nil)
	defer it.Release()
	size := 0
	for rows := 0; rows < scrubRows && size < scrubBytes; rows++ {
		if !it.Next() {
			d.scrubEnd(from, it.Error())
			return nil
		}
		key, value := it.Key(), it.Value()
		if _, ok := unframe(key, value); !ok {
			d.noteDamage(key, errDigest)
		}
		size += len(value)
		d.counts.scrubbed.Add(1)
		from = append(append(from[:0:0], key...), 0)
	}
	return from
}

// scrubEnd makes a suspect of the stretch that could not be walked.
func (d *DB) scrubEnd(from []byte, err error) {
	if err == nil {
		return
	}
	d.integrity.DB.Add(1)
	from = bytes.Clone(from)
	d.suspectIs(fmt.Errorf("leveldb: rows cannot be walked; %s: %w", advice, readError(err)), func(e *engine) error {
		it := e.iterate(from, nil)
		defer it.Release()
		for rows := 0; rows < scrubRows && it.Next(); rows++ {
		}
		return it.Error()
	})
}
