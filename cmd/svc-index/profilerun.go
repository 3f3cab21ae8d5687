package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"svcindex/flame"
	"svcindex/loadgen"
)

// Names in the folder.
const (
	loadFile    = "load.json"
	noteFile    = "profile.json"
	summaryFile = "summary.txt"
)

// countedSinceStart are profiles that hold what was since the process began:
// they are taken before and after.
var countedSinceStart = []string{"allocs", "mutex", "block"}

// run takes everything.
func (p *profiling) run(ctx context.Context) error {
	if err := os.MkdirAll(p.out, 0o755); err != nil {
		return err
	}
	p.begun = time.Now().UTC()
	if p.words != nil {
		if err := p.fill(ctx); err != nil {
			return err
		}
	}
	before, err := p.before(ctx)
	if err != nil {
		return err
	}
	ended, err := p.meanwhile(ctx)
	if err != nil {
		return err
	}
	if err := p.after(ctx, before); err != nil {
		return err
	}
	note, err := p.note(ctx, before, ended)
	if err != nil {
		return err
	}
	if err := p.draw(note); err != nil {
		return err
	}
	fmt.Fprintf(p.stdout, "%s holds the profiles of %d s; look at them with: svc-index profile open %s\n", p.out, p.seconds, p.out)
	if ended != nil && exitCode(ended) != exitInvalid {
		return ended
	}
	if ended != nil {
		fmt.Fprintf(p.stderr, "the load measured its own limit, not the server's: %v; the profiles are good all the same\n", ended)
	}
	return nil
}

// before takes what later has to be subtracted.
func (p *profiling) before(ctx context.Context) (map[string][]byte, error) {
	all := map[string][]byte{}
	for _, name := range countedSinceStart {
		b, err := p.get(ctx, "/debug/pprof/"+name+"?gc=1") // without, allocations are as of two collections ago
		if err != nil {
			return nil, err
		}
		all[name] = b
	}
	var err error
	if all["metrics"], err = p.get(ctx, "/metrics"); err != nil {
		return nil, err
	}
	return all, p.fetch(ctx, "/debug/config", "config.toml")
}

// meanwhile takes what takes time, while the load runs. It returns how the load
// ended, and apart from it what went wrong with the profiles.
func (p *profiling) meanwhile(ctx context.Context) (ended, err error) {
	var taking sync.WaitGroup
	var mu sync.Mutex // protects err
	take := func(wait time.Duration, page, name string) {
		taking.Go(func() {
			if !pause(ctx, wait) {
				return
			}
			if bad := p.fetch(ctx, page, name); bad != nil {
				mu.Lock()
				err = errors.Join(err, bad)
				mu.Unlock()
			}
		})
	}
	if p.words != nil {
		taking.Go(func() { ended = p.load(ctx, "--json", p.path(loadFile)) })
	}
	span := time.Duration(p.seconds) * time.Second
	for _, page := range []string{"profile", "contention"} {
		name := map[string]string{"profile": "cpu.pb.gz", "contention": "contention.txt"}[page]
		take(p.warmup, fmt.Sprintf("/debug/pprof/%s?seconds=%d", page, p.seconds), name)
	}
	if p.trace > 0 {
		take(p.warmup+span/3, fmt.Sprintf("/debug/pprof/trace?seconds=%d", min(p.trace, p.seconds)), "trace.out")
	}
	take(p.warmup+span/2, "/debug/stages", "stages.json")
	take(p.warmup+span/2, "/debug/pprof/goroutine", "goroutine.pb.gz")
	taking.Wait()
	return ended, errors.Join(err, os.RemoveAll(p.path("contention.txt")))
}

func pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// after takes the rest, and subtracts.
func (p *profiling) after(ctx context.Context, before map[string][]byte) error {
	for _, name := range countedSinceStart {
		now, err := p.get(ctx, "/debug/pprof/"+name+"?gc=1")
		if err != nil {
			return err
		}
		d, err := flame.Subtract(now, before[name])
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		if err := os.WriteFile(p.path(name+".pb.gz"), d, 0o644); err != nil {
			return err
		}
	}
	if err := p.fetch(ctx, "/debug/pprof/heap", "heap.pb.gz"); err != nil {
		return err
	}
	return p.fetch(ctx, "/metrics", "metrics.txt")
}

