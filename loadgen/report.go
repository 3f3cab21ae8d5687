package loadgen

import (
	"cmp"
	"fmt"
	"maps"
	"runtime"
	"slices"
	"time"
)

// Schema names the layout of a Report as JSON. Fields may be added to it; if
// one changes its meaning the number goes up.
const Schema = "svc-index/loadgen/v1"

// What makes a run invalid: beyond either the figures are the generator's own.
const (
	LagMax = time.Millisecond // p99 of how late requests left
	CPUMax = 0.9              // of a thread's time, working or waiting for a processor
)

// A Report is what a run has found. Instants are in seconds from the end of
// the warm-up, latencies in microseconds.
type Report struct {
	Schema  string    `json:"schema"`
	Started time.Time `json:"started"`
	Setup   Setup     `json:"setup"`

	Valid  bool     `json:"valid"`
	Reason []string `json:"invalid_because,omitempty"`

	Interrupted bool    `json:"interrupted,omitempty"` // the report is of what was done by then
	Took        float64 `json:"took_s"`                // from the end of the warm-up to the last answer, or the intended end if that was later

	Requests  Requests      `json:"requests"`
	Response  Latency       `json:"response_us"`   // from the intended instant to the last byte; every request that was due
	Service   Latency       `json:"service_us"`    // from the write to the last byte; answered ones
	FirstByte Latency       `json:"first_byte_us"` // from the write to the first byte; answered ones
	Codes     []Split       `json:"codes"`
	Sources   []Split       `json:"sources"`
	Errors    []ErrorKind   `json:"errors"`
	Generator Generator     `json:"generator"`
	Spectrum  []Point       `json:"spectrum"` // of response time
	Seconds   []Second      `json:"seconds"`
	SLO       []ClauseFound `json:"slo,omitempty"`

	ServiceSpectrum []Point `json:"service_spectrum"`

	response, service, lag hist
}

// A Setup is what was asked for.
type Setup struct {
	Target      string  `json:"target"`
	Profile     string  `json:"profile"`
	Rate        float64 `json:"rate"` // at the beginning; 0 for a closed loop
	DurationS   float64 `json:"duration_s"`
	WarmupS     float64 `json:"warmup_s"`
	Connections int     `json:"connections"`
	Threads     int     `json:"threads"`
	Pipeline    int     `json:"pipeline"`
	Inflight    int     `json:"inflight"`
	Churn       int     `json:"churn"`
	TimeoutS    float64 `json:"timeout_s"`
	Seed        uint64  `json:"seed"`
	Workload    string  `json:"workload,omitempty"`
	Host        string  `json:"host"`
}

// Requests are counts. Due = Answered + Failed + Cut.
type Requests struct {
	Due       int64   `json:"due"`      // within the measured time
	Sent      int64   `json:"sent"`     // of those
	Answered  int64   `json:"answered"` // with whatever status
	Failed    int64   `json:"failed"`   // not answered, for a reason under errors
	Cut       int64   `json:"cut"`      // neither when the run was interrupted; charged until then
	Late      int64   `json:"late"`     // had to wait for a free connection; charged with it
	WarmUp    int64   `json:"warm_up"`  // before, in no other figure
	OK        int64   `json:"ok"`       // answered, and neither throttled nor an error
	Throttled int64   `json:"throttled"`
	Refused   int64   `json:"server_errors"` // 5xx but 503
	Rate      float64 `json:"answered_per_s"`
	BodyBytes int64   `json:"body_bytes"`
}

// A Latency is a distribution in microseconds.
type Latency struct {
	Count int64   `json:"count"`
	Mean  float64 `json:"mean"`
	P50   float64 `json:"p50"`
	P90   float64 `json:"p90"`
	P95   float64 `json:"p95"`
	P99   float64 `json:"p99"`
	P999  float64 `json:"p99_9"`
	Max   float64 `json:"max"`
}

// A Split is the response time of the answers of one status or source.
type Split struct {
	Name     string  `json:"name"`
	Example  string  `json:"example,omitempty"` // the first, of statuses from 400 up
	Response Latency `json:"response_us"`
}

