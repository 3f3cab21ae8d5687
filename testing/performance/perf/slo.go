package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"svcindex/loadgen"
	"svcindex/testing/performance/lab"
)

// The promises at the rated load.
const (
	cpuMax   = 0.60 // of the server's processor
	hitMin   = 0.80
	errorMax = 0.001
	shedMax  = 0.01
)

// What counts, and must not.
const (
	integrityMetric = "index_integrity_fail_total"
	negativesMetric = "index_negative_served_after_write_total"
)

// invalidWord begins why a rate did not hold for which the generator was to
// blame, and nothing else.
const invalidWord = "INVALID"

// A setup is a profile and what it is asked.
type setup struct {
	Profile string
	P95     time.Duration // promised
	Keys    int
	Offline bool // it has a disk to be filled beforehand
	Set     []string
}

// setups are the profiles that have promises.
func setups() []setup {
	return []setup{
		{Profile: "dev", P95: 80 * time.Millisecond, Keys: 1_000_000, Offline: true},
		{Profile: "micronode", P95: 50 * time.Millisecond, Keys: 20_000},
		{Profile: "macronode", P95: 80 * time.Millisecond, Keys: 1_000_000, Offline: true, Set: []string{"dht.enabled=false"}},
	}
}

// Demands. The mixed one is what all promises are about; the two others are
// what the halves of the server can do.
func (s setup) mixed() string  { return fmt.Sprintf("--keys %d --dist hotcold", s.Keys) }
func (s setup) hits() string   { return fmt.Sprintf("--keys %d --dist uniform", min(s.Keys/10, 10_000)) }
func (s setup) misses() string { return fmt.Sprintf("--keys %d --dist uniform --fresh 1", s.Keys) }

// A target is who is asked what.
type target struct {
	name, addr, args string
	usage            func() (lab.Usage, error)
}

// A rung is one rate and what came of it.
type rung struct {
	Rate, Answered     float64
	P50, P95, P99      float64 // us
	CPU                float64 // of the processor
	Hit                float64 // share of answers from the cache
	Error, Shed        float64
	MemoryMiB          float64
	Files, FilesMax    int
	Seconds            float64
	Valid, Held        bool
	Why                string
	SecondsOver        int // seconds whose own p95 was over the promise
	IntegrityFailures  float64
	NegativesServed    float64
	Uncounted          []string // metrics of the two that the server has not got
	GeneratorWorkUS    float64
	ServerCPUUS        float64
	HitsPerS, MissPerS float64
}

// A rating is what was found of one profile.
type rating struct {
	Setup    setup
	Started  time.Time
	Version  string
	Go       string
	Host     lab.Host
	Mixed    []rung // the curve, from below the rated load to saturation
	Rated    float64
	Hits     []rung
	HitRate  float64
	Misses   []rung
	MissRate float64
	Nginx    []rung
	NginxMax float64
	Holds    []hold
}

// A hold is a rate that was kept up for long.
type hold struct {
	rung
	For time.Duration
}

const (
	rungFor    = 3 * time.Second
	warmFor    = 20 * time.Second
	fineness   = 0.08
	belowFound = 0.95
	trialFor   = time.Minute // at a rate, before it is held for long
	trialRoom  = 0.97        // of cpuMax that a trial may use: minutes have slower moments than it
	easier     = 0.94        // the next rate, when one did not hold
	holdsMost  = 3
	growth     = 2
	rateStart  = 8000
	rateLeast  = 100
	rateEnd    = 400_000
)

// measure asks a target at a rate and holds it to the promises. withHits says
// that the hit ratio is one of them.
func (b *bench) measure(ctx context.Context, t target, rate float64, d time.Duration, p95 time.Duration, withHits bool) (rung, error) {
	before, err := t.usage()
	if err != nil {
		return rung{}, err
	}
	b.runs++ // another seed each: the same requests again would all be hits
	args := append(strings.Fields(t.args), "--server", "http://"+t.addr, "--rate", strconv.Itoa(int(rate)), "--duration", d.String(), "--seed", strconv.Itoa(1+b.runs),
		"--connections", "128", "--spin", "50us")
	r, err := lab.Load(ctx, b.binary, b.client, args...)
	if err != nil {
		return rung{}, err
	}
	after, err := t.usage()
	if err != nil {
		return rung{}, err
	}
	return rungOf(r, before, after, rate, p95, withHits), ctx.Err()
}

