package stages

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"svcindex/index"
)

// leaver is the home of a client who may go.
type leaver struct{ gone bool }

func (l *leaver) Open(*index.Job)  {}
func (l *leaver) Reply(*index.Job) {}
func (l *leaver) Gone() bool       { return l.gone }

// A seating is a desk and what a test needs to sit people down at it.
type seating struct {
	*desk
	t     *testing.T
	gens  *index.Generations
	start time.Time
	under *index.Tuning
}

func newSeating(t *testing.T, maxInflight, maxJoined int) *seating {
	return &seating{newDesk(), t, index.NewGenerations(), time.Now(), limited(maxInflight, maxJoined).Now()}
}

// asker makes a job about a name that is due so many milliseconds from the
// start.
func (s *seating) asker(name string, ms int) *index.Job {
	s.t.Helper()
	k := key(s.t, name)
	return &index.Job{
		Ask: index.AskResolve, Key: k, Hash: s.gens.Hash(&k), Home: new(leaver), Tuning: s.under,
		Deadline: s.start.Add(time.Duration(ms) * time.Millisecond),
	}
}

// sit joins j and returns its errand, nil if it was refused.
func (s *seating) sit(j *index.Job) (*errand, bool) {
	return s.join(j, func() *errand {
		e := &errand{Job: *j}
		e.Job.Home = e
		e.ctx, e.cancel = context.WithCancel(context.Background())
		return e
	})
}

// check holds the desk's books against the people who sit there.
func (s *seating) check(under map[*errand]bool) {
	s.t.Helper()
	var prev *asker
	seated := make(map[*asker]bool)
	for a := s.first; a != nil; prev, a = a, a.next {
		if a.prev != prev {
			s.t.Fatal("the list does not lead back the way it came")
		}
		if prev != nil && prev.job.Deadline.After(a.job.Deadline) {
			s.t.Fatal("the list is out of order")
		}
		if a.errand.askers[a.at] != a {
			s.t.Fatal("an asker is not where he believes he is")
		}
		seated[a] = true
	}
	if s.last != prev || s.waiting != len(seated) {
		s.t.Fatalf("%d wait by the books, %d sit there", s.waiting, len(seated))
	}
	joined, askers := 0, 0
	for e := range under {
		joined += max(len(e.askers)-1, 0)
		askers += len(e.askers)
		for _, a := range e.askers {
			if !seated[a] || a.errand != e {
				s.t.Fatal("an errand has an asker who does not sit there")
			}
		}
		if len(e.askers) == 0 && (e.open || e.ctx.Err() == nil) {
			s.t.Fatal("an errand that nobody waits for is open or goes on")
		}
		if len(e.askers) > 0 && e.ctx.Err() != nil {
			s.t.Fatal("an errand was cancelled under those who wait for it")
		}
	}
	if askers != len(seated) || joined != s.joined || len(under) != s.inflight {
		s.t.Fatalf("%d sit, %d by errands; joined %d, by the books %d; under way %d, by the books %d",
			len(seated), askers, joined, s.joined, len(under), s.inflight)
	}
	for at, e := range s.about {
		if !under[e] || !e.open || at != about(&e.Job) {
			s.t.Fatal("the desk would send somebody to an errand that is closed")
		}
	}
}

