package main

import (
	"fmt"
	"html"
	"math"
	"strings"
)

// A Plot is a picture of a few curves over a logarithmic x.
type Plot struct {
	Title, X, Y string
	Curves      []Curve
}

// A Curve is figures with their spread.
type Curve struct {
	Name string
	Xs   []float64
	Ys   []Spread
}

const (
	plotW, plotH               = 640, 320
	plotL, plotR, plotT, plotB = 56, 150, 36, 46
)

// Colours that can be told apart, by most eyes, on white and on black.
var colours = []string{"#2878b5", "#d95f02", "#1b9e77", "#7570b3"}

// SVG draws it. The picture stands alone: no script, no style sheet, no font.
func (p Plot) SVG() string {
	loX, hiX, hiY := math.Inf(1), 0., 0.
	for _, c := range p.Curves {
		for i, x := range c.Xs {
			loX, hiX, hiY = min(loX, x), max(hiX, x), max(hiY, c.Ys[i].Max)
		}
	}
	if hiX <= loX || hiY <= 0 {
		return ""
	}
	step := niceStep(hiY)
	hiY = math.Ceil(hiY/step) * step
	px := func(x float64) float64 {
		return plotL + (plotW-plotL-plotR)*math.Log(x/loX)/math.Log(hiX/loX)
	}
	py := func(y float64) float64 { return plotH - plotB - (plotH-plotB-plotT)*y/hiY }
	var b strings.Builder
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" role="img" font-family="sans-serif" font-size="12">`+"\n", plotW, plotH)
	fmt.Fprintf(&b, `<title>%s</title><rect width="100%%" height="100%%" fill="#fff"/>`+"\n", html.EscapeString(p.Title))
	fmt.Fprintf(&b, `<text x="%d" y="20" font-size="14">%s</text>`+"\n", plotL, html.EscapeString(p.Title))
	for y := 0.; y <= hiY+step/2; y += step {
		fmt.Fprintf(&b, `<path d="M%d %.1fH%d" stroke="#ddd"/><text x="%d" y="%.1f" text-anchor="end">%s</text>`+"\n",
			plotL, py(y), plotW-plotR, plotL-6, py(y)+4, number(y))
	}
	for _, x := range p.Curves[0].Xs {
		fmt.Fprintf(&b, `<text x="%.1f" y="%d" text-anchor="middle">%s</text>`+"\n", px(x), plotH-plotB+16, thousands(int64(x)))
	}
	fmt.Fprintf(&b, `<text x="%d" y="%d" text-anchor="middle">%s</text>`+"\n", (plotL+plotW-plotR)/2, plotH-10, html.EscapeString(p.X))
	fmt.Fprintf(&b, `<text x="14" y="%d" text-anchor="middle" transform="rotate(-90 14 %d)">%s</text>`+"\n",
		(plotT+plotH-plotB)/2, (plotT+plotH-plotB)/2, html.EscapeString(p.Y))
	for n, c := range p.Curves {
		colour := colours[n%len(colours)]
		var line strings.Builder
		for i, x := range c.Xs {
			y := c.Ys[i]
			fmt.Fprintf(&line, "%c%.1f %.1f", "LM"[map[bool]int{true: 1}[i == 0]], px(x), py(y.Median))
			fmt.Fprintf(&b, `<path d="M%.1f %.1fV%.1f" stroke="%s" stroke-width="1"/><circle cx="%.1f" cy="%.1f" r="3" fill="%s"/>`+"\n",
				px(x), py(y.Min), py(y.Max), colour, px(x), py(y.Median), colour)
		}
		fmt.Fprintf(&b, `<path d="%s" fill="none" stroke="%s" stroke-width="2"/>`+"\n", line.String(), colour)
		fmt.Fprintf(&b, `<text x="%d" y="%.1f" fill="%s">%s</text>`+"\n", plotW-plotR+8, py(c.Ys[len(c.Ys)-1].Median)+4, colour, html.EscapeString(c.Name))
	}
	b.WriteString("</svg>\n")
	return b.String()
}

// niceStep divides a range into four to ten parts of a round size.
func niceStep(hi float64) float64 {
	p := math.Pow(10, math.Floor(math.Log10(hi)))
	for _, m := range []float64{.1, .2, .25, .5} {
		if hi/(p*m) <= 10 {
			return p * m
		}
	}
	return p
}
