package telemetry

import (
	"encoding/json"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"testing"

	"svcindex/index"
)

// An expression is PromQL from the rules or a dashboard.
type expression struct{ where, text string }

// expressions returns every expression that lies beside the names it shows,
// and the names that the rules record.
func expressions(t *testing.T) (all []expression, recorded []string) {
	t.Helper()
	text, err := os.ReadFile("rules/svc-index.rules.yml")
	if err != nil {
		t.Fatal(err)
	}
	title := ""
	for line := range strings.Lines(string(text)) {
		line = strings.TrimSpace(line)
		if name, ok := strings.CutPrefix(line, "- record: "); ok {
			title, recorded = name, append(recorded, name)
		}
		if name, ok := strings.CutPrefix(line, "- alert: "); ok {
			title = name
		}
		if expr, ok := strings.CutPrefix(line, "expr: "); ok {
			all = append(all, expression{title, expr})
		}
	}
	text, err = os.ReadFile("dashboards/svc-index.json")
	if err != nil {
		t.Fatal(err)
	}
	var board struct {
		Panels []struct {
			Title   string
			Targets []struct{ Expr string }
		}
	}
	if err := json.Unmarshal(text, &board); err != nil {
		t.Fatal(err)
	}
	for _, p := range board.Panels {
		for _, target := range p.Targets {
			all = append(all, expression{"dashboard: " + p.Title, target.Expr})
		}
	}
	if len(all) < 60 || len(recorded) < 15 {
		t.Fatalf("only %d expressions and %d recorded names were found: the files or this reader have changed", len(all), len(recorded))
	}
	return all, recorded
}

// words of PromQL that are not names of series.
var promWords = strings.Fields(`sum max min count by on and or unless rate increase histogram_quantile max_over_time
	instance stage status reason result kind le alertname`)

var (
	selector = regexp.MustCompile(`([a-zA-Z_:][a-zA-Z0-9_:]*)\{([^}]*)\}`)
	word     = regexp.MustCompile(`[a-zA-Z_:][a-zA-Z0-9_:]*`)
	window   = regexp.MustCompile(`\[[^\]]*\]`)
	matcher  = regexp.MustCompile(`(\w+)(=~?)"([^"]*)"`)
)

// TestEveryNameShownExists holds the rules and the dashboard to what a scrape
// shows: each name, and each label with its value.
func TestEveryNameShownExists(t *testing.T) {
	var lines []string
	s := New(Sources{Rooms: func() []index.RoomStats { return nil }}, nil)
	for line := range strings.Lines(string(s.exposition())) {
		lines = append(lines, line)
	}
	all, recorded := expressions(t)
	has := func(name, label string) bool {
		return slices.ContainsFunc(lines, func(l string) bool {
			rest, ok := strings.CutPrefix(l, name)
			return ok && (rest[0] == '{' || rest[0] == ' ') && strings.Contains(rest, label)
		})
	}
	for _, e := range all {
		bare := window.ReplaceAllString(e.text, "")
		for _, m := range selector.FindAllStringSubmatch(bare, -1) {
			for _, label := range matcher.FindAllStringSubmatch(m[2], -1) {
				if label[1] == "instance" || label[1] == "job" || slices.Contains(recorded, m[1]) {
					continue // Prometheus adds these
				}
				if label[2] != "=" || !has(m[1], label[1]+`="`+label[3]+`"`) {
					t.Errorf("%s: %s has no label %s", e.where, m[1], label[0])
				}
			}
		}
		bare = regexp.MustCompile(`\{[^}]*\}`).ReplaceAllString(bare, "")
		for _, name := range word.FindAllString(bare, -1) {
			if name != "up" && !slices.Contains(promWords, name) && !slices.Contains(recorded, name) && !has(name, "") {
				t.Errorf("%s: /metrics shows no %s", e.where, name)
			}
		}
	}
}

// TestEveryPromiseHasAnAlert names the promises, so that none is forgotten.
func TestEveryPromiseHasAnAlert(t *testing.T) {
	text, err := os.ReadFile("rules/svc-index.rules.yml")
	if err != nil {
		t.Fatal(err)
	}
	for _, alert := range strings.Fields(`SvcIndexErrors SvcIndexThrottled SvcIndexSlow SvcIndexCacheCold SvcIndexIntegrity
		SvcIndexAbsenceAfterWrite SvcIndexNotReady SvcIndexFarHops SvcIndexHedgesLose SvcIndexMemory SvcIndexDescriptors SvcIndexProcessor`) {
		if !strings.Contains(string(text), "- alert: "+alert+"\n") {
			t.Errorf("no alert %s", alert)
		}
	}
}

// TestEveryAlertHasItsSectionInTheRunbook holds the links of the rules to the
// headings of the page they lead to.
func TestEveryAlertHasItsSectionInTheRunbook(t *testing.T) {
	rules, err := os.ReadFile("rules/svc-index.rules.yml")
	if err != nil {
		t.Fatal(err)
	}
	page, err := os.ReadFile("../docs/runbook.md")
	if err != nil {
		t.Fatal(err)
	}
	sections := map[string]bool{}
	for line := range strings.Lines(string(page)) {
		if title, ok := strings.CutPrefix(line, "## "); ok {
			sections[strings.ToLower(strings.TrimSpace(title))] = true
		}
	}
	links := 0
	for line := range strings.Lines(string(rules)) {
		_, anchor, ok := strings.Cut(strings.TrimSpace(line), "docs/runbook.md#")
		if !ok {
			continue
		}
		links++
		if !sections[anchor] {
			t.Errorf("docs/runbook.md has no section %s, to which an alert leads", anchor)
		}
	}
	if links < strings.Count(string(rules), "- alert: ") {
		t.Errorf("%d alerts, %d links to the runbook", strings.Count(string(rules), "- alert: "), links)
	}
}

// TestPromtoolTakesTheRules is what make rules does, where promtool is.
func TestPromtoolTakesTheRules(t *testing.T) {
	promtool, err := exec.LookPath("promtool")
	if err != nil {
		t.Skip("promtool is not installed; make rules installs it (Debian's package prometheus)")
	}
	for _, args := range [][]string{{"check", "rules", "svc-index.rules.yml"}, {"test", "rules", "svc-index.test.yml"}} {
		cmd := exec.Command(promtool, args...)
		cmd.Dir = "rules"
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("promtool %s: %v\n%s", strings.Join(args, " "), err, out)
		}
	}
}
