package compare

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
)

// Allocs are allocations an operation, by benchmark: package and name.
type Allocs map[string]float64

// ParseBench reads what go test -bench -benchmem prints.
func ParseBench(text string) Allocs {
	all, pkg := Allocs{}, ""
	for line := range strings.Lines(text) {
		f := strings.Fields(line)
		if len(f) == 2 && f[0] == "pkg:" {
			pkg = f[1]
		}
		if len(f) < 3 || !strings.HasPrefix(f[0], "Benchmark") || f[len(f)-1] != "allocs/op" {
			continue
		}
		n, err := strconv.ParseFloat(f[len(f)-2], 64)
		if err != nil {
			continue
		}
		name := f[0]
		if i := strings.LastIndexByte(name, '-'); i > 0 { // the number of processors
			if _, err := strconv.Atoi(name[i+1:]); err == nil {
				name = name[:i]
			}
		}
		all[pkg+"."+name] = n
	}
	return all
}

// DecideAllocs holds each benchmark of base to what it allocated, +15 %. A
// benchmark that is gone proves nothing and fails.
func DecideAllocs(base, now Allocs) (vs []Verdict) {
	for _, name := range slices.Sorted(maps.Keys(base)) {
		g := Gate{Name: name, Unit: "allocs/op", Threshold: .15, Alone: true}
		n, there := now[name]
		if !there {
			vs = append(vs, Verdict{Gate: g, State: Failed, Base: base[name], Why: "the benchmark is gone; if that is meant, take it out of the baseline"})
			continue
		}
		v, err := Decide(g, []Pair{{base[name], n}}, 0)
		if err != nil {
			v.State, v.Why = Failed, err.Error()
		}
		vs = append(vs, v)
	}
	return vs
}

// Table renders verdicts.
func Table(vs []Verdict) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%-16s %12s %12s  %7s  %-17s %s\n", "gate", "base", "new", "ratio", "95 % interval", "")
	for _, v := range vs {
		fmt.Fprintf(&b, "%-16s %12s %12s  %7.3f  %.3f .. %.3f    %s%s\n", v.Name,
			amount(v.Base, v.Unit), amount(v.New, v.Unit), v.Ratio, v.Low, v.High, v.State, because(v.Why))
	}
	return b.String()
}

func amount(x float64, unit string) string { return strconv.FormatFloat(x, 'g', 4, 64) + " " + unit }

func because(why string) string {
	if why == "" {
		return ""
	}
	return ": " + why
}
