package flame

import (
	"cmp"
	"fmt"
	"io"
	"maps"
	"math"
	"slices"
	"time"
)

// A Row is one function, or one stage, wherever it stands.
type Row struct {
	Name       string
	Self, Sum  float64 // Sum: with all it calls
	WasSelf    float64 // of a difference
	WasSum     float64
	recursions int
}

// rows adds up each name; a function that calls itself counts once.
func (t *Tree) rows() map[string]*Row {
	all := map[string]*Row{}
	var walk func(n *node)
	walk = func(n *node) {
		r := all[n.name]
		if r == nil {
			r = &Row{Name: n.name}
			all[n.name] = r
		}
		r.Self += n.self
		if r.recursions == 0 {
			r.Sum += n.total
		}
		r.recursions++
		for _, c := range n.children {
			walk(c)
		}
		r.recursions--
	}
	for _, c := range t.root.children {
		walk(c)
	}
	return all
}

// Top returns the n rows that have most of their own.
func (t *Tree) Top(n int) []Row {
	return most(t.rows(), n, func(r *Row) float64 { return r.Self })
}

// Stages returns what the first frames come to, largest first.
func (t *Tree) Stages() (rows []Row) {
	for _, c := range t.root.children {
		rows = append(rows, Row{Name: c.name, Self: c.self, Sum: c.total})
	}
	slices.SortFunc(rows, func(a, b Row) int { return cmp.Or(cmp.Compare(b.Sum, a.Sum), cmp.Compare(a.Name, b.Name)) })
	return rows
}

// TopDiff returns the n rows whose own value changed most.
func TopDiff(before, after *Tree, n int) []Row {
	was, is := before.rows(), after.rows()
	for name, w := range was {
		r := is[name]
		if r == nil {
			r = &Row{Name: name}
			is[name] = r
		}
		r.WasSelf, r.WasSum = w.Self, w.Sum
	}
	return most(is, n, func(r *Row) float64 { return math.Abs(r.Self - r.WasSelf) })
}

func most(all map[string]*Row, n int, of func(*Row) float64) (rows []Row) {
	for _, r := range slices.SortedFunc(maps.Values(all), func(a, b *Row) int {
		return cmp.Or(cmp.Compare(of(b), of(a)), cmp.Compare(a.Name, b.Name))
	}) {
		if len(rows) == n || of(r) == 0 {
			break
		}
		rows = append(rows, *r)
	}
	return rows
}

// WriteTop writes a table of rows.
func (t *Tree) WriteTop(w io.Writer, rows []Row) {
	fmt.Fprintf(w, "%12s %6s %12s %6s  of %s %s\n", "own", "", "with calls", "", Amount(t.Total, t.Unit), t.Of)
	for _, r := range rows {
		fmt.Fprintf(w, "%12s %5.1f%% %12s %5.1f%%  %s\n",
			Amount(r.Self, t.Unit), share(r.Self, t.Total), Amount(r.Sum, t.Unit), share(r.Sum, t.Total), r.Name)
	}
}

// WriteDiff writes a table of what changed.
func WriteDiff(w io.Writer, before, after *Tree, rows []Row) {
	u := after.Unit
	fmt.Fprintf(w, "all %s: %s before, %s after: %s\n\n", after.Of, Amount(before.Total, u), Amount(after.Total, u), change(before.Total, after.Total))
	fmt.Fprintf(w, "%12s %12s %12s %12s\n", "own change", "before", "after", "with calls")
	for _, r := range rows {
		fmt.Fprintf(w, "%12s %12s %12s %12s  %s\n", signed(r.Self-r.WasSelf, u),
			Amount(r.WasSelf, u), Amount(r.Self, u), signed(r.Sum-r.WasSum, u), r.Name)
	}
}

func change(before, after float64) string {
	if before == 0 {
		return "there was none"
	}
	return fmt.Sprintf("%+.1f %%", 100*(after/before-1))
}

func share(part, of float64) float64 {
	if of == 0 {
		return 0
	}
	return 100 * part / of
}

func signed(v float64, unit string) string {
	if v > 0 {
		return "+" + Amount(v, unit)
	}
	return Amount(v, unit)
}

// Amount writes a value with its unit, in three figures or so.
func Amount(v float64, unit string) string {
	sign := ""
	if v < 0 {
		sign, v = "-", -v
	}
	switch unit {
	case "nanoseconds":
		if v < 1e3 && v != math.Trunc(v) {
			return fmt.Sprintf("%s%.1fns", sign, v)
		}
		return sign + figures(time.Duration(v)).String()
	case "bytes":
		return sign + scaled(v, 1024, "B", "KiB", "MiB", "GiB", "TiB")
	}
	return sign + scaled(v, 1000, "", "k", "M", "G", "T")
}

// figures rounds to three or four figures.
func figures(d time.Duration) time.Duration {
	for unit := time.Nanosecond; ; unit *= 10 {
		if d < 10_000*unit {
			return d.Round(unit)
		}
	}
}

func scaled(v, by float64, units ...string) string {
	i := 0
	for v >= by && i < len(units)-1 {
		v, i = v/by, i+1
	}
	if v == math.Trunc(v) {
		return fmt.Sprintf("%.0f%s", v, units[i])
	}
	return fmt.Sprintf("%.2f%s", v, units[i])
}
