package main

import (
	"context"
	"fmt"
	"math"
	"slices"
	"strings"
)

// A setting is a way in which several servers are asked, in turn.
type setting struct {
	name    string
	at      place
	ask     asking
	warm    asking
	servers []string
	set     []string // --set, of ours
}

// Samples are those of each server in each setting, a round each.
type Samples map[string]map[string][]Sample

// rounds measures all settings, all servers of each, b.rounds times. Each
// round begins with another server, so that none always follows the same one.
func (b *bench) inRounds(ctx context.Context, s *Section, settings []setting) (Samples, error) {
	kinds, all := b.kinds(), Samples{}
	for round := range b.rounds {
		for _, set := range settings {
			if all[set.name] == nil {
				all[set.name] = map[string][]Sample{}
			}
			order := slices.Concat(set.servers[round%len(set.servers):], set.servers[:round%len(set.servers)])
			for _, name := range order {
				sample, err := b.once(ctx, kinds[name], set)
				if err != nil {
					return nil, fmt.Errorf("%s, %s: %w", set.name, name, err)
				}
				s.count(sample)
				all[set.name][name] = append(all[set.name][name], sample)
				b.log("%d/%d %-28s %s", round+1, b.rounds, set.name, sample.line(name))
			}
		}
	}
	if s.Samples == nil {
		s.Samples = Samples{}
	}
	for k, v := range all {
		s.Samples[k] = v
	}
	return all, nil
}

// once measures one server, in a fresh process.
func (b *bench) once(ctx context.Context, k kind, set setting) (Sample, error) {
	srv, err := b.up(ctx, k, set.at, set.warm, set.set...)
	if err != nil {
		return Sample{}, err
	}
	defer b.stop(srv)
	return undisturbed(b.calm, func() (Sample, error) {
		s, err := watch(ctx, srv, set.ask)
		if err == nil && s.Requests == 0 {
			err = errNothing
		}
		if err == nil && s.Failed > 0 && !slices.Contains(set.set, shallow) {
			err = fmt.Errorf("%d of %d requests failed", s.Failed, s.Requests)
		}
		return s, err
	})
}

func (s Sample) line(name string) string {
	text := fmt.Sprintf("%-9s %9s/s  %6.2f us/request  p50 %5.0f  p99 %6.0f us  server %3.0f %%  client %3.0f %%",
		name, thousands(int64(s.RPS)), s.CPU, s.P50, s.P99, 100*s.Busy, 100*s.Client)
	if s.Mallocs > 0 {
		text += fmt.Sprintf("  %.3f allocs", s.Mallocs)
	}
	if s.Tries > 1 {
		text += fmt.Sprintf("  %d tries", s.Tries)
	}
	if s.Disturbed {
		text += fmt.Sprintf("  DISTURBED by %.2f, steal %.2f", s.Others, s.Steal)
	}
	return text + strings.Join(s.Invalid, "; ")
}

const (
	one64  = "one core, 64 connections"
	one256 = "one core, 256 connections"
	piped  = "one core, 64, pipelined 16"
	two64  = "two cores, 64 connections"
)

