package leveldb

import (
	goleveldb "github.com/syndtr/goleveldb/leveldb"

	"svcindex/index"
)

// A txn is a batch being built. It reads through itself, so that the second
// mutation of a key in one batch meets the first. Only the writer has one.
type txn struct {
	e            *engine
	now          int64 // unix seconds
	ops          []op
	at           map[string]int // key -> its op
	tally        tally
	mark, marked index.AuditMark // how far the audit goes, with this batch and before it
	changes      int             // rows noted
	buf          []byte          // a frame being made
	heals        []index.CID
}

// An op is one row of the batch. A nil payload deletes.
type op struct {
	key     string
	payload []byte
}

func (t *txn) begin(e *engine, last tally, mark index.AuditMark, now int64) {
	t.e, t.tally, t.mark, t.marked, t.now = e, last, mark, mark, now
	clear(t.ops)
	clear(t.at)
	t.ops, t.heals = t.ops[:0], t.heals[:0]
	if t.at == nil {
		t.at = map[string]int{}
	}
}

// read is engine.read with the batch laid over it. The payload must not be
// changed.
func (t *txn) read(key []byte) ([]byte, error) {
	if i, ok := t.at[string(key)]; ok {
		if t.ops[i].payload == nil {
			return nil, index.Missing
		}
		return t.ops[i].payload, nil
	}
	return t.e.read(key)
}

// put writes a row. The payload must stay as it is until the batch is written.
func (t *txn) put(key, payload []byte) {
	if payload == nil {
		payload = []byte{}
	}
	t.note(key, payload)
}

func (t *txn) drop(key []byte) { t.note(key, nil) }

func (t *txn) note(key, payload []byte) {
	t.changes++
	if i, ok := t.at[string(key)]; ok {
		t.ops[i].payload = payload
		return
	}
	k := string(key)
	t.at[k] = len(t.ops)
	t.ops = append(t.ops, op{k, payload})
}

// seal adds how far the audit goes, and the batch's own number, last, when the
// rows are known.
func (t *txn) seal() {
	if t.mark != t.marked {
		t.put([]byte(keyAudit), appendMark(nil, &t.mark))
	}
	if t.e.format != format {
		t.put([]byte(keyFormat), []byte{format})
		t.e.format = format // a write that fails takes the engine with it
	}
	t.tally.Batch++
	t.tally.Rows = uint64(len(t.ops)) + 1
	t.put([]byte(keyBatch), appendTally(nil, t.tally))
}

// render writes the batch as goleveldb wants it.
func (t *txn) render(b *goleveldb.Batch) {
	b.Reset()
	for _, o := range t.ops {
		key := []byte(o.key)
		if o.payload == nil {
			b.Delete(key)
			continue
		}
		t.buf = appendFrame(t.buf[:0], key, o.payload)
		b.Put(key, t.buf)
	}
	if cap(t.buf) > scratchKept {
		t.buf = nil
	}
}
