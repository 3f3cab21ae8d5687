package faults

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strconv"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestFaultHitsBesideMisses asks for hits at a fifth of the most the server can
// do, beside more misses than the database can read. The hits have to be about
// as quick as beside as many other hits.
//
// The server has a processor, and the generators have another: what is left of
// a difference is the server's. A round is thrown away if a generator was its
// own limit, or if other processes were busy; what is judged is the median of
// ratios of neighbouring rounds.
func TestFaultHitsBesideMisses(t *testing.T) {
	if runtime.NumCPU() < 2 {
		t.Skip("the server and its clients need a processor each")
	}
	b := &beside{t: t, s: start(t, options{
		cpu: 1, env: []string{"RIG_DB_DELAY=5ms"},
		set: []string{"stages.db.workers_max=4", "stages.db.workers_min=4", "limits.conns_per_ip=0", "cache.ttl=10m", "cache.bytes=64MiB"},
	})}
	if out, err := command("loadgen", "--server", "http://"+b.s.addr, "--data", b.s.dir, "--prepare", strconv.Itoa(besideKeys)); err != nil {
		t.Fatalf("preparing: %v\n%s", err, out)
	}
	if _, err := b.generate(2, "--rate", "2000", "--keys", strconv.Itoa(besideKeys), "--dist", "uniform", "--duration", "1s").report(); err != nil {
		t.Fatal(err)
	}
	most, err := b.generate(2, "--rate", "0", "--connections", "64", "--keys", strconv.Itoa(besideKeys), "--duration", size("500ms", "3s")).report()
	if err != nil {
		t.Fatal(err)
	}
	b.hits = int(most.Requests.PerSecond / 5)
	t.Logf("the most: %.0f hits/s; asked for: %d/s", most.Requests.PerSecond, b.hits)
	for _, times := range []int{2, 10} {
		t.Run(fmt.Sprintf("%dx", times), func(t *testing.T) { b.t = t; b.compare(times) })
	}
	b.t = t
	b.s.stop()
}

const (
	besideKeys   = 200
	besideMost   = 1.5 // times the p99 beside as many hits
	besidePairs  = 9   // the full test's, undisturbed
	besideTries  = 40
	strangersMay = .04 // of a round: more is a disturbance
)

// A beside compares hits beside misses with hits beside hits.
type beside struct {
	t    *testing.T
	s    *server
	hits int // a second
	seed int
}

func (b *beside) compare(times int) {
	var calm, busy, ratios []float64
	pairs, tries := size(1, besidePairs), size(1, besideTries)
	for try := 0; try < tries && len(ratios) < pairs; try++ {
		var p99 [2]float64
		whole := true
		for i := range p99 {
			misses := (i + try) % 2 // who goes first alternates: the machine drifts
			var ok bool
			p99[misses], ok = b.round(times, misses == 1)
			whole = whole && ok
		}
		if whole || !*full {
			calm, busy, ratios = append(calm, p99[0]), append(busy, p99[1]), append(ratios, p99[1]/p99[0])
		}
	}
	if len(ratios) == 0 {
		b.t.Fatal("no round was undisturbed; run this alone on the machine")
	}
	slices.Sort(ratios)
	median := ratios[len(ratios)/2]
	b.t.Logf("%d misses/s: hits' p99 beside them %.0f us, beside as many hits %.0f us; ratio: median %.2f, all %.2f",
		times*capacity, middle(busy), middle(calm), median, ratios)
	if !*full {
		return // one short round on a busy machine proves nothing
	}
	if len(ratios) < pairs {
		b.t.Errorf("%d undisturbed pairs of %d tries, want %d; run this alone on the machine", len(ratios), tries, pairs)
	}
	if median > besideMost {
		b.t.Errorf("hits' p99 is %.2f times as long beside misses, want %.1f at most", median, besideMost)
	}
}

func middle(v []float64) float64 {
	v = slices.Sorted(slices.Values(v))
	return v[len(v)/2]
}

