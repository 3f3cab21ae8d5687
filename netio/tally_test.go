package netio

import (
	"testing"
	"time"

	"github.com/oklog/ulid/v2"

	"svcindex/index"
)

// A fresh correlation id is a ULID of its time, and no two are alike, also
// where a digit carries into the next.
func TestCorrelationIDsAreULIDs(t *testing.T) {
	var ids corrIDs
	ids.init()
	copy(ids.text[ulidTime:], "0000000000000ZZY")
	seen := map[string]bool{}
	for i := range 3000 {
		at := time.UnixMilli(1790000000000 + int64(i/1000))
		var s slot
		ids.give(&s, nil, at)
		got, err := ulid.ParseStrict(string(s.corr[:s.corrLen]))
		if err != nil {
			t.Fatal(err)
		}
		if ms := got.Time(); ms != uint64(at.UnixMilli()) {
			t.Fatalf("%v says %d ms, want %d", got, ms, at.UnixMilli())
		}
		if seen[got.String()] {
			t.Fatalf("%v was given twice", got)
		}
		seen[got.String()] = true
	}
}

// What a loop adds up arrives whole, and once.
func TestATallyTellsAllOnce(t *testing.T) {
	s := newBareServer(&fakeResolver{})
	c, _ := newBareConn(s)
	f := c.loop.newFlight(c)
	for i := range 3 {
		k := f.slot()
		k.route, k.method, k.status = index.RouteResolve, index.MethodGet, []int{200, 404, 429}[i]
		k.began = time.Now().Add(-time.Millisecond)
		c.loop.tally.inflight[k.route]++
		c.loop.count(k, time.Since(k.began))
	}
	for range 2 {
		c.loop.publish()
		n := s.counts
		got := [3]uint64{}
		for o := range got {
			got[o] = n.Requests[index.RouteResolve][index.MethodGet][o].Load()
		}
		if got != [3]uint64{2, 1, 0} {
			t.Errorf("counted %v, want 2 ok and 1 throttled", got)
		}
		h := &n.Latency[index.RouteResolve][index.MethodGet]
		if sum := time.Duration(h.Nanos.Load()); h.Above(500*time.Microsecond) != 3 || sum < 3*time.Millisecond || sum > time.Minute {
			t.Errorf("latencies: %d above 0.5 ms, %v in all; want 3 of at least 1 ms each", h.Above(500*time.Microsecond), sum)
		}
		if k := s.opt.Lookups.ResolveCID.Above(500 * time.Microsecond); k != 3 {
			t.Errorf("%d look-ups, want 3", k)
		}
		if k := n.Inflight[index.RouteResolve].Load(); k != 0 {
			t.Errorf("%d in flight, want none", k)
		}
	}
}

// BenchmarkCount is what counting costs a request: alone in its tick, and among
// 64.
func BenchmarkCount(b *testing.B) {
	for _, n := range []int{1, 64} {
		b.Run(map[int]string{1: "alone", 64: "among64"}[n], func(b *testing.B) {
			s := newBareServer(&fakeResolver{})
			c, _ := newBareConn(s)
			f := c.loop.newFlight(c)
			k := f.slot()
			k.route, k.method, k.status, k.began = index.RouteResolve, index.MethodGet, 200, time.Now()
			now := time.Now()
			for i := 0; b.Loop(); i++ {
				c.loop.tally.inflight[k.route]++
				c.loop.count(k, now.Sub(k.began))
				if i%n == 0 {
					c.loop.publish()
				}
			}
		})
	}
}

// Requests that come alone are ticked at once, but for every seventh; those that
// come together wait for the end of their round.
func TestWhoComesAloneIsTickedAtOnce(t *testing.T) {
	s := newBareServer(&fakeResolver{testPage(t)})
	c, gc := newBareConn(s)
	gc.context = c
	el := c.loop.el.(*fakeLoop)
	round := func(conns int) (answered int) {
		gc.out = nil
		for range conns {
			gc.in = []byte(hitHead)
			s.OnTraffic(gc)
			if gc.in == nil || len(gc.in) == 0 && len(gc.out) > 0 {
				answered++
			}
			c.flight = nil // as if another connection were next
		}
		if c.loop.ticking {
			c.loop.tick()
		}
		return answered
	}
	round(1) // nothing is known yet
	for _, tt := range []struct {
		why           string
		conns, rounds int
		asked         int
	}{
		{"alone", 1, 4 * lookAgain, 4},
		{"two a round, until it is noticed", 2, 4 * lookAgain, 4*lookAgain - 4},
	} {
		was := el.asked
		for range tt.rounds {
			round(tt.conns)
		}
		if got := el.asked - was; got < tt.asked-2 || got > tt.asked+4 {
			t.Errorf("%s: %d ticks were asked for in %d rounds, want about %d", tt.why, got, tt.rounds, tt.asked)
		}
	}
}