// hits compares what a hit costs in a closed loop.
func (b *bench) hits(ctx context.Context, s *Section) error {
	all := []string{"ours", "inline", "nginx", "fasthttp", "nethttp", "floor"}
	set := func(name string, at place, conns, depth int, servers []string) setting {
		return setting{name: name, at: at, servers: servers, ask: b.wrk(at, conns, depth, 0, b.span),
			warm: b.warm()}
	}
	m, err := b.inRounds(ctx, s, []setting{
		set(one64, apart, 64, 1, all), set(one256, apart, 256, 1, all), set(piped, apart, 64, 16, all),
		set(two64, together, 64, 1, []string{"ours", "inline", "nginx", "fasthttp"}),
	})
	if err != nil {
		return err
	}
	pair := func(setting, peer string, f func(a, b Sample) float64) Spread {
		return paired(m[setting]["ours"], m[setting][peer], f)
	}
	s.Rows = []Row{
		{What: "requests/s against nginx, 64 connections", AtLeast: true, Goal: 1.05, Unit: "x", Found: pair(one64, "nginx", rpsRatio)},
		{What: "requests/s against nginx, 256 connections", AtLeast: true, Goal: 1.05, Unit: "x", Found: pair(one256, "nginx", rpsRatio)},
		{What: "requests/s against fasthttp + freecache, 256", AtLeast: true, Goal: 1.15, Unit: "x", Found: pair(one256, "fasthttp", rpsRatio)},
		{What: "the same, 64", AtLeast: true, Goal: 1.15, Unit: "x", Found: pair(one64, "fasthttp", rpsRatio), Beside: true},
		{What: "CPU a request against fasthttp + freecache, 256", Goal: .88, Unit: "x", Found: pair(one256, "fasthttp", cpuRatio)},
		{What: "the same, 64", Goal: .88, Unit: "x", Found: pair(one64, "fasthttp", cpuRatio), Beside: true},
		{What: "requests/s against net/http + freecache, 256", AtLeast: true, Goal: 1.8, Unit: "x", Found: pair(one256, "nethttp", rpsRatio)},
		{What: "the same, 64", AtLeast: true, Goal: 1.8, Unit: "x", Found: pair(one64, "nethttp", rpsRatio), Beside: true},
		{What: "requests/s against fasthttp + freecache, pipelined 16", AtLeast: true, Goal: 2.4, Unit: "x", Found: pair(piped, "fasthttp", rpsRatio)},
		{What: "CPU a request against the floor, 64", Goal: 1.10, Unit: "x", Found: pair(one64, "floor", cpuRatio)},
		{What: "the same, 256", Goal: 1.10, Unit: "x", Found: pair(one256, "floor", cpuRatio), Beside: true},
		{What: "CPU a request against the floor, pipelined 16", Goal: 1.4, Unit: "x", Found: pair(piped, "floor", cpuRatio)},
		{What: "CPU a request against inline, 64", Goal: 1.07, Unit: "x", Found: pair(one64, "inline", cpuRatio)},
		{What: "the same, 256", Goal: 1.07, Unit: "x", Found: pair(one256, "inline", cpuRatio), Beside: true},
		{What: "the same, pipelined 16", Goal: 1.07, Unit: "x", Found: pair(piped, "inline", cpuRatio), Beside: true},
		{What: "p99 against inline, two cores unpinned, 64", Goal: 1.2, Unit: "x", Found: pair(two64, "inline", p99Ratio)},
		{What: "allocations a request, 256 saturated connections", Goal: .1, Found: of(m[one256]["ours"], mallocs)},
		{What: "allocations a request, 64 connections", Goal: .6, Found: of(m[one64]["ours"], mallocs)},
	}
	for _, name := range []string{one64, one256, piped, two64} {
		s.Tables = append(s.Tables, hitTable(name, m[name], all))
	}
	return nil
}

// hitTable is what was measured, unpaired.
func hitTable(name string, m map[string][]Sample, order []string) Table {
	t := Table{Title: name, Head: []string{"server", "requests/s", "CPU us a request", "p50 us", "p99 us", "its processors", "the client's"}}
	for _, who := range order {
		ss := m[who]
		if len(ss) == 0 {
			continue
		}
		t.Rows = append(t.Rows, []string{called(who), of(ss, rps).String(), of(ss, cpu).String(), of(ss, p50).String(), of(ss, p99).String(),
			number(of(ss, func(s Sample) float64 { return s.Busy }).Median), number(of(ss, func(s Sample) float64 { return s.Client }).Median)})
	}
	return t
}

// called is a server's name for readers.
func called(who string) string {
	switch who {
	case "ours":
		return "**svc-index**"
	case "inline":
		return "svc-index without a queue"
	case "nginx":
		return "nginx `return 200`"
	case "fasthttp":
		return "fasthttp + freecache"
	case "nethttp":
		return "net/http + freecache"
	case "floor":
		return "gnet, constant bytes"
	}
	return who
}