// An ErrorKind is a way in which requests or connections failed.
type ErrorKind struct {
	Kind       string `json:"kind"`
	Count      int64  `json:"count"`
	Connection bool   `json:"connection"` // of a connection, not of a request
	Example    string `json:"first_example"`
}

// A Generator is what the generator says of itself.
type Generator struct {
	Lag            Latency `json:"lag_us"`         // of sending, behind the schedule or behind the connection that was waited for
	CPU            float64 `json:"thread_cpu"`     // share of its threads' time used, polling for nothing included
	Spin           float64 `json:"thread_spin"`    // of which polling for nothing
	Queued         float64 `json:"thread_queued"`  // share of the time in which it could have run, but others had the processor
	Busiest        float64 `json:"busiest_thread"` // CPU less spin and what was queued, of the busiest thread
	ProcessCPU     float64 `json:"process_cpu"`    // processors used by the whole process, warm-up included
	WorkPerRequest float64 `json:"work_us_per_request"`
	Opened         int64   `json:"connections_opened"`
	Reopened       int64   `json:"connections_reopened"`
	Unmade         int64   `json:"connections_not_made"` // for want of descriptors, ports or memory here
}

// A Point is one of a curve of percentiles.
type Point struct {
	Percentile float64 `json:"percentile"`
	US         float64 `json:"us"`
}

// A Second is what ended in one second of the run.
type Second struct {
	At       float64       `json:"at_s"`
	Target   float64       `json:"target_per_s"`
	Answered int64         `json:"answered"`
	Failed   int64         `json:"failed"`
	P50      float64       `json:"p50_us"`
	P90      float64       `json:"p90_us"`
	P95      float64       `json:"p95_us"`
	P99      float64       `json:"p99_us"`
	Max      float64       `json:"max_us"`
	Codes    map[int]int64 `json:"codes"`

	Sources map[string]int64 `json:"sources"`
}

func (r *running) report() *Report {
	t := newTally()
	for _, l := range r.loops {
		t.merge(l.tally)
	}
	rep := &Report{
		Schema: Schema, Started: r.epoch.Add(r.t0).UTC(), Setup: r.setup(),
		Response: t.response.latency(), Service: t.service.latency(), FirstByte: t.first.latency(),
		Codes: t.splitCodes(), Sources: t.splitSources(), Errors: t.errorKinds(),
		Generator: r.generator(t), Spectrum: t.response.spectrum(), ServiceSpectrum: t.service.spectrum(), Seconds: r.collector.all(),
		response: t.response, service: t.service, lag: t.lag,
	}
	rep.Interrupted, rep.Took = r.stop.Load(), r.measured().Seconds()
	rep.Requests = r.requests(t, rep)
	if t.unmade > 0 {
		rep.Reason = append(rep.Reason, fmt.Sprintf("%s connections could not be made here, the last for %s: "+
			"raise ulimit -n, or lower --connections or --churn", commas(t.unmade), t.unmadeWhy))
	}
	rep.judge()
	return rep
}

func (r *running) setup() Setup {
	c := r.cfg
	s := Setup{
		Target: c.Network + ":" + c.Address, Profile: closedLoop, DurationS: c.Duration.Seconds(), WarmupS: c.Warmup.Seconds(),
		Connections: c.Connections, Threads: c.Threads, Pipeline: c.Pipeline, Inflight: c.Inflight, Churn: c.Churn,
		TimeoutS: c.Timeout.Seconds(), Seed: c.Seed,
		Host: fmt.Sprintf("%s/%s, %d processors, %s", runtime.GOOS, runtime.GOARCH, runtime.NumCPU(), runtime.Version()),
	}
	if c.Pacer != nil {
		s.Rate = c.Pacer.Rate(0)
		s.Profile = profileName(c.Pacer, c.Random)
	}
	return s
}

// closedLoop is the profile of a run that has no pace.
const closedLoop = "closed loop"

func profileName(p Pacer, random bool) string {
	switch p := p.(type) {
	case after:
		return profileName(p.Pacer, random)
	case Ramp:
		return "ramp"
	case Steps:
		return "step"
	}
	if random {
		return "poisson"
	}
	return "constant"
}