// Whatever the order of coming, leaving and ending, the books agree, and when
// everybody has left they are empty.
func TestTheBooksOfTheDeskAgreeWhateverHappens(t *testing.T) {
	for seed := range uint64(60) {
		t.Run(fmt.Sprint("seed", seed), func(t *testing.T) {
			r := rand.New(rand.NewPCG(seed, 1))
			s := newSeating(t, r.IntN(2)*6, r.IntN(2)*10)
			under := make(map[*errand]bool)
			waits := make(map[*index.Job]bool)
			now := s.start
			answered := func(j *index.Job) {
				if !waits[j] {
					t.Fatal("somebody is answered twice, or never asked")
				}
				delete(waits, j)
			}
			for range 400 {
				switch r.IntN(8) {
				case 0, 1, 2, 3:
					j := s.asker(fmt.Sprint("name:k", r.IntN(4)), int(now.Sub(s.start).Milliseconds())+r.IntN(60))
					j.Fresh, j.Noted = r.IntN(6) == 0, index.Generation(r.IntN(5)/4)
					if r.IntN(8) == 0 {
						j.Ask = index.AskWrite
					}
					if e, isNew := s.sit(j); e != nil {
						if isNew == under[e] {
							t.Fatal("a new errand is old, or an old one new")
						}
						if e.Ask != j.Ask || e.Key != j.Key || e.Noted != j.Noted || j.Fresh && !isNew {
							t.Fatal("somebody sits at an errand that cannot answer him")
						}
						under[e], waits[j] = true, true
					}
				case 4:
					for e := range under {
						delete(under, e)
						for _, a := range s.end(e) {
							answered(a.job)
						}
						break
					}
				case 5:
					for j := range waits {
						j.Home.(*leaver).gone = true
						break
					}
				case 6:
					now = now.Add(time.Duration(r.IntN(40)) * time.Millisecond)
					for _, a := range s.leave(now, false) {
						if a.job.Deadline.After(now) {
							t.Fatal("somebody was sent away before his time")
						}
						answered(a.job)
					}
					for j := range waits {
						if !j.Deadline.After(now) {
							t.Fatal("somebody sits past his time")
						}
					}
				case 7:
					for _, a := range s.leave(now, true) {
						if a.job.Deadline.After(now) && !a.job.Home.Gone() {
							t.Fatal("somebody who is there was taken for gone")
						}
						answered(a.job)
					}
					for j := range waits {
						if j.Home.Gone() {
							t.Fatal("somebody who has gone still sits there")
						}
					}
				}
				s.check(under)
			}
			for _, a := range s.leave(now.Add(time.Hour), r.IntN(2) == 0) {
				answered(a.job)
			}
			s.check(under)
			for e := range under {
				if as := s.end(e); len(as) != 0 {
					t.Fatal("an errand ended with askers after all had left")
				}
			}
			if len(waits)+s.inflight+s.joined+s.waiting+len(s.about) != 0 || s.first != nil || s.last != nil {
				t.Errorf("left over: %d unanswered, %d under way, %d joined, %d waiting, %d subjects",
					len(waits), s.inflight, s.joined, s.waiting, len(s.about))
			}
		})
	}
}

func TestAskersSitInTheOrderOfTheirDeadlines(t *testing.T) {
	for _, tt := range []struct {
		why  string
		due  []int
		want []int
	}{
		{"alike budgets", []int{1, 2, 3, 4}, []int{1, 2, 3, 4}},
		{"the other way round", []int{4, 3, 2, 1}, []int{1, 2, 3, 4}},
		{"one in a hurry", []int{5, 6, 1, 7}, []int{1, 5, 6, 7}},
		{"one in the middle", []int{1, 9, 5}, []int{1, 5, 9}},
		{"nobody but one", []int{3}, []int{3}},
		{"one already late", []int{3, -1}, []int{-1, 3}},
	} {
		s := newSeating(t, 0, 0)
		for i, ms := range tt.due {
			s.sit(s.asker(fmt.Sprint("name:k", i), ms))
		}
		var got []int
		for a := s.first; a != nil; a = a.next {
			got = append(got, int(a.job.Deadline.Sub(s.start).Milliseconds()))
		}
		if !slices.Equal(got, tt.want) {
			t.Errorf("%s: due %v sit as %v", tt.why, tt.due, got)
		}
	}
}

