package ram

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"svcindex/index"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// usual is what tests run with that do not care.
var usual = Options{Bytes: 1 << 20, TTL: 5 * time.Second, NegTTL: 2 * time.Second, StaleFor: 30 * time.Second}

// A bench is a cache and what a test needs to ask it.
type bench struct {
	*Cache
	t    testing.TB
	gens *index.Generations
}

func setUp(t testing.TB, opt Options) *bench {
	t.Helper()
	b := &bench{t: t, gens: index.NewGenerations()}
	b.Cache = New(opt, b.gens)
	t.Cleanup(b.Close)
	return b
}

// job is a question about a key, noted now.
func (b *bench) job(ask index.Ask, text string) *index.Job {
	b.t.Helper()
	k, err := index.ParseKey(text)
	if err != nil {
		b.t.Fatal(err)
	}
	j := &index.Job{Ask: ask, Key: k, Hash: b.gens.Hash(&k), Query: index.ProviderQuery{Limit: index.DefaultLimit}}
	j.Noted = b.gens.Note(j.Hash)
	return j
}

// keep puts a page and fails the test if it is refused.
func (b *bench) keep(ask index.Ask, text, page string) {
	b.t.Helper()
	if !b.put(ask, text, page) {
		b.t.Fatalf("the cache would not keep %.20q", text)
	}
}

func (b *bench) put(ask index.Ask, text, page string) bool {
	b.t.Helper()
	j := b.job(ask, text)
	j.Answer.Page = []byte(page)
	return b.PutIf(j)
}

func (b *bench) keepAbsence(ask index.Ask, text string) {
	b.t.Helper()
	j := b.job(ask, text)
	j.Result = index.Missing
	j.Answer.Page = []byte("a negative has no page")
	if !b.PutIf(j) {
		b.t.Fatalf("the cache would not keep the absence of %q", text)
	}
}

func (b *bench) has(ask index.Ask, text string) bool {
	b.t.Helper()
	return b.Get(b.job(ask, text)) == nil
}

func (b *bench) hasStale(ask index.Ask, text string) bool {
	b.t.Helper()
	return b.GetStale(b.job(ask, text)) == nil
}

const cid = "b3:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"

func TestAHitIsWhatWasPut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := setUp(t, usual)
		for _, ask := range []index.Ask{index.AskResolve, index.AskProviders, index.AskManifest} {
			if b.has(ask, cid) {
				t.Errorf("ask %d: an empty cache has it", ask)
			}
			b.keep(ask, cid, fmt.Sprint("page of ", ask))
			time.Sleep(700 * time.Millisecond)
			j := b.job(ask, cid)
			if err := b.Get(j); err != nil {
				t.Fatalf("ask %d: %v after it was put", ask, err)
			}
			a := j.Answer
			if string(a.Page) != fmt.Sprint("page of ", ask) || a.From != index.FromCache || a.Age != 700*time.Millisecond || a.Negative || a.Stale {
				t.Errorf("ask %d: page %q from %v, age %v, negative %v, stale %v", ask, a.Page, a.From, a.Age, a.Negative, a.Stale)
			}
		}
		if n := b.Len(); n != 3 {
			t.Errorf("%d entries, want 3", n)
		}
	})
}

func TestCountersTellHitsFromMisses(t *testing.T) {
	b := setUp(t, usual)
	b.has(index.AskResolve, "name:a")
	b.keep(index.AskResolve, "name:a", "page")
	b.has(index.AskResolve, "name:a")
	b.keepAbsence(index.AskResolve, "name:b")
	b.has(index.AskResolve, "name:b")      // a known absence is a hit
	b.hasStale(index.AskResolve, "name:c") // was counted as a miss when it was asked for fresh
	c := b.Counts()
	if h, m, s := c.Hits.Load(), c.Misses.Load(), c.Stored.Load(); h != 2 || m != 1 || s != 2 {
		t.Errorf("%d hits, %d misses, %d stored; want 2, 1, 2", h, m, s)
	}
}

