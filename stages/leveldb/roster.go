package leveldb

import (
	"bytes"
	"hash/maphash"
	"runtime"
	"strings"
	"sync/atomic"
)

// rostered are the kinds of rows that a write looks for before it makes one.
const rostered = string(rowHeld) + string(rowName) + string(rowProviders)

const (
	// Of rows that are not there it misses one of 1,500 when it knows a million,
	// one of 70 when it knows three, one of four when it knows ten.
	rosterWords = 4 << 20 / 8
	learnRows   = 4096 // rows that a round of the keeper learns, at most: some 4 ms
	learnAtOnce = 128  // of these, before others have the processor
)

// A roster knows of rows that they are not there. Most writes are of keys that
// are new, and to find that out in goleveldb costs a search in two trees and a
// look at the filters of several tables.
//
// It is a set of all rows that there may be, in bits that several share: it
// never forgets one, so what it says is there may be gone, or another. It says
// nothing at all until it is whole: until it knows each row that was there when
// the store was opened. Those written since are put down when they are noted
// in a batch, durable or not.
type roster struct {
	seed  maphash.Seed // so that nobody can choose keys that share their bits
	words []atomic.Uint64
	whole atomic.Bool
	from  []byte // where learning goes on; belongs to the keeper
}

func newRoster() *roster {
	return &roster{seed: maphash.MakeSeed(), words: make([]atomic.Uint64, rosterWords)}
}

// place returns the word that tells of key, and its four bits there.
func (r *roster) place(key []byte) (*atomic.Uint64, uint64) {
	h := maphash.Bytes(r.seed, key)
	bits := uint64(1)<<(h&63) | 1<<(h>>6&63) | 1<<(h>>12&63) | 1<<(h>>18&63)
	return &r.words[h>>32%uint64(len(r.words))], bits
}

// add puts down that a row may be there.
func (r *roster) add(key []byte) {
	if strings.IndexByte(rostered, key[0]) < 0 {
		return
	}
	if word, bits := r.place(key); word.Load()&bits != bits {
		word.Or(bits)
	}
}

// lacks reports whether a row is not there for certain.
func (r *roster) lacks(key []byte) bool {
	if !r.whole.Load() || strings.IndexByte(rostered, key[0]) < 0 {
		return false
	}
	word, bits := r.place(key)
	return word.Load()&bits != bits
}

// learn puts down the next rows of those that were there before. What cannot be
// walked may hide any row: then it begins anew.
func (r *roster) learn(e *engine) {
	if r.whole.Load() {
		return
	}
	if len(r.from) == 0 {
		r.from = []byte{rostered[0]}
	}
	kind := r.from[0]
	it := e.iterate(r.from, []byte{kind + 1})
	defer it.Release()
	for n := range learnRows {
		if n%learnAtOnce == learnAtOnce-1 {
			runtime.Gosched()
		}
		if it.Next() {
			r.add(it.Key())
			continue
		}
		switch next := strings.IndexByte(rostered, kind) + 1; {
		case it.Error() != nil:
			r.from = nil
		case next < len(rostered):
			r.from = []byte{rostered[next]}
		default:
			r.whole.Store(true)
		}
		return
	}
	r.from = append(bytes.Clone(it.Key()), 0)
}
