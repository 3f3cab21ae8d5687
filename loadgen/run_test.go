package loadgen

import (
	"context"
	"math"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestEveryRequestOfTheScheduleIsSentAndCounted(t *testing.T) {
	for _, tt := range []struct {
		why                       string
		threads, pipeline, churn  int
		warmup                    time.Duration
		random, heads, unixSocket bool
	}{
		{why: "the plain case"},
		{why: "two threads share it", threads: 2},
		{why: "pipelined", pipeline: 8},
		{why: "with connections that are replaced", churn: 10},
		{why: "with a warm-up", warmup: 300 * time.Millisecond},
		{why: "with HEAD among them", heads: true, pipeline: 4},
		{why: "over a Unix socket", unixSocket: true, churn: 50},
	} {
		t.Run(tt.why, func(t *testing.T) {
			s := &fakeServer{status: func(n int64) int {
				if n%20 == 0 {
					return 429
				}
				return 200
			}}
			if tt.unixSocket {
				serveFakeOn(t, "unix", socketPath(t), s)
			} else {
				serveFake(t, s)
			}
			cfg := s.config(1000, time.Second)
			cfg.Threads, cfg.Pipeline, cfg.Churn, cfg.Warmup = tt.threads, tt.pipeline, tt.churn, tt.warmup
			cfg.NewAsker = func() Asker { return asks{heads: tt.heads} }
			r := run(t, cfg)
			q := r.Requests
			if q.Due != 1000 || q.Sent != 1000 || q.Answered != 1000 || q.WarmUp != int64(1000*tt.warmup.Seconds()) {
				t.Errorf("%+v, want 1000 due, sent and answered", q)
			}
			if s.asked.Load() != q.Due+q.WarmUp {
				t.Errorf("the server was asked %d times, want %d", s.asked.Load(), q.Due+q.WarmUp)
			}
			if got := r.codeCount(429); math.Abs(float64(got-50)) > 8 || got != q.Throttled || tt.warmup == 0 && got != 50 {
				t.Errorf("%d of 1000 were 429, want 50", got)
			}
			if want := (1000 + q.WarmUp) / max(int64(tt.churn), 1e6); tt.churn > 0 && s.conns.Load() < want {
				t.Errorf("%d connections, want at least %d", s.conns.Load(), want)
			}
			if len(r.Errors) > 0 {
				t.Errorf("errors: %+v", r.Errors)
			}
			if h, _ := hitFigure(r); math.Abs(h-0.9) > 0.06 {
				t.Errorf("%v of the answers were from the cache, want about 0.9: %+v", h, r.Sources)
			}
		})
	}
}

func TestAKnownDelayIsTheServiceTime(t *testing.T) {
	s := serveFake(t, &fakeServer{delay: 20 * time.Millisecond})
	r := run(t, s.config(200, 2*time.Second))
	for _, l := range []struct {
		what string
		Latency
	}{{"response", r.Response}, {"service", r.Service}, {"first byte", r.FirstByte}} {
		if l.P50 < 20_000 || l.P50 > 40_000 {
			t.Errorf("p50 of %s time is %v us, want 20 ms and what a timer costs", l.what, l.P50)
		}
	}
}

// A server that stops for a second is asked by nobody meanwhile, if the askers
// wait for their answers. That is how most tools come to say that all is well.
func TestAStallShowsInEveryPercentileItShould(t *testing.T) {
	s := serveFake(t, &fakeServer{})
	cfg := s.config(200, 5*time.Second)
	cfg.Connections = 4
	stop := time.AfterFunc(2*time.Second, func() { s.stall(time.Second) })
	defer stop.Stop()
	r := run(t, cfg)
	if r.Requests.Answered != 1000 {
		t.Errorf("%d answered, want all 1000", r.Requests.Answered)
	}
	// A fifth of the requests fell due during the stall and waited for the rest
	// of it: the 90th percentile of all is the middle of theirs. A busy machine
	// makes them longer, never shorter.
	if got := r.Response.P90; got < 400_000 || got > 1_500_000 {
		t.Errorf("p90 of response time is %.0f us, want about 500 ms", got)
	}
	if got := r.Response.P99; got < 900_000 || got > 2_500_000 {
		t.Errorf("p99 of response time is %.0f us, want about 950 ms", got)
	}
	if got := r.Response.Max; got < 950_000 || got > 3_000_000 {
		t.Errorf("the longest response time is %.0f us, want about 1 s", got)
	}
	if got := r.Service.P99; got > 300_000 {
		t.Errorf("p99 of service time is %.0f us: it cannot have seen the stall, only 4 requests were out", got)
	}
	if q := r.Requests; q.Late < 180 {
		t.Errorf("%d were late, want at least the 196 that fell due with nothing free", q.Late)
	}
	if !strings.Contains(r.gap(), "were due while no connection was free for them; at most 4 may") {
		t.Errorf("the gap is explained by %q", r.gap())
	}
}

func TestTheSameStallHidesFromAClosedLoop(t *testing.T) {
	s := serveFake(t, &fakeServer{delay: time.Millisecond})
	cfg := s.config(1, 3*time.Second)
	cfg.Pacer, cfg.Connections = nil, 4
	stop := time.AfterFunc(time.Second, func() { s.stall(time.Second) })
	defer stop.Stop()
	r := run(t, cfg)
	if r.Response.P99 > 300_000 {
		t.Errorf("p99 of a closed loop is %v us; it was expected not to see the stall", r.Response.P99)
	}
	if r.Requests.Answered < 500 || r.Requests.Failed > 0 {
		t.Errorf("%+v", r.Requests)
	}
}

func TestWhatIsNeverSentIsCountedAndCharged(t *testing.T) {
	s := serveFake(t, &fakeServer{delay: 100 * time.Millisecond})
	cfg := s.config(1000, time.Second)
	cfg.Connections, cfg.Drain = 2, 200*time.Millisecond
	r := run(t, cfg)
	unsent := r.errorCount(Unsent)
	if r.Requests.Due != 1000 || unsent < 960 || r.Requests.Sent+unsent != 1000 {
		t.Errorf("%+v, %d unsent; want 1000 due and all but some 24 unsent", r.Requests, unsent)
	}
	if r.Response.P50 < 500_000 {
		t.Errorf("p50 of response time is %v us; most requests waited for more than half a second in vain", r.Response.P50)
	}
}

func TestFailuresAreCountedByKindWithAnExample(t *testing.T) {
	for _, tt := range []struct {
		why     string
		server  *fakeServer
		want    Failure
		example string
	}{
		{"a server that hangs", &fakeServer{delay: 3 * time.Second}, TimedOut, "no answer in 200ms"},
		{"a server that speaks otherwise", &fakeServer{raw: "SSH-2.0-OpenSSH_9\r\n"}, Malformed, "SSH-2.0"},
		{"a server that hangs up instead of answering", &fakeServer{raw: "H", last: 1}, Closed, "closed"},
	} {
		t.Run(tt.why, func(t *testing.T) {
			s := serveFake(t, tt.server)
			cfg := s.config(50, 400*time.Millisecond)
			cfg.Timeout = 200 * time.Millisecond
			r := run(t, cfg)
			if r.Requests.Due != 20 || r.errorCount(tt.want) < 15 || r.Requests.Answered != 0 {
				t.Fatalf("%+v %+v, want 20 due and failures of kind %v", r.Requests, r.Errors, tt.want)
			}
			for _, e := range r.Errors {
				if e.Kind == tt.want.String() && !strings.Contains(e.Example, tt.example) {
					t.Errorf("the example is %q, want it to say %q", e.Example, tt.example)
				}
			}
		})
	}
}

func TestAServerThatClosesPolitelyCostsNothing(t *testing.T) {
	s := serveFake(t, &fakeServer{last: 20})
	r := run(t, s.config(400, time.Second))
	// It may close just when the next request is on its way: that one fails.
	if r.Requests.Answered < 380 || r.Generator.Reopened == 0 {
		t.Errorf("%+v, %d connections reopened", r.Requests, r.Generator.Reopened)
	}
}

func TestNobodyThereIsAnError(t *testing.T) {
	s := serveFake(t, &fakeServer{})
	s.shut()
	cfg := s.config(10, time.Second)
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	if _, err := Run(ctx, cfg); err == nil || !strings.Contains(err.Error(), "refused") {
		t.Errorf("error %v, want connection refused", err)
	}
}

func TestAnInterruptedRunReportsWhatItHas(t *testing.T) {
	s := serveFake(t, &fakeServer{delay: 30 * time.Millisecond})
	ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
	defer cancel()
	r, err := Run(ctx, s.config(100, time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	if q := r.Requests; q.Answered < 20 || q.Answered > 60 || q.Failed > 0 {
		t.Errorf("%+v, want about 47 answered and none failed", q)
	}
	if !r.Interrupted || r.Took > 60 {
		t.Errorf("interrupted: %v, after %v s of an hour", r.Interrupted, r.Took)
	}
}

// Whoever interrupts a run does so because the server stands still. What fell
// due meanwhile is what he saw.
func TestAnInterruptHidesNoStall(t *testing.T) {
	s := serveFake(t, &fakeServer{delay: 2 * time.Second})
	ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
	defer cancel()
	cfg := s.config(200, time.Hour)
	cfg.Connections = 4
	r, err := Run(ctx, cfg)
	if err != nil {
		t.Fatal(err)
	}
	q := r.Requests
	if q.Due <= 4 || q.Cut != q.Due || q.Late != q.Due-4 || r.Response.Count != q.Due || r.Service.Count != 0 {
		t.Errorf("%+v, %d response times; want all that were due cut off, all but 4 late, and each charged", q, r.Response.Count)
	}
	if least := float64(q.Due-1) * 5000 * 0.99; r.Response.Max < least {
		t.Errorf("the longest response time is %v us, want at least the %v from the first request to the last", r.Response.Max, least)
	}
	if !strings.Contains(r.gap(), "while no connection was free for them; at most 4 may be in flight") {
		t.Errorf("the gap is explained by %q", r.gap())
	}
}

func TestWhyResponseAndServiceDiffer(t *testing.T) {
	for _, tt := range []struct {
		why, profile string
		change       func(*Report)
		want         string
	}{
		{"they do not", "constant", func(*Report) {}, "they agree"},
		{"a ramp from 0 is no closed loop", "ramp", func(*Report) {}, "they agree"},
		{"a closed loop is one", closedLoop, func(*Report) {}, "A closed loop"},
		{"requests waited", "constant", func(r *Report) { r.Response.P99, r.Requests.Late = 5000, 9 }, "at p99 they are 4ms apart, because 9 requests (0.9 %) were due"},
		{"timeouts are charged, and nobody was late", "constant", func(r *Report) { r.Response.P99, r.Requests.Failed = 1e6, 20 },
			"because 20 requests (2 %) that were not answered"},
		{"nothing was answered", "constant", func(r *Report) { r.Service, r.Requests.Failed = Latency{}, 1000 }, "1,000 requests (100 %) that were not answered"},
		{"a stall that p99 does not see", "constant", func(r *Report) { r.Response.P999, r.Requests.Late = 5000, 5 }, "at p99.9 they are"},
		{"or only the longest", "constant", func(r *Report) { r.Response.Max, r.Requests.Late = 5000, 1 }, "at the longest they are"},
		{"the generator was late itself", "constant", func(r *Report) { r.Response.P99, r.Generator.Lag.P99, r.Requests.Late = 5000, 4000, 9 }, "the generator itself"},
	} {
		l := Latency{P50: 1000, P90: 1000, P95: 1000, P99: 1000, P999: 1000, Max: 1000}
		r := &Report{Setup: Setup{Profile: tt.profile, Inflight: 4}, Requests: Requests{Due: 1000}, Response: l, Service: l}
		tt.change(r)
		if got := r.gap(); !strings.Contains(got, tt.want) {
			t.Errorf("%s: %q, want it to say %q", tt.why, got, tt.want)
		}
	}
}

// A connection that this machine has no descriptor for is not the server's
// doing, and keeps requests from being sent.
func TestARunThatLacksDescriptorsIsInvalid(t *testing.T) {
	s := serveFake(t, &fakeServer{})
	open, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	var limit, was unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &was); err != nil {
		t.Fatal(err)
	}
	limit = was
	limit.Cur = uint64(len(open) + 10)
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = unix.Setrlimit(unix.RLIMIT_NOFILE, &was) }()
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	cfg := s.config(50, time.Minute)
	cfg.Connections = 100
	r, err := Run(ctx, cfg)
	if err != nil {
		t.Fatal(err)
	}
	if r.Valid || r.Generator.Unmade == 0 || !strings.Contains(strings.Join(r.Reason, " "), "ulimit") {
		t.Errorf("valid %v, %d connections not made, %q; want it invalid for that", r.Valid, r.Generator.Unmade, r.Reason)
	}
}

func TestARunIsBoundedInRequests(t *testing.T) {
	s := serveFake(t, &fakeServer{})
	cfg := s.config(1, time.Hour)
	cfg.Pacer, cfg.Requests, cfg.Threads = nil, 1001, 2
	if r := run(t, cfg); r.Requests.Due != 1001 || s.asked.Load() != 1001 {
		t.Errorf("%d due and %d asked, want 1001", r.Requests.Due, s.asked.Load())
	}
	cfg.Requests, cfg.Threads = 1, 1 // over before the housekeeping came by
	if r := run(t, cfg); r.Took <= 0 || r.Took > 60 || r.Requests.Rate <= 0 {
		t.Errorf("%v/s in %v s of an hour, want the rate of the time that it took", r.Requests.Rate, r.Took)
	}
}

func TestBeforeTheFirstSecondIsOverALineSaysNoFigures(t *testing.T) {
	v := Live{At: 999 * time.Millisecond, Of: 8 * time.Second}
	if got := v.Line(); got != "  1/8s" {
		t.Errorf("%q: nothing is known yet", got)
	}
	v.Last.Codes, v.Last.Target = map[int]int64{200: 3}, 0.5
	if got := v.Line(); !strings.Contains(got, "0/s of 0.5") || !strings.Contains(got, "200:3") {
		t.Errorf("%q", got)
	}
}

func TestARequestAllocatesNothing(t *testing.T) {
	s := serveFake(t, &fakeServer{})
	mallocs := func(n int64) uint64 {
		cfg := s.config(1, time.Minute)
		cfg.Pacer, cfg.Requests, cfg.Pipeline = nil, n, 4
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		run(t, cfg)
		runtime.ReadMemStats(&after)
		return after.Mallocs - before.Mallocs
	}
	const few, many = 2_000, 42_000
	mallocs(few)
	if each := (float64(mallocs(many)) - float64(mallocs(few))) / (many - few); each > 0.02 {
		t.Errorf("%.3f allocations a request, want none", each)
	}
}

func TestAnOverdrivenGeneratorSaysSo(t *testing.T) {
	r := &Report{Requests: Requests{Due: 1}}
	r.Generator.Lag.P99 = 2_000
	r.Generator.Busiest = 0.95
	r.judge()
	if r.Valid || len(r.Reason) != 2 || !strings.Contains(r.Reason[0], "sent late") || !strings.Contains(r.Reason[1], "95 %") {
		t.Errorf("%v %q, want it invalid for two reasons", r.Valid, r.Reason)
	}
}

func TestConfigsThatCannotBe(t *testing.T) {
	good := Config{Network: "tcp", Address: "127.0.0.1:1", NewAsker: func() Asker { return asks{} }, Duration: time.Second}
	for why, change := range map[string]func(*Config){
		"no duration":                    func(c *Config) { c.Duration = 0 },
		"for ever":                       func(c *Config) { c.Duration = DurationMax + 1 },
		"more threads than connections":  func(c *Config) { c.Connections, c.Threads = 1, 2 },
		"more in flight than fits":       func(c *Config) { c.Connections, c.Inflight = 4, 5 },
		"nothing to ask":                 func(c *Config) { c.NewAsker = nil },
		"a network nobody has heard of":  func(c *Config) { c.Network = "ipx" },
		"fewer in flight than threads":   func(c *Config) { c.Threads, c.Inflight = 3, 2 },
		"more places than memory":        func(c *Config) { c.Connections, c.Pipeline = 60_000, 1024 },
		"a socket without a path":        func(c *Config) { c.Network, c.Address = "unix", "" },
		"a path that is too long":        func(c *Config) { c.Network, c.Address = "unix", "/"+strings.Repeat("a", pathMax) },
		"connections beyond local ports": func(c *Config) { c.Connections = 70_000 },
	} {
		cfg := good
		change(&cfg)
		if _, err := Run(t.Context(), cfg); err == nil {
			t.Errorf("%s: it ran", why)
		}
	}
}

// The chart shows what was meant beside what was answered.
func TestEachSecondSaysWhatWasMeantThen(t *testing.T) {
	cfg := Config{Pacer: Ramp{From: 0, To: 1000, Over: 10 * time.Second}, Warmup: 3 * time.Second, Duration: 10 * time.Second}.withDefaults()
	l := &loop{cfg: &cfg}
	for second, want := range map[int64]float64{0: 50, 4: 450, 9: 950, 10: 0} {
		if got := l.target(second); math.Abs(got-want) > 1e-6 {
			t.Errorf("in second %d %v/s were meant, want %v", second, got, want)
		}
	}
}

// A server that has no room for a connection is asked again, but thousands of
// them at once would leave neither side time for anything else.
func TestConnectionsThatFailAreTriedAgainInTheirTurn(t *testing.T) {
	l := &loop{now: int64(time.Second)}
	for i := range 5000 {
		if wait, want := l.later()-l.now, int64(backoff)+int64(i)*int64(backoff)/dialing; wait != want {
			t.Fatalf("the %dth waits %v, want %v", i, time.Duration(wait), time.Duration(want))
		}
	}
	l.now += int64(time.Hour)
	if wait := l.later() - l.now; wait != int64(backoff) {
		t.Errorf("long after that one waits %v, want %v", time.Duration(wait), backoff)
	}
}
