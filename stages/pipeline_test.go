package stages

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"svcindex/index"
)

// fakeStep is a room whose doings a test decides.
type fakeStep func(*index.Job) error

func (f fakeStep) Do(j *index.Job) error { return f(j) }

var (
	has   fakeStep = func(j *index.Job) error { j.Answer.From = index.FromDB; return nil }
	hasnt fakeStep = func(*index.Job) error { return index.Missing }
	fails fakeStep = func(*index.Job) error { return index.Down }
	bug   fakeStep = func(*index.Job) error { panic("a bug") }
	slow  fakeStep = func(*index.Job) error { time.Sleep(time.Second); return index.Missing }
)

// fakeNetwork is asked by a Scout.
type fakeNetwork func(context.Context) error

func (f fakeNetwork) Discover(ctx context.Context, _ *index.Job) error { return f(ctx) }

// A subject is what a job is about.
type subject struct {
	ask index.Ask
	key index.Key
}

// fakeCache keeps what it is given, by question and key, for ever.
type fakeCache struct {
	gens *index.Generations

	mu    sync.Mutex
	kept  map[subject]index.Job
	stale map[subject]bool
}

func newFakeCache(g *index.Generations) *fakeCache {
	return &fakeCache{gens: g, kept: make(map[subject]index.Job), stale: make(map[subject]bool)}
}

func (c *fakeCache) Get(j *index.Job) error { return c.get(j, false) }

func (c *fakeCache) GetStale(j *index.Job) error { return c.get(j, true) }

func (c *fakeCache) get(j *index.Job, stale bool) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := subject{j.Ask, j.Key}
	kept, ok := c.kept[s]
	if !ok || kept.Noted != j.Noted || c.stale[s] && !stale {
		return index.Missing
	}
	j.Answer = kept.Answer
	j.Answer.From, j.Answer.Stale = index.FromCache, c.stale[s]
	j.Answer.Negative = kept.Result == index.Missing
	return nil
}

func (c *fakeCache) PutIf(j *index.Job) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.gens.Note(j.Hash) != j.Noted {
		return false
	}
	c.kept[subject{j.Ask, j.Key}] = *j
	return true
}

func (c *fakeCache) Forget(_ uint64, k *index.Key) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.kept, subject{index.AskResolve, *k})
}

func (c *fakeCache) expire(k index.Key) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.stale[subject{index.AskResolve, k}] = true
}

type fakeRenderer struct{ pages atomic.Int64 }

func (r *fakeRenderer) Render(j *index.Job) {
	r.pages.Add(1)
	j.Answer.Page = []byte("page")
}

// home is where a test's jobs come back to.
type home chan *index.Job

func (h home) Open(*index.Job)    {}
func (h home) Reply(j *index.Job) { h <- j }
func (h home) Gone() bool         { return false }

// wait fails the test if no job comes home. The minute is fake time and costs
// nothing; without it a lost job would spin for ever, because the pool's own
// ticker keeps the bubble from ever being found deadlocked.
func (h home) wait(t *testing.T) *index.Job {
	t.Helper()
	select {
	case j := <-h:
		return j
	case <-time.After(time.Minute):
		t.Fatal("a job never came home")
		return nil
	}
}

var testBreaker = Breaker{Window: 10 * time.Second, TripRatio: .5, MinRequests: 20, Cooldown: 2 * time.Second, Probes: 3}

// rooms makes a table of rooms out of steps, 100 ms each.
func rooms(steps ...Step) (rows []Row) {
	for i, s := range steps {
		rows = append(rows, Row{
			Name: fmt.Sprint("room", i), Step: s, Depth: 8, Workers: Range{1, 4}, Batch: 4,
			Slice: 100 * time.Millisecond, Breaker: testBreaker,
		})
	}
	return rows
}

// usual is what jobs of tests begin under.
var usual = index.Tuning{Budget: 1200 * time.Millisecond, BodyBytes: 1 << 20, Ratio: 10}

// limited is the usual with limits.
func limited(inflight, joined int) *index.Dial {
	t := usual
	t.Inflight, t.Joined = inflight, joined
	return index.NewDial(t)
}

// A bench is a pipeline and what a test needs to ask it.
type bench struct {
	*Pipeline
	t     *testing.T
	gens  *index.Generations
	cache *fakeCache
	pages *fakeRenderer
}