// The times are the entry's own: freecache counts whole seconds from a clock
// that ticks once a second, and must neither cut nor stretch them.
func TestAnAnswerLivesExactlyItsTime(t *testing.T) {
	for _, phase := range []time.Duration{0, 1, 400 * time.Millisecond, 999 * time.Millisecond, 999_999_999} {
		for _, ttl := range []time.Duration{1, time.Millisecond, 999 * time.Millisecond, time.Second, 1500 * time.Millisecond, 2 * time.Minute} {
			for _, staleFor := range []time.Duration{0, 300 * time.Millisecond, time.Second, 10 * time.Second} {
				t.Run(fmt.Sprint(phase, ttl, staleFor), func(t *testing.T) {
					synctest.Test(t, func(t *testing.T) {
						b := setUp(t, Options{Bytes: 1 << 20, TTL: ttl, NegTTL: ttl, StaleFor: staleFor})
						time.Sleep(phase)
						b.keep(index.AskResolve, "name:a", "page")
						b.keepAbsence(index.AskResolve, "name:gone")
						time.Sleep(ttl - 1)
						if !b.has(index.AskResolve, "name:a") || !b.has(index.AskResolve, "name:gone") {
							t.Error("gone a nanosecond before its time")
						}
						time.Sleep(time.Nanosecond)
						if b.has(index.AskResolve, "name:a") || b.has(index.AskResolve, "name:gone") {
							t.Error("served past its time")
						}
						if b.hasStale(index.AskResolve, "name:gone") {
							t.Error("an absence past its time was served as stale")
						}
						if staleFor == 0 {
							if b.hasStale(index.AskResolve, "name:a") {
								t.Error("served as stale without a stale window")
							}
							return
						}
						time.Sleep(staleFor - 1)
						j := b.job(index.AskResolve, "name:a")
						if b.GetStale(j) != nil {
							t.Fatal("the stale window was cut short")
						}
						if !j.Answer.Stale || j.Answer.Age != ttl+staleFor-1 {
							t.Errorf("stale %v at the age of %v", j.Answer.Stale, j.Answer.Age)
						}
						time.Sleep(time.Nanosecond)
						if b.hasStale(index.AskResolve, "name:a") {
							t.Error("served past its stale window")
						}
					})
				})
			}
		}
	}
}

func TestAbsencesHaveATimeOfTheirOwn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := setUp(t, usual)
		b.keepAbsence(index.AskResolve, "name:gone")
		j := b.job(index.AskResolve, "name:gone")
		j.Answer.Page = []byte("caller's")
		if err := b.Get(j); err != nil || !j.Answer.Negative || j.Answer.From != index.FromCache || string(j.Answer.Page) != "caller's" {
			t.Errorf("%v, negative %v, from %v, page %q; want a known absence without a page", err, j.Answer.Negative, j.Answer.From, j.Answer.Page)
		}
		time.Sleep(usual.NegTTL)
		if b.has(index.AskResolve, "name:gone") || b.hasStale(index.AskResolve, "name:gone") {
			t.Error("an absence was served past neg_ttl")
		}
	})
}

func TestAHitIsAsOfTheBatchItCameIn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := setUp(t, usual)
		batch := time.Now()
		time.Sleep(10 * time.Millisecond)
		b.keep(index.AskResolve, "name:a", "page")
		j := b.job(index.AskResolve, "name:a")
		j.Entered = batch
		if err := b.Get(j); err != nil || j.Answer.Age != 0 {
			t.Errorf("%v at the age of %v; what was filled after the batch began is not younger than nothing", err, j.Answer.Age)
		}
		time.Sleep(usual.TTL)
		j = b.job(index.AskResolve, "name:a")
		j.Entered = time.Now().Add(-1)
		if err := b.Get(j); err != nil || j.Answer.Age != usual.TTL-1 {
			t.Errorf("%v at the age of %v, want a hit as of when the batch began", err, j.Answer.Age)
		}
		j.Entered = time.Now()
		if b.Get(j) == nil {
			t.Error("served past its time")
		}
		j.Entered, j.Answer = batch, index.Answer{}
		if b.GetStale(j) != nil || !j.Answer.Stale || j.Answer.Age != usual.TTL {
			t.Error("what is past its time is judged by the clock, not by the batch")
		}
	})
}