func TestThoseOfOneDeadlineSitAsTheyCame(t *testing.T) {
	s := newSeating(t, 0, 0)
	first, second := s.asker("name:a", 5), s.asker("name:a", 5)
	s.sit(first)
	s.sit(second)
	if s.first.job != first || s.last.job != second {
		t.Error("a later one pushed in front")
	}
}

func TestADeadlineIsOverWhenItHasCome(t *testing.T) {
	s := newSeating(t, 0, 0)
	s.sit(s.asker("name:a", 5))
	if n := len(s.leave(s.start.Add(5*time.Millisecond-1), false)); n != 0 {
		t.Error("sent away a nanosecond early")
	}
	if n := len(s.leave(s.start.Add(5*time.Millisecond), false)); n != 1 {
		t.Error("not sent away when the deadline came")
	}
}

func TestWhoHasGoneLeavesFromTheMiddle(t *testing.T) {
	s := newSeating(t, 0, 0)
	var js []*index.Job
	for i := range 5 {
		js = append(js, s.asker("name:a", 100+i))
		s.sit(js[i])
	}
	js[1].Home.(*leaver).gone, js[3].Home.(*leaver).gone = true, true
	if n := len(s.leave(s.start, false)); n != 0 {
		t.Errorf("%d left on a round that does not look for them", n)
	}
	left := s.leave(s.start, true)
	if len(left) != 2 || left[0].job != js[1] || left[1].job != js[3] || s.joined != 2 || s.waiting != 3 {
		t.Errorf("%d left, %d joined, %d waiting; want 2, 2, 3", len(left), s.joined, s.waiting)
	}
}

func TestJoin(t *testing.T) {
	for _, tt := range []struct {
		why    string
		change func(*index.Job)
		joins  bool
	}{
		{"the same question", func(*index.Job) {}, true},
		{"in another format", func(j *index.Job) { j.Format = index.CBOR }, true},
		{"with other wishes", func(j *index.Job) { j.Query.Limit = 9 }, true},
		{"with another deadline", func(j *index.Job) { j.Deadline = j.Deadline.Add(-time.Minute) }, true},
		{"another question about the key", func(j *index.Job) { j.Ask = index.AskProviders }, false},
		{"the question about another key", func(j *index.Job) { j.Key = index.CIDKey(index.CID{1}) }, false},
		{"after a write", func(j *index.Job) { j.Noted++ }, false},
		{"freshly, please", func(j *index.Job) { j.Fresh = true }, false},
		{"a write", func(j *index.Job) { j.Ask = index.AskWrite }, false},
		{"a question about a task", func(j *index.Job) { j.Ask = index.AskTask }, false},
	} {
		s := newSeating(t, 0, 0)
		e, _ := s.sit(s.asker("name:a", 5))
		j := s.asker("name:a", 5)
		tt.change(j)
		if other, isNew := s.sit(j); (other == e) != tt.joins || isNew == tt.joins {
			t.Errorf("%s: joins %v, want %v", tt.why, other == e, tt.joins)
		}
	}
}

func TestWritesOfOneKeyAreNeverMerged(t *testing.T) {
	s := newSeating(t, 0, 0)
	var es []*errand
	for range 3 {
		j := s.asker("name:a", 5)
		j.Ask = index.AskWrite
		e, _ := s.sit(j)
		es = append(es, e)
	}
	if es[0] == es[1] || es[1] == es[2] || len(s.about) != 0 || s.inflight != 3 {
		t.Error("two writes share an errand: one of them would be answered without being done")
	}
}

// The scribe reads from the body what a write is about. Nobody else looks at its
// hash, though its client leaves meanwhile: the race detector would say so.
func TestWhoLeavesAWriteDoesNotLookAtItsHash(t *testing.T) {
	s := newSeating(t, 0, 0)
	j := s.asker("name:a", 1)
	j.Ask = index.AskWrite
	e, _ := s.sit(j)
	read := make(chan struct{})
	go func() {
		e.Hash++
		close(read)
	}()
	if late := s.leave(j.Deadline, false); len(late) != 1 || e.open {
		t.Errorf("%d have left, and others may join: %v; want one, and that nobody may", len(late), e.open)
	}
	<-read
}

