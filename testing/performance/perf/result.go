package main

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	"svcindex/loadgen"
	"svcindex/testing/performance/lab"
)

// schema names the layout of a result file.
const schema = "svc-index/perf/v1"

// Verdicts.
const (
	verdictHeld    = "held"
	verdictBroken  = "broken"
	verdictInvalid = "invalid" // the generator was the limit: nothing was shown
	verdictNotRun  = "not run" // the build lacks what it needs
)

// A result is what one run of one scenario has shown.
type result struct {
	Schema   string    `json:"schema"`
	Scenario string    `json:"scenario"`
	Hash     string    `json:"scenario_hash"`
	Why      string    `json:"why"`
	Started  time.Time `json:"started"`
	Host     lab.Host  `json:"host"`
	Version  string    `json:"version"`
	Commit   string    `json:"commit"`
	Go       string    `json:"go"` // that built the server
	Verdict  string    `json:"verdict"`
	Missing  []string  `json:"missing,omitempty"` // what the build lacks
	Scale    float64   `json:"scale"`             // of every duration; 1 is the whole

	Loads  []loadResult       `json:"loads"`
	Checks []checkResult      `json:"checks"`
	Server map[string]float64 `json:"server"` // figures of the process, for the whole scenario
}

// A loadResult is one run of the generator.
type loadResult struct {
	Phase   string             `json:"phase"`
	Load    string             `json:"load"`
	Args    string             `json:"args"`
	Valid   bool               `json:"valid"`
	Reason  []string           `json:"invalid_because,omitempty"`
	Figures map[string]float64 `json:"figures"`
	Codes   map[string]int64   `json:"codes"`
	Sources map[string]int64   `json:"sources"`
}

// A checkResult is something that had to hold.
type checkResult struct {
	Phase  string `json:"phase,omitempty"`
	What   string `json:"what"`
	Found  string `json:"found"`
	Held   bool   `json:"held"`
	Within string `json:"-"`
}

func (r *result) check(phase, what string, held bool, found string, args ...any) {
	r.Checks = append(r.Checks, checkResult{Phase: phase, What: what, Held: held, Found: fmt.Sprintf(found, args...)})
}

// figuresOf are what a comparison of two runs looks at.
func figuresOf(r *loadgen.Report) map[string]float64 {
	return map[string]float64{
		"rate_target": r.Setup.Rate, "rate_answered": r.Requests.Rate,
		"p50_us": r.Response.P50, "p90_us": r.Response.P90, "p95_us": r.Response.P95, "p99_us": r.Response.P99,
		"p99_9_us": r.Response.P999, "max_us": r.Response.Max, "service_p99_us": r.Service.P99,
		"due": float64(r.Requests.Due), "ok": float64(r.Requests.OK), "throttled": float64(r.Requests.Throttled),
		"errors": float64(r.Requests.Refused), "failed": float64(r.Requests.Failed), "late": float64(r.Requests.Late),
		"generator_work_us": r.Generator.WorkPerRequest, "generator_lag_p99_us": r.Generator.Lag.P99,
	}
}

func countsOf(splits []loadgen.Split) map[string]int64 {
	m := map[string]int64{}
	for _, s := range splits {
		m[s.Name] = s.Response.Count
	}
	return m
}

// conclude is the verdict. What is broken is broken, even if the generator had
// its troubles; what held proves nothing if it had.
func (r *result) conclude() {
	r.Verdict = verdictHeld
	for _, l := range r.Loads {
		if !l.Valid {
			r.Verdict = verdictInvalid
		}
	}
	for _, c := range r.Checks {
		if !c.Held {
			r.Verdict = verdictBroken
		}
	}
}

// scaled says so of a run that was not of its whole length.
func (r *result) scaled() string {
	if r.Scale == 1 || r.Scale == 0 {
		return ""
	}
	return fmt.Sprintf(" at %g of its time", r.Scale)
}

func (r *result) write(dir string) (file string, err error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	b, err := json.MarshalIndent(r, "", " ")
	if err != nil {
		return "", err
	}
	file = filepath.Join(dir, fmt.Sprintf("%s-%s-%s.json", r.Scenario, r.Started.UTC().Format("20060102T150405Z"), r.Commit))
	return file, os.WriteFile(file, append(b, '\n'), 0o644)
}

func (r *result) print(w io.Writer) {
	fmt.Fprintf(w, "\n%s: %s (%s, %s)\n", r.Scenario, r.Verdict+r.scaled(), r.Commit, r.Host.Class)
	for _, m := range r.Missing {
		fmt.Fprintf(w, "  needs %s, which is not in this build\n", m)
	}
	for _, l := range r.Loads {
		f := l.Figures
		fmt.Fprintf(w, "  %-10s %-8s %8.0f/s  p50 %s  p95 %s  p99 %s  %v %v", l.Phase, l.Load, f["rate_answered"],
			micro(f["p50_us"]), micro(f["p95_us"]), micro(f["p99_us"]), l.Codes, l.Sources)
		if !l.Valid {
			fmt.Fprintf(w, "  INVALID: %s", strings.Join(l.Reason, "; "))
		}
		fmt.Fprintln(w)
	}
	if len(r.Server) > 0 {
		fmt.Fprint(w, "  server    ")
		for _, name := range slices.Sorted(maps.Keys(r.Server)) {
			fmt.Fprintf(w, " %s %.4g", name, r.Server[name])
		}
		fmt.Fprintln(w)
	}
	for _, c := range r.Checks {
		held := "held"
		if !c.Held {
			held = "BROKEN"
		}
		fmt.Fprintf(w, "  %-6s  %s%s: %s\n", held, c.Phase+map[bool]string{true: ": "}[c.Phase != ""], c.What, c.Found)
	}
}

func micro(us float64) string {
	return time.Duration(us * 1000).Round(time.Microsecond).String()
}

// goOf says which Go built a program.
func goOf(info *debug.BuildInfo) string {
	if info == nil {
		return "unknown"
	}
	return info.GoVersion
}
