package loadgen

import (
	"math"
	"testing"
	"time"
)

func TestPacersAreExact(t *testing.T) {
	const s, ms = time.Second, time.Millisecond
	steps := Steps{Rates: []float64{100, 200, 50}, Each: s}
	ramp := Ramp{From: 0, To: 100, Over: 2 * s}
	for _, tt := range []struct {
		why   string
		pacer Pacer
		n     float64
		want  time.Duration
	}{
		{"the first is due at once", Constant(1000), 0, 0},
		{"i is due at i/rate", Constant(1000), 7, 7 * ms},
		{"no error adds up in a day at 1/3 of a nanosecond's multiple", Constant(3), 3 * 86400, 86400 * s},
		{"a rate below one works", Constant(0.5), 3, 6 * s},
		{"the first step", steps, 99, 990 * ms},
		{"a step begins where the last one ended", steps, 100, s},
		{"the second step", steps, 101, s + 5*ms},
		{"the third step", steps, 301, 2*s + 20*ms},
		{"the last step goes on", steps, 400, 4 * s},
		{"a ramp from zero begins at once", ramp, 0, 0},
		{"half the time is a quarter of the work", ramp, 25, s},
		{"the end of the ramp", ramp, 100, 2 * s},
		{"after the ramp the rate stays", ramp, 150, 2*s + 500*ms},
		{"a ramp may go down", Ramp{From: 100, To: 0.001, Over: 2 * s}, 75.00025, s},
		{"a flat ramp is constant", Ramp{From: 10, To: 10, Over: s}, 5, 500 * ms},
		{"a warm-up comes first", after{Constant(100), s}, 50, 500 * ms},
		{"the profile begins when the warm-up ends", after{Constant(100), s}, 100, s},
		{"a warm-up stretches to a whole number of requests", after{Constant(3), 500 * ms}, 2, 500 * ms},
		{"a ramp is warmed up at its first rate", after{Ramp{From: 10, To: 20, Over: s}, s}, 5, 500 * ms},
	} {
		if got := tt.pacer.When(tt.n); got != tt.want {
			t.Errorf("%s: %#v.When(%v) = %v, want %v", tt.why, tt.pacer, tt.n, got, tt.want)
		}
	}
}

func TestRatesAreThoseMeant(t *testing.T) {
	const s = time.Second
	steps := Steps{Rates: []float64{100, 200}, Each: s}
	ramp := Ramp{From: 100, To: 200, Over: 2 * s}
	for _, tt := range []struct {
		why   string
		pacer Pacer
		at    time.Duration
		want  float64
	}{
		{"constant", Constant(5), 9 * s, 5},
		{"first step", steps, s - 1, 100},
		{"second step", steps, s, 200},
		{"steps that last nothing", Steps{Rates: []float64{1, 2}}, s, 2},
		{"last step for ever", steps, 99 * s, 200},
		{"ramp, half way", ramp, s, 150},
		{"ramp, afterwards", ramp, 3 * s, 200},
		{"warm-up at the first rate", after{ramp, s}, s / 2, 100},
		{"and then the profile", after{ramp, s}, 2 * s, 150},
	} {
		if got := tt.pacer.Rate(tt.at); got != tt.want {
			t.Errorf("%s: Rate(%v) = %v, want %v", tt.why, tt.at, got, tt.want)
		}
	}
}

func TestWhenIsTheInverseOfTheRate(t *testing.T) {
	for _, p := range []Pacer{
		Constant(750), Ramp{From: 100, To: 5000, Over: 3 * time.Second}, Ramp{From: 5000, To: 100, Over: 3 * time.Second},
		Steps{Rates: []float64{10, 1000, 400}, Each: time.Second},
	} {
		last := time.Duration(-1)
		for n := range 5000 {
			at := p.When(float64(n))
			if at < last {
				t.Fatalf("%#v: request %d is due at %v, before the one before it at %v", p, n, at, last)
			}
			last = at
		}
	}
}

func TestThreadsShareAnEvenScheduleWithoutGapOrDouble(t *testing.T) {
	const threads = 3
	due := map[time.Duration]int{}
	for k := range threads {
		a := newArrivals(Constant(1000), false, 1, k, threads)
		for range 100 {
			due[a.next()]++
		}
	}
	for i := range 100 * threads {
		if n := due[time.Duration(i)*time.Millisecond]; n != 1 {
			t.Errorf("request %d is due %d times", i, n)
		}
	}
}

func TestPoissonArrivalsHaveTheRateAndTheSpread(t *testing.T) {
	const rate, threads, n = 1000.0, 4, 50_000
	for k := range threads {
		a, b := newArrivals(Constant(rate), true, 7, k, threads), newArrivals(Constant(rate), true, 7, k, threads)
		var last time.Duration
		var sum, squares float64
		for range n {
			at := a.next()
			if at != b.next() {
				t.Fatal("the same seed gave two schedules")
			}
			gap := (at - last).Seconds()
			sum, squares, last = sum+gap, squares+gap*gap, at
		}
		mean := sum / n
		deviation := math.Sqrt(squares/n - mean*mean)
		if want := threads / rate; math.Abs(mean/want-1) > 0.02 || math.Abs(deviation/want-1) > 0.02 {
			t.Errorf("thread %d: mean gap %v, deviation %v, want both %v", k, mean, deviation, want)
		}
	}
}

func TestSchedulingAllocatesNothing(t *testing.T) {
	a := newArrivals(after{Ramp{From: 1, To: 1e6, Over: time.Hour}, time.Second}, true, 1, 0, 1)
	if n := testing.AllocsPerRun(1000, func() { a.next() }); n != 0 {
		t.Errorf("an arrival allocates %v times, want 0", n)
	}
}
