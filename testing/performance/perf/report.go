package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// writeReport writes docs/slo-report.md from what was measured. It exits with
// the worst verdict of the profiles.
func (b *bench) writeReport(context.Context) (exit int, err error) {
	var text strings.Builder
	w := &text
	fmt.Fprintf(w, "# Service level report\n\nWritten by `make slo-report`; do not edit. Each promise, its figure and its verdict, for each profile, "+
		"measured by `svc-index loadgen` from the intended instant of each request. The server had one processor of the host and the generator "+
		"another, so \"processor\" is the share of that one, and rates are those of one.\n")
	for _, s := range setups() {
		r, err := b.readRating(s.Profile)
		switch {
		case err != nil && !errors.Is(err, fs.ErrNotExist):
			return exitBroken, fmt.Errorf("%s: %w", b.ratingFile(s.Profile), err)
		case err != nil:
			fmt.Fprintf(w, "\n## Profile %s\n\nNot measured yet: `make slo-report PROFILE=%s`.\n", s.Profile, s.Profile)
			continue
		}
		if broken := b.profileReport(w, r); broken {
			exit = exitBroken
		}
	}
	b.scenarioReport(w)
	return exit, os.WriteFile(b.report, []byte(text.String()), 0o644)
}

// A promise is one row.
type promise struct {
	what, figure string
	held, known  bool
}

func (p promise) verdict() string {
	switch {
	case !p.known:
		return "not measured"
	case p.held:
		return "held"
	}
	return "**broken**"
}

func (b *bench) profileReport(w io.Writer, r *rating) (broken bool) {
	fmt.Fprintf(w, "\n## Profile %s\n\n%s; Linux %s; %s, built with %s; %s.\n", r.Setup.Profile, r.Host.Class, r.Host.Kernel, r.Version, r.Go,
		r.Started.UTC().Format("2006-01-02 15:04 MST"))
	fmt.Fprintf(w, "%s keys, 1 %% of which take 80 %% of the requests and the rest by Zipf 0.9; 128 connections.\n\n", thousands(float64(r.Setup.Keys)))
	h := bestOf(r.Mixed, r.Rated)
	switch held := heldBest(r.Holds); {
	case held == nil:
		fmt.Fprintf(w, "Rated load: %s answers a second, in runs of %.3g s; **it has not been held yet** (`make slo-report`).\n\n", thousands(r.Rated), runsOf(h))
	case held.Held:
		fmt.Fprintf(w, "**Rated load: %s answers a second, %s of them hits and %s misses: all promises held for %v.**\n\n", thousands(held.Answered), thousands(held.HitsPerS), thousands(held.MissPerS), held.For)
		h = &held.rung
	default:
		fmt.Fprintf(w, "**%s answers a second for %v: not all promises held (%s).**\n\n", thousands(held.Answered), held.For, held.Why)
		h = &held.rung
	}
	if h == nil {
		fmt.Fprintf(w, "No rate was found at which all promises hold.\n")
		return true
	}
	rows := promises(r, h)
	if r.Setup.Profile != "micronode" {
		rows = append(rows, b.networkPromises(r.Version)...)
	}
	fmt.Fprintf(w, "| promise, at the rated load | figure | verdict |\n|---|---|---|\n")
	for _, p := range rows {
		fmt.Fprintf(w, "| %s | %s | %s |\n", p.what, p.figure, p.verdict())
		broken = broken || p.known && !p.held
	}
	halvesReport(w, r)
	curve(w, r)
	return broken
}

func runsOf(h *rung) float64 {
	if h == nil {
		return 0
	}
	return h.Seconds
}

// promises are the rows of a rate. What was read from no answer, or from a
// metric that is not there, was not measured.
func promises(r *rating, h *rung) []promise {
	some := h.Answered > 0
	counted := func(metric string) bool { return len(r.Holds) > 0 && !slices.Contains(h.Uncounted, metric) }
	return []promise{
		{fmt.Sprintf("p95 of resolve < %v", r.Setup.P95), fmt.Sprintf("%s (p50 %s, p99 %s; %d seconds whose own p95 was over)", micro(h.P95), micro(h.P50), micro(h.P99), h.SecondsOver), h.P95 < float64(r.Setup.P95.Microseconds()), some},
		{"5xx other than 503 < 0.1 %", fmt.Sprintf("%.4f %%", 100*h.Error), h.Error < errorMax, some},
		{"429 and 503 < 1 %", fmt.Sprintf("%.4f %%", 100*h.Shed), h.Shed < shedMax, some},
		{"cache hit ratio > 0.80", fmt.Sprintf("%.3f", h.Hit), h.Hit > hitMin, some},
		{"integrity failures 0", fmt.Sprintf("%.0f", h.IntegrityFailures), h.IntegrityFailures == 0, counted(integrityMetric)},
		{"absences served after a write 0", fmt.Sprintf("%.0f", h.NegativesServed), h.NegativesServed == 0, counted(negativesMetric)},
		{"memory < 1.5 GiB", fmt.Sprintf("%.0f MiB at most", h.MemoryMiB), h.MemoryMiB < memoryMax, true},
		{"descriptors < 30 % of the limit", fmt.Sprintf("%d of %d", h.Files, h.FilesMax), float64(h.Files) < filesMax*float64(h.FilesMax), true},
		{"processor < 60 %", fmt.Sprintf("%.1f %%, %.1f us a request", 100*h.CPU, h.ServerCPUUS), h.CPU < cpuMax, some},
		{"the generator was not the limit", validity(h), h.Valid, true},
	}
}

