package leveldb

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"fmt"
	"math"
	"slices"
	"time"

	"svcindex/index"
)

var _ index.Auditor = (*DB)(nil)

const (
	rowAudit = 'a' // <number> <1>: entries of the audit that are not kept elsewhere yet, from that number on
	keyAudit = "!audit"

	rowBytes  = 32 << 10             // bytes of entries, beyond which a batch begins another row of them
	auditDrop = 256                  // such rows dropped in one batch, while nobody writes
	lullAfter = 5 * time.Millisecond // nobody wrote for so long
	keptMore  = 2                    // rows dropped with a batch of somebody's, beside as many as it adds: they have to end faster than they are made
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
	case t.auditFull():
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
	return append(binary.BigEndian.AppendUint64([]byte{rowAudit}, n), 1)
}

// lone is the key of an entry that has a row of its own, as all had up to
// format 2.
func lone(n uint64) []byte { return auditKey(n)[:9] }

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

// parseAudit reads a row of entries and adds them to es. Their texts are part
// of the payload.
func parseAudit(key, payload []byte, es []index.AuditEntry) ([]index.AuditEntry, bool) {
	if len(key) < 9 || len(key) > 10 {
		return es, false
	}
	n := binary.BigEndian.Uint64(key[1:])
	for p := (reader{b: payload}); ; n++ {
		size := len(payload)
		if len(key) == 10 {
			size = int(p.u32())
		}
		r := reader{b: p.take(size)}
		e := index.AuditEntry{N: n}
		copy(e.Chain[:], r.take(len(e.Chain)))
		if e.Text = r.b; p.bad || r.bad || len(e.Text) == 0 {
			return es, false
		}
		if es = append(es, e); len(p.b) == 0 {
			return es, true
		}
	}
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
	n, at := t.mark.Last+1, len(t.entries)
	t.entries = append(append(t.entries, 0, 0, 0, 0), t.mark.Head[:]...)
	t.entries = index.AppendAuditText(t.entries, n, t.now, m)
	entry := t.entries[at+4:]
	chain := index.Sum(entry) // what index.ChainAudit would make of the two, in one piece
	copy(entry, chain[:])
	binary.LittleEndian.PutUint32(t.entries[at:], uint32(len(entry)))
	t.mark.Last, t.mark.Head = n, chain
	if t.waiting++; len(t.entries) > rowBytes {
		t.putEntries()
	}
}

// putEntries makes a row of the entries that have none yet.
func (t *txn) putEntries() {
	if t.waiting == 0 {
		return
	}
	first := t.mark.Last + 1 - t.waiting
	t.put(auditKey(first), t.entries)
	t.entries, t.waiting = t.entries[:0], 0
	t.rows = append(t.rows, auditRow{first, t.mark.Last, t.mark.Head})
}

// An auditRow says which entries are in a row, and how the last is chained.
type auditRow struct {
	first, last uint64
	chain       index.CID
}

// rowsKnown is how many rows of entries are known without being read. Those of
// an earlier time, and more than so many, are read before they are dropped.
const rowsKnown = 4096

// know remembers the rows of a batch that is durable now, and forgets those
// that are gone.
func (d *DB) know(rows []auditRow, kept uint64) {
	for len(d.rows) > 0 && d.rows[0].last <= kept {
		d.rows = d.rows[1:]
	}
	if len(d.rows)+len(rows) > rowsKnown {
		d.rows = d.rows[:0]
	}
	d.rows = append(d.rows, rows...)
}

// rowFrom returns the row whose entries begin with first, if it is known.
func (d *DB) rowFrom(first uint64) (r auditRow, ok bool) {
	i, ok := slices.BinarySearchFunc(d.rows, first, func(r auditRow, first uint64) int { return cmp.Compare(r.first, first) })
	if !ok {
		return r, false
	}
	return d.rows[i], true
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
	if !d.auditLost.Load() && d.auditMark.Load().Last <= n {
		return nil, nil // to look for what is not there is to pass over all rows that ended
	}
	e := d.use()
	if e == nil {
		return nil, errAway
	}
	defer e.mu.RUnlock()
	return e.auditAfter(n, most)
}

// auditAfter reads whole rows: what is dropped is, too.
func (e *engine) auditAfter(n uint64, most int) (es []index.AuditEntry, err error) {
	it := e.iterate([]byte{rowAudit}, []byte{rowAudit + 1})
	defer it.Release()
	from := auditKey(n + 1)
	on := it.Seek(from) && bytes.Equal(it.Key(), from) || it.Prev() || it.First() // or it is in the row before
	for ; on && len(es) < most; on = it.Next() {
		payload, sound := unframe(it.Key(), it.Value())
		if !sound {
			return nil, errDigest
		}
		from := len(es)
		if es, sound = parseAudit(it.Key(), bytes.Clone(payload), es); !sound {
			return nil, errDigest
		}
		for len(es) > from && es[from].N <= n {
			es = slices.Delete(es, from, from+1)
		}
		if from == len(es) {
			continue
		}
		if next := n + 1 + uint64(from); es[from].N != next {
			return nil, fmt.Errorf("leveldb: entry %d of the audit is missing: %w", next, index.Broken)
		}
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

// auditFull reports whether as many entries wait to be exported as may.
func (t *txn) auditFull() bool { return t.mark.Last-t.mark.Kept >= auditBehind }

// dropKept adds to a batch the end of up to most rows of entries that are
// safely elsewhere.
func (d *DB) dropKept(t *txn, most int) {
	if d.keeping.done == nil {
		return
	}
	end := d.keeping.entry.N
	for n := range most {
		if end > t.mark.Last || t.mark.Kept >= end || !d.dropEntries(t, end) {
			if n == 0 { // else once it is durable
				d.keeping.end(nil)
			}
			return
		}
	}
}

// dropEntries drops the first row of entries, unless it goes beyond end or is
// damaged: the keeper names that, and the entries stay.
func (d *DB) dropEntries(t *txn, end uint64) bool {
	key := auditKey(t.mark.Kept + 1)
	row, ok := d.rowFrom(t.mark.Kept + 1)
	if !ok {
		if key, row, ok = t.firstEntries(); !ok {
			return false
		}
	}
	if row.last > end {
		return false
	}
	t.drop(key)
	t.mark.Kept, t.mark.KeptChain = row.last, row.chain
	return true
}

// firstEntries reads which entries are in the first row of them.
func (t *txn) firstEntries() (key []byte, row auditRow, ok bool) {
	key = auditKey(t.mark.Kept + 1)
	payload, err := t.read(key)
	if err == index.Missing {
		key = lone(t.mark.Kept + 1)
		payload, err = t.read(key)
	}
	if err != nil {
		return nil, row, false
	}
	es, ok := parseAudit(key, payload, nil)
	if !ok {
		return nil, row, false
	}
	last := &es[len(es)-1]
	return key, auditRow{es[0].N, last.N, last.Chain}, true
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

// row returns the entries of a row, which are part of the payload.
func (w *auditWalk) row(key, payload []byte) ([]index.AuditEntry, bool) {
	es, ok := parseAudit(key, payload, nil)
	for i := range es {
		if w.fault != "" {
			break
		}
		e := &es[i]
		switch {
		case e.N != w.next:
			w.fault = fmt.Sprintf("entry %d of the audit follows entry %d", e.N, w.next-1)
		case index.ChainAudit(w.chain, e.Text) != e.Chain:
			w.fault = fmt.Sprintf("entry %d of the audit is not what its chain says", e.N)
		}
		w.next, w.chain = e.N+1, e.Chain
	}
	return es, ok
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
