package main

import (
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"svcindex/loadgen"
	"svcindex/testing/performance/compare"
	"svcindex/testing/performance/lab"
)

// usual are figures of a server on a good day.
var usual = map[string]float64{
	"p95 hit": 100, "p95 miss": 240, "p95 inter-region": 196_000, "throughput": 100_000, "cpu": 110, "memory": 28,
}

// kept writes rounds to a file as a run would, the new build worse by factor in
// one gate.
func kept(t *testing.T, dir, gate string, factor float64) string {
	t.Helper()
	m := measured{Host: compare.Host{Class: "here"}, Base: "a", New: "b"}
	for i := range 7 {
		r := compare.Round{}
		for g, v := range usual {
			v *= 1 + float64(i)/100
			r[g] = compare.Pair{Base: v, New: v}
		}
		p := r[gate]
		p.New *= factor
		r[gate] = p
		m.Rounds = append(m.Rounds, r)
	}
	path := filepath.Join(dir, "gate.json")
	if err := writeJSON(path, m); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestTheCommandFailsWhenAGateDoes(t *testing.T) {
	t.Chdir(t.TempDir()) // no waivers and no baseline here
	for _, tt := range []struct {
		why, gate string
		factor    float64
		fails     bool
	}{
		{"nothing changed", "cpu", 1, false},
		{"a slowdown", "p95 miss", 1.5, true},
		{"a far slowdown", "p95 inter-region", 1.2, true},
		{"fewer answers", "throughput", .8, true},
		{"a hungrier server", "cpu", 1.3, true},
		{"a leak", "memory", 1.3, true},
	} {
		err := run(t.Context(), options{judge: kept(t, ".", tt.gate, tt.factor)})
		if (err != nil) != tt.fails {
			t.Errorf("%s: %v", tt.why, err)
		}
	}
	waived := []compare.Waiver{{Gate: "memory", Owner: "ann", Reason: "a second cache", Expires: time.Now().UTC().Format(time.DateOnly), UpTo: .4}}
	if err := writeJSON(waiversFile, waived); err != nil {
		t.Fatal(err)
	}
	if err := run(t.Context(), options{judge: kept(t, ".", "memory", 1.3)}); err != nil {
		t.Errorf("a leak that is waived: %v", err)
	}
	waived[0].Expires = "2026-01-01"
	if err := writeJSON(waiversFile, waived); err != nil {
		t.Fatal(err)
	}
	if err := run(t.Context(), options{judge: kept(t, ".", "memory", 1)}); err == nil || !strings.Contains(err.Error(), "expired") {
		t.Errorf("a waiver that has expired, and nothing changed: %v", err)
	}
}

func TestAnotherMachinesBaselineIsRefused(t *testing.T) {
	t.Chdir(t.TempDir())
	if err := writeJSON("other.json", compare.Baseline{Schema: compare.Schema, Host: compare.Host{Class: "elsewhere"}}); err != nil {
		t.Fatal(err)
	}
	err := run(t.Context(), options{judge: kept(t, ".", "cpu", 1), baseline: "other.json"})
	if err == nil || !strings.Contains(err.Error(), "cannot be compared") {
		t.Errorf("%v", err)
	}
}

func TestANullRunIsKeptAsABaseline(t *testing.T) {
	t.Chdir(t.TempDir())
	text, err := os.ReadFile(kept(t, ".", "cpu", 1.02))
	var m measured
	if err == nil {
		err = json.Unmarshal(text, &m)
	}
	if err != nil {
		t.Fatal(err)
	}
	o := options{rounds: 5, save: true}
	if err := o.keepNull(m); err != nil {
		t.Fatal(err)
	}
	b, err := compare.ReadBaseline(filepath.Join(baselinesDir, "here.json"), m.Host)
	if err != nil || b.Noise["cpu"] < .019 || b.Noise["cpu"] > .021 || b.Noise["memory"] != 0 || b.Rounds != 5 || b.Commit != "b" || b.Go == "" {
		t.Errorf("%+v, %v", b, err)
	}
}

func TestTheKernelsAccountOfAProcess(t *testing.T) {
	s := &server{cmd: exec.Command("true")}
	s.cmd.Process = &os.Process{Pid: os.Getpid()}
	before := s.cpu()
	for sum, i := 0, 0; s.cpu() < before+time.Millisecond; i++ {
		sum += i
	}
	if mib, err := s.memory(); err != nil || mib <= 0 {
		t.Errorf("memory is %v MiB, %v", mib, err)
	}
	s.cmd.Process.Pid = 1<<22 - 1 // nobody: the kernel counts no further
	if _, err := s.memory(); err == nil || s.cpu() != 0 {
		t.Errorf("a process that is not there has memory and used %v", s.cpu())
	}
}

func TestABudgetOfErrors(t *testing.T) {
	for _, tt := range []struct {
		due, ok int64
		spent   bool
	}{{10_000, 10_000, false}, {10_000, 9_990, false}, {10_000, 9_989, true}, {0, 0, false}} {
		r := &loadgen.Report{Requests: loadgen.Requests{Due: tt.due, OK: tt.ok}}
		if err := spent(r); (err != nil) != tt.spent {
			t.Errorf("%d of %d: %v", tt.ok, tt.due, err)
		}
	}
}

func TestADisturbedHalfIsMeasuredAgain(t *testing.T) {
	boom := errors.New("boom")
	type step struct {
		others float64 // processors
		err    error
	}
	for _, tt := range []struct {
		why   string
		steps []step
		tries int
		got   float64 // others of the one that is taken
		err   error
	}{
		{"nothing came between", []step{{.01, nil}}, 1, .01, nil},
		{"a neighbour did, once", []step{{.5, nil}, {.02, nil}}, 2, .02, nil},
		{"always: the least has to do", []step{{.5, nil}, {.2, nil}, {.9, nil}}, 3, .2, nil},
		{"the client was the limit, once", []step{{0, errVoid}, {.01, nil}}, 2, .01, nil},
		{"the client always was", []step{{0, errVoid}, {0, errVoid}, {0, errVoid}}, 3, 0, errVoid},
		{"what is broken is not tried again", []step{{0, boom}}, 1, 0, boom},
	} {
		n, waited := 0, 0
		h, err := undisturbed(func() { waited++ }, func() (*half, error) {
			s := tt.steps[n]
			n++
			return &half{by: lab.Disturbance{Others: s.others}}, s.err
		})
		if n != tt.tries || waited != tt.tries-1 || !errors.Is(err, tt.err) || err == nil && h.by.Others != tt.got {
			t.Errorf("%s: %d tries, %d waits for calm, %+v, %v", tt.why, n, waited, h, err)
		}
	}
}

func TestEveryGateHasAFaultThatItMustSee(t *testing.T) {
	var all []compare.Verdict
	for _, g := range compare.Gates() {
		if !g.Figure {
			all = append(all, compare.Verdict{Gate: g, State: compare.Failed})
		}
	}
	if err := unseen(all); err != nil {
		t.Error(err)
	}
	for i := range all {
		all[i].State = compare.Unsure
		if err := unseen(all); err == nil || !strings.Contains(err.Error(), all[i].Name) {
			t.Errorf("%s saw nothing, and the proof says %v", all[i].Name, err)
		}
		all[i].State = compare.Failed
	}
}

func TestThereIsAPlaceForAnAllocation(t *testing.T) {
	t.Chdir("../../..")
	overlay, err := plant(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	var o struct{ Replace map[string]string }
	text, err := os.ReadFile(overlay)
	if err == nil {
		err = json.Unmarshal(text, &o)
	}
	if err != nil || len(o.Replace) != 1 {
		t.Fatalf("%s, %v", text, err)
	}
	for from, to := range o.Replace {
		b, err := os.ReadFile(to)
		if err != nil || !strings.HasSuffix(from, plantIn) || strings.Count(string(b), "planted") != 2 {
			t.Errorf("%s for %s: %v\n%s", to, from, err, b)
		}
	}
}
