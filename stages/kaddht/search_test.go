package kaddht

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"testing"

	pb "github.com/libp2p/go-libp2p-kad-dht/pb"
	"github.com/libp2p/go-libp2p/core/peer"
	"pgregory.net/rapid"
)

func id(i int) peer.ID { return peer.ID(fmt.Sprint("peer ", i)) }

func everybodyGood(peer.ID) grade { return good }

func hear(ids ...int) (hs []heard) {
	for _, i := range ids {
		hs = append(hs, heard{id: id(i)})
	}
	return hs
}

func count(n int) (ids []int) {
	for i := range n {
		ids = append(ids, i)
	}
	return ids
}

// sendAll asks whom it may ask now.
func sendAll(s *search) (cs []*candidate) {
	for c := s.next(); c != nil; c = s.next() {
		cs = append(cs, c)
	}
	return cs
}

func TestASearchKeepsAlphaInFlightAndWidensWhenTold(t *testing.T) {
	s := newSearch([]byte("k"), "self", 3, ruleManifest, everybodyGood)
	s.offer(1, hear(count(20)...))
	first := sendAll(s)
	if len(first) != 3 || first[0].hedge {
		t.Fatalf("%d were asked at first, want 3 that are no hedges", len(first))
	}
	s.widen(2)
	if more := sendAll(s); len(more) != 2 || !more[0].hedge || !more[1].hedge {
		t.Fatalf("widened by 2, it asks %d", len(more))
	}
	s.fail(first[0])
	if more := sendAll(s); len(more) != 1 || more[0].hedge {
		t.Errorf("one of the first wave came back: %d asked, want 1 in its place, no hedge", len(more))
	}
}

func TestVerdicts(t *testing.T) {
	type answer struct {
		finds int
		fails bool
	}
	yes, no, fails := answer{finds: 1}, answer{}, answer{fails: true}
	surely := rule{most: 1, nearest: 3, absent: 10, sends: 40}
	for _, tt := range []struct {
		why     string
		rule    rule
		peers   int
		answers []answer // in the order the peers are asked; the last goes on for ever
		want    verdict
		sent    int
	}{
		{"a manifest: the first valid one is enough", ruleManifest, 20, []answer{no, yes}, enough, 4},
		{"a manifest: the nearest 3 have not got it", ruleManifest, 20, []answer{no}, complete, 5},
		{"those who came later than what was stored are nearest: the ones behind them have it", surely, 20, []answer{no, no, no, no, yes}, enough, 10},
		{"nobody of half the bucket has it", surely, 20, []answer{no}, complete, 10},
		{"nor does anybody of a network that is smaller", surely, 5, []answer{no}, complete, 5},
		{"what the nearest have needs nobody else", rule{most: 2, nearest: 3, absent: 10, sends: 40}, 20, []answer{no, yes, no}, complete, 5},
		{"a name: one record is not enough, the nearest 3 are", ruleName, 20, []answer{yes, no, no}, complete, 5},
		{"a name: 3 valid records", ruleName, 20, []answer{yes, yes, yes}, enough, 5},
		{"providers: one, and any 3 answered", ruleProviders, 20, []answer{no, no, yes}, enough, 5},
		{"providers: many at once", ruleProviders, 20, []answer{{finds: providersMax}}, enough, 3},
		{"nobody answers", ruleManifest, 5, []answer{fails}, unreachable, 5},
		{"there is nobody", ruleManifest, 0, nil, unreachable, 0},
		{"those that fail do not count among the nearest", ruleManifest, 6, []answer{fails, no, fails, no, no}, complete, 6},
		{"two answers and a failure are no proof of absence", ruleManifest, 3, []answer{no, no, fails}, unsure, 3},
		{"nor are ten, where more than a quarter of the nearest is silent", surely, 20, []answer{no, fails, no, fails, no, fails, no, fails, no}, unsure, 14},
		{"with a quarter they are", surely, 20, []answer{no, fails, no, fails, no, fails, no}, complete, 13},
		{"in a network of two they are", ruleManifest, 2, []answer{no, no}, complete, 2},
		{"what is found is found, though somebody failed", ruleName, 3, []answer{yes, no, fails}, complete, 3},
		{"it costs no more than it may", rule{most: 1, nearest: 30, sends: 7}, 20, []answer{no}, complete, 7},
	} {
		s := newSearch([]byte("k"), "self", 3, tt.rule, everybodyGood)
		s.offer(1, hear(count(tt.peers)...))
		flying := sendAll(s)
		for i := 0; len(flying) > 0 && s.verdict() == going; i++ {
			c := flying[0]
			if a := tt.answers[min(i, len(tt.answers)-1)]; a.fails {
				s.fail(c)
			} else {
				s.answer(c, nil, a.finds)
			}
			flying = append(flying[1:], sendAll(s)...)
		}
		if s.verdict() != tt.want || s.sent != tt.sent {
			t.Errorf("%s: %v after %d requests, want %v after %d", tt.why, s.verdict(), s.sent, tt.want, tt.sent)
		}
	}
}

