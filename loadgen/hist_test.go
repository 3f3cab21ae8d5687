package loadgen

import (
	"math"
	"testing"
	"time"
)

// A percentile is the smallest value that so many percent of all do not exceed:
// a lower one would leave out the request that was slow.
func TestAPercentileIsNeverTheRankBelow(t *testing.T) {
	for _, tt := range []struct {
		n                        int
		p50, p90, p95, p99, p999 float64 // ranks
	}{
		{1, 1, 1, 1, 1, 1},
		{2, 1, 2, 2, 2, 2},
		{15, 8, 14, 15, 15, 15},
		{100, 50, 90, 95, 99, 100},
		{1960, 980, 1764, 1862, 1941, 1959},
		{2000, 1000, 1800, 1900, 1980, 1998},
	} {
		h := newHist(histDigits)
		for i := range tt.n {
			h.record(int64(i+1) * int64(time.Millisecond))
		}
		l := h.latency()
		for i, v := range []float64{l.P50, l.P90, l.P95, l.P99, l.P999} {
			if want := []float64{tt.p50, tt.p90, tt.p95, tt.p99, tt.p999}[i] * 1000; math.Abs(v-want) > 0.001*want {
				t.Errorf("of %d values from 1 ms on, percentile %d is %v us, want %v", tt.n, i, v, want)
			}
		}
	}
}