func TestAFreshAnswerIsNotCalledStale(t *testing.T) {
	b := setUp(t, usual)
	b.keep(index.AskResolve, "name:a", "page")
	j := b.job(index.AskResolve, "name:a")
	if err := b.GetStale(j); err != nil || j.Answer.Stale {
		t.Errorf("%v, stale %v; GetStale of what is fresh should say it is fresh", err, j.Answer.Stale)
	}
	b.keepAbsence(index.AskResolve, "name:gone")
	if j = b.job(index.AskResolve, "name:gone"); b.GetStale(j) != nil || !j.Answer.Negative || j.Answer.Stale {
		t.Error("a fresh absence is an answer, from GetStale, too")
	}
}

func TestAnAnswerWithAnEndIsNeitherFreshNorStalePastIt(t *testing.T) {
	for _, tt := range []struct {
		why          string
		left         time.Duration
		negative     bool
		kept         bool
		fresh, stale time.Duration
	}{
		{"the end is before the cache's own time", 3 * time.Second, false, true, 3 * time.Second, 3 * time.Second},
		{"the end is inside the stale window", 7 * time.Second, false, true, 5 * time.Second, 7 * time.Second},
		{"the end is far", time.Hour, false, true, 5 * time.Second, 35 * time.Second},
		{"the end has come", 0, false, false, 0, 0},
		{"the end is past", -time.Second, false, false, 0, 0},
		{"an absence ends, too", time.Second, true, true, time.Second, time.Second},
	} {
		t.Run(tt.why, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := setUp(t, usual)
				j := b.job(index.AskResolve, "name:a")
				j.Answer.Page = []byte("page")
				j.Answer.Until = time.Now().Add(tt.left)
				if tt.negative {
					j.Result = index.Missing
				}
				if got := b.PutIf(j); got != tt.kept {
					t.Fatalf("kept is %v, want %v", got, tt.kept)
				}
				if !tt.kept {
					if b.has(index.AskResolve, "name:a") || b.hasStale(index.AskResolve, "name:a") {
						t.Error("what was not kept is there")
					}
					return
				}
				time.Sleep(tt.fresh - 1)
				if !b.has(index.AskResolve, "name:a") {
					t.Error("gone before its time")
				}
				time.Sleep(time.Nanosecond)
				if b.has(index.AskResolve, "name:a") {
					t.Error("fresh past its end")
				}
				if tt.stale > tt.fresh {
					time.Sleep(tt.stale - tt.fresh - 1)
					if !b.hasStale(index.AskResolve, "name:a") {
						t.Error("the stale window is cut short")
					}
					time.Sleep(time.Nanosecond)
				}
				if b.hasStale(index.AskResolve, "name:a") {
					t.Error("stale past its end")
				}
			})
		})
	}
}

func TestAWriteOvertakesALookUp(t *testing.T) {
	b := setUp(t, usual)
	j := b.job(index.AskResolve, "name:a")
	j.Answer.Page = []byte("old")
	b.gens.Bump(j.Hash)
	if b.PutIf(j) {
		t.Error("what was read before a write was kept after it")
	}
	if b.has(index.AskResolve, "name:a") || b.Counts().Overtaken.Load() != 1 || b.Counts().Stored.Load() != 0 {
		t.Errorf("overtaken %d, stored %d; want 1, 0", b.Counts().Overtaken.Load(), b.Counts().Stored.Load())
	}
}

func TestAWriteEndsWhatIsKept(t *testing.T) {
	b := setUp(t, usual)
	b.keep(index.AskResolve, "name:a", "old")
	before := b.job(index.AskResolve, "name:a")
	b.gens.Bump(before.Hash)
	if b.has(index.AskResolve, "name:a") {
		t.Error("who asks after the write got what was kept before it")
	}
	if b.hasStale(index.AskResolve, "name:a") {
		t.Error("who asks after the write got what was kept before it, as stale")
	}
	if b.Get(before) == nil {
		t.Error("who asked before the write got an entry that no longer counts")
	}
	b.keep(index.AskResolve, "name:a", "new")
	if b.Get(before) == nil {
		t.Error("who noted before the write got an entry filled after it, with an older generation in hand")
	}
	if j := b.job(index.AskResolve, "name:a"); b.Get(j) != nil || string(j.Answer.Page) != "new" {
		t.Errorf("after the write: %q", j.Answer.Page)
	}
}

