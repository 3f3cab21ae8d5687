package stages

import (
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"svcindex/index"
)

// A find enters the write room, the key's generation moves once it is stored,
// and whoever listens for changes hears of it. A find that changed nothing
// leaves all as it was.
func TestFindsAreStoredAndTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		news := true
		var o *office
		b := setUp(t, func(c *Config) {
			o = newOffice(t, func(ms []*index.Mutation) error {
				for _, m := range ms {
					m.News = news
				}
				return nil
			})
			o.Gens = c.Gens
			o.Counts = c.Counts
			c.Write.Step = o.Scribe
		}, hasnt)
		k := index.CIDKey(index.Sum([]byte("c")))
		hash := b.gens.Hash(&k)
		before := b.gens.Note(hash)
		find := func() *index.Mutation { return &index.Mutation{Op: index.PutProviders, Key: k, Found: true} }
		if !b.Absorb(find()) {
			t.Fatal("there is no room in an idle house")
		}
		synctest.Wait()
		if b.gens.Note(hash) != before+1 || !o.cache.forgotten(k) || len(o.told) != 1 || b.lookups.ProviderSetChanges.Load() != 1 || b.lookups.Kept.Load() != 1 {
			t.Errorf("stored: generation %d after %d, told %q, %d sets changed, %d kept", b.gens.Note(hash), before, o.told,
				b.lookups.ProviderSetChanges.Load(), b.lookups.Kept.Load())
		}
		news = false
		b.Absorb(find())
		synctest.Wait()
		if b.gens.Note(hash) != before+1 || len(o.told) != 1 || b.lookups.Kept.Load() != 1 {
			t.Error("a find that changed nothing made something old")
		}
		if n := b.absorbing.Load(); n != 0 {
			t.Errorf("%d are still under way", n)
		}
	})
}

// Finds have the lowest class: they wait for nobody, take a part of the queue
// and no more, and count against no limit of clients.
func TestFindsGiveWayToClients(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var once sync.Once
		hang, began := make(chan struct{}), make(chan struct{})
		var o *office
		b := setUp(t, func(c *Config) {
			o = newOffice(t, func([]*index.Mutation) error { once.Do(func() { close(began) }); <-hang; return nil })
			o.Gens = c.Gens
			c.Write.Step, c.Write.Workers, c.Write.Depth, c.Write.Batch = o.Scribe, Range{1, 1}, 64, 1
			c.Write.Slice = 10 * time.Second
			c.Dial = limited(1, 1)
		}, hasnt)
		k := index.CIDKey(index.Sum([]byte("c")))
		took := 0
		for range 200 {
			if b.Absorb(&index.Mutation{Op: index.PutProviders, Key: k, Found: true}) {
				took++
			}
		}
		<-began
		if most := 64/absorbShare + 2; took > most || took == 0 || b.lookups.KeptDropped.Load() != uint64(200-took) {
			t.Errorf("%d of 200 were taken, %d dropped; want at most %d", took, b.lookups.KeptDropped.Load(), most)
		}
		if errands, waiting := b.Inflight(); errands != 0 || waiting != 0 {
			t.Errorf("finds count as %d look-ups of clients", errands)
		}
		h := make(home, 1)
		j := &index.Job{Ask: index.AskWrite, Op: index.PutManifest, Body: []byte("x"), Deadline: time.Now().Add(5 * time.Second), Home: h}
		if !b.Write(j) {
			t.Error("a client's write found no room because of finds")
		}
		close(hang)
		if j = h.wait(t); j.Result != index.OK {
			t.Errorf("the client's write ended %v", j.Result)
		}
		synctest.Wait()
		if n := b.absorbing.Load(); n != 0 {
			t.Errorf("%d are still under way", n)
		}
	})
}
