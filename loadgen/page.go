package loadgen

import (
	_ "embed"
	"encoding/json"
	"fmt"
	"html/template"
	"io"
	"maps"
	"math"
	"slices"
	"strings"
)

//go:embed page.html
var pageText string

var pageTemplate = template.Must(template.New("page").Parse(pageText))

// WriteHTML writes a report as one page that needs nothing else: charts are
// drawn in it, and the report itself, as JSON, is at its end.
func (r *Report) WriteHTML(w io.Writer) error {
	text := &strings.Builder{}
	r.WriteText(text)
	whole, err := json.MarshalIndent(r, "", " ")
	if err != nil {
		return err
	}
	// What chart.svg returns has escaped whatever a stranger wrote.
	return pageTemplate.Execute(w, map[string]any{
		"Report": r, "Text": text.String(), "JSON": string(whole),
		"Latency":  template.HTML(r.latencyChart().svg()),
		"Spectrum": template.HTML(r.spectrumChart().svg()),
		"Rate":     template.HTML(r.rateChart().svg()),
		"Codes":    template.HTML(r.codesChart().svg()),
		"Sources":  template.HTML(r.sourcesChart().svg()),
		"Tiles":    r.tiles(),
	})
}

// A tile is one of the figures that a reader looks for first.
type tile struct{ Name, Figure, Note string }

func (r *Report) tiles() []tile {
	q := &r.Requests
	asked := commas(q.Due) + " were due"
	if r.Setup.Profile == closedLoop {
		asked = r.Setup.pace()
	}
	bad := q.Throttled + q.Refused + q.Failed
	return []tile{
		{"answered", commas(int64(math.Round(q.Rate))) + "/s", asked},
		{"p50", usText(r.Response.P50), "response time"},
		{"p95", usText(r.Response.P95), "response time"},
		{"p99", usText(r.Response.P99), "service " + usText(r.Service.P99)},
		{"max", usText(r.Response.Max), "service " + usText(r.Service.Max)},
		{"not ok", fmt.Sprintf("%.3g%%", share(float64(bad), float64(q.Due))),
			fmt.Sprintf("%s throttled, %s errors, %s failed", commas(q.Throttled), commas(q.Refused), commas(q.Failed))},
	}
}

func (r *Report) over(name string, of func(*Second) float64) line {
	l := line{name: name}
	for i := range r.Seconds {
		s := &r.Seconds[i]
		l.points = append(l.points, [2]float64{s.At, of(s)})
	}
	return l
}

func inSeconds(x float64) string { return fmt.Sprintf("%gs", x) }

func inCount(y float64) string { return commas(int64(math.Round(y))) }

func (r *Report) latencyChart() *chart {
	return &chart{logY: true, xLabel: inSeconds, yLabel: usText, lines: []line{
		r.over("p50", func(s *Second) float64 { return s.P50 }),
		r.over("p95", func(s *Second) float64 { return s.P95 }),
		r.over("p99", func(s *Second) float64 { return s.P99 }),
		r.over("max", func(s *Second) float64 { return s.Max }),
	}}
}

func (r *Report) rateChart() *chart {
	lines := []line{r.over("answered", func(s *Second) float64 { return float64(s.Answered) })}
	if r.Setup.Profile != closedLoop {
		lines = append(lines, r.over("target", func(s *Second) float64 { return s.Target }))
	}
	return &chart{xLabel: inSeconds, yLabel: inCount, lines: lines}
}

func (r *Report) codesChart() *chart {
	all := map[int]bool{}
	for _, s := range r.Seconds {
		for status := range s.Codes {
			all[status] = true
		}
	}
	c := &chart{xLabel: inSeconds, yLabel: inCount}
	for _, status := range slices.Sorted(maps.Keys(all)) {
		c.lines = append(c.lines, r.over(fmt.Sprint(status), func(s *Second) float64 { return float64(s.Codes[status]) }))
	}
	return c.unlessFlat(r.over("failed", func(s *Second) float64 { return float64(s.Failed) }))
}

func (r *Report) sourcesChart() *chart {
	all := map[string]bool{}
	for _, s := range r.Seconds {
		for name := range s.Sources {
			all[name] = true
		}
	}
	c := &chart{xLabel: inSeconds, yLabel: inCount}
	for _, name := range slices.Sorted(maps.Keys(all)) {
		c.lines = append(c.lines, r.over(name, func(s *Second) float64 { return float64(s.Sources[name]) }))
	}
	return c
}

// unlessFlat adds a line unless it is flat zero.
func (c *chart) unlessFlat(l line) *chart {
	if slices.ContainsFunc(l.points, func(p [2]float64) bool { return p[1] > 0 }) {
		c.lines = append(c.lines, l)
	}
	return c
}

// spectrumChart draws percentiles over the number of nines: as much room for
// the last thousandth as for the first nine tenths.
func (r *Report) spectrumChart() *chart {
	c := &chart{logY: true, yLabel: usText,
		ticks:  []float64{0, math.Log10(2), 1, 2, 3, 4, 5, 6, 7},
		xLabel: func(x float64) string { return fmt.Sprintf("%.7g%%", 100*(1-math.Pow(10, -x))) },
	}
	c.lines = []line{nines("response", r.Spectrum), nines("service", r.ServiceSpectrum)}
	return c
}

func nines(name string, curve []Point) line {
	l := line{name: name}
	for _, p := range curve {
		if p.Percentile < 100 { // the last is infinitely many nines
			l.points = append(l.points, [2]float64{-math.Log10(1 - p.Percentile/100), p.US})
		}
	}
	return l
}
