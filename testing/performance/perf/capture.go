package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"svcindex/testing/performance/lab"
)

const (
	captureFor   = 8 * time.Second
	captureWarm  = 8 * time.Second // of a phase that prepares, at most
	captureScale = 0.2             // of what acts do by the clock
)

// keptOfCapture are the files of a folder of profiles that are worth keeping for
// ever: pictures, what profile diff reads, what was asked and on what machine.
var keptOfCapture = []string{
	"summary.txt", "profile.json", "load.json", "stages.json", "config.toml", "block.svg", "mutex.svg",
	"cpu-by-stage.svg", "cpu-by-function.svg", "cpu.pb.gz", "allocs-by-stage.svg", "allocs-by-function.svg", "allocs.pb.gz",
}

// captureAll profiles the server under scenarios, each said as NAME or
// NAME:PHASE.
func (b *bench) captureAll(ctx context.Context, names []string) (exit int, err error) {
	quick := *b
	quick.scale = captureScale
	for _, what := range names {
		name, phase, _ := strings.Cut(what, ":")
		s, err := readScenario(filepath.Join(b.scenarios, name+".toml"))
		if err != nil {
			return exitUsage, err
		}
		began := time.Now()
		if err := quick.capture(ctx, s, phase); err != nil {
			return exitBroken, fmt.Errorf("%s: %w", name, err)
		}
		fmt.Printf("captured %s in %v\n", what, time.Since(began).Round(time.Second))
	}
	return 0, nil
}

// capture runs the phases of a scenario that prepare, and the one that is
// wanted while profiles are taken.
func (b *bench) capture(ctx context.Context, s *scenario, phase string) (err error) {
	at, err := s.find(phase)
	if err != nil {
		return err
	}
	binary := b.binaryOf(s)
	if lacks := missing(ctx, binary, s.Needs); len(lacks) > 0 {
		return fmt.Errorf("it needs %s, not in this build", strings.Join(lacks, ", "))
	}
	r, err := newResult(s, binary)
	if err != nil {
		return err
	}
	log, err := os.Create(filepath.Join(b.work, s.name+".log"))
	if err != nil {
		return err
	}
	defer log.Close()
	st := &stay{b: b, plan: s, found: r}
	defer st.leave()
	if err := st.open(ctx, binary, log); err != nil {
		return fmt.Errorf("%w%s", err, lastWords(log.Name()))
	}
	defer func() { err = errors.Join(err, st.server.Stop()) }()
	for i := range s.Phases[:at] {
		if p := s.Phases[i]; p.Warm {
			p.For = min(p.For, duration(captureWarm))
			if err := st.phase(ctx, &p); err != nil {
				return err
			}
		}
	}
	p := s.Phases[at]
	p.For = duration(float64(captureFor) / b.scale)
	dir := filepath.Join(b.captures, s.name)
	if err := st.profile(ctx, &p, binary, dir); err != nil {
		return err
	}
	return tidy(dir, b.work)
}

// find returns the number of the phase that a capture is of: the one that is
// named, or else the first in which something is done to the server, or else
// the first that does not only prepare.
func (s *scenario) find(phase string) (int, error) {
	plain := -1
	for i, p := range s.Phases {
		switch {
		case phase == p.Name, phase == "" && len(p.Acts) > 0:
			return i, nil
		case phase == "" && plain < 0 && !p.Warm:
			plain = i
		}
	}
	if plain < 0 {
		return 0, fmt.Errorf("it has no phase %q", phase)
	}
	return plain, nil
}

// profile runs a phase, its first load through svc-index profile.
func (st *stay) profile(ctx context.Context, p *phase, binary, dir string) error {
	if len(p.Loads) == 0 {
		return fmt.Errorf("phase %s has no load", p.Name)
	}
	var wg sync.WaitGroup
	errs := make([]error, len(p.Loads)+len(p.Acts))
	addr, leave, err := st.way(p)
	if err != nil {
		return err
	}
	defer leave()
	wg.Go(func() {
		args := []string{binary, "profile", "--admin", "http://" + st.server.Admin, "--out", dir, "--trace", "0", "--", "loadgen", "--server", "http://" + addr,
			"--data", st.server.Dir, "--duration", captureFor.String(), "--spin", "50us"}
		_, errs[0] = lab.Run(ctx, st.b.client, append(args, strings.Fields(p.Loads[0].Args)...)...)
	})
	for i := range p.Loads[1:] {
		wg.Go(func() { errs[1+i] = st.load(ctx, p, &p.Loads[1+i], addr) })
	}
	for i, a := range p.Acts {
		wg.Go(func() { errs[len(p.Loads)+i] = acts[a.Do](ctx, st, p, a) })
	}
	wg.Wait()
	return errors.Join(errs...)
}

// tidy leaves in a folder what is kept, without the names of directories that
// are gone.
func tidy(dir, work string) error {
	keep := map[string]bool{}
	for _, name := range keptOfCapture {
		keep[name] = true
	}
	return filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		if !keep[d.Name()] {
			return os.Remove(path)
		}
		if strings.HasSuffix(path, ".gz") {
			return nil
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		return os.WriteFile(path, []byte(strings.ReplaceAll(string(text), work+"/", "")), 0o644)
	})
}
