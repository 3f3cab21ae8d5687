package leveldb

import (
	"bytes"
	"math"

	"time"

	"svcindex/index"
)

const (
	sweepEvery = 2 * time.Second
	sweepRows  = 256 // rows looked at in one go; writes wait for it
)

// swept are the kinds of rows that end by themselves. Tombstones of names do
// not: a deleted name must stay deleted.
const swept = string(rowGone) + string(rowIdem) + string(rowProviders)

// sweep drops what is past its time in the next stretch of rows.
func (d *DB) sweep() error {
	return d.turn(d.engine.Load(), func(t *txn) {
		before := t.changes
		next, err := d.sweepFrom(t, d.cursor)
		d.counts.purged.Add(uint64(t.changes - before))
		if err == nil { // damage is for the keeper to find and to name
			d.cursor = next
		}
	})
}

// sweepFrom walks one stretch within one kind of row, and returns where the
// next begins.
func (d *DB) sweepFrom(t *txn, from []byte) ([]byte, error) {
	if len(from) == 0 {
		from = []byte{swept[0]}
	}
	kind := from[0]
	it := t.e.iterate(from, []byte{kind + 1})
	defer it.Release()
	for range sweepRows {
		if !it.Next() {
			return nextKind(kind), it.Error()
		}
		from = append(append(from[:0:0], it.Key()...), 0)
		if t.changed(it.Key()) {
			continue // somebody writes it: what the engine has of it is old
		}
		if payload, ok := unframe(it.Key(), it.Value()); ok {
			t.expire(it.Key(), payload)
		}
	}
	return from, nil
}

func nextKind(kind byte) []byte {
	i := bytes.IndexByte([]byte(swept), kind)
	return []byte{swept[(i+1)%len(swept)]}
}

// expire drops or shortens one row if it is past its time. The key and the
// payload are the iterator's.
func (t *txn) expire(key, payload []byte) {
	switch key[0] {
	case rowGone:
		p := reader{b: payload}
		if until := p.i64(); p.done() && until <= t.now {
			t.drop(key)
		}
	case rowIdem:
		if i, ok := parseIdem(payload); ok && i.Expires <= t.now {
			t.drop(key)
		}
	case rowProviders:
		s, _, ok := parseSet(payload, math.MinInt64, nil)
		n := len(s.rows)
		if !ok || len(key) != 1+len(index.CID{}) {
			return
		}
		s.expire(t.now)
		if len(s.rows) < n || s.empty(t.now) {
			c := index.CID(key[1:])
			t.keep(&c, &s, true, n)
		}
	}
}