func (r *running) requests(t *tally, rep *Report) Requests {
	q := Requests{Due: t.due, Sent: t.sent, Answered: t.answered, Cut: t.cut, Late: t.late, WarmUp: t.warm, BodyBytes: t.bodyBytes}
	for why, f := range t.failed {
		if !Failure(why).ofConnection() {
			q.Failed += f.n
		}
	}
	for status, h := range t.codes {
		if h.h == nil {
			continue
		}
		switch n := h.count(); {
		case status == 429 || status == 503:
			q.Throttled += n
		case status >= 500:
			q.Refused += n
		default:
			q.OK += n
		}
	}
	if rep.Took > 0 {
		q.Rate = float64(q.Answered) / rep.Took
	}
	return q
}

// measured is the time that the measured requests took: from the end of the
// warm-up to the last answer, or the intended end if that was later.
func (r *running) measured() (d time.Duration) {
	early := r.stop.Load()
	for _, l := range r.loops {
		d = max(d, time.Duration(l.meter.to-l.warmUntil))
		early = early || l.n >= r.cfg.Requests
	}
	if early {
		return d
	}
	return max(d, r.cfg.Duration)
}

func (r *running) generator(t *tally) Generator {
	g := Generator{Lag: t.lag.latency(), Opened: t.opened, Reopened: t.reopened, Unmade: t.unmade}
	var wall, cpu, spun, queued, requests float64
	for _, l := range r.loops {
		m := &l.meter
		if !m.begun || m.to <= m.from {
			continue
		}
		own := float64(m.to - m.from)
		work := max(float64(m.cpu-m.spun), 0)
		g.Busiest = max(g.Busiest, (work+float64(m.queued))/own)
		wall, cpu, spun, queued = wall+own, cpu+float64(m.cpu), spun+float64(m.spun), queued+float64(m.queued)
		requests += float64(m.requests)
	}
	if wall > 0 {
		g.CPU, g.Spin, g.Queued = cpu/wall, spun/wall, queued/wall
		g.ProcessCPU = float64(r.cpu) / (wall/float64(len(r.loops)) + float64(r.cfg.Warmup))
	}
	if requests > 0 {
		g.WorkPerRequest = max(cpu-spun, 0) / requests / 1000
	}
	return g
}

func (t *tally) splitCodes() (out []Split) {
	for status, h := range t.codes {
		if h.h != nil {
			out = append(out, Split{fmt.Sprint(status), t.samples[status], h.latency()})
		}
	}
	return out
}

func (t *tally) splitSources() (out []Split) {
	named := map[string]hist{}
	for i := range t.sources {
		if s := &t.sources[i]; s.used > 0 {
			named[s.String()] = s.hist
		}
	}
	for _, name := range slices.Sorted(maps.Keys(named)) {
		out = append(out, Split{Name: name, Response: named[name].latency()})
	}
	return out
}

func (t *tally) errorKinds() (out []ErrorKind) {
	for why, f := range t.failed {
		if f.n > 0 {
			k := Failure(why)
			out = append(out, ErrorKind{k.String(), f.n, k.ofConnection(), f.example})
		}
	}
	slices.SortFunc(out, func(a, b ErrorKind) int { return cmp.Compare(b.Count, a.Count) })
	return out
}

// judge decides whether the figures are the server's.
func (r *Report) judge() {
	if lag := r.Generator.Lag.P99; lag > us(int64(LagMax)) {
		r.Reason = append(r.Reason, fmt.Sprintf("the generator sent late: p99 of its own lag is %s, over %v; "+
			"lower the rate, add --threads, or give it a quieter machine", usText(lag), LagMax))
	}
	if g := &r.Generator; g.Busiest > CPUMax {
		r.Reason = append(r.Reason, fmt.Sprintf("a generator thread was at work, or waiting for a processor, for %.0f %% "+
			"of its time, over %.0f %%: it was the limit; lower the rate, add --threads, or give it a processor of its own",
			100*g.Busiest, 100*CPUMax))
	}
	if r.Requests.Due == 0 {
		r.Reason = append(r.Reason, "nothing was due within the measured time")
	}
	r.Valid = len(r.Reason) == 0
}
