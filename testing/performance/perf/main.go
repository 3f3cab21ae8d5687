// Command perf runs load scenarios and measures the rated load, and leaves a
// file of what it has seen.
//
//	perf run SCENARIO...   each to its end; exit 1 if a check broke, 3 if a run was invalid
//	perf list              what there is, and why
//	perf slo-report        the rated load of this machine, into docs/slo-report.md
//	perf capture SCENARIO  profiles of the server under it; SCENARIO:PHASE for another phase than the first that is more than a warm-up
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"
)

// A bench is where and with what everything is measured. The server has one
// processor and the generator another, so that neither takes from the other.
type bench struct {
	binary, rig string // svc-index, and its build with rigs in it
	scenarios   string // directory of them
	results     string // directory for them
	captures    string // directory for profiles
	work        string // directory for data, emptied at the end
	server      int    // processors; -1: all
	client      int
	scale       float64 // of all durations
	hold        time.Duration
	report      string
	stage       string  // of slo-report: find, hold, halves, write; "": all three
	profile     string  // the only one of slo-report; "": all
	runs        int     // of the generator so far
	rateHeld    float64 // instead of what was found; 0: that
}

const commands = "say run SCENARIO..., list, capture SCENARIO... or slo-report"

// What a run ends with, as svc-index's own commands do.
const (
	exitBroken  = 1
	exitUsage   = 2
	exitInvalid = 3
)

func main() {
	var b bench
	flag.StringVar(&b.binary, "binary", "bin/svc-index", "the server and generator")
	flag.StringVar(&b.rig, "rig", "bin/svc-index-rig", "the same, built with -tags rig")
	flag.StringVar(&b.scenarios, "scenarios", "testing/performance/scenarios", "directory of scenarios")
	flag.StringVar(&b.results, "results", "testing/performance/results", "directory for result files")
	flag.StringVar(&b.captures, "captures", "profiles/captures", "directory for profiles")
	flag.IntVar(&b.server, "server-cpu", 0, "processor of the server; -1 all")
	flag.IntVar(&b.client, "client-cpu", 1, "processor of the generator; -1 all")
	flag.Float64Var(&b.scale, "scale", 1, "of every duration in a scenario but its warm-ups: 0.2 to try one out")
	flag.DurationVar(&b.hold, "hold", 10*time.Minute, "slo-report: how long the rated load has to hold")
	flag.StringVar(&b.report, "out", "docs/slo-report.md", "slo-report: the file to write")
	flag.StringVar(&b.stage, "stage", "", "slo-report: only find the rated load, only hold it, only its halves (misses, hits, nginx), or only write what was found")
	flag.StringVar(&b.profile, "profile", "", "slo-report: only this profile")
	flag.Float64Var(&b.rateHeld, "rate", 0, "slo-report: hold this rate instead of the one found")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	code, err := b.do(ctx, flag.Args())
	if err != nil {
		fmt.Fprintln(os.Stderr, "perf:", err)
	}
	stop()
	os.Exit(code)
}

func (b *bench) do(ctx context.Context, args []string) (exit int, err error) {
	if len(args) == 0 {
		return exitUsage, errors.New(commands)
	}
	if b.work, err = os.MkdirTemp("", "svc-index-perf-"); err != nil {
		return exitBroken, err
	}
	defer os.RemoveAll(b.work)
	switch args[0] {
	case "list":
		return 0, b.list(os.Stdout)
	case "run":
		if len(args) < 2 {
			return exitUsage, errors.New("run which? see perf list")
		}
		return b.runAll(ctx, args[1:])
	case "capture":
		if len(args) < 2 {
			return exitUsage, errors.New("capture which? see perf list")
		}
		return b.captureAll(ctx, args[1:])
	case "slo-report":
		return b.sloReport(ctx)
	}
	return exitUsage, fmt.Errorf("%q: %s", args[0], commands)
}

// list prints every scenario and the first line of why it exists.
func (b *bench) list(out *os.File) error {
	files, err := filepath.Glob(filepath.Join(b.scenarios, "*.toml"))
	if err != nil {
		return err
	}
	for _, file := range files {
		s, err := readScenario(file)
		if err != nil {
			return err
		}
		fmt.Fprintf(out, "%-18s %s\n", s.name, firstLine(s.Why))
	}
	return nil
}

// runAll runs scenarios one after the other. The worst verdict is the exit.
func (b *bench) runAll(ctx context.Context, names []string) (exit int, err error) {
	for _, name := range names {
		s, err := readScenario(filepath.Join(b.scenarios, name+".toml"))
		if err != nil {
			return exitUsage, err
		}
		r, err := b.run(ctx, s)
		if err != nil {
			return exitBroken, fmt.Errorf("%s: %w", name, err)
		}
		file, err := r.write(b.results)
		if err != nil {
			return exitBroken, err
		}
		r.print(os.Stdout)
		fmt.Println("written to", file)
		switch r.Verdict {
		case verdictBroken:
			exit = exitBroken
		case verdictInvalid:
			if exit == 0 {
				exit = exitInvalid
			}
		}
	}
	return exit, nil
}
