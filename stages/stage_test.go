package stages

import (
	"context"
	"fmt"
	"math"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"svcindex/index"
)

func TestToDrainIsASecondToHalfAMinute(t *testing.T) {
	for _, tt := range []struct {
		why   string
		rate  float64
		depth int
		want  time.Duration
	}{
		{"nothing is known yet", 0, 100, time.Second},
		{"nothing waits", 100, 0, time.Second},
		{"soon", 1000, 10, time.Second},
		{"two seconds' worth", 100, 200, 2 * time.Second},
		{"a fraction", 100, 250, 2500 * time.Millisecond},
		{"half a minute", 10, 300, 30 * time.Second},
		{"an hour's worth is half a minute", 1, 3600, 30 * time.Second},
		{"more than any queue holds", 1, 1 << 30, 30 * time.Second},
		{"a fast room", math.MaxFloat64, 100, time.Second},
	} {
		d := drainRate{perUnit: tt.rate}
		if got := d.toDrain(tt.depth); got != tt.want {
			t.Errorf("%s: %d at %v a second take %v, want %v", tt.why, tt.depth, tt.rate, got, tt.want)
		}
	}
}

func TestTheDrainRateFollowsWhatIsDone(t *testing.T) {
	var d drainRate
	now := time.Now()
	d.add(1000)
	d.sample(now) // the first only looks
	if d.perUnit != 0 {
		t.Errorf("a single look gives a rate of %v", d.perUnit)
	}
	for range 20 {
		d.add(25)
		now = now.Add(250 * time.Millisecond)
		d.sample(now)
	}
	if d.perUnit < 99 || d.perUnit > 101 {
		t.Errorf("25 every 250 ms are a rate of %v, want about 100", d.perUnit)
	}
	d.add(1000)
	d.sample(now) // no time has passed
	d.sample(now.Add(-time.Second))
	if math.IsInf(d.perUnit, 0) || math.IsNaN(d.perUnit) || d.perUnit < 0 {
		t.Errorf("a clock that stands still gives a rate of %v", d.perUnit)
	}
}

// A lodging is one room and where its jobs come out.
type lodging struct {
	*room
	t    *testing.T
	out  chan ended
	want bool
}

type ended struct {
	job  *index.Job
	kind index.Kind
}

func newLodging(t *testing.T, row Row) *lodging {
	t.Helper()
	l := &lodging{t: t, out: make(chan ended, 1000), want: true}
	r, err := newRoom(row, func(j *index.Job, k index.Kind, _ time.Time) { l.out <- ended{j, k} }, func(*index.Job) bool { return l.want })
	if err != nil {
		t.Fatal(err)
	}
	l.room = r
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		if !r.close(ctx) {
			t.Error("a step is still out")
		}
	})
	return l
}

func (l *lodging) in() bool {
	now := time.Now()
	return l.enter(&index.Job{Deadline: now.Add(time.Hour)}, now)
}

func (l *lodging) wait() index.Kind {
	l.t.Helper()
	select {
	case e := <-l.out:
		return e.kind
	case <-time.After(time.Minute):
		l.t.Fatal("a job never came out")
		return 0
	}
}

// settling is a step that prepares with one function and settles with another.
type settling struct {
	fakeStep
	settle func([]*index.Job, []index.Kind)
}

func (s settling) Settle(js []*index.Job, kinds []index.Kind) { s.settle(js, kinds) }

func TestASliceBeginsWhenTheJobEntersTheQueue(t *testing.T) {
	for _, tt := range []struct {
		why      string
		deadline time.Duration
		wait     time.Duration
		want     index.Kind
		looks    int64
	}{
		{"in time", time.Hour, 0, index.Missing, 1},
		{"the last moment counts", time.Hour, 100 * time.Millisecond, index.Missing, 1},
		{"overstayed, its time not up", time.Hour, 101 * time.Millisecond, index.Busy, 0},
		{"the deadline is nearer than the slice", 50 * time.Millisecond, 51 * time.Millisecond, index.Late, 0},
	} {
		synctest.Test(t, func(t *testing.T) {
			var looks atomic.Int64
			gate := make(chan struct{})
			l := newLodging(t, Row{Name: "room", Depth: 8, Workers: Range{1, 1}, Batch: 1, Slice: 100 * time.Millisecond, Breaker: testBreaker,
				Step: fakeStep(func(j *index.Job) error {
					if j.Seq == 1 {
						<-gate
						return nil
					}
					looks.Add(1)
					return index.Missing
				})})
			now := time.Now()
			l.enter(&index.Job{Seq: 1, Deadline: now.Add(time.Hour)}, now)
			synctest.Wait()
			l.enter(&index.Job{Deadline: now.Add(tt.deadline)}, now)
			time.Sleep(tt.wait)
			close(gate)
			l.wait()
			if k := l.wait(); k != tt.want || looks.Load() != tt.looks {
				t.Errorf("%s: %v after %d looks, want %v after %d", tt.why, k, looks.Load(), tt.want, tt.looks)
			}
			if n := l.counts.Expired.Load(); (n == 1) != (tt.looks == 0) {
				t.Errorf("%s: %d counted as expired", tt.why, n)
			}
		})
	}
}