func TestAnotherKeyOfTheSameHashIsAMiss(t *testing.T) {
	b := setUp(t, usual)
	b.keep(index.AskResolve, "name:a", "of a")
	hash := b.job(index.AskResolve, "name:a").Hash
	for _, other := range []string{"name:b", "name:aa", cid} {
		j := b.job(index.AskResolve, other)
		j.Hash = hash
		j.Noted = b.gens.Note(hash)
		if b.Get(j) == nil || b.GetStale(j) == nil || j.Answer.Page != nil {
			t.Errorf("%.20q was answered with the page of another key", other)
		}
	}
	if !b.has(index.AskResolve, "name:a") {
		t.Error("and the rightful one is gone")
	}
}

func TestANameOf32BytesIsNotTheCIDOfThoseBytes(t *testing.T) {
	b := setUp(t, usual)
	name := b.job(index.AskResolve, "name:"+strings.Repeat("x", 27))
	name.Answer.Page = []byte("of the name")
	if !b.PutIf(name) {
		t.Fatal("refused")
	}
	j := &index.Job{
		Ask: index.AskResolve, Key: index.CIDKey(index.CID(name.Key.Bytes())), Hash: name.Hash, Noted: name.Noted,
		Query: index.ProviderQuery{Limit: index.DefaultLimit},
	}
	if b.Get(j) == nil {
		t.Error("a content id was answered with the page of a name of the same bytes and hash")
	}
}

func TestFormatsAreApartAndManifestsHaveNone(t *testing.T) {
	b := setUp(t, usual)
	cborOf := func(ask index.Ask) *index.Job {
		j := b.job(ask, cid)
		j.Format = index.CBOR
		return j
	}
	for _, ask := range []index.Ask{index.AskResolve, index.AskProviders} {
		b.keep(ask, cid, "json")
		if b.Get(cborOf(ask)) == nil {
			t.Errorf("ask %d: who wants CBOR got JSON", ask)
		}
		j := cborOf(ask)
		j.Answer.Page = []byte("cbor")
		b.PutIf(j)
		if j = cborOf(ask); b.Get(j) != nil || string(j.Answer.Page) != "cbor" {
			t.Errorf("ask %d: CBOR reads %q", ask, j.Answer.Page)
		}
		if j = b.job(ask, cid); b.Get(j) != nil || string(j.Answer.Page) != "json" {
			t.Errorf("ask %d: JSON reads %q", ask, j.Answer.Page)
		}
	}
	b.keep(index.AskManifest, cid, "bytes")
	if j := cborOf(index.AskManifest); b.Get(j) != nil || string(j.Answer.Page) != "bytes" {
		t.Error("the bytes of a manifest depend on the format")
	}
}

var someSet = []index.Provider{
	{ID: "a", Addr: "/ip4/192.0.2.1/tcp/4001", Region: "eu", LastSeen: 1_790_000_000, Expires: 1_790_086_400},
	{ID: "b", Addr: "https://example.org/", Expires: 1},
	{ID: strings.Repeat("c", index.ProviderIDMax), Addr: strings.Repeat("/", index.ProviderAddrMax), Region: strings.Repeat("r", index.RegionMax), LastSeen: -1},
}

func TestAnAskerWithWishesGetsTheWholeSet(t *testing.T) {
	b := setUp(t, usual)
	put := b.job(index.AskProviders, cid)
	put.Answer.Page, put.Answer.Providers = []byte("page"), someSet
	if !b.PutIf(put) {
		t.Fatal("refused")
	}
	for _, q := range []index.ProviderQuery{{Limit: 6}, {Limit: 5, Region: "eu"}, {Limit: 5, MinFreshness: 1}} {
		j := b.job(index.AskProviders, cid)
		j.Query = q
		if b.Get(j) != nil || j.Answer.Page != nil {
			t.Errorf("%+v: page %q, want none: it was rendered for others", q, j.Answer.Page)
		}
		if diff := cmp.Diff(someSet, j.Answer.Providers); diff != "" {
			t.Errorf("%+v: the set came back changed:\n%s", q, diff)
		}
	}
	j := b.job(index.AskProviders, cid)
	if b.Get(j) != nil || string(j.Answer.Page) != "page" || j.Answer.Providers != nil {
		t.Errorf("without wishes: page %q and %d providers, want the page alone", j.Answer.Page, len(j.Answer.Providers))
	}
	b.keepAbsence(index.AskProviders, cid)
	j.Query.Limit, j.Answer = 7, index.Answer{}
	if b.Get(j) != nil || !j.Answer.Negative || j.Answer.Providers != nil {
		t.Error("nobody serves it, and an asker with wishes is not told so")
	}
}