func TestTheSlowAreAskedAfterTheirNeighboursTheBrokenLast(t *testing.T) {
	s := newSearch([]byte("k"), "self", 1, ruleManifest, everybodyGood)
	s.offer(1, hear(count(20)...))
	order := s.near
	grades := map[peer.ID]grade{order[0].id: slow, order[1].id: broken}
	s = newSearch([]byte("k"), "self", 1, ruleManifest, func(p peer.ID) grade { return grades[p] })
	s.offer(1, hear(count(20)...))
	c := s.next()
	if c.id != order[2].id {
		t.Errorf("first is the %v one", grades[c.id])
	}
	only := map[peer.ID]grade{id(1): broken, id(2): broken}
	s = newSearch([]byte("k"), "self", 3, ruleManifest, func(p peer.ID) grade { return only[p] })
	s.offer(1, hear(1, 2))
	if asked := sendAll(s); len(asked) != 1 {
		t.Errorf("with nobody else left, %d broken peers are asked at once, want 1", len(asked))
	}
}

// Who was slow a moment ago is asked last, but where it is many of the nearest,
// nothing is absent without them.
func TestTheSlowAreAskedBeforeAThingIsAbsent(t *testing.T) {
	surely := rule{most: 1, nearest: 3, absent: 10, sends: 40}
	for _, tt := range []struct {
		why   string
		grade grade
		want  verdict
		found bool
	}{
		{"one that is slow has it", slow, enough, true},
		{"those that have it are left alone", broken, unsure, false},
	} {
		s := newSearch([]byte("k"), "self", 3, surely, everybodyGood)
		s.offer(1, hear(count(20)...))
		order := s.near
		holds := map[peer.ID]bool{}
		for i := 3; i < 13; i += 2 {
			holds[order[i].id] = true
		}
		s = newSearch([]byte("k"), "self", 3, surely, func(p peer.ID) grade {
			if holds[p] {
				return tt.grade
			}
			return good
		})
		s.offer(1, hear(count(20)...))
		for flying := sendAll(s); len(flying) > 0 && s.verdict() == going; flying = append(flying[1:], sendAll(s)...) {
			finds := 0
			if holds[flying[0].id] {
				finds = 1
			}
			s.answer(flying[0], nil, finds)
		}
		if s.verdict() != tt.want || s.finds > 0 != tt.found {
			t.Errorf("%s: %v, %d found; want %v", tt.why, s.verdict(), s.finds, tt.want)
		}
	}
}

