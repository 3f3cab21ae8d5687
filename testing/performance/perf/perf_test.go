package main

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"svcindex/loadgen"
	"svcindex/testing/performance/lab"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestEveryScenarioCanBeRead(t *testing.T) {
	files, err := filepath.Glob("../scenarios/*.toml")
	if err != nil {
		t.Fatal(err)
	}
	have := map[string]bool{}
	for _, file := range files {
		s, err := readScenario(file)
		if err != nil {
			t.Error(err)
			continue
		}
		have[s.name] = true
		for _, p := range s.Phases {
			for _, l := range p.Loads {
				if _, err := loadgen.ParseObjective(l.SLO); err != nil {
					t.Errorf("%s: phase %s: %v", file, p.Name, err)
				}
			}
		}
	}
	for _, name := range strings.Fields("hit hot-cold db-cold dht-tail overload limits limits-rate slow-loris bomb cache-cold-sweep dht-flap inter-region") {
		if !have[name] {
			t.Errorf("there is no scenario %s", name)
		}
	}
}

// What make captures names has to be there, and what is not must be said.
func TestThePhaseOfACapture(t *testing.T) {
	for _, tt := range []struct{ scenario, phase, want string }{
		{"hit", "", "hit"}, {"slow-loris", "", "loris"}, {"limits", "", "bodies"}, {"overload", "x5", "x5"}, {"hit", "miss", ""},
	} {
		s, err := readScenario("../scenarios/" + tt.scenario + ".toml")
		if err != nil {
			t.Fatal(err)
		}
		i, err := s.find(tt.phase)
		if (err != nil) != (tt.want == "") || err == nil && s.Phases[i].Name != tt.want {
			t.Errorf("%s:%s is phase %d, %v; want %q", tt.scenario, tt.phase, i, err, tt.want)
		}
	}
	makefile, err := os.ReadFile("../../../Makefile")
	if err != nil {
		t.Fatal(err)
	}
	_, after, _ := strings.Cut(string(makefile), "CAPTURES ?= ")
	line, _, _ := strings.Cut(after, "\n")
	have := map[string]bool{}
	for _, what := range strings.Fields(line) {
		name, phase, _ := strings.Cut(what, ":")
		have[name] = true
		s, err := readScenario("../scenarios/" + name + ".toml")
		if err == nil {
			_, err = s.find(phase)
		}
		if err != nil {
			t.Errorf("make captures takes %s: %v", what, err)
		}
	}
	files, err := filepath.Glob("../scenarios/*.toml")
	if err != nil || len(files) == 0 {
		t.Fatal(files, err)
	}
	for _, file := range files {
		if name := strings.TrimSuffix(filepath.Base(file), ".toml"); !have[name] {
			t.Errorf("make captures leaves out %s", name)
		}
	}
}

