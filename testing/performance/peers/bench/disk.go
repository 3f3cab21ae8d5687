package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"time"
)

// A loop is what the bare program has done.
type loop struct {
	Ops     int64   `json:"ops"`
	Seconds float64 `json:"seconds"`
	CPU     float64 `json:"cpu_seconds"`
}

func (b *bench) bare(ctx context.Context, cores []int, procs int, args ...string) (l loop, err error) {
	out, _, err := b.run(ctx, cores, procs, filepath.Join(b.bin, "bare"), args...)
	if err == nil {
		err = json.Unmarshal(out, &l)
	}
	return l, err
}

// db compares what a hit in the database costs above one in the cache, with a
// bare read of the same row.
func (b *bench) db(ctx context.Context, s *Section) error {
	dir, n, err := b.million(ctx)
	if err != nil {
		return err
	}
	set, uniform, big := []string{tenth(n)}, b.uniform, b.on(dir)
	var ratios, hints, hitCPU, dbCPU, getCPU, hintCPU, share []float64
	m := map[string][]Sample{}
	rounds := min(b.rounds, 3)
	for round := range rounds {
		hit, err := b.once(ctx, big, setting{at: apart, set: set, ask: uniform(hotKeys, b.span), warm: uniform(hotKeys, 400*time.Millisecond)})
		if err != nil {
			return err
		}
		mixed, err := b.once(ctx, big, setting{at: apart, set: set, ask: uniform(n, b.span), warm: uniform(n, 4*time.Second, otherwise...)})
		if err != nil {
			return err
		}
		get, err := b.bare(ctx, apart.cores, 1, "get", "-db", filepath.Join(dir, "db"), "-keys", strconv.Itoa(n), "-for", b.span.String())
		if err != nil {
			return err
		}
		hint, err := b.bare(ctx, apart.cores, 1, "get", "-hint", "-db", filepath.Join(dir, "db"), "-keys", strconv.Itoa(n), "-for", b.span.String())
		if err != nil {
			return err
		}
		s.count(hit)
		s.count(mixed)
		m["hits"], m["1 M keys"] = append(m["hits"], hit), append(m["1 M keys"], mixed)
		one, two := get.CPU*1e6/float64(get.Ops), hint.CPU*1e6/float64(hint.Ops)
		each, fromDB := perDBHit(mixed, hit.CPU)
		hitCPU, dbCPU, getCPU, hintCPU, share = append(hitCPU, hit.CPU), append(dbCPU, each), append(getCPU, one), append(hintCPU, two), append(share, fromDB)
		ratios, hints = append(ratios, (each-hit.CPU)/one), append(hints, (each-hit.CPU)/two)
		b.log("%d/%d hit %.2f us, database hit %.2f us (%.0f %% of requests), bare Get %.2f us, with the hint's %.2f us: %.2fx, %.2fx",
			round+1, rounds, hit.CPU, each, 100*fromDB, one, two, (each-hit.CPU)/one, (each-hit.CPU)/two)
	}
	s.Samples = Samples{"database": m}
	s.Rows = []Row{
		{What: fmt.Sprintf("CPU of a database hit above a cache hit's, against a bare Get, %s keys", thousands(int64(n))), Goal: 1.3, Unit: "x", Found: spread(ratios)},
		{What: "the same, against the two Gets a resolve makes", Goal: 1.3, Unit: "x", Found: spread(hints), Beside: true},
	}
	s.Tables = []Table{{Title: "CPU, microseconds", Head: []string{"what", "us"}, Rows: [][]string{
		{"a cache hit (64 keys)", spread(hitCPU).String()}, {"a database hit", spread(dbCPU).String()},
		{"a bare Get of the name's row", spread(getCPU).String()}, {"the same, and of the row of its providers, which is not there", spread(hintCPU).String()},
		{"share of requests that the database answered", spread(share).String()},
	}}}
	return nil
}

// uniform asks for all of the first keys alike.
func (b *bench) uniform(keys int, d time.Duration, more ...string) asking {
	args := []string{"--keys", strconv.Itoa(keys), "--dist", "uniform", "--connections", "64", "--rate", "0", "--duration", d.String()}
	return b.loadgen(apart, append(args, more...)...)
}

// otherwise warms with other requests than those that are measured, which
// would find in the cache what they have just put there.
var otherwise = []string{"--seed", "2"}

// on is our server on another data directory.
func (b *bench) on(dir string) kind {
	return kind{"ours", func(b *bench, at place, extra ...string) (*server, error) {
		return b.ours("ours", filepath.Join(b.bin, "svc-index"), dir, nil, at, extra...)
	}}
}

// tenth is a cache for one key in ten.
func tenth(keys int) string { return fmt.Sprintf("cache.bytes=%d", max(keys/10*entryBytes, 1<<20)) }

// entryBytes is what a rendered answer takes in the cache, with all that
// freecache keeps beside it.
const entryBytes = 700

