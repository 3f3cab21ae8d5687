// Command gate measures two builds in turns and says whether the newer is
// worse: make gate.
//
// Both answer the same questions of the same client, the working tree's own
// load generator, on the same machine, one after the other, round by round;
// the server has all processors but the last, the client that one. A failure
// is measured again before it is one.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"svcindex/testing/performance/compare"
)

const (
	baselinesDir = "testing/performance/baselines"
	waiversFile  = "testing/performance/waivers.json"
	allocsFile   = baselinesDir + "/allocs.json"
)

// options are the flags.
type options struct {
	base, out, baseline string
	rounds              int
	null, allocs, save  bool
	proof               bool
	judge               string
	env                 list
}

type list []string

func (l *list) String() string     { return strings.Join(*l, " ") }
func (l *list) Set(s string) error { *l = append(*l, s); return nil }

func main() {
	var o options
	flag.StringVar(&o.base, "base", "", "revision to compare with (default: the last tag, else main)")
	flag.IntVar(&o.rounds, "rounds", 7, "rounds, each of which measures both builds")
	flag.StringVar(&o.out, "out", "bin/gate.json", "where the rounds are kept")
	flag.StringVar(&o.baseline, "baseline", "", "baseline of this class of machine (default: by its class, in "+baselinesDir+")")
	flag.BoolVar(&o.null, "null", false, "measure the working tree against itself: what comes out is noise")
	flag.BoolVar(&o.save, "save", false, "with -null and -allocs: keep it as the baseline")
	flag.BoolVar(&o.allocs, "allocs", false, "compare the allocations of benchmarks with "+allocsFile+", and nothing else")
	flag.BoolVar(&o.proof, "proof", false, "plant a fault for every gate, and succeed if every gate sees it")
	flag.StringVar(&o.judge, "judge", "", "measure nothing: judge the rounds kept in a `file`")
	flag.Var(&o.env, "env", "`NAME=VALUE` in the environment of the new build alone; for planting faults through its rig")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, o); err != nil {
		fmt.Fprintln(os.Stderr, "gate:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, o options) error {
	switch {
	case o.allocs:
		return allocations(ctx, o.save)
	case o.proof:
		return o.prove(ctx)
	case o.judge != "":
		var kept measured
		text, err := os.ReadFile(o.judge)
		if err == nil {
			err = json.Unmarshal(text, &kept)
		}
		if err != nil {
			return err
		}
		_, err = o.verdicts(kept.Host, kept.Rounds)
		return err
	}
	return o.measure(ctx)
}

// A measured is what a run leaves: every round, for who wants to judge again.
type measured struct {
	Host      compare.Host    `json:"host"`
	Base      string          `json:"base"`
	New       string          `json:"new"`
	Taken     time.Time       `json:"taken"`
	Disturbed int             `json:"disturbed"` // halves of rounds, in every try
	Rounds    []compare.Round `json:"rounds"`
}

func (o *options) measure(ctx context.Context) error {
	builds, err := makeBuilds(ctx, o)
	if err != nil {
		return err
	}
	defer builds.remove()
	m := measured{Host: thisHost(), Base: builds.base.rev, New: builds.now.rev, Taken: time.Now().UTC()}
	fmt.Printf("%s, base %s, new %s, %d rounds\n", m.Host.Class, m.Base, m.New, o.rounds)
	if o.null {
		if err := m.add(ctx, builds, o.rounds); err != nil {
			return err
		}
		return o.keepNull(m)
	}
	found, err := o.series(ctx, builds, &m, nil)
	if err != nil {
		return err
	}
	if failed(found) {
		fmt.Print(compare.Table(found), "\nsomething failed: measuring again\n")
		if err := writeJSON(o.out, m); err != nil {
			return err
		}
		if found, err = o.series(ctx, builds, &m, found); err != nil {
			return err
		}
	}
	if err := writeJSON(o.out, m); err != nil {
		return err
	}
	return o.conclude(found)
}

// add plays rounds and keeps them.
func (m *measured) add(ctx context.Context, builds *builds, rounds int) error {
	played, err := builds.play(ctx, rounds)
	m.Rounds, m.Disturbed = append(m.Rounds, played...), builds.disturbed
	return err
}

// series plays the rounds of one judgement. What failed before, in first, fails
// only if it does so again.
func (o *options) series(ctx context.Context, builds *builds, m *measured, first []compare.Verdict) ([]compare.Verdict, error) {
	before := len(m.Rounds)
	if err := m.add(ctx, builds, o.rounds); err != nil {
		return nil, err
	}
	found, err := o.judgeAll(m.Host, m.Rounds[before:])
	if err != nil {
		return nil, err
	}
	for i, v := range first {
		found[i] = compare.Confirm(v, found[i])
	}
	return found, nil
}

func failed(vs []compare.Verdict) bool {
	for _, v := range vs {
		if v.State == compare.Failed {
			return true
		}
	}
	return false
}

// verdicts judges rounds and concludes.
func (o *options) verdicts(host compare.Host, rounds []compare.Round) ([]compare.Verdict, error) {
	vs, err := o.judgeAll(host, rounds)
	if err != nil {
		return nil, err
	}
	return vs, o.conclude(vs)
}

func (o *options) judgeAll(host compare.Host, rounds []compare.Round) (vs []compare.Verdict, err error) {
	noise := map[string]float64{}
	b, err := o.readBaseline(host)
	switch {
	case err == nil:
		noise = b.Noise
	case o.baseline == "" && errors.Is(err, os.ErrNotExist):
		fmt.Printf("nobody has measured the noise of %s yet: make gate-null\n", host.Class)
	default:
		return nil, err
	}
	for _, g := range compare.Gates() {
		pairs := compare.Of(rounds, g.Name)
		if g.Figure && len(pairs) == 0 {
			continue
		}
		v, err := compare.Decide(g, pairs, noise[g.Name])
		if err != nil {
			return nil, err
		}
		vs = append(vs, v)
	}
	return vs, nil
}

func (o *options) readBaseline(host compare.Host) (*compare.Baseline, error) {
	path := o.baseline
	if path == "" {
		path = filepath.Join(baselinesDir, host.Class+".json")
	}
	return compare.ReadBaseline(path, host)
}

// conclude applies the waivers, prints the table, and fails if anything does.
func (o *options) conclude(vs []compare.Verdict) error {
	ws, err := compare.ReadWaivers(waiversFile)
	if err != nil {
		return err
	}
	vs, bad := compare.Waive(vs, ws, time.Now())
	fmt.Print("\n", compare.Table(vs))
	if failed(vs) {
		bad = append(bad, errors.New("the new build is worse; svc-index profile diff says where"))
	}
	return errors.Join(bad...)
}

// keepNull notes what rounds in which nothing had changed are off by.
func (o *options) keepNull(m measured) error {
	size := min(o.rounds, nullSize)
	b := compare.Baseline{
		Schema: compare.Schema, Host: m.Host, Commit: m.New, Go: goVersion(), Taken: m.Taken, Rounds: size, Disturbed: m.Disturbed,
		Noise: map[string]float64{}, Figures: map[string]float64{}, Null: m.Rounds,
	}
	failures, comparisons := 0, compare.Nulls(m.Rounds, nullCount, size)
	for _, g := range compare.Gates() {
		var all [][]compare.Pair
		for _, c := range comparisons {
			all = append(all, compare.Of(c, g.Name))
		}
		if len(compare.Of(m.Rounds, g.Name)) < size {
			continue // a figure that cannot be had here
		}
		b.Noise[g.Name] = compare.Noise(g, all)
		whole, err := compare.Decide(g, compare.Of(m.Rounds, g.Name), 0)
		if err != nil {
			return err
		}
		b.Figures[g.Name] = whole.Base
		bad := 0
		for _, c := range all {
			if v, err := compare.Decide(g, c, 0); err != nil || v.State == compare.Failed {
				bad++
			}
		}
		failures += bad
		fmt.Printf("%-16s %10.4g %-10s  off by at most %4.1f %% in %d comparisons of %d rounds; %d failed with no noise allowed for\n",
			g.Name, whole.Base, g.Unit, 100*b.Noise[g.Name], len(all), size, bad)
	}
	if m.Disturbed > 0 {
		fmt.Printf("%d of %d halves of rounds were disturbed in each of %d tries\n", m.Disturbed, 2*len(m.Rounds), tries)
	}
	path := o.out
	if o.save {
		path = filepath.Join(baselinesDir, m.Host.Class+".json")
	}
	if err := writeJSON(path, b); err != nil {
		return err
	}
	fmt.Println(path, "holds it")
	if failures > 0 {
		return fmt.Errorf("%d decisions failed, and nothing had changed: is the machine busy?", failures)
	}
	return nil
}

// What noise is taken from: comparisons as large as those of make gate.
const (
	nullCount = 20
	nullSize  = 7
)

func writeJSON(path string, v any) error {
	text, err := json.MarshalIndent(v, "", " ")
	if err == nil {
		err = os.MkdirAll(filepath.Dir(path), 0o755)
	}
	if err == nil {
		err = os.WriteFile(path, append(text, '\n'), 0o644)
	}
	return err
}
