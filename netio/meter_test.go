package netio

import (
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"svcindex/index"
)

func TestAMeterLetsThroughWhatWasAgreed(t *testing.T) {
	var m meter
	at := int64(5 * time.Second)
	for i := range 10 {
		if r := m.take(at, 10, time.Second); r.wait != 0 || r.left != 9-i || r.most != 10 {
			t.Fatalf("request %d: %+v", i, r)
		}
	}
	r := m.take(at, 10, time.Second)
	if r.wait != 100*time.Millisecond || r.full != time.Second || r.left != 0 {
		t.Errorf("the eleventh: %+v, want to wait 100 ms", r)
	}
	at += int64(r.wait)
	if r := m.take(at, 10, time.Second); r.wait != 0 || r.left != 0 {
		t.Errorf("after the wait it was told: %+v", r)
	}
	if r := m.take(at, 10, time.Second); r.wait == 0 {
		t.Errorf("and at once another: %+v", r)
	}
	if r := m.take(at, 1<<31, time.Second); r.wait != 0 && r.most == 0 {
		t.Errorf("more than one a nanosecond: %+v", r)
	}
	if r := m.take(at+int64(time.Hour), 10, time.Second); r.left != 9 || r.full != 100*time.Millisecond {
		t.Errorf("after an hour: %+v; a rest is worth one burst, not an hour's", r)
	}
}

func TestALimitChangedUnderWayHoldsAtOnce(t *testing.T) {
	var m meter
	for range 5 {
		m.take(0, 10, time.Second)
	}
	if r := m.take(0, 2, time.Second); r.wait != 0 || r.left != 0 {
		t.Errorf("half was used up, and two are allowed now: %+v, want the second", r)
	}
	if r := m.take(0, 2, time.Second); r.wait != 500*time.Millisecond {
		t.Errorf("a third of two: %+v", r)
	}
	if r := m.take(0, 1000, time.Second); r.wait != time.Millisecond {
		t.Errorf("all was used up, and a thousand are allowed: %+v, want a thousandth to wait", r)
	}
}

// However many ask at once, no more get through.
func TestManyTakeFromOneMeter(t *testing.T) {
	var m meter
	var through atomic.Int64
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			for range 1000 {
				if m.take(0, 100, time.Second).wait == 0 {
					through.Add(1)
				}
			}
		})
	}
	all.Wait()
	if n := through.Load(); n != 100 {
		t.Errorf("%d got through, want 100", n)
	}
}

// What is remembered of addresses is bounded, and is nothing once they owe
// nothing.
func TestAddressesAreForgotten(t *testing.T) {
	s := newBareServer(nil)
	d := &s.doors
	s.born = time.Now()
	come := func(ip string, owes time.Duration) {
		p := d.enter(ip)
		p.rate.paid.Store(s.clock(time.Now()) + int64(owes))
		d.leave(p)
	}
	come("a", 0)
	if len(d.peers) != 0 || len(d.gone) != 0 {
		t.Errorf("who owes nothing is remembered: %d, %d", len(d.peers), len(d.gone))
	}
	come("b", time.Hour)
	if p := d.enter("b"); !p.owes(s.clock(time.Now())) {
		t.Error("a new connection is a new start")
	} else {
		d.leave(p)
	}
	if len(d.gone) != 1 {
		t.Errorf("one address is in the list %d times", len(d.gone))
	}
	for i := range goneMost + 1000 {
		come(fmt.Sprint(i), time.Hour)
	}
	if len(d.peers) > goneMost+1 || len(d.peers) != len(d.gone) {
		t.Errorf("%d addresses are remembered, %d in the list, want %d at most", len(d.peers), len(d.gone), goneMost)
	}
	for _, p := range d.gone {
		p.rate.paid.Store(0)
	}
	for range goneMost {
		come("c", 0)
	}
	if len(d.peers) != 0 || len(d.gone) != 0 {
		t.Errorf("%d and %d are left when nobody owes anything", len(d.peers), len(d.gone))
	}
}

func TestMeasuringDoesNotAllocate(t *testing.T) {
	s := newBareServer(nil)
	s.born = time.Now()
	tuning := *s.opt.Dial.Now()
	tuning.Rate, tuning.RatePerIP, tuning.ResolvesPerMin, tuning.ProvidersPerMin = 1, 1, 1, 1
	s.opt.Dial.Turn(tuning)
	c, _ := newBareConn(s)
	c.peer, c.tuning = s.doors.enter("a"), s.opt.Dial.Now()
	sl, r := &slot{server: s}, &request{ask: index.AskResolve}
	buf := make([]byte, 0, 256)
	if n := testing.AllocsPerRun(100, func() {
		c.measure(sl, r, time.Now())
		buf = sl.appendLimit(buf[:0])
	}); n != 0 {
		t.Errorf("measuring allocates %v times, want 0", n)
	}
}

func BenchmarkMeasure(b *testing.B) {
	for _, on := range []int{0, 1 << 30} {
		b.Run(fmt.Sprint("limits=", on), func(b *testing.B) {
			s := newBareServer(nil)
			s.born = time.Now()
			tuning := *s.opt.Dial.Now()
			tuning.Rate, tuning.RatePerIP = on, on
			s.opt.Dial.Turn(tuning)
			c, _ := newBareConn(s)
			c.peer, c.tuning = s.doors.enter("a"), s.opt.Dial.Now()
			sl, r, now := &slot{server: s}, &request{ask: index.AskResolve}, time.Now()
			b.ReportAllocs()
			for b.Loop() {
				c.measure(sl, r, now)
			}
		})
	}
}