// perDBHit returns what one answer from the database cost, when the others cost
// what a hit costs, and the share of those answers.
func perDBHit(mixed Sample, hit float64) (us, share float64) {
	cached, all := float64(mixed.Sources["cache"]), float64(mixed.Requests)
	found := all - cached
	if found <= 0 {
		return 0, 0
	}
	return (mixed.CPU*all - hit*cached) / found, found / all
}

// writes compares what the server acknowledges with what the disk can take in
// batches of the same size.
func (b *bench) writes(ctx context.Context, s *Section) error {
	keys := 30_000
	if b.quick {
		keys = 4_000
	}
	records := float64(3 * keys)
	var ratios, rates, bareRates, sizes, us, busy, bareUs []float64
	rounds := min(b.rounds, 3)
	for round := range rounds {
		w, err := b.acknowledged(ctx, keys, nil)
		if err != nil {
			return err
		}
		rows, err := b.bareRows(ctx, w.dir)
		if err != nil {
			return err
		}
		to := filepath.Join(b.dir, "bare")
		put, err := b.bare(ctx, together.cores, 2, "put", "-db", filepath.Join(w.dir, "db"), "-to", to, "-rows", fmt.Sprint(w.mean*rows/records))
		if err != nil {
			return err
		}
		for _, d := range []string{to, w.dir} {
			if err := os.RemoveAll(d); err != nil {
				return err
			}
		}
		rate, bareRate := records/w.seconds, records/put.Seconds
		b.log("%d/%d acknowledged %s records/s in batches of %.1f, %.1f us of CPU each; bare %s/s: %.2fx", round+1, rounds,
			thousands(int64(rate)), w.mean, w.cpu*1e6/records, thousands(int64(bareRate)), rate/bareRate)
		ratios, rates, bareRates, sizes = append(ratios, rate/bareRate), append(rates, rate), append(bareRates, bareRate), append(sizes, w.mean)
		us, busy, bareUs = append(us, w.cpu*1e6/records), append(busy, w.cpu/w.seconds), append(bareUs, put.CPU*1e6/records)
	}
	s.Rows = []Row{{What: "records/s acknowledged over HTTP, synced, 64 writers, against a bare loop", AtLeast: true, Goal: .5, Unit: "x", Found: spread(ratios)}}
	s.Tables = []Table{{Title: fmt.Sprintf("%s records: a manifest, a provider row and a name for each of %s keys", thousands(int64(records)), thousands(int64(keys))),
		Head: []string{"what", "figure"}, Rows: [][]string{
			{"records/s acknowledged", spread(rates).String()}, {"records in a batch, mean", spread(sizes).String()},
			{"CPU us a record, of the server", spread(us).String()}, {"processors the server used", spread(busy).String()},
			{"records/s of the bare loop", spread(bareRates).String()}, {"CPU us a record, of the bare loop", spread(bareUs).String()}}}}
	return nil
}

// written is what became of a run of writes.
type written struct {
	dir     string  // the database is in it
	seconds float64 // it took
	cpu     float64 // seconds of processor time the server used
	mean    float64 // records in a batch
}

// acknowledged writes keys over HTTP into a fresh server. during, if given, is
// called when it begins.
func (b *bench) acknowledged(ctx context.Context, keys int, during func(*server)) (w written, err error) {
	dir := filepath.Join(b.dir, "written")
	w.dir = dir
	srv, err := b.ours("ours", filepath.Join(b.bin, "svc-index"), dir, nil, together)
	if err != nil {
		return w, err
	}
	before, err := cpuOf(srv.pid())
	if err != nil {
		return w, err
	}
	if during != nil {
		during(srv)
	}
	from := time.Now()
	_, _, err = b.run(ctx, together.asks, 1, filepath.Join(b.bin, "svc-index"), "loadgen", "--server", "http://"+srv.addr,
		"--data", dir, "--connections", "64", "--mix", "resolve=1,providers=1,manifests=1", "--prepare", strconv.Itoa(keys))
	w.seconds = time.Since(from).Seconds()
	if err != nil {
		return w, fmt.Errorf("%w\n%s", err, srv.said())
	}
	after, err := cpuOf(srv.pid())
	if err != nil {
		return w, err
	}
	w.cpu = (after - before).Seconds()
	b.stop(srv)
	batches := b.stat(ctx, dir, "last batch")
	if names := b.stat(ctx, dir, "names"); batches < 1 || names != int64(keys) {
		return w, fmt.Errorf("%s holds %d names after %d batches, want %d names", dir, names, batches, keys)
	}
	w.mean = float64(3*keys) / float64(batches)
	return w, nil
}

// bareRows returns how many rows a database has.
func (b *bench) bareRows(ctx context.Context, dir string) (float64, error) {
	l, err := b.bare(ctx, together.cores, 2, "count", "-db", filepath.Join(dir, "db"))
	return float64(l.Ops), err
}
