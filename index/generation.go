package index

import (
	"hash/maphash"
	"sync/atomic"
)

// Stripes is how many counters the generations have. Keys that share one cause
// each other a needless miss now and then, never a wrong answer.
const Stripes = 1 << 16

// A Generation is a count of the writes a stripe has seen.
type Generation uint32

// Generations tell whether a key was written since a moment. A write bumps its
// stripe after the commit and before its answer; a look-up notes the stripe
// before its first read; what it found counts only while the stripe has not
// moved. Restart starts empty, and so does the cache.
type Generations struct {
	seed maphash.Seed
	at   [Stripes]atomic.Uint32
}

// NewGenerations returns generations under a random key, so that nobody can
// choose names that share a stripe.
func NewGenerations() *Generations { return &Generations{seed: maphash.MakeSeed()} }

// Hash returns the keyed hash of k that picks its stripe. It differs between
// processes and must not be stored.
func (g *Generations) Hash(k *Key) uint64 {
	h := maphash.Bytes(g.seed, k.Bytes())
	if k.isName {
		return h ^ 0x9e3779b97f4a7c15 // a name of 32 bytes is not the cid of those bytes
	}
	return h
}

// Note returns the generation of the stripe of hash.
func (g *Generations) Note(hash uint64) Generation {
	return Generation(g.at[hash%Stripes].Load())
}

// Bump marks the key of hash as written.
func (g *Generations) Bump(hash uint64) { g.at[hash%Stripes].Add(1) }

// BumpAll marks every key as written.
func (g *Generations) BumpAll() {
	for i := range g.at {
		g.at[i].Add(1)
	}
}
