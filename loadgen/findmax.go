package loadgen

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"strings"
	"time"
)

// How a maximum is looked for.
const (
	growth     = 2.0  // from a rate that holds to the next
	precision  = 0.05 // of the rate, at which bisecting ends
	backedOff  = 0.95 // of a rate that did not hold when it was confirmed
	confirms   = 4    // rates that are tried for longer
	holdFactor = 3    // how much longer
	triesMax   = 60   // in all
	invalidMax = 3    // tries of a rate that were invalid, before that is believed
	rateMax    = 10_000_000
)

// A Search looks for the highest rate at which an objective holds.
type Search struct {
	Start     float64 // the first rate
	Objective Objective
	Each      time.Duration // of one try
	Tried     func(Try)     // called after each; may be nil
}

// A Try is one rate and what came of it.
type Try struct {
	Rate     float64       `json:"rate"`
	Answered float64       `json:"answered_per_s"`
	P50      float64       `json:"p50_us"`
	P95      float64       `json:"p95_us"`
	P99      float64       `json:"p99_us"`
	Error    float64       `json:"error"`
	Throttle float64       `json:"throttled"`
	Work     float64       `json:"generator_work_us"`
	Held     bool          `json:"held"`
	Valid    bool          `json:"valid"`
	Hold     bool          `json:"hold"` // it was a try to confirm
	Why      string        `json:"why,omitempty"`
	SLO      []ClauseFound `json:"slo"`
}

// A Maximum is what a search has found.
type Maximum struct {
	Schema string  `json:"schema"`
	Rate   float64 `json:"rate"` // 0: none
	Valid  bool    `json:"valid"`
	Why    string  `json:"why,omitempty"`
	Curve  []Try   `json:"curve"`

	Report *Report `json:"report"` // of the try that confirmed it, or the last
}

// errTries ends a search that does not come to an end.
var errTries = errors.New("no end after so many tries: the server's speed changes more than the search can follow")

// FindMax steps up from the start while the objective holds, bisects between
// the last rate that held and the first that did not, and holds what it found
// for longer to confirm it. run does one run at a rate. With an error comes the
// curve that was seen before it.
func (s *Search) FindMax(ctx context.Context, run func(ctx context.Context, rate float64, d time.Duration) (*Report, error)) (*Maximum, error) {
	f := &finder{Search: s, run: run, found: &Maximum{Schema: Schema + "/max"}}
	good, bad, err := f.bracket(ctx)
	if err == nil {
		good, err = f.bisect(ctx, good, bad)
	}
	if err == nil && good > 0 {
		good, err = f.confirm(ctx, good)
	}
	if err != nil {
		f.found.Why = err.Error()
		if ctx.Err() != nil {
			f.found.Why = "interrupted"
		}
		return f.found, err
	}
	f.conclude(good)
	return f.found, nil
}

type finder struct {
	*Search
	run   func(context.Context, float64, time.Duration) (*Report, error)
	found *Maximum
}

// try runs at a rate. A run in which the generator was the limit has shown
// nothing about the server: it is repeated, for a neighbour may have disturbed
// it, and in the end counts as not held.
func (f *finder) try(ctx context.Context, rate float64, hold bool) (held bool, err error) {
	for range invalidMax {
		held, err = f.tryOnce(ctx, rate, hold)
		if err != nil || f.found.Curve[len(f.found.Curve)-1].Valid {
			break
		}
	}
	return held, err
}

func (f *finder) tryOnce(ctx context.Context, rate float64, hold bool) (held bool, err error) {
	if len(f.found.Curve) == triesMax {
		return false, errTries
	}
	d := f.Each
	if hold {
		d *= holdFactor
	}
	r, err := f.run(ctx, rate, d)
	if err == nil {
		err = ctx.Err()
	}
	if err != nil {
		return false, err
	}
	held = f.Objective.Judge(r) && r.Valid
	t := Try{Rate: rate, Answered: r.Requests.Rate, P50: r.Response.P50, P95: r.Response.P95, P99: r.Response.P99,
		Work: r.Generator.WorkPerRequest, Held: held, Valid: r.Valid, Hold: hold, SLO: r.SLO, Why: r.why()}
	t.Error, _ = figures["error"](r)
	t.Throttle, _ = figures["throttled"](r)
	f.found.Curve, f.found.Report = append(f.found.Curve, t), r
	if f.Tried != nil {
		f.Tried(t)
	}
	return held, nil
}