func setUp(t *testing.T, change func(*Config), steps ...Step) *bench {
	t.Helper()
	g := index.NewGenerations()
	b := &bench{t: t, gens: g, cache: newFakeCache(g), pages: new(fakeRenderer)}
	cfg := Config{
		Cache: CacheRow{Name: "cache", Cache: b.cache, Gens: g, Depth: 64, Batch: 16, Slice: 20 * time.Millisecond, Breaker: testBreaker},
		Rooms: rooms(steps...),
		Write: Row{Name: "write", Step: hasnt, Depth: 8, Workers: Range{1, 2}, Batch: 4, Slice: time.Second, Breaker: testBreaker},
		Loops: 1,
		Dial:  index.NewDial(usual),
		Gens:  g, Render: b.pages, Counts: new(index.LookupCounts),
	}
	if change != nil {
		change(&cfg)
	}
	p, err := Build(cfg)
	if err != nil {
		t.Fatal(err)
	}
	b.Pipeline = p
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		if err := p.Close(ctx); err != nil {
			t.Error(err)
		}
	})
	return b
}

func key(t *testing.T, s string) index.Key {
	t.Helper()
	k, err := index.ParseKey(s)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func (b *bench) job(k index.Key, h home) *index.Job {
	now := time.Now()
	return &index.Job{
		Ask: index.AskResolve, Key: k, Hash: b.gens.Hash(&k), Deadline: now.Add(1200 * time.Millisecond),
		Query: index.ProviderQuery{Limit: index.DefaultLimit}, Home: h,
	}
}

// ask sends one question in at the front and waits for it.
func (b *bench) ask(name string) *index.Job {
	b.t.Helper()
	h := make(home, 1)
	j := b.job(key(b.t, name), h)
	if b.Push(0, []*index.Flight{{Jobs: []*index.Job{j}}}) != 1 {
		b.t.Fatal("the lane is full")
	}
	return h.wait(b.t)
}

func TestRoute(t *testing.T) {
	for _, tt := range []struct {
		name string
		line []Step
		want index.Kind
	}{
		{"first room has it", []Step{has, fails}, index.OK},
		{"second room has it", []Step{hasnt, has}, index.OK},
		{"nobody has it", []Step{hasnt, hasnt}, index.Missing},
		{"a room that fails is walked past", []Step{fails, has}, index.OK},
		{"a room that failed leaves doubt", []Step{fails, hasnt}, index.Down},
		{"doubt from the last room, too", []Step{hasnt, fails}, index.Down},
		{"a bug costs one job its certainty, not its answer", []Step{bug, has}, index.OK},
		{"a bug is no proof of absence", []Step{bug, hasnt}, index.Broken},
		{"time beats being down", []Step{fakeStep(func(*index.Job) error { return index.Late }), fails}, index.Late},
		{"being refused beats time", []Step{fakeStep(func(*index.Job) error { return index.Busy }), fakeStep(func(*index.Job) error { return index.Late })}, index.Busy},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := setUp(t, nil, tt.line...)
				j := b.ask("name:a")
				if j.Result != tt.want {
					t.Errorf("result is %v, want %v", j.Result, tt.want)
				}
				if partial := tt.line[0] != nil && j.Answer.Partial; j.Result == index.OK && partial != (j.Doubt != index.OK) {
					t.Errorf("partial is %v with doubt %v", partial, j.Doubt)
				}
			})
		})
	}
}

func TestASecondAskerIsAnsweredFromTheCache(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var looks atomic.Int64
		b := setUp(t, nil, fakeStep(func(j *index.Job) error { looks.Add(1); return has(j) }))
		b.ask("name:a")
		if j := b.ask("name:a"); j.Answer.From != index.FromCache || looks.Load() != 1 || b.pages.pages.Load() != 1 {
			t.Errorf("from %v after %d looks and %d renderings, want the cache after one of each", j.Answer.From, looks.Load(), b.pages.pages.Load())
		}
	})
}

