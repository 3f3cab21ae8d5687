package loadgen

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"
)

// WriteText writes a report for people.
func (r *Report) WriteText(w io.Writer) {
	s, q, g := &r.Setup, &r.Requests, &r.Generator
	fmt.Fprintf(w, "%s for %gs, %s (%s), %s connections x %d, %d threads\n",
		s.Target, s.DurationS, s.pace(), s.Profile, commas(int64(s.Connections)), s.Pipeline, s.Threads)
	if s.Workload != "" {
		fmt.Fprintf(w, "%s\n", s.Workload)
	}
	if r.Interrupted {
		fmt.Fprintf(w, "interrupted after %.3gs: what follows is of what was done by then\n", r.Took)
	}
	fmt.Fprintf(w, "\nrequests   %s due, %s answered (%s/s), %s failed, %s late", commas(q.Due), commas(q.Answered),
		commas(int64(q.Rate+0.5)), commas(q.Failed), commas(q.Late))
	if q.Cut > 0 {
		fmt.Fprintf(w, ", %s cut off by the interrupt", commas(q.Cut))
	}
	fmt.Fprintf(w, "\nanswers    %s ok, %s throttled (429, 503), %s errors (other 5xx)\n\n",
		commas(q.OK), commas(q.Throttled), commas(q.Refused))
	r.writeLatencies(w)
	fmt.Fprintf(w, "\n%s\n", r.gap())
	writeSplits(w, "code", r.Codes)
	writeSplits(w, "source", r.Sources)
	for _, e := range r.Errors {
		fmt.Fprintf(w, "\nerror      %s x %s, the first: %s", commas(e.Count), e.Kind, e.Example)
	}
	fmt.Fprintf(w, "\ngenerator  ran %.0f %% of its threads' time (%.0f %% of it polling for nothing), queued %.0f %% for a processor, "+
		"%.1f us work a request, sent late by p50 %s, p99 %s\n",
		100*g.CPU, min(share(g.Spin, g.CPU), 100), 100*g.Queued, g.WorkPerRequest, usText(g.Lag.P50), usText(g.Lag.P99))
	r.writeVerdict(w)
}

func (r *Report) writeLatencies(w io.Writer) {
	fmt.Fprintf(w, "%-10s %9s %9s %9s %9s %9s %9s %9s\n", "", "p50", "p90", "p95", "p99", "p99.9", "max", "mean")
	for _, row := range []struct {
		name string
		l    *Latency
	}{{"response", &r.Response}, {"service", &r.Service}, {"first byte", &r.FirstByte}} {
		writeLatency(w, row.name, row.l)
		fmt.Fprintln(w)
	}
}

func writeLatency(w io.Writer, name string, l *Latency) {
	fmt.Fprintf(w, "%-10s", name)
	for _, v := range []float64{l.P50, l.P90, l.P95, l.P99, l.P999, l.Max, l.Mean} {
		fmt.Fprintf(w, " %9s", usText(v))
	}
}

func writeSplits(w io.Writer, what string, splits []Split) {
	for i, s := range splits {
		if i == 0 {
			fmt.Fprintf(w, "\n%-10s %9s %9s %9s %9s %9s %9s %9s %9s\n", what, "p50", "p90", "p95", "p99", "p99.9", "max", "mean", "count")
		}
		writeLatency(w, s.Name, &s.Response)
		fmt.Fprintf(w, " %9s\n", commas(s.Response.Count))
		if s.Example != "" {
			fmt.Fprintf(w, "           the first: %s\n", s.Example)
		}
	}
}

// pace is what was meant to be sent, in words.
func (s *Setup) pace() string {
	switch s.Profile {
	case closedLoop:
		return "as fast as connections allow"
	case "ramp", "step":
		return "from " + rateText(s.Rate) + "/s"
	}
	return rateText(s.Rate) + "/s"
}

// rateText is a rate, of which the fraction is worth showing if it is small.
func rateText(v float64) string {
	if v < 10 {
		return fmt.Sprintf("%.3g", v)
	}
	return commas(int64(v + 0.5))
}

