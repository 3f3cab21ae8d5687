package loadcheck

import (
	"context"
	"math"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"svcindex/loadgen"
	"svcindex/testing/performance/rig"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// numbered asks for /n, so that the rig knows which request it has.
type numbered struct{}

func (numbered) Ask(dst []byte, n int64) ([]byte, bool) {
	dst = append(dst, "GET /"...)
	dst = strconv.AppendInt(dst, n, 10)
	return append(dst, " HTTP/1.1\r\nHost: rig\r\n\r\n"...), false
}

// A trial is a run against a rig: what the generator reports, what it noted of
// each request, and what the rig noted.
type trial struct {
	report *loadgen.Report
	ends   []loadgen.End
	log    []rig.Entry
}

func try(t *testing.T, b rig.Behaviour, change func(*loadgen.Config)) trial {
	t.Helper()
	b.Processor = -1
	s, err := rig.Serve(b)
	if err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	var got trial
	cfg := loadgen.Config{
		Network: "tcp", Address: s.Addr, NewAsker: func() loadgen.Asker { return numbered{} }, SourceField: "X-Index-Source",
		Pacer: loadgen.Constant(1000), Duration: 2 * time.Second, Connections: 16, Spin: -1, Seed: 1,
		Drain: 20 * time.Second, Timeout: 20 * time.Second, // a busy machine fails nothing
		Done: func(e loadgen.End) {
			mu.Lock()
			defer mu.Unlock()
			got.ends = append(got.ends, e)
		},
	}
	if change != nil {
		change(&cfg)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	got.report, err = loadgen.Run(ctx, cfg)
	log, rigErr := s.Close()
	if err != nil || rigErr != nil {
		t.Fatal(err, rigErr)
	}
	got.log = log
	return got
}

func (tr trial) count(code string) int64 {
	for _, s := range tr.report.Codes {
		if s.Name == code {
			return s.Response.Count
		}
	}
	return 0
}

func TestCountsAndCodesAreExact(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		why    string
		change func(*loadgen.Config)
	}{
		{"one thread", nil},
		{"two threads, pipelined", func(c *loadgen.Config) { c.Threads, c.Pipeline = 2, 4 }},
		{"connections that are replaced", func(c *loadgen.Config) { c.Churn = 7 }},
		{"fewer connections than requests at once", func(c *loadgen.Config) { c.Connections = 2 }},
		{"steps", func(c *loadgen.Config) { c.Pacer = loadgen.Steps{Rates: []float64{500, 1500}, Each: time.Second} }},
		{"a ramp", func(c *loadgen.Config) { c.Pacer = loadgen.Ramp{From: 500, To: 1500, Over: 2 * time.Second} }},
	} {
		t.Run(tt.why, func(t *testing.T) {
			t.Parallel()
			tr := try(t, rig.Behaviour{Delay: 3 * time.Millisecond, ShedEvery: 20}, tt.change)
			q := tr.report.Requests
			if q.Due != 2000 || q.Sent != 2000 || q.Answered != 2000 || q.OK != 1900 || q.Throttled != 100 || q.Failed+q.Refused+q.Cut != 0 {
				t.Errorf("%+v, want 2000 due, sent and answered, 1900 of them ok and 100 throttled", q)
			}
			if tr.count("200") != 1900 || tr.count("429") != 100 || len(tr.report.Codes) != 2 {
				t.Errorf("%+v, want 1900 times 200 and 100 times 429", tr.report.Codes)
			}
			if len(tr.log) != 2000 {
				t.Errorf("the server heard %d requests, want 2000", len(tr.log))
			}
		})
	}
}

// Both sides read one clock. The generator's instants have to lie around the
// server's, whatever the machine does meanwhile.
func TestEveryInstantLiesWhereTheServersLogSaysItMust(t *testing.T) {
	t.Parallel()
	for _, pipeline := range []int{1, 4} {
		tr := try(t, rig.Behaviour{Delay: 2 * time.Millisecond}, func(c *loadgen.Config) { c.Pipeline, c.Threads = pipeline, 2 })
		t0 := tr.dueOf(0)
		for _, e := range tr.ends {
			s := tr.log[e.N]
			if want := t0.Add(time.Duration(e.N) * time.Millisecond); e.Due != want {
				t.Fatalf("request %d was due %v off the schedule", e.N, e.Due.Sub(want))
			}
			switch {
			case e.Sent.Before(e.Due):
				t.Fatalf("request %d was sent %v before it was due", e.N, e.Due.Sub(e.Sent))
			case s.Received.Before(e.Sent):
				t.Fatalf("request %d was heard %v before it is said to have been sent", e.N, e.Sent.Sub(s.Received))
			case s.Answered.Sub(s.Received) < 2*time.Millisecond:
				t.Fatalf("the rig answered request %d after %v", e.N, s.Answered.Sub(s.Received))
			case e.First.Before(s.Answered):
				t.Fatalf("the first byte of answer %d is said to have come %v before it was written", e.N, s.Answered.Sub(e.First))
			case e.Done.Before(e.First):
				t.Fatalf("answer %d ended before it began", e.N)
			}
		}
	}
}

func (tr trial) dueOf(n int64) time.Time {
	i := slices.IndexFunc(tr.ends, func(e loadgen.End) bool { return e.N == n })
	return tr.ends[i].Due
}

// percentiles that are looked at, and where a report has them.
var percentiles = []struct {
	p  float64
	of func(*loadgen.Latency) float64
}{
	{50, func(l *loadgen.Latency) float64 { return l.P50 }},
	{90, func(l *loadgen.Latency) float64 { return l.P90 }},
	{95, func(l *loadgen.Latency) float64 { return l.P95 }},
	{99, func(l *loadgen.Latency) float64 { return l.P99 }},
	{99.9, func(l *loadgen.Latency) float64 { return l.P999 }},
	{100, func(l *loadgen.Latency) float64 { return l.Max }},
}

// exact is a percentile by its definition: the smallest value that p percent
// of all do not exceed. In microseconds.
func exact(sorted []time.Duration, p float64) float64 {
	i := int(math.Ceil(p/100*float64(len(sorted))-1e-6)) - 1
	return float64(sorted[max(i, 0)]) / 1000
}

func sorted(ends []loadgen.End, of func(loadgen.End) time.Duration) []time.Duration {
	all := make([]time.Duration, len(ends))
	for i, e := range ends {
		all[i] = of(e)
	}
	sortDurations(all)
	return all
}

func sortDurations(d []time.Duration) { slices.Sort(d) }

func TestReportedPercentilesAreThoseOfTheInstants(t *testing.T) {
	t.Parallel()
	tr := try(t, rig.Behaviour{Delay: time.Millisecond, StallAt: time.Second, Stall: 300 * time.Millisecond}, nil)
	for _, tt := range []struct {
		what     string
		reported *loadgen.Latency
		of       func(loadgen.End) time.Duration
	}{
		{"response", &tr.report.Response, func(e loadgen.End) time.Duration { return e.Done.Sub(e.Due) }},
		{"service", &tr.report.Service, func(e loadgen.End) time.Duration { return e.Done.Sub(e.Sent) }},
		{"first byte", &tr.report.FirstByte, func(e loadgen.End) time.Duration { return e.First.Sub(e.Sent) }},
	} {
		all := sorted(tr.ends, tt.of)
		for _, p := range percentiles {
			if got, want := p.of(tt.reported), exact(all, p.p); math.Abs(got-want) > 0.002*want+0.1 {
				t.Errorf("p%v of %s time is reported as %.1f us and is %.1f us", p.p, tt.what, got, want)
			}
		}
	}
}

// Coordinated omission is absent if no percentile is below what the server's
// own log and the schedule say it must at least be. A stalled server keeps a
// closed loop from asking, and so from noticing: there the same log contradicts
// the report.
func TestAStallIsInEveryPercentileThatTheServersLogPutsItIn(t *testing.T) {
	t.Parallel()
	stall := rig.Behaviour{StallAt: 700 * time.Millisecond, Stall: time.Second}
	for _, tt := range []struct {
		why    string
		change func(*loadgen.Config)
	}{
		{"connections to spare", func(c *loadgen.Config) { c.Connections, c.Drain = 1500, 20*time.Second }},
		{"four connections", func(c *loadgen.Config) { c.Connections = 4 }},
		{"random arrivals", func(c *loadgen.Config) { c.Random = true }},
	} {
		t.Run(tt.why, func(t *testing.T) {
			t.Parallel()
			tr := try(t, stall, tt.change)
			least := sorted(tr.ends, func(e loadgen.End) time.Duration { return tr.log[e.N].Answered.Sub(e.Due) })
			for _, p := range percentiles {
				if got, want := p.of(&tr.report.Response), exact(least, p.p); got < 0.998*want {
					t.Errorf("p%v is reported as %.0f us; by the server's log it is at least %.0f us", p.p, got, want)
				}
			}
			// Of 2,000 requests, 1,000 fell due while nothing was answered: the
			// longest waited for the whole of it, and every tenth of all for at
			// least 800 ms.
			if got := tr.report.Response.P90; got < 750_000 {
				t.Errorf("p90 is %.0f us; the rig stood still for a second", got)
			}
			if got := tr.report.Response.Max; got < 950_000 {
				t.Errorf("the longest is %.0f us; the rig stood still for a second", got)
			}
		})
	}
}
