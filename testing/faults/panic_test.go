package faults

import (
	"fmt"
	"strings"
	"sync"
	"testing"
)

// TestFaultPanic asks for a key whose look-up panics. It costs that request an
// answer of 500 and nobody else anything.
func TestFaultPanic(t *testing.T) {
	s := start(t, options{env: []string{"RIG_BOOM=name:boom"}})
	names := s.publish("calm/", 200)
	before := s.scrape()
	const booms = 10 // among many others, so that the breaker stays closed
	var wg sync.WaitGroup
	for i := range 4 {
		l := s.dial(dialing{})
		wg.Go(func() {
			for n := i; n < len(names); n += 4 {
				l.want(t, resolve(names[n]), 200)
				l.want(t, resolve(fmt.Sprint("absent/", n)), 404)
			}
		})
	}
	l := s.dial(dialing{})
	for i := range booms {
		id := fmt.Sprint("boom-", i)
		a := l.want(t, resolve("boom", "X-Corr-ID: "+id), 500)
		if a.field("code") != "internal" || a.field("corr_id") != id || a.head["x-corr-id"] != id {
			t.Errorf("a panic was answered %v, want code internal and corr_id %s", a, id)
		}
		if a.close() {
			t.Error("a panic in a stage closed the connection")
		}
		l.want(t, resolve(fmt.Sprint("between/", i)), 404)
	}
	// In the middle of a pipeline it has its own place.
	for _, want := range []int{200, 500, 404} {
		if want == 200 {
			if _, err := l.Write([]byte(resolve(names[0]) + resolve("boom") + resolve("absent/last"))); err != nil {
				t.Fatal(err)
			}
		}
		if a, err := l.answer(); err != nil || a.status != want {
			t.Errorf("in a pipeline: %v %v, want %d", a, err, want)
		}
	}
	wg.Wait()
	after := s.scrape()
	if n := after.of("stage_panics_total", "db") - before.of("stage_panics_total", "db"); n != booms+1 {
		t.Errorf("stage_panics_total moved by %d, want %d", n, booms+1)
	}
	total := `stage_workers{stage="db",state="total"}`
	busy := `stage_workers{stage="db",state="busy"}`
	if after[busy] != 0 || after[total] < before[total] {
		t.Errorf("workers: busy %v, total %v, before %v; one was lost", after[busy], after[total], before[total])
	}
	for i := range booms {
		if !strings.Contains(s.said(), fmt.Sprint("boom-", i)) {
			t.Errorf("no log line has the corr_id boom-%d", i)
		}
	}
	s.stop()
}