func TestTheOverdueAreWaitedForBeforeAThingIsAbsent(t *testing.T) {
	s := newSearch([]byte("k"), "self", 3, rule{most: 1, nearest: 3, absent: 10, sends: 40}, everybodyGood)
	s.offer(1, hear(count(20)...))
	late := map[peer.ID]bool{}
	for i := 4; i < 12; i += 2 { // four of the nearest thirteen
		late[s.near[i].id] = true
	}
	var waits []*candidate
	for flying := sendAll(s); len(flying) > 0; flying = append(flying[1:], sendAll(s)...) {
		if c := flying[0]; late[c.id] {
			s.passOver(c)
			waits = append(waits, c)
		} else {
			s.answer(c, nil, 0)
		}
	}
	if s.verdict() != going || len(waits) != 4 {
		t.Fatalf("%v while %d are overdue, want %v while 4 are", s.verdict(), len(waits), going)
	}
	for _, c := range waits {
		s.answer(c, nil, 0)
	}
	if s.verdict() != complete {
		t.Errorf("%v once they have answered, want %v", s.verdict(), complete)
	}
}

// Where a key has few holders, one that is silent is not more than may be.
func TestOfAFewHoldersOneMayBeSilent(t *testing.T) {
	s := newSearch([]byte("k"), "self", 3, rule{most: 1, nearest: 3, absent: 2, sends: 40}, everybodyGood)
	s.offer(1, hear(count(4)...))
	s.fail(s.next())
	for c := s.next(); c != nil; c = s.next() {
		s.answer(c, nil, 0)
	}
	if s.verdict() != complete {
		t.Errorf("%v, want %v", s.verdict(), complete)
	}
}

func TestALiarIsNotHeardOutAndNobodyIsNamedTwice(t *testing.T) {
	s := newSearch([]byte("k"), "self", 3, ruleManifest, everybodyGood)
	s.offer(1, hear(1, 1, 1))
	s.offer(1, []heard{{id: "self"}, {id: ""}})
	if len(s.near) != 1 {
		t.Fatalf("%d candidates, want 1", len(s.near))
	}
	c := s.next()
	s.answer(c, hear(count(5000)...), 0)
	if len(s.near) > candidatesMax {
		t.Errorf("%d candidates after one answer", len(s.near))
	}
	if n := heardMax + 1; len(s.near) > n {
		t.Errorf("%d candidates, of one answer at most %d are heard", len(s.near), heardMax)
	}
	for _, c := range s.near {
		if c.id == id(1) && c.state != answered {
			t.Error("who has answered is to be asked again")
		}
	}
}

// What an answer names is remembered and shown: a liar must not choose how much
// that is.
func TestWhatIsHeardOfOneAnswerIsBounded(t *testing.T) {
	m := &pb.Message{CloserPeers: []*pb.Message_Peer{{Id: bytes.Repeat([]byte{1}, 1<<20)}, nil, {Id: []byte("fit")}}}
	if hs := named(m); len(hs) != 2 || hs[1].id != "fit" {
		t.Errorf("%d peers are heard, want the two with an id of a size", len(hs))
	}
	m.CloserPeers = []*pb.Message_Peer{{Id: []byte("a"), Addrs: [][]byte{make([]byte, 1<<20)}}, {Id: []byte("b"), Addrs: make([][]byte, 1<<16)}, {Id: []byte("c"), Addrs: [][]byte{make([]byte, 40)}}}
	if hs := named(m); hs[0].addrs != nil || hs[1].addrs != nil || len(hs[2].addrs) != 1 {
		t.Errorf("heard are %d, %d and %d addresses; want those of the third", len(hs[0].addrs), len(hs[1].addrs), len(hs[2].addrs))
	}
	for i := range 5000 {
		m.CloserPeers = append(m.CloserPeers, &pb.Message_Peer{Id: []byte(id(i))})
	}
	if hs := named(m); len(hs) > heardMax || cap(hs) > heardMax {
		t.Errorf("%d peers are heard of one answer, at most %d count", len(hs), heardMax)
	}
}

// A world is a network for a property: who knows whom, who answers, who has it.
type world struct {
	knows [][]int
	dead  []bool
	has   []int // finds of each
}

