package loadgen

import (
	"math"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
)

const (
	histLow    = 64               // nanoseconds that need not be told apart
	histHigh   = int64(time.Hour) // more is counted as this
	histDigits = 3                // so that a percentile is right to 0.1 %

	windowDigits = 2 // of a second's own histogram: 1 %, and an eighth of the memory
)

// A hist counts durations, in nanoseconds.
type hist struct{ h *hdrhistogram.Histogram }

func newHist(digits int) hist { return hist{hdrhistogram.New(histLow, histHigh, digits)} }

func (h hist) record(ns int64) {
	// In range by construction, so there is no error to speak of.
	_ = h.h.RecordValue(min(max(ns, 0), histHigh))
}

func (h hist) merge(from hist) { h.h.Merge(from.h) }
func (h hist) reset()          { h.h.Reset() }
func (h hist) count() int64    { return h.h.TotalCount() }

// spectrum returns the curve of percentiles, finer towards the end.
func (h hist) spectrum() (curve []Point) {
	if h.count() == 0 {
		return nil
	}
	for _, b := range h.h.CumulativeDistributionWithTicks(4) {
		curve = append(curve, Point{Percentile: b.Quantile, US: us(b.ValueAt)})
	}
	return curve
}

// percentiles returns the smallest values that so many percent of all do not
// exceed. The library rounds the rank to the nearest, which is one too low for
// half of all counts: of 15 values it calls the fourteenth the 95th percentile.
func (h hist) percentiles(percent ...float64) []int64 {
	n := float64(h.count())
	for i, p := range percent {
		percent[i] = 100 * math.Ceil(p/100*n-1e-6) / n
	}
	return h.h.ValueAtPercentilesSlice(percent)
}

func (h hist) latency() Latency {
	l := Latency{Count: h.count()}
	if l.Count == 0 {
		return l
	}
	p := h.percentiles(50, 90, 95, 99, 99.9)
	l.P50, l.P90, l.P95, l.P99, l.P999 = us(p[0]), us(p[1]), us(p[2]), us(p[3]), us(p[4])
	l.Max, l.Mean = us(h.h.Max()), h.h.Mean()/1000
	return l
}

func us(ns int64) float64 { return float64(ns) / 1000 }