func TestACaptureKeepsWhatIsSmall(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"summary.txt", "trace.out", "metrics.txt", "cpu.pb.gz", "cpu-by-stage.svg"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("in /tmp/work/hit"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := tidy(dir, "/tmp/work"); err != nil {
		t.Fatal(err)
	}
	var left []string
	entries, err := os.ReadDir(dir)
	for _, e := range entries {
		left = append(left, e.Name())
	}
	if want := "cpu-by-stage.svg cpu.pb.gz summary.txt"; err != nil || strings.Join(left, " ") != want {
		t.Errorf("left are %v, %v; want %s", left, err, want)
	}
	if b, err := os.ReadFile(filepath.Join(dir, "summary.txt")); err != nil || string(b) != "in hit" {
		t.Errorf("%s, %v", b, err)
	}
}

func TestScenariosThatWouldShowNothingAreRefused(t *testing.T) {
	const good = "why = \"because\"\n[[phase]]\nname = \"p\"\n[[phase.load]]\nname = \"l\"\n"
	for why, text := range map[string]string{
		"no reason":                 strings.Replace(good, "because", " ", 1),
		"no phase":                  "why = \"because\"\n",
		"a phase without a load":    "why = \"because\"\n[[phase]]\nname = \"p\"\n",
		"a key nobody knows":        good + "slow = 1\n",
		"an act nobody knows":       good + "[[phase.act]]\ndo = \"dance\"\n",
		"a recovery without a band": strings.Replace(good, "name = \"p\"", "name = \"p\"\nrecover = \"1m\"", 1),
	} {
		file := filepath.Join(t.TempDir(), "s.toml")
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := readScenario(file); err == nil {
			t.Errorf("%s: it was taken", why)
		}
	}
	file := filepath.Join(t.TempDir(), "s.toml")
	if err := os.WriteFile(file, []byte(good), 0o600); err != nil {
		t.Fatal(err)
	}
	if s, err := readScenario(file); err != nil || s.name != "s" || s.hash == "" {
		t.Errorf("%+v, %v, want it taken", s, err)
	}
}

func TestWhenP95IsBackInItsBand(t *testing.T) {
	for _, tt := range []struct {
		why  string
		p95  []float64 // by second
		at   time.Duration
		back bool
	}{
		{"never out", []float64{1, 1, 1}, 0, true},
		{"out for two seconds", []float64{9, 9, 1, 1, 1}, 2 * time.Second, true},
		{"out again at the end, twice", []float64{9, 1, 1, 9, 9}, 0, false},
		{"never back", []float64{9, 9, 9}, 0, false},
		{"gone, and nothing is answered any more", []float64{9, 1, 0, 0, 0}, 0, false},
	} {
		var seconds []loadgen.Second
		for i, v := range tt.p95 {
			seconds = append(seconds, loadgen.Second{At: float64(i), P95: v, Target: 10, Answered: int64(10 * min(v, 1))})
		}
		at, back := recovered(seconds, 5)
		if back != tt.back || back && at != tt.at {
			t.Errorf("%s: %v, %v; want %v, %v", tt.why, at, back, tt.at, tt.back)
		}
	}
}

func TestARefusalOutOfFormIsNoticed(t *testing.T) {
	const good = `{"code":"over_capacity","message":"m","corr_id":"c"}`
	for _, tt := range []struct {
		why    string
		status int
		body   string
		drop   string // header that is left out
		fault  string
	}{
		{"as it should be", 429, good, "", ""},
		{"not JSON", 429, good, "Content-Type", "JSON"},
		{"cut off", 429, good[:9], "", "read"},
		{"the code of another status", 503, good, "", "upstream_unready"},
		{"no message", 429, strings.Replace(good, `"m"`, `""`, 1), "", "message"},
		{"another correlation id", 429, strings.Replace(good, `"c"`, `"d"`, 1), "", "X-Corr-ID"},
		{"a cache may keep it", 429, good, "Cache-Control", "cached"},
		{"it does not say when to come back", 429, good, "Retry-After", "Retry-After"},
	} {
		h := http.Header{"Content-Type": {"application/json"}, "Cache-Control": {"no-store"}, "X-Corr-Id": {"c"}, "Retry-After": {"1"}}
		h.Del(tt.drop)
		fault := faultOf(&http.Response{StatusCode: tt.status, Header: h}, []byte(tt.body))
		if (fault == "") != (tt.fault == "") || !strings.Contains(fault, tt.fault) {
			t.Errorf("%s: %q, want it to name %q", tt.why, fault, tt.fault)
		}
	}
}

func TestAPathDelaysBothWays(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	go func() {
		c, err := ln.Accept()
		if err != nil {
			return
		}
		defer c.Close()
		_, _ = io.Copy(c, c)
	}()
	const delay = 30 * time.Millisecond
	p, err := openPath(ln.Addr().String(), delay)
	if err != nil {
		t.Fatal(err)
	}
	defer p.close()
	c, err := net.Dial("tcp", p.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	began, got := time.Now(), make([]byte, 5)
	if _, err := c.Write([]byte("hello")); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(c, got); err != nil || string(got) != "hello" {
		t.Fatalf("%q, %v", got, err)
	}
	if took := time.Since(began); took < delay {
		t.Errorf("there and back took %v, want at least %v", took, delay)
	}
}

func TestAScaledScenarioIsWarmAllTheSame(t *testing.T) {
	for _, tt := range []struct {
		why  string
		b    bench
		p    phase
		want time.Duration
	}{
		{"a fifth of what is measured", bench{scale: 0.2}, phase{For: duration(10 * time.Second)}, 2 * time.Second},
		{"all of what prepares", bench{scale: 0.2}, phase{For: duration(10 * time.Second), Warm: true}, 10 * time.Second},
		{"twice both", bench{scale: 2}, phase{For: duration(10 * time.Second), Warm: true}, 20 * time.Second},
	} {
		if got := tt.b.length(&tt.p); got != tt.want {
			t.Errorf("%s: %v, want %v", tt.why, got, tt.want)
		}
	}
}

// Each promise that is broken has to be named, and make the load not held.
func TestABrokenPromiseIsNamed(t *testing.T) {
	good := func() *loadgen.Report {
		r := &loadgen.Report{Valid: true}
		r.Requests = loadgen.Requests{Due: 1000, Answered: 1000, OK: 1000, Rate: 1000}
		r.Sources = []loadgen.Split{{Name: "cache", Response: loadgen.Latency{Count: 900}}, {Name: "db", Response: loadgen.Latency{Count: 100}}}
		r.Response.P95 = 1000
		return r
	}
	t0 := time.Now()
	before := lab.Usage{At: t0, FilesMax: 20000}
	after := lab.Usage{At: t0.Add(time.Second), CPU: 500 * time.Millisecond, FilesMax: 20000, Peak: 100 << 20}
	for _, tt := range []struct {
		why    string
		change func(r *loadgen.Report, u *lab.Usage)
		named  string
	}{
		{"all is well", func(*loadgen.Report, *lab.Usage) {}, ""},
		{"slow", func(r *loadgen.Report, _ *lab.Usage) { r.Response.P95 = 80_000 }, "p95"},
		{"errors", func(r *loadgen.Report, _ *lab.Usage) { r.Requests.Refused = 1 }, "errors"},
		{"throttled", func(r *loadgen.Report, _ *lab.Usage) { r.Requests.Throttled = 10 }, "throttled"},
		{"busy", func(_ *loadgen.Report, u *lab.Usage) { u.CPU = 600 * time.Millisecond }, "processor"},
		{"large", func(_ *loadgen.Report, u *lab.Usage) { u.Peak = 2 << 30 }, "memory"},
		{"many descriptors", func(_ *loadgen.Report, u *lab.Usage) { u.Files = 6000 }, "descriptors"},
		{"few hits", func(r *loadgen.Report, _ *lab.Usage) { r.Sources = r.Sources[1:] }, "hit ratio"},
		{"a server that was gone", func(r *loadgen.Report, _ *lab.Usage) { r.Requests.Answered, r.Requests.Rate = 0, 0 }, "nothing was answered"},
		{"busy while it was asked, which the start of the generator does not dilute", func(_ *loadgen.Report, u *lab.Usage) { u.At, u.CPU = u.At.Add(time.Second), 700*time.Millisecond }, "processor 70"},
		{"a generator that was the limit", func(r *loadgen.Report, _ *lab.Usage) { r.Valid = false }, "INVALID"},
	} {
		r, u := good(), after
		tt.change(r, &u)
		got := rungOf(r, before, u, 1000, 80*time.Millisecond, true)
		if got.Held != (tt.named == "") || !strings.Contains(got.Why, tt.named) {
			t.Errorf("%s: held %v, %q", tt.why, got.Held, got.Why)
		}
	}
}

func TestAReportSaysWhatWasNotMeasured(t *testing.T) {
	dir := t.TempDir()
	b := &bench{results: dir, scenarios: "../scenarios", report: filepath.Join(dir, "report.md")}
	r := rating{Setup: setups()[0], Rated: 1000, Mixed: []rung{{Rate: 1000, Answered: 1000, Hit: 0.9, P95: 500, CPU: 0.5, FilesMax: 100, Valid: true, Held: true}}}
	text, err := json.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(b.ratingFile("dev"), text, 0o600); err != nil {
		t.Fatal(err)
	}
	if exit, err := b.writeReport(context.Background()); exit != 0 || err != nil {
		t.Fatal(exit, err)
	}
	report, err := os.ReadFile(b.report)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"has not been held yet", "| p95 of resolve < 80ms |", "not measured", "PROFILE=micronode", "| overload |"} {
		if !bytes.Contains(report, []byte(want)) {
			t.Errorf("the report does not say %q:\n%s", want, report)
		}
	}
}

// What was found of one build is not shown as that of another, and what was
// not read is not shown as zero.
func TestAReportMixesNoTwoBuilds(t *testing.T) {
	r := &rating{Version: "v1", Go: "go1", Host: lab.Host{Class: "big"}}
	same := &result{Version: "v1", Go: "go1", Host: lab.Host{Class: "big"}}
	if err := r.sameAs(same); err != nil {
		t.Error(err)
	}
	for _, other := range []*result{{Version: "v2", Go: "go1", Host: same.Host}, {Version: "v1", Go: "go2", Host: same.Host}, {Version: "v1", Go: "go1"}} {
		if r.sameAs(other) == nil {
			t.Errorf("a hold of %+v was added to a rating of %+v", other, r)
		}
	}
	b := &bench{results: t.TempDir()}
	tail := &result{Schema: schema, Scenario: "dht-tail", Version: "v2", Commit: "c2", Scale: 0.2, Verdict: verdictHeld,
		Server: map[string]float64{"dht_hops_p99": 4, "dht_lookups": 7, "hedge_win_rate": 0.5, "hedged": 2}}
	across := &result{Schema: schema, Scenario: "inter-region", Version: "v1", Commit: "c1", Scale: 1, Verdict: verdictHeld,
		Loads: []loadResult{{Load: "names", Valid: true, Figures: map[string]float64{"p95_us": 0, "rate_answered": 0}}}}
	for _, r := range []*result{tail, across} {
		r.Started = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
		if _, err := r.write(b.results); err != nil {
			t.Fatal(err)
		}
	}
	rows := b.networkPromises("v1")
	if rows[0].verdict() != "not measured" {
		t.Errorf("%+v: nothing was answered", rows[0])
	}
	for i, want := range []string{1: "4, of 7 look-ups (dht-tail at 0.2 of its time, c2, another build)", 2: "0.50, of 2 hedged (dht-tail at 0.2 of its time, c2, another build)"} {
		if rows[i].figure != want && want != "" {
			t.Errorf("%q, want %q", rows[i].figure, want)
		}
	}
}

// A climb that ended where the generator did has not found what the server can
// do, and a half that never held has a row all the same.
func TestTheHalvesSayWhatEndedTheirClimb(t *testing.T) {
	held, broke := rung{Rate: 8000, Held: true, Valid: true}, rung{Rate: 16000, Valid: true, Why: "processor 61.0 %"}
	disturbed := rung{Rate: 16000, Why: invalidWord + ": sent late"}
	both := rung{Rate: 16000, Why: "p95 90ms; " + invalidWord + ": sent late"}
	for _, tt := range []struct {
		why   string
		rungs []rung
		want  string
	}{
		{"the server was the limit", []rung{held, broke}, ""},
		{"the generator was", []rung{held, disturbed, disturbed}, "at least "},
		{"it was disturbed, and then it was the server", []rung{held, disturbed, broke}, ""},
		{"both", []rung{held, both}, ""},
		{"higher rates were the generator's, but the next is the server's", []rung{held, {Rate: 64000, Why: invalidWord}, broke}, ""},
		{"nothing above was tried", []rung{held}, ""},
	} {
		if got := orMore(tt.rungs, 8000); got != tt.want {
			t.Errorf("%s: %q, want %q", tt.why, got, tt.want)
		}
	}
	var b strings.Builder
	halvesReport(&b, &rating{Hits: []rung{held, broke}, HitRate: 8000, Misses: []rung{broke}, Nginx: []rung{held, disturbed}, NginxMax: 8000})
	for _, want := range []string{"| hits only | 8,000/s |", "| none: 16,000/s broke (processor 61.0 %)", "at least 8,000/s", "at most so much"} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("it does not say %q:\n%s", want, &b)
		}
	}
}