func TestTenThousandAskersOfOneAbsentKeyCauseOneLook(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var looks [2]atomic.Int64
		count := func(n int) Step {
			return fakeStep(func(*index.Job) error {
				looks[n].Add(1)
				time.Sleep(50 * time.Millisecond)
				return index.Missing
			})
		}
		b := setUp(t, nil, count(0), count(1))
		h := make(home, 10_000)
		k := key(t, "name:absent")
		for range 10_000 {
			j := b.job(k, h)
			j.Noted = b.gens.Note(j.Hash)
			b.miss(j, time.Now())
		}
		for range 10_000 {
			if j := h.wait(t); j.Result != index.Missing {
				t.Fatalf("an asker got %v, want missing", j.Result)
			}
		}
		if looks[0].Load() != 1 || looks[1].Load() != 1 {
			t.Errorf("the rooms looked %d and %d times, want once each", looks[0].Load(), looks[1].Load())
		}
		if n := b.Counts().Joined.Load(); n != 9_999 {
			t.Errorf("%d askers joined, want all but the first", n)
		}
	})
}

func TestEachAskerHasHisOwnDeadlineAndTheLookUpItsOwn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := setUp(t, func(c *Config) { c.Rooms[0].Slice = 1100 * time.Millisecond }, fakeStep(func(j *index.Job) error {
			time.Sleep(time.Second)
			return has(j)
		}))
		early, late := make(home, 1), make(home, 1)
		start := time.Now()
		j1 := b.job(key(t, "name:a"), early)
		j1.Deadline = start.Add(200 * time.Millisecond)
		b.Lookup(j1)
		b.Lookup(b.job(key(t, "name:a"), late))
		if got := early.wait(t); got.Result != index.Late || time.Since(start) > 210*time.Millisecond {
			t.Errorf("the hasty asker got %v after %v, want late after 200ms", got.Result, time.Since(start))
		}
		if got := late.wait(t); got.Result != index.OK || time.Since(start) != time.Second {
			t.Errorf("the patient asker got %v after %v, want the answer after 1s", got.Result, time.Since(start))
		}
	})
}

func TestClientsThatLeaveDoNotTripTheBreaker(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := setUp(t, func(c *Config) { c.Rooms[0].Slice, c.Rooms[0].Workers = 10*time.Second, Range{1, 64} },
			Scout{Network: fakeNetwork(func(ctx context.Context) error {
				<-ctx.Done()
				return index.Down
			})})
		h := make(home, 64)
		for i := range 64 {
			j := b.job(key(t, fmt.Sprint("name:k", i)), h)
			j.Deadline = time.Now().Add(50 * time.Millisecond)
			b.Lookup(j)
		}
		for range 64 {
			h.wait(t)
		}
		time.Sleep(time.Second)
		if s := b.Stats()[1]; s.Breaker != 0 {
			t.Errorf("the breaker is %d after 64 clients left, want closed", s.Breaker)
		}
	})
}

func TestASecondLookUpDoesNotWaitForASlowOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := setUp(t, func(c *Config) { c.Rooms[0].Slice = time.Second }, fakeStep(func(j *index.Job) error {
			time.Sleep(500 * time.Millisecond)
			return has(j)
		}))
		h := make(home, 4)
		start := time.Now()
		for i := range 4 {
			b.Lookup(b.job(key(t, fmt.Sprint("name:k", i)), h))
		}
		for range 4 {
			h.wait(t)
		}
		if took := time.Since(start); took != 500*time.Millisecond {
			t.Errorf("4 look-ups of 500ms with 4 workers took %v", took)
		}
	})
}

func TestAnAnswerFoundMeanwhileIsGivenAtTheDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var absent atomic.Bool
		b := setUp(t, func(c *Config) { c.Rooms[0].Slice = time.Minute }, fakeStep(func(j *index.Job) error {
			if !j.Fresh {
				time.Sleep(10 * time.Second)
			}
			if absent.Load() {
				return index.Missing
			}
			return has(j)
		}))
		for _, gone := range []bool{false, true} {
			absent.Store(gone)
			k := key(t, fmt.Sprint("name:", gone))
			slow, quick := make(home, 1), make(home, 1)
			b.Lookup(b.job(k, slow))
			fresh := b.job(k, quick)
			fresh.Fresh = true
			b.Lookup(fresh)
			want := quick.wait(t).Result
			if got := slow.wait(t); got.Result != want || got.Hit {
				t.Errorf("absent %v: the slow asker got %v (a hit: %v), want %v like the quick one", gone, got.Result, got.Hit, want)
			}
		}
	})
}

func TestTheLastLeaverCancelsTheLookUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var ended atomic.Bool
		b := setUp(t, func(c *Config) { c.Rooms[0].Slice = 10 * time.Second }, Scout{Network: fakeNetwork(func(ctx context.Context) error {
			<-ctx.Done()
			ended.Store(true)
			return index.Late
		})})
		h := make(home, 1)
		j := b.job(key(t, "name:a"), h)
		j.Deadline = time.Now().Add(100 * time.Millisecond)
		b.Lookup(j)
		h.wait(t)
		synctest.Wait()
		if !ended.Load() {
			t.Error("the step went on after its last asker had left")
		}
	})
}

func TestALookUpOvertakenByAWriteAnswersNobodyWhoCameAfter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var there atomic.Bool
		b := setUp(t, nil, fakeStep(func(j *index.Job) error {
			was := there.Load()
			time.Sleep(50 * time.Millisecond)
			if was {
				return has(j)
			}
			return index.Missing
		}))
		k := key(t, "name:a")
		before, after := make(home, 1), make(home, 1)
		b.Lookup(b.job(k, before))
		time.Sleep(10 * time.Millisecond)
		there.Store(true)
		b.gens.Bump(b.gens.Hash(&k))
		b.Lookup(b.job(k, after))
		if j := before.wait(t); j.Result != index.Missing {
			t.Errorf("who came before the write got %v, want missing", j.Result)
		}
		if j := after.wait(t); j.Result != index.OK {
			t.Errorf("who came after the write got %v, want what was written", j.Result)
		}
		if j := b.ask("name:a"); j.Answer.From != index.FromCache || j.Result != index.OK {
			t.Errorf("then %v from %v, want the answer from the cache: the overtaken look-up must not have filled it", j.Result, j.Answer.From)
		}
		if b.Counts().NegativeAfterWrite.Load() != 0 {
			t.Error("a negative answer was served after a write")
		}
	})
}

func TestAFreshAskerJoinsNoLookUpThatBeganBeforeHim(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var looks atomic.Int64
		b := setUp(t, nil, fakeStep(func(j *index.Job) error {
			looks.Add(1)
			time.Sleep(50 * time.Millisecond)
			return has(j)
		}))
		h := make(home, 3)
		b.Lookup(b.job(key(t, "name:a"), h))
		fresh := b.job(key(t, "name:a"), h)
		fresh.Fresh = true
		b.Lookup(fresh)
		b.Lookup(b.job(key(t, "name:a"), h)) // joins the fresh one
		for range 3 {
			h.wait(t)
		}
		if looks.Load() != 2 {
			t.Errorf("%d looks, want 2", looks.Load())
		}
	})
}

// Rules are changed first, and the generations bumped after that. A request
// that began before the one may note its generation after the other: what is
// rendered for it is under rules that are out.
func TestWhatIsRenderedUnderRulesThatAreOutIsNobodyElses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var looks atomic.Int64
		var dial *index.Dial
		b := setUp(t, func(c *Config) { dial = c.Dial }, fakeStep(func(j *index.Job) error {
			looks.Add(1)
			time.Sleep(50 * time.Millisecond)
			return has(j)
		}))
		old, late := make(home, 1), make(home, 1)
		first := b.job(key(t, "name:a"), old)
		first.Tuning = dial.Now()
		dial.Turn(usual)
		b.gens.BumpAll()
		b.Push(0, []*index.Flight{{Jobs: []*index.Job{first}}})
		time.Sleep(10 * time.Millisecond)
		second := b.job(key(t, "name:a"), late)
		second.Tuning = dial.Now()
		b.Push(0, []*index.Flight{{Jobs: []*index.Job{second}}})
		if old.wait(t).Result != index.OK || late.wait(t).Result != index.OK || looks.Load() != 2 {
			t.Errorf("%d looks, want one under each of the rules", looks.Load())
		}
		if kept := b.cache.kept[subject{index.AskResolve, key(t, "name:a")}]; kept.Tuning != dial.Now() {
			t.Errorf("what is kept is of the rules %+v", kept.Tuning)
		}
	})
}

