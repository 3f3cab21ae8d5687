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
	marginTop, marginBottom          = 28, 36 // the legend is above
	plotWidth, plotHeight            = chartWidth - marginLeft - marginRight, chartHeight - marginTop - marginBottom
	pointsMax                        = 600 // of a line: more could not be seen
	gridLines                        = 5   // of an axis, at least
	decadesMax                       = 2.5 // of a logarithmic axis with lines in between
	logMargin                        = 0.1 // of a decade, above and below
	labelX, labelY, legendY, legendX = 6, 4, 16, 90
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
	for _, v := range c.yTicks(y0, y1) {
		fmt.Fprintf(b, `<path class="grid" d="M%d %.1fH%d"/><text class="y" x="%d" y="%.1f">%s</text>`,
			marginLeft, py(v), chartWidth-marginRight, marginLeft-labelX, py(v)+labelY, html.EscapeString(c.yLabel(v)))
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
			marginLeft+legendX*i, legendY, html.EscapeString(l.name))
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
		y0, y1 = y0-logMargin, y1+logMargin
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
	return round(x0, x1)
}

// yTicks returns round values between two scaled ones: of a scale of powers
// 1, 2 and 5 times each, or, if those are many, only the powers.
func (c *chart) yTicks(y0, y1 float64) (ticks []float64) {
	if !c.logY {
		return round(y0, y1)
	}
	steps := []float64{1, 2, 5}
	if y1-y0 > decadesMax {
		steps = steps[:1]
	}
	for power := math.Floor(y0); power <= y1; power++ {
		for _, s := range steps {
			if v := s * math.Pow(10, power); math.Log10(v) >= y0 && math.Log10(v) <= y1 {
				ticks = append(ticks, v)
			}
		}
	}
	return ticks
}

// round returns evenly spaced round values from v0 to v1.
func round(v0, v1 float64) (ticks []float64) {
	power := math.Pow(10, math.Floor(math.Log10(v1-v0)))
	step := power
	for _, s := range []float64{0.5, 0.2, 0.1} {
		if (v1-v0)/step < gridLines {
			step = s * power
		}
	}
	for i := math.Ceil(v0 / step); i*step <= v1; i++ {
		ticks = append(ticks, i*step)
	}
	return ticks
}
