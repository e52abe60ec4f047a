package main

import (
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// Measures of the picture.
const (
	wide   = 960
	left   = 70
	right  = 20
	top    = 70
	panel  = 150
	gap    = 45
	points = 600 // of a line at the most
)

// line is one curve of a panel.
type line struct {
	name, colour string
	step         bool
	value        func(i int) float64
}

// draw writes the picture: three panels over the same time.
func (r *record) draw(path string) error {
	if len(r.Samples) == 0 {
		return nil
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	return os.WriteFile(path, []byte(r.svg()), 0o644)
}

func (r *record) svg() string {
	rates := r.rates()
	panels := []struct {
		title string
		lines []line
	}{
		{"Executions that wait", []line{{"waiting", "#c2410c", false, func(i int) float64 { return float64(r.Samples[i].Depth) }}}},
		{"Workers", []line{
			{"wanted of Nomad", "#94a3b8", true, func(i int) float64 { return float64(r.Samples[i].Desired) }},
			{"at work", "#1d4ed8", true, func(i int) float64 { return float64(r.Samples[i].Busy) }},
		}},
		{"Executions ended a second", []line{{"ended", "#15803d", false, func(i int) float64 { return rates[i] }}}},
	}
	high := top + len(panels)*(panel+gap)
	span := max(r.Samples[len(r.Samples)-1].At.Sub(r.Begun).Seconds(), 1)
	x := func(at time.Time) float64 { return left + at.Sub(r.Begun).Seconds()/span*(wide-left-right) }
	var b strings.Builder
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" font-family="sans-serif" font-size="12">`+"\n", wide, high)
	fmt.Fprintf(&b, `<rect width="%d" height="%d" fill="#fff"/><text x="%d" y="24" font-size="16">Scaling: %d executions of %s, from %d workers of %d slots</text>`+"\n", wide, high, left, r.Executions, takes, workers, slots)
	for i, p := range panels {
		r.panel(&b, top+i*(panel+gap), span, p.title, p.lines, x)
	}
	r.moments(&b, high, x)
	b.WriteString("</svg>\n")
	return b.String()
}

// panel draws axes and lines.
func (r *record) panel(b *strings.Builder, y int, span float64, title string, lines []line, x func(time.Time) float64) {
	most := 1.0
	for _, l := range lines {
		for i := range r.Samples {
			most = max(most, l.value(i))
		}
	}
	most = round(most)
	at := func(v float64) float64 { return float64(y+panel) - v/most*panel }
	fmt.Fprintf(b, `<text x="%d" y="%d">%s</text>`+"\n", left, y-6, title)
	for i := range 3 {
		v := most * float64(i) / 2
		fmt.Fprintf(b, `<path d="M%d %.1fH%d" stroke="#e2e8f0"/><text x="%d" y="%.1f" text-anchor="end" fill="#475569">%g</text>`+"\n", left, at(v), wide-right, left-6, at(v)+4, v)
	}
	every := round(span / 8)
	for s := 0.0; s <= span; s += every {
		fmt.Fprintf(b, `<text x="%.1f" y="%d" text-anchor="middle" fill="#475569">%g s</text>`+"\n", left+s/span*(wide-left-right), y+panel+16, s)
	}
	for k, l := range lines {
		var path strings.Builder
		for i := 0; i < len(r.Samples); i += max(1, len(r.Samples)/points) {
			px, py := x(r.Samples[i].At), at(l.value(i))
			switch {
			case i == 0:
				fmt.Fprintf(&path, "M%.1f %.1f", px, py)
			case l.step:
				fmt.Fprintf(&path, "H%.1fV%.1f", px, py)
			default:
				fmt.Fprintf(&path, "L%.1f %.1f", px, py)
			}
		}
		fmt.Fprintf(b, `<path d="%s" fill="none" stroke="%s" stroke-width="1.8"/><text x="%d" y="%d" text-anchor="end" fill="%s">%s</text>`+"\n", path.String(), l.colour, wide-right-110*k, y-6, l.colour, l.name)
	}
}

// moments draws a line through all panels for each; their names stand beside each other in rows of their own, since the first ones are close.
func (r *record) moments(b *strings.Builder, high int, x func(time.Time) float64) {
	for i, m := range []struct {
		at   time.Time
		name string
	}{{r.Marked, "mark passed"}, {r.Decided, "decided"}, {r.FirstTask, "first task of a new worker"}, {r.Drained, "all ended"}, {r.Down, "at the minimum"}} {
		if m.at.IsZero() {
			continue
		}
		fmt.Fprintf(b, `<path d="M%.1f %dV%d" stroke="#64748b" stroke-dasharray="3 3"/>`, x(m.at), top-18, high-gap)
		anchor, shift := "start", 3.0
		if x(m.at) > wide*3/4 {
			anchor, shift = "end", -3
		}
		fmt.Fprintf(b, `<text x="%.1f" y="%d" text-anchor="%s" font-size="10" fill="#334155">%s, %.1f s</text>`+"\n", x(m.at)+shift, top-20-10*((4-i)%3), anchor, m.name, m.at.Sub(r.Begun).Seconds())
	}
}

// round gives the next of 1, 2, 5, 10, 20, …
func round(v float64) float64 {
	unit := math.Pow(10, math.Floor(math.Log10(max(v, 1e-9))))
	for _, n := range []float64{1, 2, 5} {
		if n*unit >= v {
			return n * unit
		}
	}
	return 10 * unit
}