// note writes down what this was.
func (p *profiling) note(ctx context.Context, before map[string][]byte, ended error) (profileNote, error) {
	n := profileNote{Taken: p.begun, Seconds: p.seconds, Admin: p.admin, During: p.words, Profiler: buildText(), Host: hostFacts()}
	if ended != nil {
		n.LoadEnded = ended.Error()
	}
	b, err := p.get(ctx, "/version")
	if err == nil {
		err = json.Unmarshal(b, &n.Server)
	}
	if err != nil {
		return n, err
	}
	now, err := os.ReadFile(p.path("metrics.txt"))
	if err != nil {
		return n, err
	}
	n.CPU = cpuSeconds(now) - cpuSeconds(before["metrics"])
	if p.words != nil {
		var r loadgen.Report
		b, err := os.ReadFile(p.path(loadFile))
		if err != nil {
			return n, errors.Join(ended, err)
		}
		if err := json.Unmarshal(b, &r); err != nil {
			return n, err
		}
		n.Requests = r.Requests.Answered
		if all := n.Requests + r.Requests.WarmUp; all > 0 {
			n.CPUEach = n.CPU * 1e6 / float64(all)
		}
	}
	return n, p.writeJSON(noteFile, n)
}

// cpuSeconds reads process_cpu_seconds_total from an exposition.
func cpuSeconds(exposition []byte) float64 {
	for line := range strings.Lines(string(exposition)) {
		if v, ok := strings.CutPrefix(line, "process_cpu_seconds_total "); ok {
			f, _ := strconv.ParseFloat(strings.TrimSpace(v), 64)
			return f
		}
	}
	return 0
}

// stageRules tell whose a stack is that wears no label.
var stageRules = []flame.Rule{
	{Function: "stages.Shelf.Do", Stage: "db"},
	{Function: "stages.Scout.Do", Stage: "dht"},
	{Function: "stages.(*Scribe)", Stage: "write"},
	{Function: "stages.(*lane)", Stage: "cache"},
	{Function: "stages.(*room)", Stage: "a room"},
	{Function: "stages.(*Pipeline).ushers", Stage: "(usher)"},
	{Function: "netio.", Stage: "loop"},
	{Function: "v2.(*eventloop)", Stage: "loop"},
	{Function: "netpoll.", Stage: "loop"},
	{Function: "http.(*conn).serve", Stage: "(admin)"},
	{Function: "http.(*Server)", Stage: "(admin)"},
	{Function: "leveldb.", Stage: "(database, in the background)"},
	{Function: "runtime.gcBgMarkWorker", Stage: "(garbage collector)"},
	{Function: "runtime.bg", Stage: "(garbage collector)"},
	{Function: "runtime.mstart", Stage: "(scheduler)"},
	{Function: "runtime.mcall", Stage: "(scheduler)"},
	{Function: "runtime.systemstack", Stage: "(scheduler)"},
}

// graphs are the pictures of a folder.
var graphs = []struct {
	file, of, name, what string
	byStage              bool
}{
	{"cpu.pb.gz", "cpu", "cpu-by-stage", "processor time by stage", true},
	{"cpu.pb.gz", "cpu", "cpu-by-function", "processor time by function", false},
	{"allocs.pb.gz", "alloc_space", "allocs-by-stage", "bytes allocated by stage", true},
	{"allocs.pb.gz", "alloc_space", "allocs-by-function", "bytes allocated by function", false},
	{"heap.pb.gz", "inuse_space", "heap", "bytes in use at the end", false},
	{"mutex.pb.gz", "delay", "mutex", "time others waited for a mutex held here", true},
	{"block.pb.gz", "delay", "block", "time blocked", true},
	{"goroutine.pb.gz", "goroutine", "goroutines", "goroutines, half-way", true},
}

// draw draws every profile, and writes the summary and the page that shows them.
func (p *profiling) draw(n profileNote) error {
	var sum bytes.Buffer
	fmt.Fprintf(&sum, "%d s from %s", n.Seconds, n.Taken.Format(time.RFC3339))
	if n.During != nil {
		fmt.Fprintf(&sum, ", during: %s\n%d requests answered, %.2f us of the server's processor time each", strings.Join(n.During, " "), n.Requests, n.CPUEach)
	}
	fmt.Fprintf(&sum, "\n%.2f s of processor time in all; %s, %d cores, %s\n", n.CPU, n.Host.CPU, n.Host.Cores, n.Host.Kernel)
	for _, g := range graphs {
		b, err := os.ReadFile(p.path(g.file))
		if err != nil {
			return err
		}
		t, err := flame.Read(bytes.NewReader(b), flame.How{Of: g.of, ByStage: g.byStage, Rules: stageRules})
		if err != nil {
			return fmt.Errorf("%s: %w", g.file, err)
		}
		var svg bytes.Buffer
		if err := t.Draw(&svg, g.what+", "+flame.Amount(t.Total, t.Unit)); err != nil {
			return err
		}
		if err := os.WriteFile(p.path(g.name+".svg"), svg.Bytes(), 0o644); err != nil {
			return err
		}
		fmt.Fprintf(&sum, "\n%s\n", g.what)
		rows := t.Top(12)
		if g.byStage {
			rows = t.Stages()
		}
		t.WriteTop(&sum, rows)
	}
	if err := os.WriteFile(p.path(summaryFile), sum.Bytes(), 0o644); err != nil {
		return err
	}
	return os.WriteFile(p.path("index.html"), folderPage(sum.String()), 0o644)
}