func TestAFullQueueIsRefusedWithoutAWorker(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var looks atomic.Int64
		b := setUp(t, func(c *Config) {
			c.Rooms[0].Depth, c.Rooms[0].Workers = 2, Range{1, 1}
			c.Rooms[0].Slice, c.Rooms[0].Batch = time.Second, 1
		}, fakeStep(func(j *index.Job) error {
			looks.Add(1)
			time.Sleep(100 * time.Millisecond)
			return has(j)
		}))
		h := make(home, 10)
		for i := range 5 {
			b.Lookup(b.job(key(t, fmt.Sprint("name:k", i)), h))
			synctest.Wait()
		}
		got := map[index.Kind]int{}
		for range 5 {
			j := h.wait(t)
			got[j.Result]++
			if j.Result == index.Busy && (j.Answer.RetryAfter < time.Second || j.Stage != "room0") {
				t.Errorf("refused by %q with Retry-After %v, want room0 and at least a second", j.Stage, j.Answer.RetryAfter)
			}
		}
		if got[index.OK] != 3 || got[index.Busy] != 2 || looks.Load() != 3 {
			t.Errorf("results %v after %d looks, want 3 answers (1 in hand, 2 waiting), 2 refusals, 3 looks", got, looks.Load())
		}
	})
}

// full is a line whose one room works on one job and has another waiting.
func full(t *testing.T) (b *bench, release func()) {
	gate := make(chan struct{})
	b = setUp(t, func(c *Config) {
		c.Rooms[0].Depth, c.Rooms[0].Workers = 1, Range{1, 1}
		c.Rooms[0].Slice, c.Rooms[0].Batch = time.Minute, 1
	}, fakeStep(func(j *index.Job) error { <-gate; return has(j) }))
	return b, func() { close(gate) }
}

func TestAFullRoomIsJoinedByWhoAsksForWhatIsInIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, release := full(t)
		h := make(home, 10)
		for _, name := range []string{"name:in-hand", "name:waits", "name:waits", "name:new"} {
			b.Lookup(b.job(key(t, name), h))
			synctest.Wait()
		}
		if j := h.wait(t); j.Result != index.Busy || j.Stage != "room0" || j.Key != key(t, "name:new") {
			t.Errorf("%v: %v by %q, want name:new refused by room0", j.Key, j.Result, j.Stage)
		}
		if errands, waiting := b.Inflight(); errands != 2 || waiting != 3 {
			t.Errorf("%d errands, %d waiting; want 2 and 3: who is refused begins none", errands, waiting)
		}
		release()
		for range 3 {
			if j := h.wait(t); j.Result != index.OK {
				t.Errorf("%v: %v", j.Key, j.Result)
			}
		}
	})
}

// Under ten times the load nine of ten look-ups end as this one does.
func TestARefusalDoesNotAllocate(t *testing.T) {
	b, release := full(t)
	defer release()
	h := make(home, 10)
	for _, name := range []string{"name:in-hand", "name:waits"} {
		b.Lookup(b.job(key(t, name), h))
		for errands, _ := b.Inflight(); errands == 0 || b.rooms[0].busy.Load() == 0; errands, _ = b.Inflight() {
			time.Sleep(time.Millisecond)
		}
	}
	j := b.job(key(t, "name:new"), h)
	j.Deadline, j.Tuning = time.Now().Add(time.Minute), &usual
	n := testing.AllocsPerRun(100, func() {
		b.miss(j, time.Now())
		if j := <-h; j.Result != index.Busy {
			t.Fatalf("%v, want a refusal", j.Result)
		}
	})
	if n != 0 {
		t.Errorf("a refusal allocates %v times, want 0", n)
	}
}

func TestAwaitEndsWhenTheWorkerIsThrough(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		gate := make(chan struct{})
		b := setUp(t, func(c *Config) {
			c.Cache.Slice, c.Cache.Cache = time.Minute, gatedCache{c.Cache.Cache, gate}
		}, has)
		b.Await(0) // nothing was pushed: nothing to wait for
		h := make(home, 1)
		b.Push(0, []*index.Flight{{Jobs: []*index.Job{b.job(key(t, "name:a"), h)}}})
		through := make(chan struct{})
		go func() { b.Await(0); close(through) }()
		synctest.Wait()
		select {
		case <-through:
			t.Error("it did not wait for the worker")
		default:
		}
		close(gate)
		<-through
		if n := b.Pipeline.cache.lanes[0].queue.Len(); n != 0 || b.Pipeline.cache.lanes[0].out.Load() {
			t.Errorf("%d flights wait, worker out %v; want the worker through", n, b.Pipeline.cache.lanes[0].out.Load())
		}
		h.wait(t)
	})
}

