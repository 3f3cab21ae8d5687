package leveldb

import (
	"encoding/binary"
	"fmt"
	"math"
	"time"

	"svcindex/index"
)

var _ index.Auditor = (*DB)(nil)

const (
	rowAudit = 'a' // <number>: an entry of the audit that is not kept elsewhere yet
	keyAudit = "!audit"

	auditDrop = 4096                 // entries dropped in one batch, while nobody writes
	lullAfter = 5 * time.Millisecond // nobody wrote for so long
	keptShare = 1                    // entries dropped with a batch of somebody's, for each of its rows,
	keptLeast = 16                   // and beside that: they have to end faster than they are made
	// auditBehind is how many entries may wait to be exported. An audit that
	// cannot be kept must not fill the disk, nor be skipped.
	auditBehind = 1 << 20
)

var errAuditBehind = fmt.Errorf("the audit is not being exported, and as much of it as may waits: see to its directory: %w", index.Down)

var errAuditLost = fmt.Errorf("how far the audit goes cannot be read, and no write may go unaudited; %s: %w", advice, index.Broken)

// auditable returns why nothing may be written now, as far as the audit is
// concerned.
func (d *DB) auditable(t *txn) error {
	switch {
	case !d.opt.Audit:
		return nil
	case d.auditLost.Load():
		return errAuditLost
	case t.mark.Last-t.mark.Kept >= auditBehind:
		return errAuditBehind
	}
	return nil
}

// readMark takes from an engine how far its audit goes. Damage there stops
// writes, and no read.
func (d *DB) readMark(e *engine, t *tally) error {
	m, err := e.readMark(t)
	lost := index.KindOf(err) == index.Broken
	if err != nil && !lost {
		return fmt.Errorf("leveldb: how far the audit goes: %w", err)
	}
	d.auditLost.Store(lost)
	d.auditMark.Store(&m)
	return nil
}

func auditKey(n uint64) []byte {
	return binary.BigEndian.AppendUint64([]byte{rowAudit}, n)
}

func appendMark(dst []byte, m *index.AuditMark) []byte {
	dst = append(appendU64(dst, m.Last), m.Head[:]...)
	dst = append(appendU64(dst, m.Kept), m.KeptChain[:]...)
	if m.Unaudited {
		return append(dst, 1)
	}
	return append(dst, 0)
}

func parseMark(b []byte) (m index.AuditMark, ok bool) {
	p := reader{b: b}
	m.Last = p.u64()
	copy(m.Head[:], p.take(len(m.Head)))
	m.Kept = p.u64()
	copy(m.KeptChain[:], p.take(len(m.KeptChain)))
	m.Unaudited = p.u8() == 1
	return m, p.done()
}

// parseAudit reads the payload of an entry. The text is part of b.
func parseAudit(n uint64, b []byte) (e index.AuditEntry, ok bool) {
	p := reader{b: b}
	e.N = n
	copy(e.Chain[:], p.take(len(e.Chain)))
	e.Text = p.b
	return e, !p.bad && len(e.Text) > 0
}

// readMark returns how far the entries of an engine go. A store that has none
// and holds something was filled before there was an audit.
func (e *engine) readMark(t *tally) (m index.AuditMark, err error) {
	payload, err := e.read([]byte(keyAudit))
	switch {
	case err == index.Missing:
		m.Unaudited = t.Names+t.Tombstones+t.Manifests+t.Sets+t.Pins > 0
		return m, nil
	case err != nil:
		return m, err
	}
	m, ok := parseMark(payload)
	if !ok {
		return m, errDigest
	}
	return m, nil
}

// applied adds the audit of a mutation to its batch: one entry for each that
// changed something, none for one that found all as it should be.
func (t *txn) applied(m *index.Mutation, changes int, on bool) {
	began := m.Op == index.Reindex && m.TaskID == m.Idem.TaskID
	if t.changes == changes && !began {
		return
	}
	if !on {
		t.mark.Unaudited = true
		return
	}
	n := t.mark.Last + 1
	payload := index.AppendAuditText(append(make([]byte, 0, 320), t.mark.Head[:]...), n, t.now, m)
	chain := index.Sum(payload) // what index.ChainAudit would make of the two, in one piece
	copy(payload, chain[:])
	t.put(auditKey(n), payload)
	t.mark.Last, t.mark.Head = n, chain
}

// A keeping is an AuditKept on its way to the writer.
type keeping struct {
	entry index.AuditEntry
	done  chan error
}

// AuditMark implements index.Auditor.
func (d *DB) AuditMark() index.AuditMark { return *d.auditMark.Load() }

// Audited implements index.Auditor.
func (d *DB) Audited() <-chan struct{} { return d.audited }

// AuditAfter implements index.Auditor.
func (d *DB) AuditAfter(n uint64, most int) ([]index.AuditEntry, error) {
	e := d.use()
	if e == nil {
		return nil, errAway
	}
	defer e.mu.RUnlock()
	return e.auditAfter(n, most)
}