// why names the clauses that broke and what made the run invalid.
func (r *Report) why() string {
	var all []string
	for _, c := range r.SLO {
		if !c.Held {
			all = append(all, fmt.Sprintf("%s: %s", c.Clause, c.Figure))
		}
	}
	return strings.Join(append(all, r.Reason...), "; ")
}

// bracket finds a rate that holds and a higher one that does not.
func (f *finder) bracket(ctx context.Context) (good, bad float64, err error) {
	for rate := f.Start; rate <= rateMax; rate *= growth {
		held, err := f.try(ctx, rate, false)
		if err != nil {
			return 0, 0, err
		}
		if !held {
			return good, rate, nil
		}
		good = rate
	}
	return good, good, nil
}

func (f *finder) bisect(ctx context.Context, good, bad float64) (float64, error) {
	for bad-good > max(precision*bad, 1) || good == 0 && bad > 1 { // whole rates: between neighbours there is none
		rate := math.Round((good + bad) / 2)
		held, err := f.try(ctx, rate, false)
		if err != nil {
			return 0, err
		}
		if held {
			good = rate
		} else {
			bad = rate
		}
	}
	return good, nil
}

// confirm holds a rate for longer, and a little less if that fails.
func (f *finder) confirm(ctx context.Context, rate float64) (float64, error) {
	for range confirms {
		held, err := f.try(ctx, rate, true)
		if held || err != nil {
			return rate, err
		}
		rate = math.Round(rate * backedOff)
	}
	return 0, nil
}

// conclude says what the tries are worth. If the rate above was out of reach
// for the generator, the maximum is one of the generator's.
func (f *finder) conclude(good float64) {
	m := f.found
	m.Rate, m.Valid = good, true
	if good == 0 && slices.ContainsFunc(m.Curve, func(t Try) bool { return t.Held }) {
		m.Why = fmt.Sprintf("a rate held for %v, and none of %d near it for %d times as long: make --duration longer, or the machine quieter",
			f.Each, confirms, holdFactor)
	}
	for i, t := range m.Curve {
		if last := i+1 == len(m.Curve) || m.Curve[i+1].Rate != t.Rate; !last {
			continue // it was repeated
		}
		if !t.Valid && t.Rate > good && !brokenBelow(m.Curve, t.Rate) {
			m.Valid = false
			m.Why = fmt.Sprintf("at %.0f/s the generator was the limit, and no lower rate broke the objective: "+
				"the server can do at least %.0f/s, perhaps more (%s)", t.Rate, good, t.Why)
		}
	}
}

// brokenBelow reports whether some valid try at or below rate broke the
// objective, which is then the server's doing.
func brokenBelow(curve []Try, rate float64) bool {
	for _, t := range curve {
		if t.Valid && !t.Held && t.Rate <= rate {
			return true
		}
	}
	return false
}

// Line is a try in one line of the curve.
func (t Try) Line() string {
	verdict := "held"
	switch {
	case !t.Valid:
		verdict = "INVALID"
	case !t.Held:
		verdict = "broken"
	}
	if t.Hold {
		verdict += " (confirming)"
	}
	line := fmt.Sprintf("%9s/s %9s/s %9s %9s %9s  %s", rateText(t.Rate), rateText(t.Answered),
		usText(t.P50), usText(t.P95), usText(t.P99), verdict)
	if t.Why != "" {
		line += ": " + t.Why
	}
	return line
}

// CurveHead is the line above the lines of tries.
const CurveHead = "     rate    answered       p50       p95       p99"

// WriteText writes what was found for people.
func (m *Maximum) WriteText(w io.Writer) {
	switch {
	case m.Rate == 0 && m.Valid && m.Why != "":
		fmt.Fprintf(w, "maximum    none: %s\n", m.Why)
	case m.Rate == 0:
		fmt.Fprintln(w, "maximum    none: the objective did not hold at any rate that was tried; start lower with --rate")
	case m.Valid:
		fmt.Fprintf(w, "maximum    %s/s\n", rateText(m.Rate))
	default:
		fmt.Fprintf(w, "maximum    at least %s/s\n", rateText(m.Rate))
	}
	if !m.Valid {
		fmt.Fprintf(w, "INVALID    %s\n", m.Why)
	}
}