// open compares what staging costs at fixed rates: the time from when a
// request was due to its answer.
func (b *bench) open(ctx context.Context, s *Section) error {
	// A share of a maximum means something only to a server that reaches it.
	both := setting{at: apart, ask: b.wrk(apart, 64, 1, 0, b.span), warm: b.warm()}
	most := math.Inf(1)
	for _, who := range []string{"ours", "inline"} {
		sample, err := b.once(ctx, b.kinds()[who], both)
		if err != nil {
			return err
		}
		s.count(sample)
		b.log("maximum of %s", sample.line(who))
		most = min(most, sample.RPS)
	}
	s.Text = append(s.Text, fmt.Sprintf("The maximum was %s/s: what both reach on one core with 64 connections in a closed loop, just before.", thousands(int64(most))))
	shares := []int{20, 50, 75}
	name := func(share int) string { return fmt.Sprintf("%d %% of the maximum", share) }
	var settings []setting
	for _, share := range shares {
		rate := fmt.Sprint(int(most * float64(share) / 100))
		settings = append(settings, setting{
			name: name(share), at: apart, servers: []string{"ours", "inline"},
			ask:  b.loadgen(apart, "--keys", "64", "--dist", "uniform", "--connections", "64", "--rate", rate, "--duration", b.span.String()),
			warm: b.warm(),
		})
	}
	m, err := b.inRounds(ctx, s, settings)
	if err != nil {
		return err
	}
	t := Table{Title: "Latency from the due time, microseconds", Head: []string{"rate", "server", "p50", "p90", "p99", "p99.9", "CPU us a request", "allocations"}}
	for _, share := range shares {
		n := name(share)
		ours, inline := m[n]["ours"], m[n]["inline"]
		s.Rows = append(s.Rows,
			Row{What: "p50 at " + n + ", over inline's", Goal: 8, Unit: "us", Found: paired(ours, inline, p50Diff)},
			Row{What: "p99 at " + n + ", against inline", Goal: 1.3, Unit: "x", Found: paired(ours, inline, p99Ratio)})
		for _, who := range []string{"ours", "inline"} {
			ss := m[n][who]
			t.Rows = append(t.Rows, []string{n, called(who), of(ss, p50).String(), number(of(ss, func(s Sample) float64 { return s.P90 }).Median),
				of(ss, p99).String(), number(of(ss, func(s Sample) float64 { return s.P999 }).Median), of(ss, cpu).String(), number(of(ss, mallocs).Median)})
		}
	}
	s.Rows = append(s.Rows, Row{What: "allocations a request at " + name(20), Goal: .6, Found: of(m[name(20)]["ours"], mallocs)})
	s.Tables = append(s.Tables, t)
	return nil
}

const shallow = "stages.cache.depth=64"

// shed counts refusals by a stage that has nothing to refuse.
func (b *bench) shed(ctx context.Context, s *Section) error {
	n := 1_000_000
	if b.quick {
		n = 100_000
	}
	m := Samples{}
	for _, at := range []place{apart, together} {
		name := map[int]string{1: "pinned, one core each", 2: "unpinned, two cores"}[at.procs]
		sample, err := b.once(ctx, b.kinds()["ours"], setting{at: at, set: []string{shallow},
			ask:  b.loadgen(at, "--keys", "64", "--dist", "uniform", "--connections", "256", "--rate", "0", "--max-requests", fmt.Sprint(n), "--duration", "10m"),
			warm: b.loadgen(at, "--keys", "64", "--dist", "uniform", "--connections", "16", "--rate", "0", "--duration", "200ms")})
		if err != nil {
			return err
		}
		b.log("%s: %d of %d refused or failed; %s", name, sample.Failed, sample.Requests, sample.line("ours"))
		s.count(sample)
		m[name] = map[string][]Sample{"ours": {sample}}
		s.Rows = append(s.Rows, Row{What: fmt.Sprintf("false 429s of %s, depth 64, 256 connections, %s", thousands(sample.Requests), name),
			Found: spread([]float64{float64(sample.Failed)})})
	}
	s.Samples = m
	return nil
}
