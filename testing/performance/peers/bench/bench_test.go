package main

import (
	"math"
	"strings"
	"testing"
	"time"

	"github.com/google/pprof/profile"
)

func TestSpread(t *testing.T) {
	for _, tt := range []struct {
		why  string
		in   []float64
		want Spread
	}{
		{"nothing measured is nothing", nil, Spread{}},
		{"one figure is all three", []float64{2}, Spread{2, 2, 2, 1}},
		{"the middle one of an odd number", []float64{9, 1, 2}, Spread{2, 1, 9, 3}},
		{"between the two in the middle of an even number", []float64{4, 1, 2, 9}, Spread{3, 1, 9, 4}},
		{"what is no number is left out", []float64{math.NaN(), 1, math.Inf(1)}, Spread{1, 1, 1, 1}},
	} {
		if got := spread(tt.in); got != tt.want {
			t.Errorf("%s: spread(%v) = %v, want %v", tt.why, tt.in, got, tt.want)
		}
	}
}

func TestRatiosArePairedByRound(t *testing.T) {
	sample := func(cpu float64) Sample { return Sample{Requests: 1, CPU: cpu} }
	// The machine was twice as slow in the second round: both were.
	ours := []Sample{sample(6), sample(12), sample(6.6)}
	peer := []Sample{sample(6), sample(10), sample(6)}
	got := paired(ours, peer, cpuRatio)
	if want := (Spread{1.1, 1, 1.2, 3}); math.Abs(got.Median-want.Median) > 1e-9 || got.Min != want.Min || math.Abs(got.Max-want.Max) > 1e-9 || got.N != 3 {
		t.Errorf("paired = %v, want %v", got, want)
	}
	if got := paired(ours[:2], append(peer[:1:1], Sample{}), cpuRatio); got.N != 1 {
		t.Errorf("a round that measured nothing counts: %v", got)
	}
	if got := paired(ours, peer[:1], cpuRatio); got.N != 1 {
		t.Errorf("a round that only one side has counts: %v", got)
	}
}

func TestVerdict(t *testing.T) {
	one := func(v float64) Spread { return Spread{v, v, v, 1} }
	for _, tt := range []struct {
		why  string
		row  Row
		want string
	}{
		{"at least, reached", Row{AtLeast: true, Goal: 1.05, Found: one(1.05)}, "met"},
		{"at least, not reached", Row{AtLeast: true, Goal: 2, Found: one(1.5)}, "missed by 25.0 %"},
		{"at most, kept", Row{Goal: 1.1, Found: one(1.1)}, "met"},
		{"at most, passed", Row{Goal: 1, Found: one(1.5)}, "missed by 50.0 %"},
		{"none at all allowed, and none found", Row{Goal: 0, Found: one(0)}, "met"},
		{"none at all allowed, and some found", Row{Goal: 0, Found: one(7)}, "missed: 7.00"},
		{"a figure beside a goal is no verdict", Row{Goal: 1, Found: one(9), Beside: true}, "beside it"},
		{"what was not measured was not reached", Row{Goal: 1}, "not measured"},
	} {
		if got := tt.row.Verdict(); got != tt.want {
			t.Errorf("%s: %q, want %q", tt.why, got, tt.want)
		}
	}
}

func TestAccountTellsOthersFromTheTwoSides(t *testing.T) {
	from, to := machine{busy: 100, steal: 1}, machine{busy: 103.6, steal: 1.2}
	s := account(Sample{Requests: 100_000}, 2*time.Second, 1600*time.Millisecond, 1400*time.Millisecond, from, to)
	for _, tt := range []struct {
		what      string
		got, want float64
	}{
		{"us a request", s.CPU, 16}, {"of the server", s.Busy, .8}, {"of the client", s.Client, .7},
		{"of others", s.Others, .3}, {"of the host", s.Steal, .1},
	} {
		if math.Abs(tt.got-tt.want) > 1e-9 {
			t.Errorf("%s: %v, want %v", tt.what, tt.got, tt.want)
		}
	}
	if s.noise() <= 1 {
		t.Errorf("a run of which others took %v processors is not found disturbed", s.Others)
	}
}