func validity(h *rung) string {
	if !h.Valid {
		return h.Why
	}
	return fmt.Sprintf("valid; %.1f us of its own work a request", h.GeneratorWorkUS)
}

// heldBest is the fastest hold in which all promises held, or else the last
// one, or nil.
func heldBest(holds []hold) (best *hold) {
	for i := range holds {
		if h := &holds[i]; best == nil || !best.Held || h.Held && h.Rate > best.Rate {
			best = h
		}
	}
	return best
}

// networkPromises are read from the latest results of the scenarios that need
// a network. Each says of which run, and whether that was of another build.
func (b *bench) networkPromises(version string) []promise {
	across, tail := b.latest("inter-region"), b.latest("dht-tail")
	of := func(r *result) string {
		other := ""
		if r.Version != version {
			other = ", another build"
		}
		return fmt.Sprintf(" (%s%s, %s%s)", r.Scenario, r.scaled(), r.Commit, other)
	}
	rows := []promise{{what: "p95 of resolve across regions < 200 ms", figure: notRun(across)},
		{what: "DHT p99 <= 5 hops", figure: notRun(tail)}, {what: "hedge win rate > 0.2", figure: notRun(tail)}}
	if across != nil && across.Verdict != verdictNotRun {
		for _, l := range across.Loads {
			if l.Load == "names" {
				v := l.Figures["p95_us"]
				rows[0] = promise{rows[0].what, micro(v) + of(across), v < 200_000, l.Valid && l.Figures["rate_answered"] > 0}
			}
		}
	}
	if tail != nil && tail.Verdict != verdictNotRun {
		if v, ok := tail.Server["dht_hops_p99"]; ok {
			rows[1] = promise{rows[1].what, fmt.Sprintf("%.0f, of %.0f look-ups%s", v, tail.Server["dht_lookups"], of(tail)), v <= 5, true}
		}
		if v, ok := tail.Server["hedge_win_rate"]; ok {
			rows[2] = promise{rows[2].what, fmt.Sprintf("%.2f, of %.0f hedged%s", v, tail.Server["hedged"], of(tail)), v > 0.2, true}
		}
	}
	return rows
}

func notRun(r *result) string {
	switch {
	case r == nil:
		return "its scenario was not run"
	case r.Verdict == verdictNotRun:
		return "needs " + strings.Join(r.Missing, ", ") + ", not in this build"
	}
	return "the scenario did not say"
}

// latest is the last result of a scenario; nil if there is none.
func (b *bench) latest(name string) *result {
	files, _ := filepath.Glob(filepath.Join(b.results, name+"-2*.json"))
	slices.Sort(files)
	for _, file := range slices.Backward(files) {
		text, err := os.ReadFile(file)
		r := new(result)
		if err == nil && json.Unmarshal(text, r) == nil && r.Scenario == name {
			return r
		}
	}
	return nil
}

func bestOf(rungs []rung, rate float64) *rung {
	for i := range rungs {
		if rungs[i].Rate == rate && rungs[i].Held {
			return &rungs[i]
		}
	}
	return nil
}

func halvesReport(w io.Writer, r *rating) {
	fmt.Fprintf(w, "\n| by itself, all promises but those that cannot apply | highest rate | p50 | p95 | p99 | processor | us a request |\n|---|--:|--:|--:|--:|--:|--:|\n")
	for _, row := range []struct {
		name  string
		rungs []rung
		rate  float64
	}{{"hits only", r.Hits, r.HitRate}, {"misses only (`fresh=true`, each read from the store)", r.Misses, r.MissRate}, {"nginx, a constant of the size of a hit", r.Nginx, r.NginxMax}} {
		switch u := bestOf(row.rungs, row.rate); {
		case u != nil:
			fmt.Fprintf(w, "| %s | %s%s/s | %s | %s | %s | %.0f %% | %.1f |\n", row.name, orMore(row.rungs, row.rate), thousands(u.Rate),
				micro(u.P50), micro(u.P95), micro(u.P99), 100*u.CPU, u.ServerCPUUS)
		case len(row.rungs) > 0:
			last := row.rungs[len(row.rungs)-1]
			fmt.Fprintf(w, "| %s | none: %s/s broke (%s) | | | | | |\n", row.name, thousands(last.Rate), last.Why)
		default:
			fmt.Fprintf(w, "| %s | not measured | | | | | |\n", row.name)
		}
	}
	if r.NginxMax > 0 {
		fmt.Fprintf(w, "\nTo nginx in the same run, each at its highest rate within the same promises: hits %.2f, misses %s, the mixed demand %.2f.\n",
			r.HitRate/r.NginxMax, missRatio(r), r.Rated/r.NginxMax)
		if orMore(r.Nginx, r.NginxMax) != "" {
			fmt.Fprintf(w, "The generator, not nginx, was the limit of nginx: these are at most so much.\n")
		}
	}
}