func TestWhatComesBackIsACopy(t *testing.T) {
	b := setUp(t, usual)
	put := b.job(index.AskProviders, cid)
	put.Answer.Page, put.Answer.Providers = []byte("page"), someSet
	b.PutIf(put)
	copy(put.Answer.Page, "XXXX")
	first := b.job(index.AskProviders, cid)
	b.Get(first)
	copy(first.Answer.Page, "YYYY")
	second := b.job(index.AskProviders, cid)
	if b.Get(second); string(second.Answer.Page) != "page" {
		t.Errorf("the page is %q: somebody else's scribbling", second.Answer.Page)
	}
}

func TestAPageIsAppendedBehindWhatTheCallerPut(t *testing.T) {
	b := setUp(t, usual)
	b.keep(index.AskResolve, "name:a", "page")
	j := b.job(index.AskResolve, "name:a")
	room := make([]byte, 0, 64)
	j.Answer.Page = append(room, "status line "...)
	if b.Get(j) != nil || string(j.Answer.Page) != "status line page" {
		t.Errorf("page is %q", j.Answer.Page)
	}
	if &j.Answer.Page[0] != &room[:1][0] {
		t.Error("the caller's buffer was large enough, and another was made")
	}
	j = b.job(index.AskResolve, "name:absent")
	j.Answer.Page = append(room, "mine"...)
	if b.Get(j) == nil || string(j.Answer.Page) != "mine" {
		t.Errorf("after a miss the caller's page is %q", j.Answer.Page)
	}
}

func TestAMissLeavesTheAnswerAsItWas(t *testing.T) {
	b := setUp(t, usual)
	j := b.job(index.AskResolve, "name:a")
	j.Answer = index.Answer{Hint: 3, Page: []byte("x"), From: index.FromDHT, Age: time.Hour}
	want := j.Answer
	if b.Get(j) != index.Missing || b.GetStale(j) != index.Missing {
		t.Error("an absent key is not Missing")
	}
	if diff := cmp.Diff(want, j.Answer); diff != "" {
		t.Errorf("the answer was changed:\n%s", diff)
	}
}

func TestWhatIsTooLargeIsRefusedAndTheOldValueGone(t *testing.T) {
	b := setUp(t, Options{Bytes: 512 << 10, TTL: time.Minute, NegTTL: time.Minute})
	b.keep(index.AskManifest, cid, "small")
	if b.put(index.AskManifest, cid, strings.Repeat("x", 4096)) {
		t.Error("an entry over a 1024th of the cache was kept")
	}
	if n := b.Counts().TooLarge.Load(); n != 1 {
		t.Errorf("counted %d too large, want 1", n)
	}
	if b.has(index.AskManifest, cid) {
		t.Error("the old value stands, though a newer one is known")
	}
	b.keep(index.AskManifest, cid, "small again")
}

func TestForgetDropsEverythingAboutAKey(t *testing.T) {
	b := setUp(t, usual)
	forms := func(do func(*index.Job)) {
		for _, ask := range []index.Ask{index.AskResolve, index.AskProviders, index.AskManifest} {
			for _, f := range []index.Format{index.JSON, index.CBOR} {
				j := b.job(ask, cid)
				j.Format = f
				do(j)
			}
		}
	}
	forms(func(j *index.Job) { j.Answer.Page = []byte("page"); b.PutIf(j) })
	b.keep(index.AskResolve, "name:other", "page")
	k := b.job(index.AskResolve, cid)
	b.Forget(k.Hash, &k.Key)
	forms(func(j *index.Job) {
		if b.Get(j) == nil || b.GetStale(j) == nil {
			t.Errorf("ask %d in format %d is still known", j.Ask, j.Format)
		}
	})
	if !b.has(index.AskResolve, "name:other") {
		t.Error("another key was forgotten with it")
	}
}

