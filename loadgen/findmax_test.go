package loadgen

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"
)

// pretend is a server with a limit, behind a generator with one.
func pretend(limit, generator float64) func(context.Context, float64, time.Duration) (*Report, error) {
	return func(_ context.Context, rate float64, d time.Duration) (*Report, error) {
		r := &Report{Requests: Requests{Due: 1000, Rate: rate}, Response: Latency{Count: 1000, P99: 1000}}
		if rate > limit {
			r.Response.P99 = 1e6
		}
		if rate > generator {
			r.Generator.Busiest = 1
		}
		r.judge()
		return r, nil
	}
}

func search(t *testing.T) *Search {
	t.Helper()
	o, err := ParseObjective("p99<10ms")
	if err != nil {
		t.Fatal(err)
	}
	return &Search{Start: 1000, Objective: o, Each: time.Second}
}

func TestFindMax(t *testing.T) {
	const inf = 1e12
	for _, tt := range []struct {
		why              string
		limit, generator float64
		low, high        float64
		valid            bool
	}{
		{"the server is the limit", 23_456, inf, 22_000, 23_456, true},
		{"it is below the start", 300, inf, 280, 300, true},
		{"it is two a second", 2, inf, 2, 2, true},
		{"nothing holds", 0, inf, 0, 0, true},
		{"the generator is the limit", inf, 10_000, 9_400, 10_000, false},
		{"both, the server first", 9_000, 12_000, 8_500, 9_000, true},
	} {
		s := search(t)
		m, err := s.FindMax(t.Context(), pretend(tt.limit, tt.generator))
		if err != nil {
			t.Errorf("%s: %v", tt.why, err)
			continue
		}
		if m.Rate < tt.low || m.Rate > tt.high || m.Valid != tt.valid {
			t.Errorf("%s: %.0f, valid %v (%s); want %.0f to %.0f, %v", tt.why, m.Rate, m.Valid, m.Why, tt.low, tt.high, tt.valid)
		}
		if last := m.Curve[len(m.Curve)-1]; m.Rate > 0 && (!last.Hold || !last.Held || last.Rate != m.Rate) {
			t.Errorf("%s: the last try was %+v, want the maximum confirmed", tt.why, last)
		}
	}
}

func TestAMaximumThatDoesNotHoldIsLowered(t *testing.T) {
	steady := pretend(10_000, 1e12)
	run := func(ctx context.Context, rate float64, d time.Duration) (*Report, error) {
		if d > time.Second { // it can do less for longer
			rate /= 0.9
		}
		return steady(ctx, rate, d)
	}
	m, err := search(t).FindMax(t.Context(), run)
	if err != nil || m.Rate < 8_000 || m.Rate > 9_000 {
		t.Errorf("%+v, %v; want about 9,000, what holds for longer", m, err)
	}
}

func TestADisturbedTryIsRepeated(t *testing.T) {
	calls, steady := 0, pretend(10_000, 1e12)
	run := func(ctx context.Context, rate float64, d time.Duration) (*Report, error) {
		r, err := steady(ctx, rate, d)
		if calls++; calls%3 == 1 {
			r.Generator.Lag.P99 = 40_000
			r.judge()
		}
		return r, err
	}
	m, err := search(t).FindMax(t.Context(), run)
	if err != nil || !m.Valid || m.Rate < 9_400 || m.Rate > 10_000 {
		t.Errorf("%+v, %v; want some 10,000, whatever disturbed a third of the runs", m, err)
	}
}

// A server that holds for a second and not for three has a maximum of none, but
// it would be untrue that no rate held.
func TestAMaximumThatNeverHoldsSaysSo(t *testing.T) {
	steady := pretend(10_000, 1e12)
	m, err := search(t).FindMax(t.Context(), func(ctx context.Context, rate float64, d time.Duration) (*Report, error) {
		if d > time.Second {
			rate = 1e9
		}
		return steady(ctx, rate, d)
	})
	if err != nil || m.Rate != 0 || !m.Valid {
		t.Fatalf("%+v, %v", m, err)
	}
	var b strings.Builder
	if m.WriteText(&b); !strings.Contains(b.String(), "none: a rate held for 1s, and none of 4 near it") {
		t.Errorf("it says %q", &b)
	}
}

func TestAnInterruptedSearchKeepsItsCurve(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	steady := pretend(1e6, 1e12)
	m, err := search(t).FindMax(ctx, func(_ context.Context, rate float64, d time.Duration) (*Report, error) {
		if rate > 3000 {
			cancel()
		}
		return steady(t.Context(), rate, d)
	})
	if !errors.Is(err, context.Canceled) || m == nil || len(m.Curve) != 2 || m.Valid || m.Rate != 0 || m.Why != "interrupted" {
		t.Errorf("%+v, %v; want the two tries before the interrupt", m, err)
	}
}

func TestASearchEndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := search(t).FindMax(ctx, pretend(1e4, 1e12)); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v, want canceled", err)
	}
}

func TestFillSendsEachKeyUntilItIsTaken(t *testing.T) {
	s := serveFake(t, &fakeServer{status: func(n int64) int {
		if n%3 == 0 {
			return 429
		}
		return 201
	}})
	cfg := s.config(1, time.Second)
	cfg.Threads = 2
	f := Filling{Host: "h", Done: func(status int) bool { return status == 201 },
		Endpoints: []Endpoint{{Name: "names", Method: "PUT", Path: "/names/", Keys: Numbered{"name:k/", 100}}}}
	if err := Fill(t.Context(), cfg, f); err != nil {
		t.Fatal(err)
	}
	if n := s.asked.Load(); n < 145 || n > 155 {
		t.Errorf("%d requests for 100 keys of which a third is refused each time, want about 150", n)
	}
}

func TestFillDoesNotRepeatWhatWouldNotHelp(t *testing.T) {
	s := serveFake(t, &fakeServer{status: func(int64) int { return 401 }})
	f := Filling{Host: "h", Done: func(status int) bool { return status == 201 },
		Endpoints: []Endpoint{{Name: "names", Method: "PUT", Path: "/names/", Keys: Numbered{"name:k/", 100}}}}
	err := Fill(t.Context(), s.config(1, time.Second), f)
	if n := s.asked.Load(); err == nil || !strings.Contains(err.Error(), "100 of 100 were not taken: 401") || n != 100 {
		t.Errorf("%v after %d requests; want the 401 of each said once", err, n)
	}
}

// A conflict means that a key is there: it is no reason for what is not.
func TestTheReasonOfAFillIsARefusal(t *testing.T) {
	r := &Report{Codes: []Split{{Name: "201"}, {Name: "409", Example: "it is there"}, {Name: "503", Example: "draining"}}}
	err := r.firstRefusal(func(status int) bool { return status == 201 || status == 409 })
	if err == nil || !strings.Contains(err.Error(), "503: draining") || errors.Is(err, errFinal) {
		t.Errorf("%v, want the 503, after which trying again may help", err)
	}
}

func TestAFillDoesNotWaitForAServerThatIsGone(t *testing.T) {
	t0 := time.Now()
	s := silence{since: t0, most: 15 * time.Second}
	for _, tt := range []struct {
		at       int // seconds
		answered int64
		over     bool
	}{{14, 0, false}, {15, 1, false}, {30, 1, false}, {31, 1, true}, {32, 2, true}} {
		if over := s.over(tt.answered, t0.Add(time.Duration(tt.at)*time.Second)); over != tt.over {
			t.Errorf("after %d s, with %d answered: over %v, want %v", tt.at, tt.answered, over, tt.over)
		}
	}
}