func rungOf(r *loadgen.Report, before, after lab.Usage, rate float64, p95 time.Duration, withHits bool) rung {
	q := r.Requests
	n := math.Max(float64(q.Due), 1)
	wall := after.At.Sub(before.At).Seconds()
	if q.Rate > 0 { // the run's own time: its start and its report take some, too, in which the server rests
		wall = min(wall, float64(q.Answered)/q.Rate)
	}
	u := rung{Rate: rate, Answered: q.Rate, P50: r.Response.P50, P95: r.Response.P95, P99: r.Response.P99,
		CPU:   (after.CPU - before.CPU).Seconds() / wall,
		Error: float64(q.Refused+q.Failed) / n, Shed: float64(q.Throttled) / n,
		MemoryMiB: float64(after.Peak) / (1 << 20), Files: max(before.Files, after.Files) + r.Setup.Connections, FilesMax: after.FilesMax,
		Seconds: r.Setup.DurationS, Valid: r.Valid, GeneratorWorkUS: r.Generator.WorkPerRequest}
	var from, of int64
	for _, s := range r.Sources {
		of += s.Response.Count
		if s.Name == "cache" {
			from = s.Response.Count
		}
	}
	u.Hit = float64(from) / math.Max(float64(of), 1)
	u.HitsPerS, u.MissPerS = u.Hit*q.Rate, (1-u.Hit)*q.Rate
	u.ServerCPUUS = (after.CPU - before.CPU).Seconds() * 1e6 / math.Max(float64(q.Answered), 1)
	for _, s := range r.Seconds {
		if s.P95 > float64(p95.Microseconds()) {
			u.SecondsOver++
		}
	}
	var why []string
	breach := func(broken bool, format string, args ...any) {
		if broken {
			why = append(why, fmt.Sprintf(format, args...))
		}
	}
	breach(u.P95 >= float64(p95.Microseconds()), "p95 %s", micro(u.P95))
	breach(u.Error >= errorMax, "errors %.3g %%", 100*u.Error)
	breach(u.Shed >= shedMax, "throttled %.3g %%", 100*u.Shed)
	breach(u.CPU >= cpuMax, "processor %.1f %%", 100*u.CPU)
	breach(u.MemoryMiB >= memoryMax, "memory %.0f MiB", u.MemoryMiB)
	breach(float64(u.Files) >= filesMax*float64(u.FilesMax), "descriptors %d of %d", u.Files, u.FilesMax)
	breach(withHits && u.Hit <= hitMin, "hit ratio %.3f", u.Hit)
	breach(q.Answered == 0, "nothing was answered")
	breach(!u.Valid, invalidWord+": %s", strings.Join(r.Reason, "; "))
	u.Why, u.Held = strings.Join(why, "; "), len(why) == 0
	return u
}

// climb looks for the highest rate at which the promises hold: up until they
// do not, then halving what is between. It returns all that it tried.
func (b *bench) climb(ctx context.Context, t target, p95 time.Duration, withHits bool) (rungs []rung, best float64, err error) {
	try := func(rate float64) (held bool, err error) {
		for again := range 2 { // a neighbour may have disturbed it once
			if again > 0 {
				lab.Calm()
			}
			u, err := b.measure(ctx, t, math.Round(rate), b.scaled(rungFor), p95, withHits)
			if err != nil {
				return false, err
			}
			rungs = append(rungs, u)
			fmt.Fprintf(os.Stderr, "%-8s %8.0f/s  p50 %s  p95 %s  p99 %s  cpu %.0f %%  hit %.3f  %s\n", t.name, u.Rate,
				micro(u.P50), micro(u.P95), micro(u.P99), 100*u.CPU, u.Hit, orText(u.Why, "held"))
			if u.Held || u.CPU >= cpuMax {
				return u.Held, nil // which no neighbour did
			}
		}
		return false, nil
	}
	bad := 0.0
	for rate := float64(rateStart); rate < rateEnd; rate *= growth {
		held, err := try(rate)
		if err != nil {
			return rungs, best, err
		}
		if !held {
			bad = rate
			break
		}
		best = rate
	}
	for bad-best > fineness*bad && bad > rateLeast {
		held, err := try((best + bad) / 2)
		if err != nil {
			return rungs, best, err
		}
		if held {
			best = math.Round((best + bad) / 2)
		} else {
			bad = (best + bad) / 2
		}
	}
	return rungs, best, nil
}

func (b *bench) scaled(d time.Duration) time.Duration {
	return time.Duration(float64(d) * b.scale)
}

