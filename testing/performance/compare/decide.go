package compare

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
)

// A Gate is one promise that is held against the baseline.
type Gate struct {
	Name      string
	Unit      string
	Less      bool    // less is worse, as of throughput
	Threshold float64 // share by which the median may be worse
	Floor     float64 // and the difference, in Unit, that nobody feels
	Alone     bool    // the threshold alone decides
	Figure    bool    // shown, and never fails
}

// A Pair is one round: both builds, one after the other.
type Pair struct{ Base, New float64 }

// A State is what came of a gate.
type State int

const (
	Passed State = iota
	Unsure       // past the threshold, but the interval or the floor does not agree
	Failed
	Waived
)

func (s State) String() string { return [...]string{"ok", "unsure", "FAILED", "waived"}[s] }

// A Verdict is a gate with what was found.
type Verdict struct {
	Gate
	State     State
	Base, New float64 // medians
	Ratio     float64 // median of New/Base in each round
	Low, High float64 // the interval of that
	Why       string
}

const (
	// RoundsMin is the least that makes an interval: of fewer, one odd round
	// is a large part.
	RoundsMin  = 5
	resamples  = 4000
	confidence = .95 // and twice: a gate that cries wolf once a week is switched off in the second
)

// Decide judges one gate. noise is by how much the median of such rounds is off
// when nothing has changed, as measured on this class of machine; 0 if nobody
// has.
func Decide(g Gate, rounds []Pair, noise float64) (Verdict, error) {
	v := Verdict{Gate: g}
	if len(rounds) == 0 || !g.Alone && !g.Figure && len(rounds) < RoundsMin {
		return v, fmt.Errorf("%s: %d rounds, expected at least %d", g.Name, len(rounds), RoundsMin)
	}
	var base, now, ratios, diffs []float64
	for _, p := range rounds {
		if !(p.Base >= 0 && p.New >= 0) || math.IsInf(p.Base+p.New, 0) {
			return v, fmt.Errorf("%s: %v and %v are no figures", g.Name, p.Base, p.New)
		}
		base, now, diffs = append(base, p.Base), append(now, p.New), append(diffs, p.New-p.Base)
		ratios = append(ratios, ratio(p))
	}
	v.Base, v.New, v.Ratio = median(base), median(now), median(ratios)
	v.Low, v.High = interval(ratios)
	v.State, v.Why = judge(g, v, median(diffs), min(noise, g.Threshold))
	return v, nil
}

// ratio is New/Base. From nothing to something is infinitely more.
func ratio(p Pair) float64 {
	switch {
	case p.Base > 0:
		return p.New / p.Base
	case p.New == 0:
		return 1
	}
	return math.Inf(1)
}

func judge(g Gate, v Verdict, diff, noise float64) (State, string) {
	worse, surely := v.Ratio-1, v.Low-1
	if g.Less {
		worse, surely, diff = 1-v.Ratio, 1-v.High, -diff
	}
	switch {
	case g.Figure:
		return Passed, "a figure"
	case worse <= g.Threshold:
		return Passed, ""
	case g.Alone:
		return Failed, fmt.Sprintf("worse by %s, at most %s may be", percent(worse), percent(g.Threshold))
	case surely <= noise:
		return Unsure, fmt.Sprintf("worse by %s, but perhaps by no more than %s, and %s is noise here", percent(worse), percent(max(surely, 0)), percent(noise))
	case diff <= g.Floor:
		return Unsure, fmt.Sprintf("worse by %s, which is %.4g %s: nobody feels less than %.4g", percent(worse), diff, g.Unit, g.Floor)
	}
	return Failed, fmt.Sprintf("worse by %s, surely by %s; at most %s may be", percent(worse), percent(surely), percent(g.Threshold))
}

func percent(share float64) string {
	if math.IsInf(share, 1) {
		return "from nothing to something"
	}
	return fmt.Sprintf("%.1f %%", 100*share)
}

// Confirm is what remains of a verdict when everything was measured again: a
// failure must fail twice, each time by itself.
func Confirm(first, second Verdict) Verdict {
	if first.State == Failed && second.State == Failed {
		second.Why += "; and so the first time"
		return second
	}
	if first.State == Failed {
		first.State = Unsure
		first.Why += "; measured again it was not"
	}
	return first
}

// interval is the bootstrap interval of the median. It draws the same numbers
// each time: a verdict can be checked.
func interval(xs []float64) (low, high float64) {
	if len(xs) == 1 {
		return xs[0], xs[0]
	}
	dice := rand.New(rand.NewPCG(1, uint64(len(xs))))
	medians, draw := make([]float64, resamples), make([]float64, len(xs))
	for i := range medians {
		for k := range draw {
			draw[k] = xs[dice.IntN(len(xs))]
		}
		medians[i] = median(draw)
	}
	slices.Sort(medians)
	cut := int(resamples * (1 - confidence) / 2)
	return medians[cut], medians[len(medians)-1-cut]
}

// median leaves its argument as it is.
func median(xs []float64) float64 {
	s := slices.Sorted(slices.Values(xs))
	n := len(s)
	switch {
	case n == 0:
		return 0
	case n%2 == 1:
		return s[n/2]
	}
	return (s[n/2-1] + s[n/2]) / 2
}

// Noise is by how much the median of each comparison is off in which nothing
// had changed: the largest.
func Noise(g Gate, nulls [][]Pair) (worst float64) {
	for _, rounds := range nulls {
		var ratios []float64
		for _, p := range rounds {
			ratios = append(ratios, ratio(p))
		}
		worst = max(worst, math.Abs(median(ratios)-1))
	}
	return worst
}
