package kaddht

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	pb "github.com/libp2p/go-libp2p-kad-dht/pb"
	"github.com/libp2p/go-libp2p/core/peer"

	"svcindex/index"
)

// A stage is a network without sockets: who answers after how long.
type stage struct {
	mu    sync.Mutex
	takes map[peer.ID]time.Duration // none: never answers
	asked map[peer.ID]time.Duration // since the start
	gone  int                       // requests that were cancelled
	began time.Time
	dead  bool
}

func (st *stage) ask(ctx context.Context, p peer.ID, _ []byte) (*pb.Message, error) {
	st.mu.Lock()
	st.asked[p] = time.Since(st.began)
	d, answers := st.takes[p]
	st.mu.Unlock()
	if st.dead {
		return nil, errors.New("refused")
	}
	if !answers {
		d = time.Hour
	}
	select {
	case <-time.After(d):
		return &pb.Message{}, nil
	case <-ctx.Done():
		st.mu.Lock()
		st.gone++
		st.mu.Unlock()
		return nil, ctx.Err()
	}
}

// noTable notes who was taken out and who came in.
type noTable struct{ added, removed []peer.ID }

func (*noTable) UpdateLastSuccessfulOutboundQueryAt(peer.ID, time.Time) bool { return false }
func (n *noTable) TryAddPeer(p peer.ID, _, _ bool) (bool, error) {
	n.added = append(n.added, p)
	return true, nil
}
func (n *noTable) RemovePeer(p peer.ID) { n.removed = append(n.removed, p) }

// onStage returns a node whose network is st and whose routing table holds n
// peers, the nearest first.
func onStage(t *testing.T, st *stage, n int, change ...func(*Options)) (*Node, []peer.ID, *noTable) {
	o := Options{Alpha: 3, Beta: 2, Hedge: 150 * time.Millisecond, HedgeBudget: .1}
	for _, c := range change {
		c(&o)
	}
	node, err := newNode(o)
	if err != nil {
		t.Fatal(err)
	}
	table := new(noTable)
	node.table, node.ask = table, st.ask
	node.met.Store(true)
	node.near = func(place) []heard { return hear(count(n)...) }
	s := newSearch([]byte("k"), "self", 3, ruleManifest, everybodyGood)
	s.offer(1, hear(count(n)...))
	var order []peer.ID
	for _, c := range s.near {
		order = append(order, c.id)
	}
	st.asked, st.began = map[peer.ID]time.Duration{}, time.Now()
	if st.takes == nil {
		st.takes = map[peer.ID]time.Duration{}
	}
	return node, order, table
}

// firstOf is satisfied by the first answer.
func firstOf() *question {
	return &question{key: []byte("k"), rule: ruleManifest, judge: func(peer.ID, *pb.Message) int { return 1 }}
}

func TestAHedgeGoesOutWhenNothingComesBackAndWins(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st := &stage{}
		n, order, _ := onStage(t, st, 20)
		for i, p := range order {
			st.takes[p] = 20 * time.Millisecond
			if i < 3 {
				st.takes[p] = 600 * time.Millisecond
			}
		}
		ctx, cancel := context.WithTimeout(t.Context(), 900*time.Millisecond)
		defer cancel()
		rep := n.look(ctx, firstOf())
		n.calls.Wait()
		if rep.Took != 170*time.Millisecond || !rep.Won || rep.Sent != 5 || rep.Hedged != 2 || rep.Fired != 1 {
			t.Errorf("took %v, won %v, sent %d, hedged %d in %d waves; want 170ms, won, 5, 2 in 1", rep.Took, rep.Won, rep.Sent, rep.Hedged, rep.Fired)
		}
		if st.gone < 3 { // the other hedge answers at the same moment
			t.Errorf("%d of the 3 that were still out were cancelled", st.gone)
		}
		if n.opt.Counts.HedgeWin.Load() != 1 {
			t.Error("the win is not counted")
		}
		if g := n.memory.grade(order[0], time.Now(), n.stall()); g != slow {
			t.Errorf("who kept us waiting is held to be %v", g)
		}
		st.asked = map[peer.ID]time.Duration{}
		if rep := n.look(ctx, firstOf()); rep.Took != 20*time.Millisecond || rep.Fired != 0 {
			t.Errorf("the next time it took %v with %d waves; the slow ought to be asked last", rep.Took, rep.Fired)
		}
		n.calls.Wait()
	})
}

func TestWhereAnswersAreQuickALookupIsLessPatient(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st := &stage{}
		n, order, _ := onStage(t, st, 20)
		for _, p := range order {
			st.takes[p] = 20 * time.Millisecond
		}
		for range 100 {
			n.look(t.Context(), firstOf())
		}
		n.calls.Wait()
		if p := n.stall(); p < 70*time.Millisecond || p > 110*time.Millisecond {
			t.Errorf("answers take 20ms, and it waits %v, want about four times as long", p)
		}
		for _, p := range order {
			st.takes[p] = time.Millisecond
		}
		for range 200 {
			n.look(t.Context(), firstOf())
		}
		n.calls.Wait()
		if p := n.stall(); p != patienceMin {
			t.Errorf("answers take 1ms, and it waits %v, want no less than %v", p, patienceMin)
		}
		for range 200 {
			n.pace.saw(time.Second)
		}
		if p := n.stall(); p != n.opt.Hedge {
			t.Errorf("answers take a second, and it waits %v, want dht.hedge at most", p)
		}
	})
}

func TestWhatIsShownOfALookupHoldsNoCandidates(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, _, _ := onStage(t, &stage{}, 3)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		r := n.look(ctx, firstOf())
		n.calls.Wait()
		if shown := n.recent.list(); len(shown) != 1 || shown[0].search != nil || r.search == nil {
			t.Errorf("%d look-ups are shown, with their candidates", len(shown))
		}
	})
}

func TestProgressPutsTheHedgeOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st := &stage{}
		n, order, _ := onStage(t, st, 20)
		for _, p := range order {
			st.takes[p] = 100 * time.Millisecond
		}
		q := firstOf()
		q.judge = nil
		rep := n.look(t.Context(), q)
		n.calls.Wait()
		if rep.Fired != 0 || rep.verdict != complete {
			t.Errorf("%v with %d waves, though something came back every 100 ms", rep.verdict, rep.Fired)
		}
	})
}

func TestWhatMayHedge(t *testing.T) {
	for _, tt := range []struct {
		why    string
		change func(*Options)
		spent  int
		want   bool
	}{
		{"a calm node with budget", func(*Options) {}, 0, true},
		{"the stage is overloaded or its breaker half-open", func(o *Options) { o.Calm = func() bool { return false } }, 0, false},
		{"the budget is spent", func(*Options) {}, 100, false},
		{"hedging is switched off", func(o *Options) { o.Hedge = 0 }, 0, false},
		{"beta is none", func(o *Options) { o.Beta = 0 }, 0, false},
		{"the budget is none", func(o *Options) { o.HedgeBudget = 0 }, 0, false},
	} {
		synctest.Test(t, func(t *testing.T) {
			st := &stage{}
			n, order, _ := onStage(t, st, 20, tt.change)
			n.budget.charge(0, tt.spent, time.Now())
			for _, p := range order {
				st.takes[p] = 200 * time.Millisecond
			}
			rep := n.look(t.Context(), firstOf())
			n.calls.Wait()
			if hedged := rep.Fired > 0; hedged != tt.want {
				t.Errorf("%s: hedged is %v", tt.why, hedged)
			}
		})
	}
}

func TestALookupEndsByItsDeadlineWhateverHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, answering := range []int{0, 2, 20} {
			st := &stage{}
			n, order, table := onStage(t, st, 20)
			for i := range answering {
				st.takes[order[len(order)-1-i]] = time.Millisecond
			}
			ctx, cancel := context.WithTimeout(t.Context(), 900*time.Millisecond)
			q := firstOf()
			q.judge = nil
			rep := n.look(ctx, q)
			cancel()
			n.calls.Wait()
			if rep.Took > 900*time.Millisecond {
				t.Errorf("%d of 20 answer: it took %v", answering, rep.Took)
			}
			want := index404(answering)
			if got := n.outcome(ctx, rep); got != want {
				t.Errorf("%d of 20 answer: %v, want %v (%+v)", answering, got, want, rep.verdict)
			}
			if len(table.removed) > 0 {
				t.Errorf("%d of 20 answer: %d were taken out at once", answering, len(table.removed))
			}
		}
	})
}

func TestHangingPeersDoNotKeepTheSlots(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st := &stage{}
		n, order, _ := onStage(t, st, 20, func(o *Options) { o.HedgeBudget = 0 })
		for _, p := range order[3:] {
			st.takes[p] = time.Millisecond
		}
		rep := n.look(t.Context(), firstOf())
		n.calls.Wait()
		if rep.Took != 301*time.Millisecond || rep.verdict != enough {
			t.Errorf("%v after %v; without a hedge, those that hang give up their slots after 300ms", rep.verdict, rep.Took)
		}
	})
}

func TestWhoFailsIsTakenOutOnlyWhileOthersAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st := &stage{dead: true}
		n, _, table := onStage(t, st, 20)
		for range 5 {
			q := firstOf()
			if rep := n.look(t.Context(), q); rep.verdict != unreachable {
				t.Fatalf("nobody answers: %v", rep.verdict)
			}
		}
		n.calls.Wait()
		if len(table.removed) > 0 || len(n.memory.of) > 0 {
			t.Errorf("in an outage %d were taken out and %d remembered as bad", len(table.removed), len(n.memory.of))
		}
	})
	synctest.Test(t, func(t *testing.T) {
		st := &stage{}
		n, order, table := onStage(t, st, 20)
		for _, p := range order {
			st.takes[p] = time.Millisecond
		}
		ask := n.ask
		n.ask = func(ctx context.Context, p peer.ID, b []byte) (*pb.Message, error) {
			if p == order[0] {
				return nil, errors.New("refused")
			}
			return ask(ctx, p, b)
		}
		for range dropAfter {
			q := firstOf()
			q.judge = nil
			n.look(t.Context(), q)
		}
		n.calls.Wait()
		if !slices.Equal(table.removed, []peer.ID{order[0]}) {
			t.Errorf("taken out were %v, want the one that refused twice while others answered", table.removed)
		}
	})
}

func TestNoLookupBeginsOnceTheNodeCloses(t *testing.T) {
	d := openDevnet(t, 4)
	n := openNode(t, d, func(o *Options) { o.Path = t.TempDir() })
	for _, s := range d.nodes {
		s.Slow(20 * time.Millisecond)
	}
	var all sync.WaitGroup
	for range 4 { // as from /debug/explain/{key}?ask=true, whose listener closes last
		all.Go(func() {
			for i := 0; ; i++ {
				closes := n.ctx.Err() != nil
				err := discover(n, askFor(index.AskManifest, index.Sum([]byte{byte(i)}).String()))
				if closes {
					if err != index.Down {
						t.Errorf("a node that closes says %v, want down", err)
					}
					return
				}
			}
		})
	}
	time.Sleep(50 * time.Millisecond)
	if err := n.Close(); err != nil {
		t.Error(err)
	}
	all.Wait()
}
