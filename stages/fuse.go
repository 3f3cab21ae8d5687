package stages

import (
	"errors"
	"sync/atomic"
	"time"

	"github.com/sony/gobreaker/v2"

	"svcindex/index"
)

// Breaker says when a room is walked past because asking there is hopeless.
type Breaker struct {
	Window      time.Duration // over which calls are counted
	TripRatio   float64       // share of failures that opens it
	MinRequests uint32        // calls in the window before the ratio means anything
	Cooldown    time.Duration // open for so long, then probes
	Probes      uint32        // calls let through half-open; all must succeed
}

// A fuse is the breaker of one room. It measures the neighbour, not the
// question: Missing is success.
type fuse struct {
	Breaker
	two    *gobreaker.TwoStepCircuitBreaker[struct{}]
	opened atomic.Bool // the last it said of itself; an open one may be half-open by now
}

func newFuse(name string, b Breaker) *fuse {
	f := &fuse{Breaker: b}
	s := settings(name, b)
	s.OnStateChange = func(_ string, _, to gobreaker.State) { f.opened.Store(to == gobreaker.StateOpen) }
	f.two = gobreaker.NewTwoStepCircuitBreaker[struct{}](s)
	return f
}

func settings(name string, b Breaker) gobreaker.Settings {
	return gobreaker.Settings{
		Name:         name,
		MaxRequests:  b.Probes,
		Interval:     b.Window,
		BucketPeriod: b.Window / 10, // without buckets the window is a cliff: counts vanish all at once
		Timeout:      b.Cooldown,
		ReadyToTrip: func(c gobreaker.Counts) bool {
			n := c.Requests - min(c.TotalExclusions, c.Requests) // neutral calls are counted as requests, too
			return n >= b.MinRequests && float64(c.TotalFailures) >= b.TripRatio*float64(n)
		},
		IsSuccessful: func(err error) bool { return !failure(index.KindOf(err)) },
		IsExcluded:   func(err error) bool { return err == errNeutral },
	}
}

// errNeutral is the report of a call that says nothing about the place.
var errNeutral = errors.New("neutral")

// failure reports whether a step that ended so says that the place is unwell,
// rather than something about the question.
func failure(k index.Kind) bool {
	switch k {
	case index.Late, index.Down, index.Broken:
		return true
	}
	return false
}

// allow asks for a call. It returns where to report how the call ended, or an
// error when the fuse is open.
func (f *fuse) allow() (report func(error), err error) {
	report, err = f.two.Allow()
	if err != nil {
		return nil, err
	}
	return report, nil
}

// blown reports whether calls are refused. The breaker itself is asked only
// when it may be: it takes a lock and reads the clock, for every look-up.
func (f *fuse) blown() bool { return f.opened.Load() && f.two.State() == gobreaker.StateOpen }

// state returns the value of the breaker_state metric: 0 closed, 1 half-open,
// 2 open.
func (f *fuse) state() int { return breakerState(f.two.State()) }

func breakerState(s gobreaker.State) int {
	switch s {
	case gobreaker.StateHalfOpen:
		return 1
	case gobreaker.StateOpen:
		return 2
	}
	return 0
}