// sloReport finds the rated load of every profile of this build, holds it, and
// writes the report. b.stage does one of the three alone.
func (b *bench) sloReport(ctx context.Context) (exit int, err error) {
	// Without this, a name that is none would write a report of what was found some other day.
	if b.profile != "" && !slices.ContainsFunc(setups(), func(s setup) bool { return s.Profile == b.profile }) {
		return exitUsage, fmt.Errorf("profile %q has no promises", b.profile)
	}
	if !slices.Contains([]string{"", "find", "hold", "halves", "write"}, b.stage) {
		return exitUsage, fmt.Errorf("stage %q: there are find, hold, halves and write", b.stage)
	}
	for _, s := range setups() {
		if b.profile != "" && b.profile != s.Profile {
			continue
		}
		if lacks := missing(ctx, b.binary, []string{"profile " + s.Profile}); len(lacks) > 0 {
			fmt.Fprintf(os.Stderr, "profile %s is not in this build\n", s.Profile)
			continue
		}
		if b.stage == "write" {
			continue
		}
		if err := b.rate(ctx, s); err != nil {
			return exitBroken, fmt.Errorf("profile %s: %w", s.Profile, err)
		}
	}
	if b.stage == "find" || b.stage == "hold" || b.stage == "halves" {
		return 0, nil
	}
	return b.writeReport(ctx)
}

func (b *bench) ratingFile(profile string) string {
	return filepath.Join(b.results, "slo-"+profile+".json")
}

func (b *bench) readRating(profile string) (*rating, error) {
	text, err := os.ReadFile(b.ratingFile(profile))
	if err != nil {
		return nil, err
	}
	r := new(rating)
	return r, json.Unmarshal(text, r)
}

// rate measures one profile.
func (b *bench) rate(ctx context.Context, s setup) (err error) {
	plan := &scenario{name: "slo-" + s.Profile, Server: serverPlan{Profile: s.Profile, Set: s.Set}}
	if s.Offline {
		plan.Fill = fillPlan{Keys: s.Keys}
	}
	id, err := newResult(plan, b.binary)
	if err != nil {
		return err
	}
	r := &rating{Setup: s, Started: id.Started, Version: id.Version, Go: id.Go, Host: id.Host}
	if b.stage == "hold" || b.stage == "halves" {
		if r, err = b.readRating(s.Profile); err != nil {
			return err
		}
		if err := r.sameAs(id); err != nil {
			return fmt.Errorf("%s: %w", b.ratingFile(s.Profile), err)
		}
	}
	st := &stay{b: b, plan: plan, found: id}
	log, err := os.Create(filepath.Join(b.work, plan.name+".log"))
	if err != nil {
		return err
	}
	defer log.Close()
	if err := st.open(ctx, b.binary, log); err != nil {
		return fmt.Errorf("%w%s", err, lastWords(log.Name()))
	}
	defer func() { err = errors.Join(err, st.server.Stop()) }()
	if !s.Offline {
		if _, err := lab.Run(ctx, -1, b.binary, "loadgen", "--prepare", strconv.Itoa(s.Keys), "--server", st.server.URL(), "--data", st.server.Dir); err != nil {
			return err
		}
	}
	return b.rateServer(ctx, st.server, r)
}

// sameAs refuses to add to what was found of another build or machine: the
// report would show the figures of one as those of the other.
func (r *rating) sameAs(id *result) error {
	if r.Version != id.Version || r.Go != id.Go || r.Host.Class != id.Host.Class {
		return fmt.Errorf("it is of %s (%s) on %s, and this is %s (%s) on %s: find the rated load of this one first (-stage find)",
			r.Version, r.Go, r.Host.Class, id.Version, id.Go, id.Host.Class)
	}
	return nil
}

func (b *bench) writeRating(r *rating) error {
	text, err := json.MarshalIndent(r, "", " ")
	if err == nil {
		err = os.MkdirAll(b.results, 0o755)
	}
	if err == nil {
		err = os.WriteFile(b.ratingFile(r.Setup.Profile), append(text, '\n'), 0o644)
	}
	return err
}

func (b *bench) rateServer(ctx context.Context, server *lab.Server, r *rating) (err error) {
	s := r.Setup
	ask := func(name, args string) target {
		return target{name: name, addr: server.Addr, args: args, usage: func() (lab.Usage, error) { return lab.UsageOf(server.PID) }}
	}
	warm := []string{"--server", server.URL(), "--rate", "8000", "--duration", b.scaled(warmFor).String()}
	if _, err := lab.Load(ctx, b.binary, b.client, append(strings.Fields(s.mixed()), warm...)...); err != nil {
		return err
	}
	if b.stage == "halves" {
		if err := b.halves(ctx, ask, server, r); err != nil {
			return err
		}
		return b.writeRating(r)
	}
	if b.stage != "hold" {
		if r.Mixed, r.Rated, err = b.climb(ctx, ask("mixed", s.mixed()), s.P95, true); err != nil {
			return err
		}
		if err := b.saturate(ctx, ask("mixed", s.mixed()), r); err != nil {
			return err
		}
		if err := b.halves(ctx, ask, server, r); err != nil {
			return err
		}
		if err := b.writeRating(r); err != nil {
			return err
		}
	}
	if b.stage == "find" || r.Rated == 0 {
		return nil
	}
	return b.holdIt(ctx, ask("hold", s.mixed()), server, r)
}