func TestADisturbedRunIsDoneAgain(t *testing.T) {
	quiet, loud := Sample{Others: othersMax / 2}, Sample{Others: othersMax * 3}
	worse := Sample{Steal: stealMax * 9}
	for _, tt := range []struct {
		why   string
		runs  []Sample
		tries int
		want  bool
	}{
		{"a quiet run stands", []Sample{quiet}, 1, false},
		{"it is done again until it is quiet", []Sample{loud, worse, quiet}, 3, false},
		{"but not for ever", []Sample{worse, loud, worse, worse, quiet}, tries, true},
	} {
		n, waits := 0, 0
		got, err := undisturbed(func() { waits++ }, func() (Sample, error) { n++; return tt.runs[n-1], nil })
		if waits != n-1 {
			t.Errorf("%s: it waited for calm %d times between %d tries", tt.why, waits, n)
		}
		if err != nil || n != tt.tries || got.Tries != tt.tries || got.Disturbed != tt.want {
			t.Errorf("%s: %d tries, disturbed %v, %v", tt.why, n, got.Disturbed, err)
		}
		if tt.want && got.Others != loud.Others {
			t.Errorf("%s: of disturbed runs it kept %v, not the least disturbed", tt.why, got)
		}
	}
}

func TestParseStat(t *testing.T) {
	m, err := parseStat([]byte("cpu  100 200 300 4000 50 6 7 800 9 10\ncpu0 1 2 3\n"))
	if want := (machine{busy: 6.13, steal: 8}); err != nil || math.Abs(m.busy-want.busy) > 1e-9 || m.steal != want.steal {
		t.Errorf("parseStat = %+v, %v, want %+v: idle and iowait are nobody's", m, err, want)
	}
	for _, bad := range []string{"", "cpu 1 2", "cpu0 1 2 3 4 5 6 7 8", "cpu 1 2 3 x 5 6 7 8"} {
		if _, err := parseStat([]byte(bad)); err == nil {
			t.Errorf("parseStat(%q) found nothing wrong", bad)
		}
	}
}

func TestParseWrk(t *testing.T) {
	s, err := parseWrk([]byte("Running 2s test\n  100 requests in 2.00s\nRESULT {\"requests\":100,\"failed\":1,\"seconds\":2.0,\"p50_us\":3,\"p99_us\":4}\n"))
	if err != nil || s.Requests != 100 || s.Failed != 1 || s.RPS != 50 || s.P50 != 3 || s.P99 != 4 {
		t.Errorf("parseWrk = %+v, %v", s, err)
	}
	if _, err := parseWrk([]byte("unable to connect to 127.0.0.1:1")); err == nil {
		t.Error("output without a RESULT was taken")
	}
}

func TestParseLoadgen(t *testing.T) {
	s, err := parseLoadgen([]byte(`{"valid":false,"invalid_because":["late"],"requests":{"answered":10,"ok":8,"failed":1,"answered_per_s":5},
		"response_us":{"p50":1,"p99":2},"sources":[{"name":"cache","response_us":{"count":7}},{"name":"db","response_us":{"count":3}}]}`))
	if err != nil || s.Requests != 10 || s.Failed != 3 || s.Seconds != 2 || s.P99 != 2 || s.Sources["db"] != 3 || len(s.Invalid) != 1 {
		t.Errorf("parseLoadgen = %+v, %v", s, err)
	}
}

func TestPerDBHit(t *testing.T) {
	us, share := perDBHit(Sample{Requests: 100, CPU: 20, Sources: map[string]int64{"cache": 10, "db": 90}}, 8)
	if want := (20*100 - 8*10) / 90.; math.Abs(us-want) > 1e-9 || share != .9 {
		t.Errorf("perDBHit = %v, %v, want %v, 0.9", us, share, want)
	}
}

func TestMetricIn(t *testing.T) {
	body := []byte("# HELP a x\na 1\na_total 2\na{route=\"x\",status=\"ok\"} 3\na{route=\"y\",status=\"ok\"} 4\n")
	for _, tt := range []struct {
		why, name string
		words     []string
		want      float64
	}{
		{"a name is not the beginning of another", "a_total", nil, 2},
		{"all series add up", "a", nil, 8},
		{"or those with a label", "a", []string{`route="y"`}, 4},
		{"what is not there is nothing", "b", nil, 0},
	} {
		if got := metricIn(body, tt.name, tt.words...); got != tt.want {
			t.Errorf("%s: %v, want %v", tt.why, got, tt.want)
		}
	}
}

func TestStatIn(t *testing.T) {
	const out = "names                       64\nlast batch                  13\n"
	if n := statIn(out, "last batch"); n != 13 {
		t.Errorf("last batch = %d, want 13", n)
	}
	if n := statIn(out, "pins"); n != -1 {
		t.Errorf("a figure that is not there = %d, want -1", n)
	}
}