func (e *engine) auditAfter(n uint64, most int) (es []index.AuditEntry, err error) {
	it := e.iterate(auditKey(n+1), []byte{rowAudit + 1})
	defer it.Release()
	for len(es) < most && it.Next() {
		payload, sound := unframe(it.Key(), it.Value())
		if len(it.Key()) != 9 || !sound {
			return nil, errDigest
		}
		entry, ok := parseAudit(binary.BigEndian.Uint64(it.Key()[1:]), append([]byte(nil), payload...))
		if !ok || entry.N != n+1+uint64(len(es)) {
			return nil, fmt.Errorf("leveldb: entry %d of the audit is missing: %w", n+1+uint64(len(es)), index.Broken)
		}
		es = append(es, entry)
	}
	return es, it.Error()
}

// AuditKept implements index.Auditor.
func (d *DB) AuditKept(e index.AuditEntry) error {
	k := keeping{e, make(chan error, 1)}
	ep := d.epoch.Load()
	select {
	case d.keepings <- k:
		return <-k.done
	case <-ep.shut:
		return ep.err
	case <-d.quit:
		return errAway
	}
}

// end answers whoever waits for a keeping.
func (k *keeping) end(err error) {
	if k.done != nil {
		k.done <- err
		*k = keeping{}
	}
}

// keepOn drops what is safely elsewhere, unless somebody writes: then it goes
// along with their batches, a little with each, for a batch of its own is a sync
// that all of them wait for. Its error closes the store for writes.
func (d *DB) keepOn(lull *time.Timer) error {
	for d.keeping.done != nil {
		if len(d.waiting) > 0 || time.Since(d.wroteAt) < lullAfter {
			lull.Reset(lullAfter)
			return nil
		}
		if err := d.turn(d.engine.Load(), func(t *txn) { d.dropKept(t, auditDrop) }); err != nil {
			return err
		}
	}
	return nil
}

// dropKept adds to a batch the end of up to most entries that are safely
// elsewhere.
func (d *DB) dropKept(t *txn, most int) {
	if d.keeping.done == nil {
		return
	}
	end := d.keeping.entry.N
	from, to := t.mark.Kept, min(end, t.mark.Kept+uint64(most))
	if end > t.mark.Last || from >= to {
		d.keeping.end(nil)
		return
	}
	payload, err := t.read(auditKey(to))
	if err != nil {
		d.keeping.end(nil) // damage: the keeper names it, and the entries stay
		return
	}
	last, _ := parseAudit(to, payload)
	for n := from + 1; n <= to; n++ {
		t.drop(auditKey(n))
	}
	t.mark.Kept, t.mark.KeptChain = to, last.Chain
}

// tellAudited wakes whoever keeps the entries.
func (d *DB) tellAudited() {
	select {
	case d.audited <- struct{}{}:
	default:
	}
}

// auditWalk holds the entries of a store to its mark, row by row.
type auditWalk struct {
	mark  index.AuditMark
	next  uint64
	chain index.CID
	fault string
}

func (w *auditWalk) begin(m index.AuditMark) {
	w.mark, w.next, w.chain = m, m.Kept+1, m.KeptChain
}

func (w *auditWalk) row(key, payload []byte) bool {
	if len(key) != 9 {
		return false
	}
	n := binary.BigEndian.Uint64(key[1:])
	e, ok := parseAudit(n, payload)
	if !ok || w.fault != "" {
		return ok
	}
	switch {
	case n != w.next:
		w.fault = fmt.Sprintf("entry %d of the audit follows entry %d", n, w.next-1)
	case index.ChainAudit(w.chain, e.Text) != e.Chain:
		w.fault = fmt.Sprintf("entry %d of the audit is not what its chain says", n)
	}
	w.next, w.chain = n+1, e.Chain
	return true
}

func (w *auditWalk) end() string {
	if w.fault == "" && (w.next != w.mark.Last+1 || w.chain != w.mark.Head) {
		return fmt.Sprintf("the entries of the audit end with %d, not with %d", int64(w.next)-1, w.mark.Last)
	}
	return w.fault
}

// facts shows what one row says, for the audit to be held against.
func facts(key, payload []byte, show func(index.Fact)) {
	switch key[0] {
	case rowContent:
		show(index.Fact{Op: index.PutManifest, Key: index.CIDKey(index.CID(key[1:]))})
	case rowName:
		r, ok := parseName(payload)
		k, err := index.ParseKey(append([]byte("name:"), key[1:]...))
		if ok && err == nil {
			op := index.PutName
			if r.Deleted {
				op = index.DeleteName
			}
			show(index.Fact{Op: op, Key: k, Seq: r.Seq, CID: r.CID})
		}
	case rowProviders:
		if s, _, ok := parseSet(payload, math.MinInt64, nil); ok {
			for i := range s.rows {
				show(index.Fact{Op: index.PutProviders, Key: index.CIDKey(index.CID(key[1:])), ID: s.rows[i].ID})
			}
		}
	case rowPin:
		show(index.Fact{Op: index.Pin, Key: index.CIDKey(index.CID(key[1:]))})
	}
}
