package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"runtime"
	"strings"
	"time"

	"svcindex/loadgen"
)

// fill puts the keys into the server.
func (o *loadOptions) fill(ctx context.Context, f loadgen.Filling) error {
	show := o.shower()
	begun := time.Now()
	f.Progress = func(done, all int64) { show.line(fmt.Sprintf("preparing: %s of %s", commas(done), commas(all))) }
	cfg := o.cfg
	cfg.Churn, cfg.Inflight = 0, 0
	err := loadgen.Fill(ctx, cfg, f)
	show.end()
	switch {
	case ctx.Err() != nil:
		return errors.New("interrupted: what was put in stays; run it again for the rest")
	case err != nil:
		return fmt.Errorf("%s: preparing %w", o.url(), err)
	}
	fmt.Fprintf(o.stderr, "prepared %s keys in %v\n", commas(int64(o.prepare)), time.Since(begun).Round(10*time.Millisecond))
	return nil
}

// once does one run, reports it, and ends as it went.
func (o *loadOptions) once(ctx context.Context) error {
	show := o.shower()
	o.cfg.Live = func(v loadgen.Live) { show.line(v.Line()) }
	o.roomToSleep()
	r, err := o.run(ctx, o.cfg)
	show.end()
	if err != nil {
		return fmt.Errorf("%w; is a server there? start it with svc-index serve, or name another with --server", err)
	}
	held := o.objective.Judge(r)
	if err := o.publish(r, r, r.WriteText); err != nil {
		return err
	}
	return verdict(ctx, held, r.Valid, strings.Join(r.Reason, "; "))
}

// run does one run, whose writes are newer than those of the one before it:
// what a server has already costs it less.
func (o *loadOptions) run(ctx context.Context, cfg loadgen.Config) (*loadgen.Report, error) {
	o.writesAt = time.Now().UnixMicro()
	r, err := loadgen.Run(ctx, cfg)
	if err == nil {
		o.describe(r)
	}
	return r, err
}

// roomToSleep gives the runtime one processor more, by its own count, than the
// generator has threads. With none to spare it would take a thread's away as
// soon as that sleeps in the kernel, and give it back late: a third of the
// processor time of a request at 20,000 a second on one core.
func (o *loadOptions) roomToSleep() {
	if n := max(o.cfg.Threads, 1) + 1; runtime.GOMAXPROCS(0) < n {
		runtime.GOMAXPROCS(n)
	}
}

// describe notes in a report what was asked for.
func (o *loadOptions) describe(r *loadgen.Report) {
	r.Setup.Workload = fmt.Sprintf("%s; keys %s, %s; absent %g, fresh %g, writes %g; seed %d; %s",
		o.mix, o.keys, o.dist, o.absent, o.fresh, o.writes, o.cfg.Seed, buildText())
}

func buildText() string { return "svc-index " + version + " (" + commit + ")" }

// search looks for the maximum.
func (o *loadOptions) search(ctx context.Context) error {
	start, ok := o.cfg.Pacer.(loadgen.Constant)
	if !ok {
		return usagef("--find-max goes up from one --rate above 0, with --profile constant or poisson")
	}
	fmt.Fprintln(o.stderr, loadgen.CurveHead)
	o.roomToSleep()
	s := loadgen.Search{Start: float64(start), Objective: o.objective, Each: o.cfg.Duration,
		Tried: func(t loadgen.Try) { fmt.Fprintln(o.stderr, t.Line()) }}
	m, err := s.FindMax(ctx, func(ctx context.Context, rate float64, d time.Duration) (*loadgen.Report, error) {
		cfg := o.cfg
		cfg.Pacer, cfg.Duration = loadgen.Constant(rate), d
		return o.run(ctx, cfg)
	})
	if err != nil && len(m.Curve) > 0 {
		err = errors.Join(err, o.publish(m.Report, m, func(io.Writer) {}))
	}
	switch {
	case ctx.Err() != nil:
		return errors.New("interrupted: the curve is of what was tried by then, and no maximum was confirmed")
	case err != nil:
		return err
	}
	if err := o.publish(m.Report, m, m.WriteText); err != nil {
		return err
	}
	return verdict(ctx, m.Rate > 0, m.Valid, m.Why)
}

// publish writes the report to wherever it was asked for.
func (o *loadOptions) publish(r *loadgen.Report, whole any, text func(io.Writer)) error {
	words := func(w io.Writer) error { text(w); return nil }
	asJSON := func(w io.Writer) error {
		e := json.NewEncoder(w)
		e.SetIndent("", "  ")
		return e.Encode(whole)
	}
	var errs []error // of one file; the others are written all the same
	for _, out := range []struct {
		wanted bool
		file   string
		write  func(io.Writer) error
	}{
		{o.jsonFile != "-", "", words}, {o.jsonFile == "-", "", asJSON}, {o.jsonFile != "-" && o.jsonFile != "", o.jsonFile, asJSON},
		{o.hdrFile != "", o.hdrFile, r.WriteHDR}, {o.htmlFile != "", o.htmlFile, r.WriteHTML},
	} {
		if !out.wanted {
			continue
		}
		var b bytes.Buffer
		err := out.write(&b)
		if err == nil {
			err = deliver(b.Bytes(), out.file, o.stdout)
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// verdict is what a run ends with. An invalid one proves nothing, so that
// comes before whether the objective held.
func verdict(ctx context.Context, held, valid bool, why string) error {
	switch {
	case ctx.Err() != nil:
		return errors.New("interrupted: the report is of what was done by then")
	case !valid:
		return exitError{exitInvalid, fmt.Errorf("INVALID: %s", why)}
	case !held:
		return errors.New("the objective did not hold")
	}
	return nil
}

// A shower shows how far something is: over the same line on a terminal, and
// now and then a line elsewhere.
type shower struct {
	w    io.Writer
	live bool
	rows int // that the line takes on the terminal
	last time.Time
}

func (o *loadOptions) shower() *shower {
	return &shower{w: o.stderr, live: isTerminal(o.stderr), last: time.Now()}
}

func (s *shower) line(text string) {
	switch {
	case s.live:
		fmt.Fprint(s.w, s.back()+text)
		s.rows = (len(text)-1)/columnsOf(s.w) + 1
	case time.Since(s.last) >= plainEvery-time.Second/2:
		s.last = time.Now()
		fmt.Fprintln(s.w, text)
	}
}

func (s *shower) end() {
	if s.live {
		fmt.Fprint(s.w, s.back())
		s.rows = 0
	}
}

// back takes the last line away, of which a narrow terminal has made several.
func (s *shower) back() string {
	if s.rows > 1 {
		return fmt.Sprintf("\r\x1b[%dA\x1b[J", s.rows-1)
	}
	return "\r\x1b[K"
}