// orMore says so of a highest rate above which the generator was the limit, and
// not who was asked.
func orMore(rungs []rung, rate float64) string {
	var next *rung
	for i := range rungs {
		if u := &rungs[i]; u.Rate > rate && (next == nil || u.Rate <= next.Rate) {
			next = u
		}
	}
	if next != nil && strings.HasPrefix(next.Why, invalidWord) {
		return "at least "
	}
	return ""
}

// missRatio is that of misses, or the lowest rate that was tried and broke.
func missRatio(r *rating) string {
	if r.MissRate > 0 {
		return fmt.Sprintf("%.2f", r.MissRate/r.NginxMax)
	}
	if len(r.Misses) == 0 {
		return "not measured"
	}
	u := r.Misses[len(r.Misses)-1]
	return fmt.Sprintf("below %.2f (%s/s broke: %s)", u.Rate/r.NginxMax, thousands(u.Rate), u.Why)
}

func curve(w io.Writer, r *rating) {
	fmt.Fprintf(w, "\nHeld for long:\n\n| rate | for | p50 | p95 | p99 | processor | hits/s | misses/s | |\n|--:|--:|--:|--:|--:|--:|--:|--:|---|\n")
	for _, h := range r.Holds {
		fmt.Fprintf(w, "| %s | %v | %s | %s | %s | %.1f %% | %s | %s | %s |\n", thousands(h.Rate), h.For, micro(h.P50), micro(h.P95), micro(h.P99),
			100*h.CPU, thousands(h.HitsPerS), thousands(h.MissPerS), orText(h.Why, "all promises held"))
	}
	fmt.Fprintf(w, "\nThe curve, to saturation:\n\n| rate | answered | p50 | p95 | p99 | processor | hit ratio | throttled | |\n|--:|--:|--:|--:|--:|--:|--:|--:|---|\n")
	rungs := slices.Clone(r.Mixed)
	slices.SortStableFunc(rungs, func(a, b rung) int { return int(a.Rate - b.Rate) })
	for _, u := range rungs {
		fmt.Fprintf(w, "| %s | %s | %s | %s | %s | %.0f %% | %.3f | %.2f %% | %s |\n", thousands(u.Rate), thousands(u.Answered), micro(u.P50), micro(u.P95), micro(u.P99),
			100*u.CPU, u.Hit, 100*u.Shed, orText(u.Why, "held"))
	}
}

// scenarioReport lists the latest result of every scenario.
func (b *bench) scenarioReport(w io.Writer) {
	fmt.Fprintf(w, "\n## Scenarios\n\nThe latest run of each, by `make perf SCENARIO=name`.\n\n| scenario | why | verdict | when | broken |\n|---|---|---|---|---|\n")
	files, _ := filepath.Glob(filepath.Join(b.scenarios, "*.toml"))
	for _, file := range files {
		s, err := readScenario(file)
		if err != nil {
			fmt.Fprintf(w, "| %s | it cannot be read: %v | not run | | |\n", strings.TrimSuffix(filepath.Base(file), ".toml"), err)
			continue
		}
		r := b.latest(s.name)
		if r == nil {
			fmt.Fprintf(w, "| %s | %s | not run | | |\n", s.name, firstLine(s.Why))
			continue
		}
		var broken []string
		for _, c := range r.Checks {
			if !c.Held {
				broken = append(broken, strings.TrimPrefix(c.Phase+": "+c.What+": "+c.Found, ": "))
			}
		}
		if r.Verdict == verdictNotRun {
			broken = []string{"needs " + strings.Join(r.Missing, ", ") + ", not in this build"}
		}
		changed := r.scaled()
		if r.Hash != s.hash {
			changed += " (of an older version of the scenario)"
		}
		fmt.Fprintf(w, "| %s | %s | %s%s | %s, %s | %s |\n", s.name, firstLine(s.Why), r.Verdict, changed, r.Started.UTC().Format(time.DateOnly), r.Commit,
			strings.ReplaceAll(clip(strings.Join(broken, "; ")), "|", "\\|"))
	}
}

const clipMax = 300

func clip(s string) string {
	if len(s) > clipMax {
		return s[:clipMax] + "..."
	}
	return s
}

func thousands(v float64) string {
	s := fmt.Sprintf("%.0f", v)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}
