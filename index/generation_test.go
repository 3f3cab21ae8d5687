package index

import (
	"fmt"
	"sync"
	"testing"
)

func TestABumpIsSeenByItsKeyOnly(t *testing.T) {
	g := NewGenerations()
	var keys []Key
	for i := range 100 {
		k, err := ParseKey(fmt.Sprint("name:k", i))
		if err != nil {
			t.Fatal(err)
		}
		keys = append(keys, k)
	}
	written := g.Hash(&keys[0])
	before := make([]Generation, len(keys))
	for i := range keys {
		before[i] = g.Note(g.Hash(&keys[i]))
	}
	g.Bump(written)
	for i := range keys {
		h := g.Hash(&keys[i])
		moved, shares := g.Note(h) != before[i], h%Stripes == written%Stripes
		if moved != shares {
			t.Errorf("key %d: moved %v, shares the stripe %v", i, moved, shares)
		}
	}
}

func TestABumpOfAllIsSeenByEveryKey(t *testing.T) {
	g := NewGenerations()
	g.BumpAll()
	for h := range uint64(Stripes) {
		if g.Note(h) != 1 {
			t.Fatalf("stripe %d has not moved", h)
		}
	}
}

func TestEveryHashHasAStripe(t *testing.T) {
	g := NewGenerations()
	for _, h := range []uint64{0, 1, Stripes - 1, Stripes, 1<<64 - 1} {
		n := g.Note(h)
		g.Bump(h)
		if g.Note(h) == n {
			t.Errorf("a write under hash %#x went unseen", h)
		}
	}
}

func TestEqualKeysHaveOneHashAndProcessesDiffer(t *testing.T) {
	a, _ := ParseKey("name:a")
	same, _ := ParseKey([]byte("name:a"))
	g := NewGenerations()
	if g.Hash(&a) != g.Hash(&same) {
		t.Error("equal keys have two hashes")
	}
	if other := NewGenerations(); other.Hash(&a) == g.Hash(&a) {
		t.Error("two processes hash a key alike: whoever knows one can choose colliding names for all")
	}
}

func TestNoBumpIsLost(t *testing.T) {
	g := NewGenerations()
	const writers, each = 8, 1000
	var all sync.WaitGroup
	for range writers {
		all.Go(func() {
			for range each {
				g.Bump(7)
				g.Note(7)
			}
		})
	}
	all.Wait()
	if got := g.Note(7); got != writers*each {
		t.Errorf("%d bumps left the generation at %d", writers*each, got)
	}
}

func TestHashDoesNotAllocate(t *testing.T) {
	g := NewGenerations()
	for _, s := range []string{"name:golang.org/x/tools", "b3:" + hex64} {
		k, _ := ParseKey(s)
		if n := testing.AllocsPerRun(100, func() { g.Note(g.Hash(&k)) }); n != 0 {
			t.Errorf("hashing %.20q allocates %v times, want 0", s, n)
		}
	}
}

func BenchmarkHash(b *testing.B) {
	b.ReportAllocs()
	g := NewGenerations()
	k, _ := ParseKey("name:golang.org/x/tools")
	for b.Loop() {
		g.Note(g.Hash(&k))
	}
}