// apart finds the first percentile at which response and service time differ,
// by how much, and how much of it the generator may have added; "" is nowhere.
func (r *Report) apart() (at string, gap, lag float64) {
	a, b, own := &r.Response, &r.Service, &r.Generator.Lag
	for _, p := range []struct {
		name           string
		response, serv float64
		lag            float64
	}{{"p99", a.P99, b.P99, own.P99}, {"p99.9", a.P999, b.P999, own.P999}, {"the longest", a.Max, b.Max, own.Max}} {
		if p.response-p.serv > 0.1*p.serv {
			return p.name, p.response - p.serv, p.lag
		}
	}
	return "", 0, 0
}

// gap explains in one line why response and service time differ.
func (r *Report) gap() string {
	const both = "Response runs from when a request was due, service from when it was sent: "
	q := &r.Requests
	at, gap, lag := r.apart()
	lost := q.Failed + q.Cut
	switch {
	case r.Setup.Profile == closedLoop:
		return "A closed loop: a request is sent when the one before it is answered, so a slow server is asked less. " +
			"This measures capacity, not what users of a fixed rate would wait."
	case at == "":
		return both + "they agree, so nobody was kept from sending."
	case q.Late > 0 && 2*q.Late >= lost && 2*lag <= gap:
		return fmt.Sprintf(both+"at %s they are %s apart, because %s requests (%.3g %%) were due while no connection was free for them; at most %s may be in flight.",
			at, usText(gap), commas(q.Late), share(float64(q.Late), float64(q.Due)), commas(int64(r.Setup.Inflight)))
	case lost > 0 && 2*lag <= gap:
		return fmt.Sprintf(both+"at %s they are %s apart, because %s requests (%.3g %%) that were not answered are charged their wait, and have no service time.",
			at, usText(gap), commas(lost), share(float64(lost), float64(q.Due)))
	}
	return fmt.Sprintf(both+"at %s they are %s apart, because the generator itself sent late.", at, usText(gap))
}

func (r *Report) writeVerdict(w io.Writer) {
	for _, c := range r.SLO {
		verdict := "held"
		if !c.Held {
			verdict = "BROKEN"
		}
		fmt.Fprintf(w, "slo        %-6s  %s: %s\n", verdict, c.Clause, c.Figure)
	}
	if r.Valid {
		fmt.Fprintf(w, "valid      the generator was not the limit\n")
	}
	for _, why := range r.Reason {
		fmt.Fprintf(w, "INVALID    %s\n", why)
	}
}

// Line is a run in progress in one line.
func (v Live) Line() string {
	if v.At < 0 {
		return fmt.Sprintf("warming up, %.0fs to go", -v.At.Seconds())
	}
	l := &v.Last
	b := &strings.Builder{}
	fmt.Fprintf(b, "%3.0f/%.0fs", min(v.At, v.Of).Seconds(), v.Of.Seconds())
	if l.Codes == nil {
		return b.String() // not one second is over
	}
	fmt.Fprintf(b, "  %s/s", commas(l.Answered))
	if l.Target > 0 {
		fmt.Fprintf(b, " of %s", rateText(l.Target))
	}
	fmt.Fprintf(b, "  in flight %s  p50 %s p99 %s max %s ", commas(v.Inflight), usText(l.P50), usText(l.P99), usText(l.Max))
	for _, status := range sortedCodes(l.Codes) {
		fmt.Fprintf(b, " %d:%s", status, commas(l.Codes[status]))
	}
	for _, name := range slices.Sorted(maps.Keys(l.Sources)) {
		fmt.Fprintf(b, " %s:%s", name, commas(l.Sources[name]))
	}
	if l.Failed > 0 {
		fmt.Fprintf(b, "  failed %s", commas(l.Failed))
	}
	return b.String()
}

func share(part, whole float64) float64 {
	if whole == 0 {
		return 0
	}
	return 100 * part / whole
}

// usText is a duration in microseconds with three figures.
func usText(v float64) string {
	switch {
	case v < 1000:
		return fmt.Sprintf("%.3gus", v)
	case v < 999_500:
		return fmt.Sprintf("%.3gms", v/1000)
	}
	return fmt.Sprintf("%.4gs", v/float64(time.Second/time.Microsecond))
}

func commas(n int64) string {
	s := fmt.Sprint(n)
	for i := len(s) - 3; i > 0 && s[i-1] != '-'; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

func sortedCodes(codes map[int]int64) []int { return slices.Sorted(maps.Keys(codes)) }