// round asks for hits, and for others beside them, and returns the hits' p99.
// ok: nothing has disturbed it.
func (b *beside) round(times int, misses bool) (p99 float64, ok bool) {
	b.seed++
	long := size("500ms", "2s")
	others := []string{"--rate", strconv.Itoa(times * capacity), "--profile", "poisson", "--connections", "256", "--dist", "uniform",
		"--duration", long, "--warmup", "300ms", "--seed", strconv.Itoa(1000 + b.seed)}
	if misses {
		others = append(others, "--absent", "1", "--keys", "10000000")
	} else {
		others = append(others, "--keys", strconv.Itoa(besideKeys))
	}
	hits := b.generate(2, "--rate", strconv.Itoa(b.hits), "--connections", "32", "--dist", "uniform", "--keys", strconv.Itoa(besideKeys),
		"--duration", long, "--warmup", "300ms", "--seed", strconv.Itoa(b.seed))
	beside := b.generate(2, others...)
	ours := map[int]bool{os.Getpid(): true, b.s.cmd.Process.Pid: true, hits.cmd.Process.Pid: true, beside.cmd.Process.Pid: true}
	began, was := time.Now(), strangers(ours)
	h, err := hits.report()
	took, used := time.Since(began), strangers(ours)-was
	o, otherErr := beside.report()
	if err != nil || otherErr != nil {
		b.t.Fatal(err, otherErr)
	}
	b.judge(h, o, misses)
	ok = h.Valid && used < strangersMay*took.Seconds()
	b.t.Logf("misses %v: hits p50 %.0f us, p99 %.0f us; %d others, %d refused; strangers %.2f s; %v",
		misses, h.Response.P50, h.Response.P99, o.Requests.Answered, o.Requests.Throttled, used, map[bool]string{true: "counts", false: "disturbed"}[ok])
	return h.Response.P99, ok
}

// judge holds the answers themselves to what was promised.
func (b *beside) judge(h, o *loadReport, misses bool) {
	if h.Requests.OK != h.Requests.Answered || h.Requests.Failed > 0 {
		b.t.Errorf("of %d hits %d were answered, %d ok", h.Requests.Due, h.Requests.Answered, h.Requests.OK)
	}
	if misses && o.Requests.Throttled == 0 {
		b.t.Errorf("no overload was reached: %+v", o.Requests)
	}
	if !misses && o.Requests.OK != o.Requests.Answered {
		b.t.Errorf("of %d other hits %d were ok", o.Requests.Answered, o.Requests.OK)
	}
}

// TestFaultNoFalseRefusals floods a lane that holds a quarter of what comes at
// once. The cache is not saturated, only not yet let run: nobody is refused.
func TestFaultNoFalseRefusals(t *testing.T) {
	for _, cpu := range []int{0, 1} { // on one processor the worker runs when the loop lets it
		b := &beside{t: t, s: start(t, options{cpu: cpu, set: []string{"stages.cache.depth=64", "limits.conns_per_ip=0", "cache.ttl=10m"}})}
		if out, err := command("loadgen", "--server", "http://"+b.s.addr, "--data", b.s.dir, "--prepare", strconv.Itoa(besideKeys)); err != nil {
			t.Fatalf("preparing: %v\n%s", err, out)
		}
		for _, pipeline := range []string{"1", "16"} {
			r, err := b.generate(0, "--rate", "0", "--connections", "256", "--pipeline", pipeline, "--keys", strconv.Itoa(besideKeys),
				"--duration", "5m", "--max-requests", size("20000", "1000000")).report()
			if err != nil {
				t.Fatal(err)
			}
			t.Logf("processors %d (0: all), pipeline %s: %d answered, %d refused, %.0f/s", cpu, pipeline, r.Requests.Answered, r.Requests.Throttled, r.Requests.PerSecond)
			if r.Requests.Throttled > 0 || r.Requests.OK != r.Requests.Due {
				t.Errorf("%+v: all should be ok", r.Requests)
			}
		}
		b.s.stop()
	}
}

// A loadReport is what we read of a generator's report.
type loadReport struct {
	Valid    bool
	Requests struct {
		Due, Answered, Failed, OK, Throttled int
		PerSecond                            float64 `json:"answered_per_s"`
	}
	Response struct{ P50, P99 float64 } `json:"response_us"`
	Service  struct{ P50, P99 float64 } `json:"service_us"`
}

// A generator is a running loadgen.
type generator struct {
	cmd      *exec.Cmd
	out, err bytes.Buffer
}

// generate starts a generator on a processor. The test's end stops it.
func (b *beside) generate(cpu int, args ...string) *generator {
	b.t.Helper()
	g := &generator{cmd: exec.Command(binary, append([]string{"loadgen", "--server", "http://" + b.s.addr, "--json", "-"}, args...)...)}
	g.cmd.Stdout, g.cmd.Stderr = &g.out, &g.err
	g.cmd.SysProcAttr = &unix.SysProcAttr{Pdeathsig: unix.SIGKILL}
	if err := onCPU(cpu, g.cmd.Start); err != nil {
		b.t.Fatal(err)
	}
	return g
}

// report waits for the generator's end. That it calls its own run invalid is
// no error.
func (g *generator) report() (*loadReport, error) {
	_ = g.cmd.Wait()
	r := new(loadReport)
	if err := json.Unmarshal(g.out.Bytes(), r); err != nil {
		return nil, fmt.Errorf("loadgen: %w\n%s", err, g.err.Bytes())
	}
	return r, nil
}
