package loadgen

import (
	"bytes"
	"encoding/json"
	"encoding/xml"
	"errors"
	"io"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
)

// reported is the report of a short real run with some of everything.
func reported(t *testing.T) *Report {
	t.Helper()
	s := serveFake(t, &fakeServer{status: func(n int64) int {
		if n%10 == 0 {
			return 503
		}
		return 200
	}})
	r := run(t, s.config(300, 1500*time.Millisecond))
	o, err := ParseObjective("p50<1h,throttled<1%")
	if err != nil {
		t.Fatal(err)
	}
	if o.Judge(r) {
		t.Errorf("%+v held", r.SLO)
	}
	return r
}

func TestThePageStandsAlone(t *testing.T) {
	r := reported(t)
	r.Codes[1].Example = `<script>alert("503")</script>`
	var b bytes.Buffer
	if err := r.WriteHTML(&b); err != nil {
		t.Fatal(err)
	}
	page := b.String()
	for _, want := range []string{"Response time of what ended", "BROKEN", "503", "p99.9", Schema} {
		if !strings.Contains(page, want) {
			t.Errorf("the page does not say %q", want)
		}
	}
	if m := regexp.MustCompile(`(?i)<script|src=|href=|url\(|@import`).FindString(page); m != "" {
		t.Errorf("the page has %q: it must need nothing from outside, and run nothing a stranger wrote", m)
	}
	charts := regexp.MustCompile(`(?s)<svg.*?</svg>`).FindAllString(page, -1)
	if len(charts) != 5 {
		t.Fatalf("%d charts, want 5", len(charts))
	}
	for _, c := range charts {
		if strings.Contains(c, "NaN") || strings.Contains(c, "Inf") || !strings.Contains(c, "<circle") {
			t.Errorf("a chart that shows nothing: %.300s", c)
		}
		d := xml.NewDecoder(strings.NewReader(c))
		for {
			if _, err := d.Token(); errors.Is(err, io.EOF) {
				break
			} else if err != nil {
				t.Fatalf("%v in %.300s", err, c)
			}
		}
	}
}

func TestAnEmptyChartIsStillOne(t *testing.T) {
	r := &Report{}
	var b bytes.Buffer
	if err := r.WriteHTML(&b); err != nil || strings.Contains(b.String(), "NaN") {
		t.Errorf("%v: %s", err, b.String())
	}
}

func TestThinningKeepsThePeak(t *testing.T) {
	var points [][2]float64
	for i := range 10_000 {
		points = append(points, [2]float64{float64(i), 1})
	}
	points[7777][1] = 9
	peak := 0.0
	kept := thin(points)
	for _, p := range kept {
		peak = max(peak, p[1])
	}
	if len(kept) > pointsMax || peak != 9 {
		t.Errorf("%d points with a peak of %v, want at most %d with 9", len(kept), peak, pointsMax)
	}
}

func TestTheJSONSaysItsSchemaAndAddsUp(t *testing.T) {
	b, err := json.Marshal(reported(t))
	if err != nil {
		t.Fatal(err)
	}
	var r struct {
		Schema   string
		Requests struct{ Due, Answered, Throttled int64 }
		Response struct{ Count int64 } `json:"response_us"`
		Seconds  []struct {
			Answered int64
			Codes    map[string]int64
		}
		Codes []struct{ Name, Example string }
	}
	if err := json.Unmarshal(b, &r); err != nil {
		t.Fatal(err)
	}
	var answered, throttled int64
	for _, s := range r.Seconds {
		answered, throttled = answered+s.Answered, throttled+s.Codes["503"]
	}
	if r.Schema != Schema || r.Requests.Due != 450 || answered != r.Requests.Answered || throttled != r.Requests.Throttled ||
		throttled != 45 || r.Response.Count != 450 {
		t.Errorf("%+v", r)
	}
	if len(r.Codes) != 2 || r.Codes[1].Example != "GET /x HTTP/1.1: 12345" {
		t.Errorf("codes: %+v, want an example of the first 503", r.Codes)
	}
}

func TestTheHDRLogCanBeReadBack(t *testing.T) {
	r := reported(t)
	var b bytes.Buffer
	if err := r.WriteHDR(&b); err != nil {
		t.Fatal(err)
	}
	in := hdrhistogram.NewHistogramLogReader(&b)
	for _, want := range []string{"response", "service", "lag"} {
		h, err := in.NextIntervalHistogram()
		if err != nil || h == nil || h.Tag() != want || h.TotalCount() != 450 {
			t.Fatalf("%s: %v, %v", want, h, err)
		}
		if want == "response" && us(h.ValueAtPercentile(99)) != r.Response.P99 {
			t.Errorf("p99 is %d in the log, %v us in the report", h.ValueAtPercentile(99), r.Response.P99)
		}
	}
}

func TestTheTextSaysWhatMatters(t *testing.T) {
	var b strings.Builder
	r := reported(t)
	r.WriteText(&b)
	for _, want := range []string{"450 due, 450 answered", "45 throttled", "p99.9", "first byte", "source", "cache", "held    p50<1h", "BROKEN  throttled<1%: 10%"} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("the text does not say %q:\n%s", want, &b)
		}
	}
}
