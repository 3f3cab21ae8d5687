package loadgen

import (
	"math"
	"time"
)

// A Pacer says when work is due. It is a pure function: it has no clock and no
// memory, so a schedule can be computed ahead, split and tested.
type Pacer interface {
	// When returns how long after the start the nth unit of work is due. It
	// never decreases with n. Fractions of a unit have their instants too,
	// which is what lets random arrivals follow any profile.
	When(n float64) time.Duration

	// Rate returns the rate, in requests a second, that is meant at an instant.
	Rate(at time.Duration) float64
}

// A Constant is a rate that never changes: n is due at n/rate.
type Constant float64

// When implements Pacer.
func (c Constant) When(n float64) time.Duration { return seconds(n / float64(c)) }

// Rate implements Pacer.
func (c Constant) Rate(time.Duration) float64 { return float64(c) }

// A Ramp goes from one rate to another in a straight line, and stays there.
//
//	To   ........______
//	         _--'
//	From _--'
//	     0       Over
type Ramp struct {
	From, To float64
	Over     time.Duration
}

// When implements Pacer. The work done by t is From*t + slope*t^2/2, solved
// for t in the form that does not cancel when the slope is small.
func (r Ramp) When(n float64) time.Duration {
	over := r.Over.Seconds()
	whole := (r.From + r.To) / 2 * over
	if n >= whole {
		return r.Over + seconds((n-whole)/r.To)
	}
	slope := (r.To - r.From) / over
	root := math.Sqrt(max(r.From*r.From+2*slope*n, 0))
	if r.From+root == 0 {
		return 0 // only at n = 0 of a ramp from zero
	}
	return seconds(2 * n / (r.From + root))
}

// Rate implements Pacer.
func (r Ramp) Rate(at time.Duration) float64 {
	if at >= r.Over {
		return r.To
	}
	return r.From + (r.To-r.From)*at.Seconds()/r.Over.Seconds()
}

// Steps holds each of its rates for the same time, and the last one for ever.
type Steps struct {
	Rates []float64
	Each  time.Duration
}

// When implements Pacer.
func (s Steps) When(n float64) time.Duration {
	var at time.Duration
	last := len(s.Rates) - 1
	for _, rate := range s.Rates[:last] {
		work := rate * s.Each.Seconds()
		if n < work {
			return at + seconds(n/rate)
		}
		n -= work
		at += s.Each
	}
	return at + seconds(n/s.Rates[last])
}

// Rate implements Pacer.
func (s Steps) Rate(at time.Duration) float64 {
	return s.Rates[min(int(at/max(s.Each, 1)), len(s.Rates)-1)]
}

// after is a pacer that is preceded by a warm-up at its first rate. The warm-up
// holds a whole number of requests, so that the pacer's own begin with its
// zeroth, exactly when the warm-up ends.
type after struct {
	Pacer
	warm time.Duration
}

func (a after) lead() float64 { return math.Round(a.Pacer.Rate(0) * a.warm.Seconds()) }

// When implements Pacer.
func (a after) When(n float64) time.Duration {
	if lead := a.lead(); n < lead {
		return seconds(n / lead * a.warm.Seconds())
	} else {
		return a.warm + a.Pacer.When(n-lead)
	}
}

// Rate implements Pacer.
func (a after) Rate(at time.Duration) float64 { return a.Pacer.Rate(max(at-a.warm, 0)) }

// arrivals is one thread's part of a schedule. With evenly spaced requests
// thread k of t takes every t-th, beginning with the kth. With random ones
// each thread draws its own: t Poisson processes of rate 1/t add up to one.
type arrivals struct {
	pacer  Pacer
	random bool
	dice   dice
	work   float64 // units of work before the next arrival
	stride float64 // threads
}

func newArrivals(p Pacer, random bool, seed uint64, thread, threads int) arrivals {
	a := arrivals{pacer: p, random: random, stride: float64(threads), dice: newDice(seed, uint64(thread)+1<<32)}
	if random {
		a.work = a.gap()
	} else {
		a.work = float64(thread)
	}
	return a
}

func (a *arrivals) gap() float64 { return a.dice.exponential() * a.stride }

// next returns the next instant and moves on.
func (a *arrivals) next() time.Duration {
	at := a.pacer.When(a.work)
	if a.random {
		a.work += a.gap()
	} else {
		a.work += a.stride
	}
	return at
}

// seconds is s seconds to the nearest nanosecond. A float64 holds the instants
// of a run of a day to a hundredth of one.
func seconds(s float64) time.Duration {
	ns := math.Round(s * 1e9)
	if ns >= math.MaxInt64 {
		return math.MaxInt64
	}
	return time.Duration(ns)
}
