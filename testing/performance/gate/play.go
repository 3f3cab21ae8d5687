package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	"svcindex/loadgen"
	"svcindex/testing/performance/compare"
	"svcindex/testing/performance/lab"
)

// A phase is one question, asked at a fixed rate.
type phase struct {
	gate string
	rate int
	args []string
}

// The same keys in each: 500, which the warm-up has all put into the cache.
var phases = []phase{
	{"p95 hit", 4000, []string{"--keys", "500"}},
	{"p95 miss", 1500, []string{"--keys", "500", "--fresh", "1"}},
	{"p95 inter-region", 200, []string{"--keys", "20000", "--mix", "providers=1", "--absent", "1"}},
}

const (
	keys      = 500
	span      = 1200 * time.Millisecond
	warmup    = 300 * time.Millisecond
	closedFor = 800 * time.Millisecond
	tries     = 3 // of one build's half of a round
)

// play measures both builds in each round. A round in which the client was the
// limit, try as we might, is void; when as many are void as count, the machine
// is too busy.
func (b *builds) play(ctx context.Context, rounds int) (all []compare.Round, err error) {
	for void := 0; len(all) < rounds; {
		r, err := b.round(ctx, (len(all)+void)%2 == 1)
		switch {
		case errors.Is(err, errVoid) && void < rounds:
			void++
			fmt.Println("a round is void:", err)
			continue
		case err != nil:
			return nil, fmt.Errorf("round %d: %w", len(all)+1, err)
		}
		all = append(all, r)
		fmt.Printf("round %2d of %d", len(all), rounds)
		for _, g := range compare.Gates() {
			if p, ok := r[g.Name]; ok && !g.Figure {
				fmt.Printf("  %s %.4g > %.4g", g.Name, p.Base, p.New)
			}
		}
		fmt.Println()
	}
	return all, nil
}

// errVoid says that a phase measured the client.
var errVoid = errors.New("the client was the limit; is the machine at rest?")

// round measures both builds; turned, the new one first: whoever is second
// meets a machine that the first has warmed.
func (b *builds) round(ctx context.Context, turned bool) (compare.Round, error) {
	order := []*build{&b.base, &b.now}
	if turned {
		slices.Reverse(order)
	}
	figures := map[*build]map[string]float64{}
	for _, at := range order {
		h, err := undisturbed(lab.Calm, func() (*half, error) { return b.half(ctx, at) })
		if err != nil {
			return nil, fmt.Errorf("%s: %w", at.rev, err)
		}
		if h.level() > 1 {
			b.disturbed++
			fmt.Printf("%s was disturbed in each of %d tries; the least: %v\n", at.rev, tries, h.by)
		}
		figures[at] = h.figures
	}
	r := compare.Round{}
	for g, v := range figures[&b.base] {
		r[g] = compare.Pair{Base: v, New: figures[&b.now][g]}
	}
	maps.Copy(r, b.startTimes(ctx))
	return r, nil
}

// A half is what was measured of one build in one round, and what disturbed it
// most meanwhile.
type half struct {
	figures map[string]float64
	by      lab.Disturbance
}

func (h *half) level() float64 { return h.by.Level() }

// undisturbed measures until nothing came between, waiting for calm when
// something did. All of it is done again, on a new server: the last has the
// answers in its cache by now. If every try was disturbed the one that was
// least has to do.
func undisturbed(calm func(), measure func() (*half, error)) (best *half, err error) {
	var void error
	for try := range tries {
		if try > 0 {
			calm()
		}
		h, err := measure()
		switch {
		case errors.Is(err, errVoid):
			void = err
			continue
		case err != nil:
			return nil, err
		}
		if best == nil || h.level() < best.level() {
			best = h
		}
		if best.level() <= 1 {
			break
		}
	}
	if best == nil {
		return nil, void
	}
	return best, nil
}