func TestAStoreThatHangsTripsTheBreakerAndIsThenWalkedPast(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		b := setUp(t, nil, fakeStep(func(*index.Job) error { <-release; return index.Missing }))
		seen := map[index.Kind]int{}
		start := time.Now()
		for i := 0; time.Since(start) < 10*time.Second; i++ {
			h := make(home, 1)
			b.Lookup(b.job(key(t, fmt.Sprint("name:k", i)), h))
			k := h.wait(t).Result
			seen[k]++
			if k == index.Missing {
				t.Fatal("a store that hangs was taken for an empty one")
			}
			time.Sleep(50 * time.Millisecond)
		}
		if seen[index.Down] == 0 {
			t.Errorf("results %v; once the breaker is open it should be down at once", seen)
		}
		close(release)
		time.Sleep(5 * time.Second)
		for range 5 { // the probes
			b.ask("name:probe")
			time.Sleep(20 * time.Millisecond)
		}
		if j := b.ask("name:after"); j.Result != index.Missing {
			t.Errorf("after the store came back: %v, want a proven absence", j.Result)
		}
	})
}

func TestWhatIsPastItsTimeIsServedWhenTheSourceCannotBeAsked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var down atomic.Bool
		b := setUp(t, nil, fakeStep(func(j *index.Job) error {
			if down.Load() {
				return index.Down
			}
			return has(j)
		}))
		b.ask("name:a")
		b.cache.expire(key(t, "name:a"))
		down.Store(true)
		if j := b.ask("name:a"); j.Result != index.OK || !j.Answer.Stale {
			t.Errorf("got %v, stale %v; want the old answer, marked", j.Result, j.Answer.Stale)
		}
		h := make(home, 1)
		fresh := b.job(key(t, "name:a"), h)
		fresh.Fresh = true
		b.Lookup(fresh)
		if j := h.wait(t); j.Result != index.Down {
			t.Errorf("who wants it fresh got %v, want down: never stale", j.Result)
		}
	})
}

func TestLimitsOnLookUpsAndJoinersRefuse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := setUp(t, func(c *Config) { c.Dial = limited(1, 1); c.Rooms[0].Slice = 10 * time.Second }, slow)
		h := make(home, 4)
		b.Lookup(b.job(key(t, "name:a"), h))
		b.Lookup(b.job(key(t, "name:a"), h)) // joins
		b.Lookup(b.job(key(t, "name:a"), h)) // one joiner too many
		b.Lookup(b.job(key(t, "name:b"), h)) // one look-up too many
		got := map[index.Kind]int{}
		for range 4 {
			got[h.wait(t).Result]++
		}
		if got[index.Busy] != 2 || got[index.Missing] != 2 {
			t.Errorf("results %v, want two refused and two answered", got)
		}
		if errands, waiting := b.Inflight(); errands != 0 || waiting != 0 {
			t.Errorf("%d errands and %d askers are left over", errands, waiting)
		}
	})
}

func TestAPanicInTheCacheCostsOneJobOfTheFlight(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := setUp(t, func(c *Config) { c.Cache.Cache = explodingCache{c.Cache.Cache} }, has)
		h := make(home, 3)
		f := &index.Flight{}
		for _, n := range []string{"name:a", "name:boom", "name:c"} {
			f.Jobs = append(f.Jobs, b.job(key(t, n), h))
		}
		b.Push(0, []*index.Flight{f})
		got := map[index.Kind]int{}
		for range 3 {
			got[h.wait(t).Result]++
		}
		if got[index.OK] != 2 || got[index.Broken] != 1 {
			t.Errorf("results %v, want two answers and one 500", got)
		}
		if j := b.ask("name:d"); j.Result != index.OK {
			t.Errorf("afterwards: %v; the lane's worker should be unharmed", j.Result)
		}
	})
}

type explodingCache struct{ index.Cache }