func drawWorld(t *rapid.T) world {
	n := rapid.IntRange(0, 40).Draw(t, "nodes")
	w := world{knows: make([][]int, n), dead: make([]bool, n), has: make([]int, n)}
	for i := range n {
		w.knows[i] = rapid.SliceOfN(rapid.IntRange(0, n-1), 0, 25).Draw(t, "knows")
		w.dead[i] = rapid.IntRange(0, 3).Draw(t, "dead") == 0
		w.has[i] = max(rapid.IntRange(-6, 2).Draw(t, "has"), 0)
	}
	return w
}

// run walks a world with answers in the order of r, and reports every peer that
// was asked.
func (w world) run(s *search, r *rand.Rand, each func(*candidate)) {
	index := map[peer.ID]int{}
	for i := range w.knows {
		index[id(i)] = i
	}
	s.offer(1, hear(count(len(w.knows)/3)...))
	var flying []*candidate
	for {
		if r.IntN(4) == 0 {
			s.widen(2)
		}
		for c := s.next(); c != nil; c = s.next() {
			each(c)
			flying = append(flying, c)
		}
		if s.verdict() != going || len(flying) == 0 {
			return
		}
		at := r.IntN(len(flying))
		c := flying[at]
		flying = append(flying[:at], flying[at+1:]...)
		if i := index[c.id]; w.dead[i] {
			s.fail(c)
		} else {
			s.answer(c, hear(w.knows[i]...), w.has[i])
		}
	}
}

func TestASearchIsBoundedAndAsksNobodyTwice(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := drawWorld(t)
		r := rapid.SampledFrom([]rule{ruleManifest, ruleName, ruleProviders, ruleClosest, {most: 1, nearest: 3, absent: 10, sends: 40}}).Draw(t, "rule")
		seed := rapid.Uint64().Draw(t, "order")
		bad := rapid.SliceOfN(rapid.IntRange(0, 2), 41, 41).Draw(t, "grades")
		s := newSearch([]byte("k"), "self", rapid.IntRange(1, 5).Draw(t, "alpha"), r, func(p peer.ID) grade {
			i := 0
			_, _ = fmt.Sscan(string(p)[5:], &i)
			return grade(bad[i%41])
		})
		asked := map[peer.ID]bool{}
		w.run(s, rand.New(rand.NewPCG(seed, 1)), func(c *candidate) {
			if asked[c.id] {
				t.Fatalf("%s is asked twice", c.id)
			}
			asked[c.id] = true
		})
		if s.sent > r.sends || s.sent != len(asked) {
			t.Fatalf("%d requests, at most %d; %d peers", s.sent, r.sends, len(asked))
		}
		if s.verdict() == going {
			t.Fatal("nothing is under way and nobody is left to ask, and it goes on")
		}
		for i := 1; i < len(s.near); i++ {
			if string(s.near[i-1].far[:]) >= string(s.near[i].far[:]) {
				t.Fatal("candidates are out of order")
			}
		}
	})
}

// Where everybody knows everybody and nobody fails, who answers first must not
// decide whether a thing exists.
func TestTheOrderOfAnswersDoesNotDecideWhetherAThingExists(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := drawWorld(t)
		n := len(w.knows)
		holders := rapid.IntRange(0, 1).Draw(t, "held")
		near := newSearch([]byte("k"), "self", 3, ruleManifest, everybodyGood)
		near.offer(1, hear(count(n)...))
		for i := range n {
			w.knows[i], w.dead[i], w.has[i] = count(n)[:min(n, 20)], false, 0
		}
		for i, c := range near.near { // the nearest hold it, as after a publication
			if i < 3 {
				var at int
				_, _ = fmt.Sscan(string(c.id)[5:], &at)
				w.has[at] = holders
			}
		}
		var found [2]bool
		for i := range found {
			s := newSearch([]byte("k"), "self", 3, ruleManifest, everybodyGood)
			s.offer(1, hear(count(n)...))
			w.run(s, rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "order"), 2)), func(*candidate) {})
			found[i] = s.finds > 0
		}
		if found[0] != found[1] || found[0] != (holders > 0 && n > 0) {
			t.Fatalf("found: %v, held: %d, by %d nodes", found, holders, n)
		}
	})
}