func TestAnErrandOnItsLastLegsTakesNobody(t *testing.T) {
	s := newSeating(t, 0, 0)
	e, _ := s.sit(s.asker("name:a", 5))
	s.leave(s.start.Add(time.Second), false)
	if e.ctx.Err() == nil {
		t.Error("the last leaver did not cancel it")
	}
	other, isNew := s.sit(s.asker("name:a", 2000))
	if other == e || !isNew {
		t.Error("somebody joined an errand that was cancelled")
	}
	s.end(e) // it ends after its successor began
	if third, _ := s.sit(s.asker("name:a", 2000)); third != other {
		t.Error("the end of the old errand closed the new one")
	}
}

func TestTheUsherIsWokenByTheFirstWhoSitsDown(t *testing.T) {
	s := newSeating(t, 0, 0)
	s.sit(s.asker("name:a", 5))
	s.sit(s.asker("name:b", 5))
	select {
	case <-s.wake:
	default:
		t.Error("nobody told the usher")
	}
	s.leave(s.start.Add(time.Second), false)
	s.sit(s.asker("name:c", 5))
	if len(s.wake) != 0 {
		t.Error("the usher is woken, and was not asleep")
	}
	if s.doze() {
		t.Error("the usher falls asleep, and somebody waits")
	}
	s.leave(s.start.Add(time.Second), false)
	if !s.doze() {
		t.Error("the usher watches, and nobody waits")
	}
	s.sit(s.asker("name:d", 5))
	if len(s.wake) != 1 {
		t.Error("the usher sleeps, and somebody waits")
	}
}

// One asker of many leaves; the rest get the answer, and each asker exactly
// one reply.
func TestEverybodyIsAnsweredExactlyOnce(t *testing.T) {
	for seed := range uint64(10) {
		synctest.Test(t, func(t *testing.T) {
			r := rand.New(rand.NewPCG(seed, 2))
			nap := fakeStep(func(*index.Job) error {
				time.Sleep(time.Duration(rand.IntN(120)) * time.Millisecond)
				return []error{nil, index.Missing, index.Down}[rand.IntN(3)]
			})
			b := setUp(t, func(c *Config) { c.Dial = limited(12, 30) }, nap, nap)
			const n = 400
			h := make(home, 2*n)
			for i := range n {
				j := b.job(key(t, fmt.Sprint("name:k", r.IntN(20))), h)
				j.Seq = uint64(i) // which asker it is
				j.Deadline = time.Now().Add(time.Duration(r.IntN(300)) * time.Millisecond)
				j.Fresh = r.IntN(5) == 0
				b.Lookup(j)
				time.Sleep(time.Duration(r.IntN(3)) * time.Millisecond)
			}
			seen := make(map[uint64]bool)
			for range n {
				j := h.wait(t)
				if seen[j.Seq] {
					t.Fatalf("asker %d is answered twice", j.Seq)
				}
				seen[j.Seq] = true
			}
			time.Sleep(10 * time.Second)
			if errands, waiting := b.Inflight(); errands != 0 || waiting != 0 || b.desk.joined != 0 || len(h) != 0 {
				t.Errorf("left over: %d errands, %d waiting, %d joined, %d replies", errands, waiting, b.desk.joined, len(h))
			}
		})
	}
}

func BenchmarkJoin(b *testing.B) {
	b.ReportAllocs()
	d := newDesk()
	k, _ := index.ParseKey("name:a")
	j := &index.Job{Ask: index.AskResolve, Key: k, Home: new(leaver), Deadline: time.Now(), Tuning: new(index.Tuning)}
	e := &errand{Job: *j}
	for b.Loop() {
		d.join(j, func() *errand { return e })
		d.end(e)
	}
}
