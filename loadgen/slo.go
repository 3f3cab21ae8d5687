package loadgen

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"
)

// A Clause is one promise: a figure, and what it must be below or above.
type Clause struct {
	Figure string
	Above  bool // the figure must be above the bound; otherwise below
	Bound  float64
	text   string
}

// A ClauseFound is a clause and what was measured.
type ClauseFound struct {
	Clause string `json:"clause"`
	Figure string `json:"figure"`
	Held   bool   `json:"held"`
}

// An Objective is what must hold, all of it.
type Objective []Clause

// sourceHit is the source of answers that are hits.
const sourceHit = "cache"

// figures are what a clause may be about. A latency is in microseconds and is
// a response time: what a user of a fixed rate waits. The others are shares,
// of all requests that were due, but for hit: of the answers that say where
// they came from.
var figures = map[string]func(*Report) (v float64, known bool){
	"p50":       latencyFigure(func(l *Latency) float64 { return l.P50 }),
	"p90":       latencyFigure(func(l *Latency) float64 { return l.P90 }),
	"p95":       latencyFigure(func(l *Latency) float64 { return l.P95 }),
	"p99":       latencyFigure(func(l *Latency) float64 { return l.P99 }),
	"p99.9":     latencyFigure(func(l *Latency) float64 { return l.P999 }),
	"max":       latencyFigure(func(l *Latency) float64 { return l.Max }),
	"mean":      latencyFigure(func(l *Latency) float64 { return l.Mean }),
	"error":     func(r *Report) (float64, bool) { return ofDue(r, r.Requests.Refused+r.Requests.Failed) },
	"throttled": func(r *Report) (float64, bool) { return ofDue(r, r.Requests.Throttled) },
	"late":      func(r *Report) (float64, bool) { return ofDue(r, r.Requests.Late) },
	"hit":       hitFigure,
	"rate":      func(r *Report) (float64, bool) { return r.Requests.Rate, r.Requests.Due > 0 },
	"goodput":   goodFigure, // answers a second that were neither throttled nor an error
}

func latencyFigure(of func(*Latency) float64) func(*Report) (float64, bool) {
	return func(r *Report) (float64, bool) { return of(&r.Response), r.Response.Count > 0 }
}

func ofDue(r *Report, n int64) (float64, bool) {
	return float64(n) / float64(max(r.Requests.Due, 1)), r.Requests.Due > 0
}

func hitFigure(r *Report) (float64, bool) {
	var hits, all int64
	for _, s := range r.Sources {
		all += s.Response.Count
		if s.Name == sourceHit {
			hits += s.Response.Count
		}
	}
	return float64(hits) / float64(max(all, 1)), all > 0
}

func goodFigure(r *Report) (float64, bool) {
	return r.Requests.Rate * float64(r.Requests.OK) / float64(max(r.Requests.Answered, 1)), r.Requests.Answered > 0
}

func isRate(figure string) bool { return figure == "rate" || figure == "goodput" }

func isShare(figure string) bool {
	return figure == "error" || figure == "throttled" || figure == "late" || figure == "hit"
}

// ParseObjective reads 'p95<80ms,p99<200ms,error<0.1%,throttled<1%,hit>0.8'.
func ParseObjective(text string) (o Objective, err error) {
	for part := range strings.SplitSeq(text, ",") {
		part = strings.TrimSpace(part)
		if part == "" {
			continue
		}
		c, err := parseClause(part)
		if err != nil {
			return nil, fmt.Errorf("%q: %w", part, err)
		}
		o = append(o, c)
	}
	return o, nil
}

func parseClause(part string) (c Clause, err error) {
	i := strings.IndexAny(part, "<>")
	if i < 0 {
		return c, fmt.Errorf("a clause is a figure, < or >, and a bound, such as p99<200ms")
	}
	c = Clause{Figure: strings.TrimSpace(part[:i]), Above: part[i] == '>', text: part}
	if figures[c.Figure] == nil {
		return c, fmt.Errorf("there is no figure %q; there are %s", c.Figure, strings.Join(slices.Sorted(maps.Keys(figures)), " "))
	}
	c.Bound, err = parseBound(c.Figure, strings.TrimSpace(part[i+1:]))
	return c, err
}

func parseBound(figure, text string) (float64, error) {
	switch {
	case isShare(figure):
		number, percent := strings.CutSuffix(text, "%")
		v, err := strconv.ParseFloat(strings.TrimSpace(number), 64)
		if percent {
			v /= 100
		}
		if err != nil || !(v >= 0 && v <= 1) {
			return 0, fmt.Errorf("the bound of a share is 0 to 1, or 0%% to 100%%")
		}
		return v, nil
	case isRate(figure):
		v, err := strconv.ParseFloat(text, 64)
		if err != nil || !(v >= 0) {
			return 0, fmt.Errorf("the bound of a rate is a number, of answers a second")
		}
		return v, nil
	}
	d, err := time.ParseDuration(text)
	if err != nil || d < 0 {
		return 0, fmt.Errorf("the bound of a latency is a duration, such as 80ms")
	}
	return us(int64(d)), nil
}

// Judge holds a report to o and notes each clause's figure in it. It reports
// whether all held. A figure that nobody knows is no promise kept.
func (o Objective) Judge(r *Report) (held bool) {
	held, r.SLO = true, nil
	for _, c := range o {
		v, known := figures[c.Figure](r)
		found := ClauseFound{Clause: c.text, Figure: c.show(v), Held: known && c.holds(v)}
		if !known {
			found.Figure = "unknown: nothing was answered that says it"
		}
		held = held && found.Held
		r.SLO = append(r.SLO, found)
	}
	return held
}

func (c Clause) holds(v float64) bool {
	if c.Above {
		return v > c.Bound
	}
	return v < c.Bound
}

func (c Clause) show(v float64) string {
	switch {
	case isShare(c.Figure):
		return fmt.Sprintf("%.4g%%", 100*v)
	case isRate(c.Figure):
		return fmt.Sprintf("%.1f/s", v)
	}
	return usText(v)
}