func TestAPeerMustSayWhatWeSay(t *testing.T) {
	const ours = "HTTP/1.1 200 OK\r\nDate: a\r\nAge: 0\r\nETag: \"x\"\r\nVary: Accept\r\n\r\nbody"
	mine, err := parse([]byte(ours))
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct{ why, theirs, want string }{
		{"what changes may differ, and so may order and case", "HTTP/1.1 200 OK\r\nvary: Accept\r\nEtag: \"x\"\r\nDate: b\r\nAge: 7\r\n\r\nbody", ""},
		{"a field less is less work", "HTTP/1.1 200 OK\r\nDate: a\r\nAge: 0\r\nVary: Accept\r\n\r\nbody", "its fields"},
		{"another value is another answer", strings.Replace(ours, "Accept", "*", 1), "its Vary"},
		{"so is another body", ours + "!", "its body"},
	} {
		theirs, err := parse([]byte(tt.theirs))
		if err != nil {
			t.Fatal(err)
		}
		if got := differs(mine, theirs); !strings.HasPrefix(got, tt.want) || (got == "") != (tt.want == "") {
			t.Errorf("%s: %q, want %q", tt.why, got, tt.want)
		}
	}
}

func TestLayerOf(t *testing.T) {
	for _, tt := range []struct {
		why   string
		stack []string
		want  string
	}{
		{"a write is known by its caller", []string{"internal/runtime/syscall.Syscall6", "syscall.RawSyscall6", "syscall.Syscall", "golang.org/x/sys/unix.write", "golang.org/x/sys/unix.Write", "github.com/panjf2000/gnet/v2.(*conn).write"}, "system call: write"},
		{"a copy is the cache's if the cache made it", []string{"runtime.memmove", "github.com/coocood/freecache.(*segment).get", "svcindex/stages/ram.(*Cache).Get"}, "the cache"},
		{"the scheduler is nobody's but Go's", []string{"runtime.schedule", "runtime.mcall"}, "Go's runtime"},
		{"what is asked first is the innermost", []string{"svcindex/netio.parseHead", "svcindex/netio.(*conn).advance", "github.com/panjf2000/gnet/v2.(*eventloop).read"}, "the head parsed"},
	} {
		if got := layerOf(tt.stack); got != tt.want {
			t.Errorf("%s: %q, want %q", tt.why, got, tt.want)
		}
	}
}

func TestSharesAddUp(t *testing.T) {
	f := func(name string) *profile.Location {
		return &profile.Location{Line: []profile.Line{{Function: &profile.Function{Name: name}}}}
	}
	total, by, leaves := shares(&profile.Profile{Sample: []*profile.Sample{
		{Value: []int64{1, 30}, Location: []*profile.Location{f("runtime.memmove"), f("svcindex/netio.(*slot).answer")}},
		{Value: []int64{1, 70}, Location: []*profile.Location{f("runtime.futex")}},
	}})
	if total != 100 || by["rendering"] != 30 || by["Go's runtime"] != 70 || leaves["runtime.futex"] != 70 {
		t.Errorf("shares = %d, %v, %v", total, by, leaves)
	}
}

func TestTheReportStandsBetweenItsMarks(t *testing.T) {
	doc := between([]byte("prose\n"), []byte("one\n"))
	doc = between(append(doc, "more prose\n"...), []byte("two\n"))
	got := string(doc)
	if !strings.HasPrefix(got, "prose\n") || !strings.HasSuffix(got, "more prose\n") || strings.Contains(got, "one") || strings.Count(got, "two") != 1 {
		t.Errorf("between = %q", got)
	}
}

func TestNewSectionsReplaceThoseOfTheirName(t *testing.T) {
	got := merge([]*Section{{Name: "open", Commit: "old"}, {Name: "hits", Commit: "old"}}, []*Section{{Name: "open", Commit: "new"}})
	if len(got) != 2 || got[0].Name != "hits" || got[0].Commit != "old" || got[1].Commit != "new" {
		t.Errorf("merge = %v, want the old hits before the new open", got)
	}
}

func TestNumber(t *testing.T) {
	for v, want := range map[float64]string{0: "0", 1.234: "1.23", 12.34: "12.3", 123.4: "123", 123456: "123,456", -2.5: "-2.50", 0.0012: "0.0012"} {
		if got := number(v); got != want {
			t.Errorf("number(%v) = %q, want %q", v, got, want)
		}
	}
}

func TestAPlotStandsAlone(t *testing.T) {
	svg := Plot{Title: "a < b", X: "x", Y: "y", Curves: []Curve{{Name: "c", Xs: []float64{1, 10}, Ys: []Spread{{1, 1, 1, 1}, {2, 1, 3, 3}}}}}.SVG()
	if !strings.Contains(svg, "a &lt; b") || strings.Contains(svg, "NaN") || strings.Contains(svg, "<script") {
		t.Errorf("%s", svg)
	}
	if (Plot{Curves: []Curve{{Xs: []float64{1}, Ys: []Spread{{}}}}}).SVG() != "" {
		t.Error("a curve of one point is no picture")
	}
}
