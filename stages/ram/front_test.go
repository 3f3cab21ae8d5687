package ram

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"svcindex/index"
)

// hot reports whether a copy answers for the key.
func (b *bench) hot(text string) bool {
	b.t.Helper()
	j := b.job(index.AskResolve, text)
	return b.kept.Load().at(idOf(j.Hash, j.Ask, j.Format), b.clock.Now()) != nil
}

// ask looks a key up so often that it is hot.
func (b *bench) ask(text string, times int) {
	b.t.Helper()
	for range times {
		if !b.has(index.AskResolve, text) {
			b.t.Fatalf("%.20q is not kept", text)
		}
	}
}

func (b *bench) behind() int64 { return b.kept.Load().free.HitCount() }

func TestWhatIsAskedForTwiceAnswersFromTheFront(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := setUp(t, usual)
		b.keep(index.AskResolve, "name:a", "page")
		b.ask("name:a", 1)
		if b.hot("name:a") {
			t.Error("copied for one who asked once: a million keys in turn would copy each")
		}
		b.ask("name:a", 1)
		was := b.behind()
		time.Sleep(300 * time.Millisecond)
		j := b.job(index.AskResolve, "name:a")
		if err := b.Get(j); err != nil || string(j.Answer.Page) != "page" || j.Answer.Age != 300*time.Millisecond || j.Answer.From != index.FromCache {
			t.Errorf("%v, page %q, age %v, from %v", err, j.Answer.Page, j.Answer.Age, j.Answer.From)
		}
		if b.behind() != was {
			t.Error("the freecache was asked for what has a copy")
		}
		if c := b.Counts(); c.Hits.Load() != 3 {
			t.Errorf("%d hits counted, want 3", c.Hits.Load())
		}
	})
}

// Or freecache would take what is asked for most for what nobody wants.
func TestTheFreecacheHearsOncePerSecondOfWhatIsHot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := setUp(t, Options{Bytes: 1 << 20, TTL: time.Minute})
		b.keep(index.AskResolve, "name:a", "page")
		b.ask("name:a", 2)
		for second := range 3 {
			time.Sleep(time.Second)
			synctest.Wait()
			was := b.behind()
			b.ask("name:a", 100)
			if n := b.behind() - was; n != 1 {
				t.Errorf("second %d: it was asked %d times, want 1", second, n)
			}
		}
		j := b.job(index.AskResolve, "name:a")
		var kb [keySize]byte
		b.kept.Load().free.Del(appendKey(kb[:0], j.Hash, j.Ask, j.Format)) // as when it has no room
		time.Sleep(time.Second)
		synctest.Wait()
		if b.has(index.AskResolve, "name:a") {
			t.Error("a copy outlives by a second what it is of")
		}
	})
}

func TestWhoeverChangesAnEntryTakesItsCopyAway(t *testing.T) {
	for _, tt := range []struct {
		why    string
		change func(b *bench, j *index.Job)
		want   string // the page after it; empty: a miss
	}{
		{"what was renewed is given out at once", func(b *bench, j *index.Job) { b.keep(index.AskResolve, "name:a", "new") }, "new"},
		{"what was evicted is gone", func(b *bench, j *index.Job) { b.Forget(j.Hash, &j.Key) }, ""},
		{"a purge is of copies, too", func(b *bench, j *index.Job) { b.Purge() }, ""},
		{"a write ends all that was before", func(b *bench, j *index.Job) { b.gens.Bump(j.Hash) }, ""},
		{"so does a change of everything", func(b *bench, j *index.Job) { b.gens.BumpAll() }, ""},
		{"what is refused leaves nothing old", func(b *bench, j *index.Job) {
			b.put(index.AskResolve, "name:a", strings.Repeat("x", 1<<20))
		}, ""},
		{"others are no matter", func(b *bench, j *index.Job) {
			for i := range 4 * frontSize {
				b.put(index.AskResolve, fmt.Sprint("name:other", i), "p")
			}
			if !b.hot("name:a") {
				b.t.Error("writes of other keys emptied the front")
			}
		}, "page"},
	} {
		synctest.Test(t, func(t *testing.T) {
			b := setUp(t, Options{Bytes: 4 << 20, TTL: time.Minute})
			b.keep(index.AskResolve, "name:a", "page")
			b.ask("name:a", 3)
			if !b.hot("name:a") {
				t.Fatal("not hot: the test shows nothing")
			}
			tt.change(b, b.job(index.AskResolve, "name:a"))
			j := b.job(index.AskResolve, "name:a")
			if _ = b.Get(j); string(j.Answer.Page) != tt.want {
				t.Errorf("%s: got %.10q, want %q", tt.why, j.Answer.Page, tt.want)
			}
		})
	}
}

func TestAMillionKeysInTurnCopyNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := setUp(t, Options{Bytes: 4 << 20, TTL: time.Minute})
		const keys = 4000
		for i := range keys {
			b.keep(index.AskResolve, fmt.Sprint("name:a", i), "page")
		}
		for range 3 {
			for i := range keys {
				b.has(index.AskResolve, fmt.Sprint("name:a", i))
			}
		}
		copies := 0
		for i := range b.kept.Load().copies {
			if b.kept.Load().copies[i].Load() != nil {
				copies++
			}
		}
		// Only who shares his place with nobody is twice in a row the last.
		if most := frontSize / 5; copies > most {
			t.Errorf("%d copies of keys that nobody wants twice, want at most %d", copies, most)
		}
	})
}

func TestWhatIsInUseKeepsItsPlace(t *testing.T) {
	var f front
	b := (&entry{key: []byte("k"), page: []byte("page")}).append(nil)
	long := (&entry{key: []byte("k"), page: make([]byte, frontMost)}).append(nil)
	const first, second = 7, 7 + frontSize
	twice := func(id uint64, at uint32, b []byte) *hot {
		f.keep(id, at, b)
		f.keep(id, at, b)
		return f.at(id, at)
	}
	for _, tt := range []struct {
		why  string
		id   uint64
		at   uint32
		b    []byte
		want bool
	}{
		{"an empty place is anybody's", first, 1, b, true},
		{"what answered in this second stays", second, 1, b, false},
		{"what was not asked for in the next makes way", second, 2, b, true},
		{"what is long has no copy: the front is bounded in bytes", first, 3, long, false},
	} {
		if got := twice(tt.id, tt.at, tt.b) != nil; got != tt.want {
			t.Errorf("%s: copied %v", tt.why, got)
		}
	}
}

// Every way by which an answer becomes old, while many hit what is hot.
func TestNobodyReadsFromTheFrontWhatIsNoMore(t *testing.T) {
	b := setUp(t, Options{Bytes: 1 << 20, TTL: time.Minute})
	const keys = 4
	text := func(k int) string { return fmt.Sprint("name:key", k) }
	// The least version of a key that may be read, from when its writer was told.
	var least [keys]atomic.Int64
	stop := time.Now().Add(300 * time.Millisecond)
	var all sync.WaitGroup
	var hits, fronts atomic.Int64
	for range 4 {
		all.Go(func() {
			for time.Now().Before(stop) {
				k := rand.IntN(keys)
				for range 20 {
					known := least[k].Load()
					if b.hot(text(k)) {
						fronts.Add(1)
					}
					j := b.job(index.AskResolve, text(k))
					if b.Get(j) != nil {
						continue
					}
					hits.Add(1)
					var of int
					var version int64
					if _, err := fmt.Sscanf(string(j.Answer.Page), "%d %d", &of, &version); err != nil || of != k || version < known {
						t.Errorf("key %d: read %q after %d was told, %v", k, j.Answer.Page, known, err)
						return
					}
				}
			}
		})
	}
	all.Go(func() {
		var versions [keys]int64
		put := func(k int) {
			versions[k]++
			b.keep(index.AskResolve, text(k), fmt.Sprint(k, " ", versions[k]))
			least[k].Store(versions[k])
		}
		for k := range keys {
			put(k)
		}
		for time.Now().Before(stop) {
			k := rand.IntN(keys)
			j := b.job(index.AskResolve, text(k))
			switch rand.IntN(8) {
			case 0:
				b.gens.Bump(j.Hash)
				least[k].Store(versions[k] + 1)
			case 1:
				b.Forget(j.Hash, &j.Key)
				least[k].Store(versions[k] + 1)
			case 2:
				b.Purge()
				for k := range keys {
					least[k].Store(versions[k] + 1)
				}
				for k := range keys {
					put(k)
				}
			}
			put(k)
			time.Sleep(20 * time.Microsecond)
		}
	})
	all.Wait()
	if hits.Load() == 0 || fronts.Load() == 0 {
		t.Errorf("%d hits, %d looks with a copy: the test shows nothing", hits.Load(), fronts.Load())
	}
}

func TestAHitInFrontDoesNotAllocate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := setUp(t, usual)
		b.keep(index.AskResolve, "name:a", "page")
		b.ask("name:a", 2)
		j, room := b.job(index.AskResolve, "name:a"), make([]byte, 0, 64)
		if n := testing.AllocsPerRun(100, func() {
			j.Answer.Page = room
			_ = b.Get(j)
		}); n != 0 || !b.hot("name:a") {
			t.Errorf("it allocates %v times, want 0", n)
		}
	})
}

func BenchmarkHitOfMany(b *testing.B) {
	b.ReportAllocs()
	c := setUp(b, Options{Bytes: 256 << 20, TTL: time.Hour})
	const keys = 1 << 16
	jobs := make([]*index.Job, keys)
	for i := range jobs {
		text := fmt.Sprint("name:a", i)
		c.keep(index.AskResolve, text, strings.Repeat("x", 400))
		jobs[i] = c.job(index.AskResolve, text)
	}
	room := make([]byte, 0, 4096)
	for b.Loop() {
		j := jobs[rand.IntN(keys)]
		j.Answer.Page = room
		if c.Get(j) != nil {
			b.Fatal("a miss")
		}
	}
}