func (c explodingCache) Get(j *index.Job) error {
	if j.Key.String() == "name:boom" {
		panic("boom")
	}
	return c.Cache.Get(j)
}

func TestAFullLaneTakesWholeFlightsOnly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		gate := make(chan struct{})
		b := setUp(t, func(c *Config) {
			c.Cache.Depth, c.Cache.Slice = 4, time.Minute
			c.Cache.Cache = gatedCache{c.Cache.Cache, gate}
		}, has)
		h := make(home, 16)
		flight := func(n int) *index.Flight {
			f := &index.Flight{}
			for range n {
				j := b.job(key(t, "name:a"), h)
				j.Deadline = j.Deadline.Add(time.Minute)
				f.Jobs = append(f.Jobs, j)
			}
			return f
		}
		if n := b.Push(0, []*index.Flight{flight(3), flight(2)}); n != 1 {
			t.Errorf("a lane for 4 jobs took %d flights of 3 and 2, want 1", n)
		}
		close(gate)
		for range 3 {
			h.wait(t)
		}
		synctest.Wait()
		if n := b.Push(0, []*index.Flight{flight(4)}); n != 1 {
			t.Error("the drained lane refused a flight that fits")
		}
		for range 4 {
			h.wait(t)
		}
	})
}

type gatedCache struct {
	index.Cache
	gate chan struct{}
}

func (c gatedCache) Get(j *index.Job) error { <-c.gate; return c.Cache.Get(j) }

// A whole hop past the hit: queue, worker, cache, reply.
func TestAHitDoesNotAllocate(t *testing.T) {
	b := setUp(t, func(c *Config) { c.Cache.Cache = alwaysCache{c.Cache.Cache} }, has)
	h := make(home, 1)
	j := b.job(key(t, "name:a"), h)
	f := []*index.Flight{{Jobs: []*index.Job{j}}}
	n := testing.AllocsPerRun(1000, func() {
		j.Deadline = time.Now().Add(time.Minute)
		b.Push(0, f)
		<-h
	})
	if n >= 1 { // ants may allocate now and then; the hop itself must not
		t.Errorf("a hit allocates %v times, want 0", n)
	}
}

type alwaysCache struct{ index.Cache }

func (alwaysCache) Get(*index.Job) error { return nil }

func BenchmarkHit(b *testing.B) {
	b.ReportAllocs()
	g := index.NewGenerations()
	p, err := Build(Config{
		Cache: CacheRow{Name: "cache", Cache: alwaysCache{newFakeCache(g)}, Gens: g, Depth: 64, Batch: 16, Slice: time.Second, Breaker: testBreaker},
		Write: Row{Name: "write", Step: hasnt, Depth: 8, Workers: Range{1, 1}, Batch: 1, Slice: time.Second, Breaker: testBreaker},
		Loops: 1, Dial: index.NewDial(index.Tuning{Budget: time.Second}), Gens: g, Render: new(fakeRenderer), Counts: new(index.LookupCounts),
	})
	if err != nil {
		b.Fatal(err)
	}
	defer p.Close(context.Background())
	h := make(home, 1)
	k, _ := index.ParseKey("name:a")
	j := &index.Job{Ask: index.AskManifest, Key: k, Hash: g.Hash(&k), Home: h, Deadline: time.Now().Add(time.Hour)}
	f := []*index.Flight{{Jobs: []*index.Job{j}}}
	for b.Loop() {
		p.Push(0, f)
		<-h
	}
}

// TestAnErrandIsEquippedOnlyWhenItLeavesTheProcess: what the database answers,
// or a full room refuses, must not pay for a context and its timer.
func TestAnErrandIsEquippedOnlyWhenItLeavesTheProcess(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		atHome := context.Context(nil)
		b := setUp(t, nil,
			fakeStep(func(j *index.Job) error { atHome = j.Home.(*errand).ctx; return index.Missing }),
			Scout{Network: fakeNetwork(func(ctx context.Context) error {
				if _, ok := ctx.Deadline(); !ok {
					t.Error("the network is asked without a deadline")
				}
				return nil
			})})
		if got := b.ask("name:a"); got.Result != index.OK {
			t.Errorf("it ended with %v", got.Result)
		}
		if atHome != nil {
			t.Error("the errand had a context while it was at home")
		}
	})
}
