package loadgen

import (
	"fmt"
	"html"
	"math"
	"strings"
)

const (
	chartWidth, chartHeight          = 900, 280
	marginLeft, marginRight          = 80, 20
	marginTop, marginBottom          = 16, 36
	plotWidth, plotHeight            = chartWidth - marginLeft - marginRight, chartHeight - marginTop - marginBottom
	pointsMax                        = 600 // of a line: more could not be seen
	gridLines                        = 5
	labelX, labelY, legendY, legendX = 6, 4, 12, 90
)

// palette tells lines apart, for those who do not see every colour as well.
var palette = []string{"#0072b2", "#e69f00", "#009e73", "#d55e00", "#cc79a7", "#56b4e9", "#999999", "#000000"}

// A chart is some lines over one axis, drawn as SVG.
type chart struct {
	lines  []line
	logY   bool
	xLabel func(x float64) string
	yLabel func(y float64) string
	ticks  []float64 // of x; none: evenly spaced
}

type line struct {
	name   string
	points [][2]float64
}

// svg draws the chart. Each line has its values as a title, which browsers
// show when pointed at.
func (c *chart) svg() string {
	x0, x1, y0, y1 := c.bounds()
	px := func(x float64) float64 { return marginLeft + plotWidth*(x-x0)/(x1-x0) }
	py := func(y float64) float64 { return marginTop + plotHeight*(1-(c.scale(y)-y0)/(y1-y0)) }
	b := &strings.Builder{}
	fmt.Fprintf(b, `<svg viewBox="0 0 %d %d" role="img">`, chartWidth, chartHeight)
	for i := range gridLines {
		v := y0 + (y1-y0)*float64(i)/(gridLines-1)
		y := py(c.unscale(v))
		fmt.Fprintf(b, `<path class="grid" d="M%d %.1fH%d"/><text class="y" x="%d" y="%.1f">%s</text>`,
			marginLeft, y, chartWidth-marginRight, marginLeft-labelX, y+labelY, html.EscapeString(c.yLabel(c.unscale(v))))
	}
	for _, x := range c.xTicks(x0, x1) {
		fmt.Fprintf(b, `<path class="grid" d="M%.1f %dV%d"/><text class="x" x="%.1f" y="%d">%s</text>`,
			px(x), marginTop, marginTop+plotHeight, px(x), chartHeight-marginBottom+18, html.EscapeString(c.xLabel(x)))
	}
	for i, l := range c.lines {
		colour := palette[i%len(palette)]
		fmt.Fprintf(b, `<g style="color:%s"><path class="line" d="%s"/>`, colour, path(thin(l.points), px, py))
		for _, p := range thin(l.points) {
			fmt.Fprintf(b, `<circle cx="%.1f" cy="%.1f" r="3"><title>%s, %s: %s</title></circle>`, px(p[0]), py(p[1]),
				html.EscapeString(l.name), html.EscapeString(c.xLabel(p[0])), html.EscapeString(c.yLabel(p[1])))
		}
		fmt.Fprintf(b, `<text class="key" x="%d" y="%d">%s</text></g>`,
			marginLeft+labelX+legendX*i, marginTop+legendY, html.EscapeString(l.name))
	}
	b.WriteString("</svg>")
	return b.String()
}

func path(points [][2]float64, px, py func(float64) float64) string {
	b, op := &strings.Builder{}, 'M'
	for _, p := range points {
		fmt.Fprintf(b, "%c%.1f %.1f", op, px(p[0]), py(p[1]))
		op = 'L'
	}
	return b.String()
}

// thin leaves so many points that a page can bear them. Of each group it keeps
// the highest: a peak is what the reader is looking for.
func thin(points [][2]float64) [][2]float64 {
	step := (len(points) + pointsMax - 1) / pointsMax
	if step <= 1 {
		return points
	}
	var kept [][2]float64
	for i := 0; i < len(points); i += step {
		top := points[i]
		for _, p := range points[i:min(i+step, len(points))] {
			if p[1] > top[1] {
				top = p
			}
		}
		kept = append(kept, top)
	}
	return kept
}

func (c *chart) scale(y float64) float64 {
	if c.logY {
		return math.Log10(max(y, 1))
	}
	return y
}

func (c *chart) unscale(v float64) float64 {
	if c.logY {
		return math.Pow(10, v)
	}
	return v
}

// bounds returns the least and the most of both axes, y scaled. Neither axis
// is ever empty.
func (c *chart) bounds() (x0, x1, y0, y1 float64) {
	x0, x1, y0, y1 = math.Inf(1), math.Inf(-1), math.Inf(1), math.Inf(-1)
	for _, l := range c.lines {
		for _, p := range l.points {
			x0, x1 = min(x0, p[0]), max(x1, p[0])
			y0, y1 = min(y0, c.scale(p[1])), max(y1, c.scale(p[1]))
		}
	}
	if x0 > x1 {
		return 0, 1, 0, 1
	}
	if !c.logY {
		y0, y1 = 0, 1.05*y1
	} else {
		y0, y1 = math.Floor(2*y0)/2, math.Ceil(2*y1)/2
	}
	if x1 == x0 {
		x1 = x0 + 1
	}
	if y1 <= y0 {
		y1 = y0 + 1
	}
	return x0, x1, y0, y1
}

func (c *chart) xTicks(x0, x1 float64) (ticks []float64) {
	for _, x := range c.ticks {
		if x >= x0 && x <= x1 {
			ticks = append(ticks, x)
		}
	}
	if c.ticks != nil {
		return ticks
	}
	step := math.Pow(10, math.Floor(math.Log10(x1-x0)))
	for (x1-x0)/step < gridLines {
		step /= 2
	}
	for x := math.Ceil(x0/step) * step; x <= x1; x += step {
		ticks = append(ticks, x)
	}
	return ticks
}
