package watch

import (
	"math"
	"runtime/metrics"
	"time"
)

// States are the goroutines by what they are at.
type States struct {
	Running  uint64 `json:"running"`
	Runnable uint64 `json:"runnable"` // could run, and wait for a processor
	Waiting  uint64 `json:"waiting"`  // for a lock, a channel, the network, the clock
	Calling  uint64 `json:"in_calls"` // in system calls or C
}

// A scheduler reads what the runtime says of its goroutines. None of it stops
// the world.
type scheduler struct {
	samples [5]metrics.Sample
	before  []uint64 // counts of the histogram at the look before
}

func newScheduler() *scheduler {
	s := new(scheduler)
	for i, name := range []string{
		"/sched/latencies:seconds", "/sched/goroutines/running:goroutines", "/sched/goroutines/runnable:goroutines",
		"/sched/goroutines/waiting:goroutines", "/sched/goroutines/not-in-go:goroutines",
	} {
		s.samples[i].Name = name
	}
	return s
}

// look returns the latencies since the look before, and the goroutines now.
func (s *scheduler) look() (sched, States) {
	metrics.Read(s.samples[:])
	g := func(i int) uint64 {
		if s.samples[i].Value.Kind() != metrics.KindUint64 {
			return 0
		}
		return s.samples[i].Value.Uint64()
	}
	states := States{g(1), g(2), g(3), g(4)}
	if s.samples[0].Value.Kind() != metrics.KindFloat64Histogram {
		return sched{}, states
	}
	h := s.samples[0].Value.Float64Histogram()
	first := s.before == nil
	if first {
		s.before = make([]uint64, len(h.Counts))
	}
	found := since(h, s.before)
	copy(s.before, h.Counts)
	if first {
		return sched{}, states // what was before anybody looked is nobody's interval
	}
	return found, states
}

// since returns how many values h has more than before, and their p99, as the
// lower bound of its bucket: what is said is at least true.
func since(h *metrics.Float64Histogram, before []uint64) (s sched) {
	for i, n := range h.Counts {
		s.waits += n - before[i]
	}
	above := s.waits / 100 // values that may lie above the p99
	for i := len(h.Counts) - 1; i >= 0 && s.waits > 0; i-- {
		n := h.Counts[i] - before[i]
		if n > above {
			if b := h.Buckets[i]; !math.IsInf(b, 0) {
				s.p99 = time.Duration(b * float64(time.Second))
			}
			break
		}
		above -= n
	}
	return s
}
