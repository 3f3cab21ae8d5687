package faults

import (
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

const budget = 1200 * time.Millisecond // budget.resolve: how long a look-up has

// TestFaultFrozenDatabase freezes the database. What is in memory is served;
// what is not is never called absent.
func TestFaultFrozenDatabase(t *testing.T) {
	frozen := size(5*time.Second, 30*time.Second)
	s := start(t, options{env: []string{"RIG_DB_FREEZE=" + frozen.String()}, set: []string{"cache.ttl=5m"}})
	warm := s.publish("warm/", 20) // few: what was well in the last seconds delays the breaker
	cold := s.publish("cold/", 100)
	s.warm(warm)
	hits := s.stream(warm, 4, 4*time.Millisecond)

	s.freeze()
	began := time.Now()
	var got tally
	var slowest atomic.Int64
	var opened atomic.Bool
	var wg sync.WaitGroup
	for i := range 32 {
		l := s.dial(dialing{from: 2 + byte(i)})
		wg.Go(func() {
			for n := 0; time.Since(began) < frozen-2*time.Second; n++ {
				name := fmt.Sprintf("absent/%d/%d", i, n)
				if n%4 == 0 {
					name = cold[(i+n)%len(cold)]
				}
				asked := time.Now()
				a, err := l.ask(resolve(name))
				if err != nil {
					t.Errorf("asking a frozen server: %v", err)
					return
				}
				got.add(a.status)
				if !slices.Contains([]int{429, 503, 504}, a.status) {
					t.Errorf("a miss was answered %v while the database was frozen", a)
				}
				if a.status != 504 && a.retryAfter() < 1 {
					t.Errorf("%v without Retry-After", a)
				}
				took := time.Since(asked)
				for was := slowest.Load(); int64(took) > was && !slowest.CompareAndSwap(was, int64(took)); was = slowest.Load() {
				}
				time.Sleep(time.Until(asked.Add(50 * time.Millisecond)))
			}
		})
	}
	wg.Go(func() {
		for time.Since(began) < frozen-2*time.Second {
			if s.scrape().of("breaker_state", "db") == 2 {
				opened.Store(true)
			}
			time.Sleep(100 * time.Millisecond)
		}
	})
	wg.Wait()
	time.Sleep(time.Until(began.Add(frozen)))
	thawed := time.Now()
	recovered := s.recover(t, cold[0])
	took := hits.stop()

	t.Logf("frozen for %v: misses %v, slowest %v; %d hits, slowest %v; right again %v after the thaw",
		frozen, &got, time.Duration(slowest.Load()), hits.hits.Load(), quantile(took, 1), recovered.Sub(thawed))
	if *full && (!opened.Load() || got.of(503) == 0) { // in the short time a busy machine may not get there
		t.Errorf("the breaker never opened (state seen open: %v, 503s: %d)", opened.Load(), got.of(503))
	}
	if late := time.Duration(slowest.Load()) - budget; late > size(3*time.Second, 300*time.Millisecond) {
		t.Errorf("a miss was answered %v after its deadline", late)
	}
	if recovered.Sub(thawed) > size(10*time.Second, 5*time.Second) {
		t.Errorf("misses were answered again only %v after the thaw", recovered.Sub(thawed))
	}
	l := s.dial(dialing{})
	for i, name := range cold {
		l.want(t, resolve(name), 200)
		l.want(t, resolve(fmt.Sprint("absent/later/", i)), 404)
	}
	s.stop()
}

// recover waits until a present and an absent key are answered rightly and
// returns when they were. Until then only "not now" will do.
func (s *server) recover(t *testing.T, present string) time.Time {
	t.Helper()
	l := s.dial(dialing{})
	i := 0
	s.await("recovery", func() bool {
		i++
		absent := l.want(t, resolve(fmt.Sprint("absent/recover/", i)), 404, 429, 503, 504)
		here := l.want(t, resolve(present, "X-Corr-ID: r"), 200, 429, 503, 504)
		return absent.status == 404 && here.status == 200
	})
	return time.Now()
}