func TestWorkThatNobodyWaitsForIsNotDone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLodging(t, Row{Name: "room", Depth: 8, Workers: Range{1, 1}, Batch: 1, Slice: time.Second, Breaker: testBreaker,
			Step: fakeStep(func(*index.Job) error { t.Error("it was done"); return nil })})
		l.want = false
		l.in()
		if k := l.wait(); k != index.Late {
			t.Errorf("it ended as %v, want late", k)
		}
	})
}

func TestAPanicWhileSettlingIsEverybodysInTheBatch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		explode := true
		l := newLodging(t, Row{Name: "write", Depth: 8, Workers: Range{1, 1}, Batch: 8, Slice: time.Second, Breaker: testBreaker,
			Step: settling{has, func(_ []*index.Job, kinds []index.Kind) {
				if explode {
					kinds[0] = index.OK
					panic("halfway through")
				}
				clear(kinds)
			}}})
		l.in()
		if k := l.wait(); k != index.Broken {
			t.Errorf("it ended as %v, want broken: nobody knows what was stored", k)
		}
		explode = false
		l.in()
		if k := l.wait(); k != index.OK || l.counts.Panics.Load() != 1 {
			t.Errorf("the next ended as %v after %d panics; the worker should be unharmed", k, l.counts.Panics.Load())
		}
	})
}

func TestAPanicWhilePreparingCostsOneOfTheBatch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		gate := make(chan struct{})
		l := newLodging(t, Row{Name: "write", Depth: 8, Workers: Range{1, 1}, Batch: 8, Slice: time.Second, Breaker: testBreaker,
			Step: settling{func(j *index.Job) error {
				<-gate
				if j.Seq == 2 {
					panic("a bad body")
				}
				return nil
			}, func(js []*index.Job, kinds []index.Kind) { clear(kinds) }}})
		now := time.Now()
		for seq := range uint64(4) {
			l.enter(&index.Job{Seq: seq, Deadline: now.Add(time.Hour)}, now)
		}
		close(gate)
		got := make(map[index.Kind]int)
		for range 4 {
			got[l.wait()]++
		}
		if got[index.OK] != 3 || got[index.Broken] != 1 {
			t.Errorf("they ended as %v, want three well and one broken", got)
		}
	})
}

func TestACommitOnceBeganWritesInBatches(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var sizes []int
		l := newLodging(t, Row{Name: "write", Depth: 64, Workers: Range{1, 1}, Batch: 16, Slice: time.Minute, Breaker: testBreaker,
			Step: settling{has, func(js []*index.Job, kinds []index.Kind) {
				sizes = append(sizes, len(js))
				time.Sleep(10 * time.Millisecond)
				clear(kinds)
			}}})
		l.in()
		synctest.Wait()
		for range 40 {
			l.in()
		}
		for range 41 {
			l.wait()
		}
		if fmt.Sprint(sizes) != "[1 16 16 8]" {
			t.Errorf("commits of %v, want [1 16 16 8]", sizes)
		}
	})
}

func TestABlownFuseSettlesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		settled := 0
		l := newLodging(t, Row{Name: "write", Depth: 64, Workers: Range{1, 1}, Batch: 1, Slice: time.Minute, Breaker: testBreaker,
			Step: settling{has, func(_ []*index.Job, kinds []index.Kind) {
				settled++
				for i := range kinds {
					kinds[i] = index.Down
				}
			}}})
		for range 30 {
			l.in()
			if k := l.wait(); k != index.Down {
				t.Fatalf("it ended as %v, want down", k)
			}
		}
		if settled != 20 || l.counts.Skipped.Load() != 10 {
			t.Errorf("%d commits and %d skipped, want 20 and 10", settled, l.counts.Skipped.Load())
		}
	})
}

func TestBadBodiesDoNotBlowTheFuseOfTheStore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLodging(t, Row{Name: "write", Depth: 64, Workers: Range{1, 1}, Batch: 4, Slice: time.Minute, Breaker: testBreaker,
			Step: settling{bug, func([]*index.Job, []index.Kind) { t.Error("settled") }}})
		for range 40 {
			l.in()
			l.wait()
		}
		if l.fuse().state() != closed {
			t.Error("a client can take the store away from the others")
		}
	})
}

func TestARoomWidensUnderLoadAndNarrowsWhenIdle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var now, most atomic.Int64
		l := newLodging(t, Row{Name: "room", Depth: 64, Workers: Range{1, 4}, Batch: 1, Slice: time.Hour, Breaker: testBreaker,
			Step: fakeStep(func(*index.Job) error {
				most.Store(max(most.Load(), now.Add(1)))
				time.Sleep(10 * time.Millisecond)
				now.Add(-1)
				return index.Missing
			})})
		for range 64 {
			l.in()
		}
		for range 64 {
			l.wait()
		}
		if most.Load() != 4 {
			t.Errorf("%d worked at once, want 4", most.Load())
		}
		for range 10 {
			l.relax()
		}
		if s := l.stats(time.Now()); s.Workers != 1 || s.Busy != 0 || s.Depth != 0 {
			t.Errorf("idle, it has %d workers, %d busy, %d waiting", s.Workers, s.Busy, s.Depth)
		}
	})
}

