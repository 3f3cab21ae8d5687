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
	})
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
		r.over("p90", func(s *Second) float64 { return s.P90 }),
		r.over("p99", func(s *Second) float64 { return s.P99 }),
		r.over("max", func(s *Second) float64 { return s.Max }),
	}}
}

func (r *Report) rateChart() *chart {
	lines := []line{r.over("answered", func(s *Second) float64 { return float64(s.Answered) })}
	if r.Setup.Rate > 0 {
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
	l := line{name: "response"}
	for _, p := range r.Spectrum {
		if p.Percentile < 100 { // the last is infinitely many nines
			l.points = append(l.points, [2]float64{-math.Log10(1 - p.Percentile/100), p.US})
		}
	}
	c.lines = []line{l}
	return c
}
