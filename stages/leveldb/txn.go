package leveldb

import (
	goleveldb "github.com/syndtr/goleveldb/leveldb"

	"svcindex/index"
)

// A txn is a batch being built. It reads through itself and the batch before
// it, so that the second mutation of a key meets the first, durable or not yet.
type txn struct {
	e            *engine
	before       *txn  // not to be changed any more; nil: the engine holds all
	now          int64 // unix seconds
	ops          []op
	at           map[string]int // key -> its op
	tally        tally
	mark, marked index.AuditMark // how far the audit goes, with this batch and before it
	changes      int             // rows noted
	entries      []byte          // of the audit, that are in no row yet
	waiting      uint64          // so many
	rows         []auditRow      // of entries, that are in the batch
	frames       []byte          // where ops lie
	payload      []byte          // scratch: of the row being put
	heals        []index.CID
}

// An op is one row of the batch. A nil frame deletes.
type op struct{ key, frame []byte }

func (o *op) payload() ([]byte, error) {
	switch {
	case o.frame == nil:
		return nil, index.Missing
	case o.key[0] == rowContent:
		return o.frame[1:], nil
	}
	return o.frame[frameLen:], nil
}

func (t *txn) begin(e *engine, before *txn, last tally, mark index.AuditMark) {
	t.e, t.before, t.tally, t.mark, t.marked = e, before, last, mark, mark
	if before != nil {
		before.before = nil // it is durable, and in the engine
	}
	clear(t.ops)
	clear(t.at)
	t.ops, t.heals, t.frames, t.entries = t.ops[:0], t.heals[:0], t.frames[:0], t.entries[:0]
	t.waiting, t.rows = 0, t.rows[:0]
	if cap(t.frames) > batchKept {
		t.frames = nil
	}
	if t.at == nil {
		t.at = map[string]int{}
	}
}

// read is engine.read with the batches laid over it. The payload must not be
// changed.
func (t *txn) read(key []byte) ([]byte, error) {
	for u := t; u != nil; u = u.before {
		if i, ok := u.at[string(key)]; ok {
			return u.ops[i].payload()
		}
	}
	if t.e.roster.lacks(key) {
		return nil, index.Missing
	}
	return t.e.read(key)
}

// changed reports whether the engine does not hold the last word on key, as
// far as it is known here.
func (t *txn) changed(key []byte) bool {
	_, here := t.at[string(key)]
	if t.before == nil {
		return here
	}
	_, before := t.before.at[string(key)]
	return here || before
}

func (t *txn) put(key, payload []byte) {
	from := len(t.frames)
	t.frames = appendFrame(t.frames, key, payload)
	t.note(key, t.frames[from:len(t.frames):len(t.frames)])
}

func (t *txn) drop(key []byte) { t.note(key, nil) }

func (t *txn) note(key, frame []byte) {
	t.changes++
	t.e.roster.add(key)
	if i, ok := t.at[string(key)]; ok {
		t.ops[i].frame = frame
		return
	}
	from := len(t.frames)
	t.frames = append(t.frames, key...)
	t.at[string(key)] = len(t.ops)
	t.ops = append(t.ops, op{t.frames[from:len(t.frames):len(t.frames)], frame})
}

// seal adds the entries of the audit, how far it goes, and the batch's own
// number, last, when the rows are known. A batch without rows stays one.
func (t *txn) seal() {
	t.putEntries()
	if len(t.ops) == 0 {
		t.mark = t.marked // what is not written is not so
		return
	}
	if t.mark != t.marked {
		t.payload = appendMark(t.payload[:0], &t.mark)
		t.put([]byte(keyAudit), t.payload)
	}
	if t.e.format != format {
		t.put([]byte(keyFormat), []byte{format})
		t.e.format = format // a write that fails takes the engine with it
	}
	t.tally.Batch++
	t.tally.Rows = uint64(len(t.ops)) + 1
	t.payload = appendTally(t.payload[:0], t.tally)
	t.put([]byte(keyBatch), t.payload)
}

// render writes the batch as goleveldb wants it.
func (t *txn) render(b *goleveldb.Batch) {
	b.Reset()
	for _, o := range t.ops {
		if o.frame == nil {
			b.Delete(o.key)
		} else {
			b.Put(o.key, o.frame)
		}
	}
}