// half takes all figures of one build, on a server and a data directory of
// their own.
func (b *builds) half(ctx context.Context, at *build) (*half, error) {
	s, err := b.serve(ctx, at)
	if err != nil {
		return nil, err
	}
	defer s.end()
	h := &half{figures: map[string]float64{}}
	requests, before := int64(0), s.cpu()
	for _, p := range phases {
		r, err := b.ask(ctx, s, h, strconv.Itoa(p.rate), span, p.args)
		if err == nil {
			err = spent(r)
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %w", p.gate, err)
		}
		h.figures[p.gate] = r.Response.P95
		requests += r.Requests.Answered + r.Requests.WarmUp
	}
	h.figures["cpu"] = float64((s.cpu() - before).Microseconds()) / float64(requests)
	if h.figures["memory"], err = s.memory(); err != nil {
		return nil, err
	}
	r, err := b.ask(ctx, s, h, "0", closedFor, []string{"--keys", strconv.Itoa(keys)})
	if err != nil {
		return nil, fmt.Errorf("throughput: %w", err)
	}
	if h.figures["throughput"] = float64(r.Requests.OK) / r.Setup.DurationS; spent(r) != nil {
		h.figures["throughput"] = 0 // faster by refusing is no faster
	}
	return h, nil
}

// spent says whether a run has spent more than its budget of errors.
func spent(r *loadgen.Report) error {
	if bad := r.Requests.Due - r.Requests.OK; float64(bad) > compare.ErrorBudget*float64(r.Requests.Due) {
		return fmt.Errorf("%d of %d requests were refused or failed, over the budget of %.1f %%", bad, r.Requests.Due, 100*compare.ErrorBudget)
	}
	return nil
}

// ask runs the client on the last processor, and notes in h what disturbed it.
// A run in which the client was the limit says nothing.
func (b *builds) ask(ctx context.Context, s *server, h *half, rate string, d time.Duration, args []string) (*loadgen.Report, error) {
	file := filepath.Join(s.dir, "report.json")
	args = append([]string{"loadgen", "--server", "http://" + s.addr, "--data", s.dir, "--rate", rate, "--duration", d.String(),
		"--warmup", warmup.String(), "--dist", "uniform", "--connections", "32", "--json", file}, args...)
	began, server := time.Now(), s.cpu()
	from, err := lab.ReadMachine()
	if err != nil {
		return nil, err
	}
	out, used, err := client(ctx, b.client, args...)
	to, bad := lab.ReadMachine()
	if by := lab.Disturbed(from, to, time.Since(began), s.cpu()-server+used); by.Level() > h.level() {
		h.by = by
	}
	e, _ := errors.AsType[*exec.ExitError](err)
	switch {
	case bad != nil:
		return nil, bad
	case e != nil && e.ExitCode() == 3 && rate != "0":
		return nil, errVoid
	case e != nil && e.ExitCode() == 3: // a closed loop is always somebody's limit
	case err != nil:
		return nil, fmt.Errorf("%w:\n%s", err, out)
	}
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	r := new(loadgen.Report)
	return r, json.Unmarshal(text, r)
}

// startTimes measures command-line start-ups with hyperfine, where it is
// installed: a figure, not a gate.
func (b *builds) startTimes(ctx context.Context) compare.Round {
	r := compare.Round{}
	for gate, words := range map[string]string{"start version": " version", "start config": " config print"} {
		file := filepath.Join(b.dir, "hyperfine.json")
		err := exec.CommandContext(ctx, "hyperfine", "-N", "--style", "none", "--warmup", "2", "--runs", "10",
			"--export-json", file, b.base.path+words, b.now.path+words).Run()
		text, bad := os.ReadFile(file)
		var found struct{ Results []struct{ Median float64 } }
		if errors.Join(err, bad) != nil || json.Unmarshal(text, &found) != nil || len(found.Results) != 2 {
			continue // not installed
		}
		r[gate] = compare.Pair{Base: 1e3 * found.Results[0].Median, New: 1e3 * found.Results[1].Median}
	}
	return r
}