func TestARoomWhoseHeadHasWaitedTooLongRefuses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		gate := make(chan struct{})
		l := newLodging(t, Row{Name: "room", Depth: 8, Workers: Range{1, 1}, Batch: 1, Slice: time.Hour, MaxWait: 50 * time.Millisecond,
			Breaker: testBreaker, Step: fakeStep(func(*index.Job) error { <-gate; return nil })})
		l.in()
		synctest.Wait()
		l.in() // waits
		time.Sleep(50 * time.Millisecond)
		if !l.in() {
			t.Error("refused at the limit, not over it")
		}
		time.Sleep(time.Nanosecond)
		if l.in() || l.counts.RejectedWait.Load() != 1 || l.counts.RejectedFull.Load() != 0 {
			t.Errorf("taken, or counted as %d too long and %d full", l.counts.RejectedWait.Load(), l.counts.RejectedFull.Load())
		}
		if s := l.stats(time.Now()); s.OldestWait != 50*time.Millisecond+1 || s.Depth != 2 {
			t.Errorf("it shows a wait of %v and a depth of %d", s.OldestWait, s.Depth)
		}
		close(gate)
		for range 3 {
			l.wait()
		}
	})
}

func TestAClosedRoomFinishesWhatWaitsAndTakesNothingMore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLodging(t, Row{Name: "room", Depth: 8, Workers: Range{1, 1}, Batch: 1, Slice: time.Hour, Breaker: testBreaker, Step: slow})
		for range 5 {
			l.in()
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if !l.close(ctx) {
			t.Error("it did not come to an end")
		}
		if len(l.out) != 5 {
			t.Errorf("%d of 5 were finished", len(l.out))
		}
		if l.in() {
			t.Error("a closed room took a job")
		}
	})
}

func TestARoomThatHangsIsLeftWhenTimeIsUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		gate := make(chan struct{})
		l := newLodging(t, Row{Name: "room", Depth: 8, Workers: Range{1, 1}, Batch: 1, Slice: time.Hour, Breaker: testBreaker,
			Step: fakeStep(func(*index.Job) error { <-gate; return nil })})
		l.in()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		start := time.Now()
		if l.close(ctx) || time.Since(start) > 1100*time.Millisecond {
			t.Errorf("it claims to have ended, or took %v", time.Since(start))
		}
		close(gate)
	})
}

// A line of two rooms: the first has not got it, the second has.
func Example() {
	gens := index.NewGenerations()
	row := Row{Depth: 8, Workers: Range{1, 4}, Batch: 4, Slice: time.Second, Breaker: testBreaker}
	row.Name, row.Step = "db", hasnt
	second := row
	second.Name, second.Step = "dht", has
	write := row
	write.Name = "write"

	line, err := Build(Config{
		Cache: CacheRow{Name: "cache", Cache: newFakeCache(gens), Gens: gens, Depth: 64, Batch: 16, Slice: time.Second, Breaker: testBreaker},
		Rooms: []Row{row, second}, Write: write, Loops: 1, Dial: index.NewDial(index.Tuning{Budget: 2 * time.Second}),
		Gens: gens, Render: new(fakeRenderer), Counts: new(index.LookupCounts),
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer line.Close(context.Background())

	k, _ := index.ParseKey("name:a")
	h := make(home, 1)
	for range 2 {
		line.Push(0, []*index.Flight{{Jobs: []*index.Job{{
			Ask: index.AskResolve, Key: k, Hash: gens.Hash(&k), Deadline: time.Now().Add(time.Second), Home: h,
			Query: index.ProviderQuery{Limit: index.DefaultLimit},
		}}}})
		j := <-h
		fmt.Printf("%v from the %v: %s\n", j.Result, j.Answer.From, j.Answer.Page)
	}
	// Output:
	// ok from the db: page
	// ok from the cache: page
}

// What settles together waits for one commit, not for one of each worker.
func TestWhatSettlesTogetherIsNotSharedOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var sizes []int
		gate := make(chan struct{})
		l := newLodging(t, Row{Name: "room", Depth: 64, Workers: Range{1, 4}, Batch: 16, Slice: time.Hour, Breaker: testBreaker,
			Step: settling{fakeStep(func(*index.Job) error { return nil }), func(js []*index.Job, kinds []index.Kind) {
				if js[0].Seq == 1 {
					<-gate
				} else {
					sizes = append(sizes, len(js))
				}
				for i := range kinds {
					kinds[i] = index.OK
				}
			}}})
		now := time.Now()
		for range 4 { // every worker has something in hand
			l.enter(&index.Job{Seq: 1, Deadline: now.Add(time.Hour)}, now)
			synctest.Wait()
		}
		for range 12 {
			l.in()
		}
		close(gate)
		for range 16 {
			l.wait()
		}
		if len(sizes) != 1 || sizes[0] != 12 {
			t.Errorf("what waited was settled in parts of %v, want all 12 at once", sizes)
		}
	})
}