func TestCloseEndsTheClockAndMayBeRepeated(t *testing.T) {
	c := New(usual, index.NewGenerations())
	c.Close()
	c.Close()
	goleak.VerifyNone(t)
}

// Readers, fillers, writers and forgetters at once: a hit is of its own key,
// and never older than the last write that was answered before the question.
func TestNobodyReadsWhatAWriteHasOvertaken(t *testing.T) {
	b := setUp(t, Options{Bytes: 1 << 20, TTL: time.Minute, NegTTL: time.Minute})
	const keys = 8
	var source, answered [keys]atomic.Int64 // what the database holds; what writers were told
	text := func(k int) string { return fmt.Sprint("name:key", k) }
	stop := time.Now().Add(300 * time.Millisecond)
	var all sync.WaitGroup
	var hits atomic.Int64
	for range 3 {
		all.Go(func() {
			for time.Now().Before(stop) {
				k := rand.IntN(keys)
				known := answered[k].Load()
				j := b.job(index.AskResolve, text(k))
				if b.Get(j) != nil {
					j.Answer.Page = fmt.Appendf(nil, "%d %d ", k, source[k].Load())
					j.Answer.Page = append(j.Answer.Page, bytes.Repeat([]byte("x"), rand.IntN(500))...)
					b.PutIf(j)
					continue
				}
				hits.Add(1)
				var of int
				var version int64
				if _, err := fmt.Sscanf(string(j.Answer.Page), "%d %d", &of, &version); err != nil || of != k || version < known {
					t.Errorf("key %d after write %d: read %.20q, %v", k, known, j.Answer.Page, err)
					return
				}
			}
		})
	}
	for w := range 2 {
		all.Go(func() {
			for time.Now().Before(stop) {
				k := 2*rand.IntN(keys/2) + w // one writer a key, as the write room commits one batch at a time
				j := b.job(index.AskResolve, text(k))
				v := source[k].Add(1)
				b.gens.Bump(j.Hash)
				b.Forget(j.Hash, &j.Key)
				answered[k].Store(v)
				time.Sleep(50 * time.Microsecond)
			}
		})
	}
	all.Wait()
	if hits.Load() == 0 {
		t.Error("no hit at all: the test shows nothing")
	}
}

func TestAHitDoesNotAllocate(t *testing.T) {
	b := setUp(t, usual)
	b.keep(index.AskResolve, "name:a", strings.Repeat("x", 400))
	j := b.job(index.AskResolve, "name:a")
	room := make([]byte, 0, 4096)
	for _, tt := range []struct {
		why string
		get func(*index.Job) error
	}{{"Get", b.Get}, {"GetStale", b.GetStale}} {
		n := testing.AllocsPerRun(1000, func() {
			j.Answer.Page = room
			if tt.get(j) != nil {
				t.Fatal("a miss")
			}
		})
		if n != 0 {
			t.Errorf("%s of a hit allocates %v times, want 0", tt.why, n)
		}
	}
	absent := b.job(index.AskResolve, "name:absent")
	if n := testing.AllocsPerRun(1000, func() { _ = b.Get(absent) }); n != 0 {
		t.Errorf("a miss allocates %v times, want 0", n)
	}
}

func BenchmarkHit(b *testing.B) {
	b.ReportAllocs()
	c := setUp(b, usual)
	c.keep(index.AskResolve, "name:a", strings.Repeat("x", 400))
	j := c.job(index.AskResolve, "name:a")
	room := make([]byte, 0, 4096)
	for b.Loop() {
		j.Answer.Page = room
		if c.Get(j) != nil { // usual.TTL runs out in a long benchmark
			b.StopTimer()
			c.keep(index.AskResolve, "name:a", strings.Repeat("x", 400))
			b.StartTimer()
		}
	}
}

func BenchmarkMiss(b *testing.B) {
	b.ReportAllocs()
	c := setUp(b, usual)
	j := c.job(index.AskResolve, "name:a")
	for b.Loop() {
		_ = c.Get(j)
	}
}

func BenchmarkPut(b *testing.B) {
	b.ReportAllocs()
	c := setUp(b, usual)
	j := c.job(index.AskResolve, "name:a")
	j.Answer.Page = bytes.Repeat([]byte("x"), 400)
	for b.Loop() {
		c.PutIf(j)
	}
}
