package ram

import (
	"bytes"
	"sync/atomic"

	"svcindex/index"
)

// A front holds copies of the entries that are asked for most, so that most
// hits take no lock and write nothing. It belongs to one freecache and goes
// with it. What it holds is in the freecache, too, or was a second ago.
//
// A copy is made under the lock of the entry's segment, and whoever changes an
// entry takes the copy away after he had that lock and before he says that he
// is through: no copy outlives what it is of. A write that only moves the
// generation reaches a copy as it does an entry, for a copy is judged alike.
type front struct {
	copies [frontSize]atomic.Pointer[hot]
	marks  [frontSize]atomic.Uint64 // who was looked for last behind each copy
}

const (
	frontSize = 1 << 10
	frontMost = 1 << 10 // bytes of an entry that is copied; a resolve's has some 600
)

// A hot is a copy of an entry. It does not change, but for seen.
type hot struct {
	entry
	id   uint64
	seen atomic.Uint32 // the second in which the freecache was asked for it last
}

// idOf is a question as a number. Two with one number share a place, not an
// answer.
func idOf(hash uint64, ask index.Ask, f index.Format) uint64 {
	if ask == index.AskManifest {
		f = index.JSON // the bytes are the bytes
	}
	return hash ^ uint64(ask)<<1 ^ uint64(f)
}

// at returns the copy that answers in this second. In the next one the first
// who asks goes behind it: so the freecache knows what is in use as if all did,
// for its clock counts seconds, and what it drops is dropped here.
func (f *front) at(id uint64, second uint32) *hot {
	h := f.copies[id%frontSize].Load()
	if h == nil || h.id != id || h.seen.Load() != second {
		return nil
	}
	return h
}

// keep has the entry that b is answer from here if it was asked for twice in a row
// among those that share a place, and if what has the place is not in use. Its
// caller has the segment's lock.
func (f *front) keep(id uint64, second uint32, b []byte) {
	place := &f.copies[id%frontSize]
	h := place.Load()
	if h != nil && h.id == id {
		h.seen.Store(second)
		return
	}
	if mark := &f.marks[id%frontSize]; mark.Load() != id {
		mark.Store(id)
		return
	}
	if len(b) > frontMost || h != nil && h.seen.Load() == second {
		return
	}
	h = &hot{id: id}
	h.entry, _ = parse(bytes.Clone(b))
	h.seen.Store(second)
	place.Store(h)
}

// drop takes a copy away. What shares its place stays.
func (f *front) drop(id uint64) {
	place := &f.copies[id%frontSize]
	if h := place.Load(); h != nil && h.id == id {
		place.Store(nil)
	}
}
