package main

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strconv"
)

// A Spread is a figure measured several times: of these, the one in the middle
// and the outermost.
type Spread struct {
	Median float64 `json:"median"`
	Min    float64 `json:"min"`
	Max    float64 `json:"max"`
	N      int     `json:"n"`
}

// spread returns the spread of vs, without those that are no number.
func spread(vs []float64) (s Spread) {
	vs = slices.DeleteFunc(slices.Clone(vs), func(v float64) bool { return math.IsNaN(v) || math.IsInf(v, 0) })
	if len(vs) == 0 {
		return s
	}
	slices.Sort(vs)
	mid := vs[len(vs)/2]
	if len(vs)%2 == 0 {
		mid = (mid + vs[len(vs)/2-1]) / 2
	}
	return Spread{mid, vs[0], vs[len(vs)-1], len(vs)}
}

// paired returns f of each pair: as and bs were measured one after the other
// in each round, so what slowed a round down slowed both.
func paired(as, bs []Sample, f func(a, b Sample) float64) Spread {
	var vs []float64
	for i := range min(len(as), len(bs)) {
		if as[i].Requests > 0 && bs[i].Requests > 0 {
			vs = append(vs, f(as[i], bs[i]))
		}
	}
	return spread(vs)
}

// of is the spread of one figure of samples.
func of(ss []Sample, f func(Sample) float64) Spread {
	var vs []float64
	for _, s := range ss {
		if s.Requests > 0 {
			vs = append(vs, f(s))
		}
	}
	return spread(vs)
}

// What is compared.
func rps(s Sample) float64         { return s.RPS }
func cpu(s Sample) float64         { return s.CPU }
func p50(s Sample) float64         { return s.P50 }
func p99(s Sample) float64         { return s.P99 }
func mallocs(s Sample) float64     { return s.Mallocs }
func cpuRatio(a, b Sample) float64 { return a.CPU / b.CPU }
func rpsRatio(a, b Sample) float64 { return a.RPS / b.RPS }
func p50Diff(a, b Sample) float64  { return a.P50 - b.P50 }
func p99Ratio(a, b Sample) float64 { return a.P99 / b.P99 }

// A Row is one line of the table of goals.
type Row struct {
	What    string  `json:"what"`
	AtLeast bool    `json:"at_least"` // or at most
	Goal    float64 `json:"goal"`
	Unit    string  `json:"unit"` // "x" for a ratio
	Found   Spread  `json:"found"`
	Beside  bool    `json:"beside"` // reported beside a goal, and no goal itself
	Note    string  `json:"note,omitempty"`
}

// Verdict says whether the median reached the goal, and if not how far off it
// is.
func (r Row) Verdict() string {
	switch found := r.Found.Median; {
	case r.Found.N == 0:
		return "not measured"
	case r.Beside:
		return "beside it"
	case r.AtLeast && found >= r.Goal, !r.AtLeast && found <= r.Goal:
		return "met"
	case r.Goal == 0:
		return "missed: " + number(found)
	default:
		return fmt.Sprintf("missed by %.1f %%", 100*math.Abs(found-r.Goal)/r.Goal)
	}
}

// Aim writes the goal as text.
func (r Row) Aim() string {
	return map[bool]string{true: ">= ", false: "<= "}[r.AtLeast] + number(r.Goal) + unit(r.Unit)
}

func unit(u string) string {
	if u == "x" || u == "" {
		return u
	}
	return " " + u
}

// number writes v as a reader would: three digits that count.
func number(v float64) string {
	switch a := math.Abs(v); {
	case a >= 1000:
		return thousands(int64(math.Round(v)))
	case a >= 100:
		return strconv.FormatFloat(v, 'f', 0, 64)
	case a >= 10:
		return strconv.FormatFloat(v, 'f', 1, 64)
	case v == 0:
		return "0"
	case a < 0.01:
		return strconv.FormatFloat(v, 'g', 2, 64)
	}
	return strconv.FormatFloat(v, 'f', 2, 64)
}

func thousands(n int64) string {
	if n < 0 {
		return "-" + thousands(-n)
	}
	if n < 1000 {
		return strconv.FormatInt(n, 10)
	}
	return fmt.Sprintf("%s,%03d", thousands(n/1000), n%1000)
}

// String writes a spread as 1.13 (1.08-1.16, n=5).
func (s Spread) String() string {
	if s.N <= 1 {
		return number(s.Median)
	}
	return fmt.Sprintf("%s (%s to %s, n=%d)", number(s.Median), number(s.Min), number(s.Max), s.N)
}

// least returns the sample that others disturbed least.
func least(ss []Sample) Sample {
	return slices.MinFunc(ss, func(a, b Sample) int { return cmp.Compare(a.noise(), b.noise()) })
}
