package flame

import (
	_ "embed"
	"encoding/xml"
	"fmt"
	"hash/fnv"
	"io"
	"math"
	"slices"
	"strings"
)

//go:embed flame.js
var script string

// The picture, in pixels.
const (
	width    = 1200
	row      = 17
	head     = 44
	foot     = 26
	leastPx  = 0.4 // a narrower frame is not drawn
	letterPx = 6.6
)

// A frame is a node with its place.
type frame struct {
	*node
	x, w  float64
	depth int
}

// Draw writes t as a flame graph: callers above, what they call below.
func (t *Tree) Draw(w io.Writer, title string) error {
	return t.draw(w, title, func(f frame) (string, string) {
		return warm(f.name), fmt.Sprintf("%s, %.2f %%", Amount(f.total, t.Unit), share(f.total, t.Total))
	})
}

// DrawDiff writes after as a flame graph, red where it grew against before and
// blue where it shrank. What is no longer there at all is only in the table.
func DrawDiff(w io.Writer, before, after *Tree, title string) error {
	graft(after.root, before.root)
	most := 1e-12
	after.each(func(f frame) { most = max(most, math.Abs(f.total-f.before)) })
	return after.draw(w, title, func(f frame) (string, string) {
		d := f.total - f.before
		return tint(d / most), fmt.Sprintf("%s, was %s: %s", Amount(f.total, after.Unit), Amount(f.before, after.Unit), signed(d, after.Unit))
	})
}

// graft notes in each node of a what it was in b.
func graft(a, b *node) {
	a.before = b.total
	for name, c := range a.children {
		if was := b.children[name]; was != nil {
			graft(c, was)
		}
	}
}

// each visits every frame that is wide enough to see.
func (t *Tree) each(visit func(frame)) {
	if t.Total <= 0 {
		return
	}
	var walk func(f frame)
	walk = func(f frame) {
		visit(f)
		x := f.x
		for _, name := range sortedNames(f.children) {
			c := f.children[name]
			w := c.total / t.Total * width
			if w >= leastPx {
				walk(frame{c, x, w, f.depth + 1})
			}
			x += max(w, 0)
		}
	}
	walk(frame{t.root, 0, width, 0})
}

func sortedNames(m map[string]*node) []string {
	names := make([]string, 0, len(m))
	for n := range m {
		names = append(names, n)
	}
	slices.Sort(names)
	return names
}

func (t *Tree) draw(w io.Writer, title string, look func(frame) (colour, says string)) error {
	depth := 0
	t.each(func(f frame) { depth = max(depth, f.depth) })
	height := head + (depth+1)*row + foot
	var b strings.Builder
	fmt.Fprintf(&b, `<?xml version="1.0" encoding="UTF-8"?>
<svg xmlns="http://www.w3.org/2000/svg" width="100%%" viewBox="0 0 %d %d" font-family="ui-monospace,monospace" font-size="11">
<style>rect{stroke:#fff;stroke-width:.5}g.f{cursor:pointer}g.f:hover rect{stroke:#000;stroke-width:1}g.f text{pointer-events:none}.faded{opacity:.45}.hit rect{fill:#c3f}</style>
<rect width="%d" height="%d" fill="#fcfcf8"/>
<text x="6" y="18" font-size="14" font-weight="bold">%s</text>
<text x="6" y="36" id="says">click: zoom; click the first row: all; press / to search</text>
`, width, height, width, height, escape(title))
	t.each(func(f frame) {
		colour, says := look(f)
		y := head + f.depth*row
		fmt.Fprintf(&b, `<g class="f"><title>%s (%s)</title><rect x="%.1f" y="%d" width="%.1f" height="%d" fill="%s"/>`,
			escape(f.name), escape(says), f.x, y, f.w, row-1, colour)
		if label := fit(f.name, f.w); label != "" {
			fmt.Fprintf(&b, `<text x="%.1f" y="%d">%s</text>`, f.x+3, y+12, escape(label))
		}
		b.WriteString("</g>\n")
	})
	if t.Total <= 0 {
		fmt.Fprintf(&b, `<text x="6" y="%d">nothing was counted</text>`, head+12)
	}
	fmt.Fprintf(&b, "<script><![CDATA[\n%s\n]]></script>\n</svg>\n", script)
	_, err := io.WriteString(w, b.String())
	return err
}

// fit shortens a name to what a frame has room for.
func fit(name string, w float64) string {
	n := int((w - 6) / letterPx)
	switch {
	case n < 3:
		return ""
	case len(name) <= n:
		return name
	}
	return name[:n-2] + ".."
}

func escape(s string) string {
	var b strings.Builder
	_ = xml.EscapeText(&b, []byte(s)) // a Builder takes all
	return b.String()
}

// warm gives each package a colour of its own: the runtime's greys, the rest
// from yellow to red.
func warm(name string) string {
	pkg, _, _ := strings.Cut(name, ".")
	h := fnv.New32a()
	_, _ = h.Write([]byte(pkg))
	n := h.Sum32()
	switch {
	case strings.HasPrefix(name, "stage "), strings.HasPrefix(name, "route "):
		return fmt.Sprintf("hsl(%d,45%%,72%%)", 190+n%60)
	case pkg == "runtime", pkg == "syscall", strings.HasPrefix(pkg, "internal"):
		return fmt.Sprintf("hsl(%d,8%%,%d%%)", n%360, 74+n%9)
	}
	return fmt.Sprintf("hsl(%d,80%%,%d%%)", 12+n%44, 62+n/44%12)
}

// tint goes from blue, -1, by white to red, 1. The root keeps small changes
// visible.
func tint(d float64) string {
	d = math.Copysign(math.Sqrt(min(math.Abs(d), 1)), d)
	other := int(245 - 150*math.Abs(d))
	if d >= 0 {
		return fmt.Sprintf("rgb(245,%d,%d)", other, other)
	}
	return fmt.Sprintf("rgb(%d,%d,245)", other, other)
}