// saturate follows the curve beyond the rated load to where it breaks.
func (b *bench) saturate(ctx context.Context, t target, r *rating) error {
	for rate := r.Rated * 1.25; r.Rated > 0 && rate < rateEnd; rate *= 1.25 {
		u, err := b.measure(ctx, t, math.Round(rate), b.scaled(rungFor), r.Setup.P95, true)
		if err != nil {
			return err
		}
		r.Mixed = append(r.Mixed, u)
		fmt.Fprintf(os.Stderr, "%-8s %8.0f/s  p50 %s  p95 %s  p99 %s  cpu %.0f %%  %s\n", "curve", u.Rate, micro(u.P50), micro(u.P95), micro(u.P99), 100*u.CPU, u.Why)
		if !u.Valid || u.Answered < 0.9*rate || u.P95 > float64(r.Setup.P95.Microseconds()) || u.Shed > shedMax {
			return nil
		}
	}
	return nil
}

// halves rates hits and misses by themselves, and nginx as the yardstick of hits.
func (b *bench) halves(ctx context.Context, ask func(name, args string) target, server *lab.Server, r *rating) (err error) {
	if r.Misses, r.MissRate, err = b.climb(ctx, ask("misses", r.Setup.misses()), r.Setup.P95, false); err != nil {
		return err
	}
	// The fill of the cache by misses is the warm-up of hits.
	if _, err = b.measure(ctx, ask("warm", r.Setup.hits()), 8000, b.scaled(rungFor), r.Setup.P95, false); err != nil {
		return err
	}
	if r.Hits, r.HitRate, err = b.climb(ctx, ask("hits", r.Setup.hits()), r.Setup.P95, true); err != nil {
		return err
	}
	_, body, err := server.Get(server.Addr, "/resolve/name:load/00000000")
	if err != nil {
		return err
	}
	n, err := b.openNginx(ctx, string(body))
	if err != nil {
		return err
	}
	defer n.close()
	r.Nginx, r.NginxMax, err = b.climb(ctx, n.target(r.Setup.hits()), r.Setup.P95, false)
	return err
}

// holdIt holds the rated load, a little below what short runs have found: in
// ten minutes the machine has slower ones. A rate that does not hold is followed
// by one that is easier; all of them are in the report.
func (b *bench) holdIt(ctx context.Context, t target, server *lab.Server, r *rating) error {
	if b.rateHeld > 0 {
		_, err := b.holdAt(ctx, t, server, r, b.rateHeld)
		return err
	}
	rate := belowFound * r.Rated
	for range holdsMost {
		for range holdsMost {
			u, err := b.measure(ctx, t, math.Round(rate), min(b.scaled(trialFor), b.hold), r.Setup.P95, true)
			if err != nil {
				return err
			}
			fmt.Fprintf(os.Stderr, "trial    %8.0f/s  p95 %s  cpu %.1f %%  %s\n", u.Rate, micro(u.P95), 100*u.CPU, orText(u.Why, "held"))
			fit, times := afterTrial(u)
			if fit {
				break
			}
			if !u.Valid {
				lab.Calm()
			}
			rate *= times
		}
		held, err := b.holdAt(ctx, t, server, r, rate)
		if held || err != nil {
			return err
		}
		rate *= easier
	}
	return nil
}

// afterTrial reports whether a trial's rate is fit to be held for long, and if
// not, by what to multiply it. A run in which the generator was disturbed says
// nothing of its rate.
func afterTrial(u rung) (fit bool, times float64) {
	switch {
	case !u.Valid:
		return false, 1
	case u.Held && u.CPU < trialRoom*cpuMax:
		return true, 1
	}
	return false, easier
}

// holdAt holds one rate and notes what came of it.
func (b *bench) holdAt(ctx context.Context, t target, server *lab.Server, r *rating, rate float64) (held bool, err error) {
	u, err := b.measure(ctx, t, math.Round(rate), b.hold, r.Setup.P95, true)
	if err != nil {
		return false, err
	}
	m, err := server.Metrics()
	if err != nil {
		return false, err
	}
	for metric, figure := range map[string]*float64{integrityMetric: &u.IntegrityFailures, negativesMetric: &u.NegativesServed} {
		there := false
		if *figure, there = lab.Sum(m, metric); !there {
			u.Uncounted = append(u.Uncounted, metric)
		}
	}
	r.Holds = append(r.Holds, hold{u, b.hold})
	fmt.Fprintf(os.Stderr, "held %.0f/s for %v: p50 %s  p95 %s  p99 %s  cpu %.0f %%  hit %.3f  %s\n", u.Rate, b.hold, micro(u.P50), micro(u.P95), micro(u.P99),
		100*u.CPU, u.Hit, orText(u.Why, "all promises held"))
	return u.Held, b.writeRating(r)
}