func TestAReportOfNothingIsNotWritten(t *testing.T) {
	b := &bench{results: t.TempDir(), report: filepath.Join(t.TempDir(), "report.md")}
	for why, change := range map[string]func(*bench){
		"a profile nobody has": func(b *bench) { b.profile = "devv" },
		"a stage nobody has":   func(b *bench) { b.stage = "keep" },
		"a rating that cannot be read": func(b *bench) {
			b.stage = "write"
			if err := os.WriteFile(b.ratingFile("dev"), []byte("{"), 0o600); err != nil {
				t.Fatal(err)
			}
		},
	} {
		bad := *b
		change(&bad)
		exit, err := bad.sloReport(t.Context())
		if _, statErr := os.Stat(b.report); exit == 0 || err == nil || statErr == nil {
			t.Errorf("%s: exit %d, %v; a report was written: %v", why, exit, err, statErr == nil)
		}
	}
}

func TestAPromiseThatWasNotReadIsNotHeld(t *testing.T) {
	h := rung{Valid: true, FilesMax: 100, Uncounted: []string{integrityMetric}}
	r := &rating{Setup: setups()[0], Holds: []hold{{rung: h}}}
	for _, p := range promises(r, &h) {
		read := strings.HasPrefix(p.what, "absences") || strings.HasPrefix(p.what, "memory") || strings.HasPrefix(p.what, "descriptors") || strings.HasPrefix(p.what, "the generator")
		if (p.verdict() == "held") != read {
			t.Errorf("%s: %s, of a run without answers and without %s", p.what, p.verdict(), integrityMetric)
		}
	}
	if n, there := errorsOf(map[string]float64{`http_requests_total{route="resolve",method="GET",status="ok"}`: 3}); n != 0 || !there {
		t.Errorf("%v errors, counted: %v; want none, and counted", n, there)
	}
	if _, there := errorsOf(map[string]float64{"up": 1}); there {
		t.Error("errors are counted by a metric that is not there")
	}
	if n, there := lab.Sum(map[string]float64{`a{b="c"}`: 1, "a": 2, "ab": 4}, "a"); n != 3 || !there {
		t.Errorf("%v, %v", n, there)
	}
	if _, there := lab.Sum(nil, "a"); there {
		t.Error("a metric that is not there is there")
	}
}

func TestATrialLeavesRoomForSlowerMinutes(t *testing.T) {
	for _, c := range []struct {
		why   string
		u     rung
		fit   bool
		times float64
	}{
		{"it held with room", rung{Valid: true, Held: true, CPU: 0.55}, true, 1},
		{"it held, but so barely that ten minutes would not", rung{Valid: true, Held: true, CPU: 0.595}, false, easier},
		{"it did not hold", rung{Valid: true, CPU: 0.61}, false, easier},
		{"a neighbour disturbed the generator, whose rate is not to blame", rung{CPU: 0.4}, false, 1},
	} {
		if fit, times := afterTrial(c.u); fit != c.fit || times != c.times {
			t.Errorf("%s: fit %v, times %v, want %v and %v", c.why, fit, times, c.fit, c.times)
		}
	}
}
