package loadcheck

import (
	"encoding/json"
	"flag"
	"fmt"
	"math"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"svcindex/loadgen"
	"svcindex/testing/performance/lab"
	"svcindex/testing/performance/rig"
)

// The checks in this file compare speeds and times, so they are for a quiet
// machine with two processors: `make loadgen-check` runs them. The server has
// processor 0, whoever measures it processor 1, and everything is interleaved
// in rounds, because the machine's speed drifts by more than what is compared.
var (
	full   = flag.Bool("full", false, "run the checks that need a quiet machine")
	rounds = flag.Int("rounds", 5, "of each comparison")
	binary = flag.String("binary", "", "svc-index, as built")
	vegeta = flag.String("vegeta", "", "vegeta, as built")
	busy   = flag.String("busy", "", "the busy-polling client, as built")
)

const (
	serverSide = 0 // processors
	clientSide = 1
	each       = "3s"
	oneKey     = "/resolve/name:load/00000000"
)

func quiet(t *testing.T) {
	t.Helper()
	if !*full {
		t.Skip("it compares times and needs a quiet machine: make loadgen-check")
	}
}

// serve starts a server whose one key is in its cache, and stays there.
func serve(t *testing.T, set ...string) *lab.Server {
	t.Helper()
	log, err := os.Create(filepath.Join(t.TempDir(), "log"))
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	s, err := lab.Start(t.Context(), lab.Options{
		Binary: *binary, Dir: t.TempDir(), Processor: serverSide, Log: log,
		Set: append([]string{"cache.ttl=1h", "limits.conns_per_ip=0", "limits.rps=0", "limits.rps_per_ip=0"}, set...),
	})
	if err != nil {
		said, _ := os.ReadFile(log.Name())
		t.Fatalf("%v: %s", err, said)
	}
	t.Cleanup(func() {
		if err := s.Stop(); err != nil {
			t.Error(err)
		}
	})
	if _, err := lab.Run(t.Context(), -1, *binary, "loadgen", "--prepare", "1", "--server", s.URL(), "--data", s.Dir); err != nil {
		t.Fatal(err)
	}
	load(t, s, "--rate", "100", "--duration", "1s")
	return s
}

// load asks for the one key.
func load(t *testing.T, s *lab.Server, args ...string) *loadgen.Report {
	t.Helper()
	r, err := lab.Load(t.Context(), *binary, clientSide, append([]string{"--server", s.URL(), "--keys", "1", "--spin", "50us", "--data", s.Dir}, args...)...)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// agree is the promise: within 10 % or 100 us, whichever is more.
func agree(a, b float64) bool { return math.Abs(a-b) <= max(0.1*b, 100) }

func TestCheckAgainstAKnownServer(t *testing.T) {
	quiet(t)
	for _, delay := range []time.Duration{0, time.Millisecond, 20 * time.Millisecond} {
		var off []float64
		for range *rounds {
			s, err := rig.Serve(rig.Behaviour{Delay: delay, ShedEvery: 20, Processor: serverSide})
			if err != nil {
				t.Fatal(err)
			}
			keys := filepath.Join(t.TempDir(), "keys")
			if err := os.WriteFile(keys, []byte("x\n"), 0o600); err != nil {
				t.Fatal(err)
			}
			r, err := lab.Load(t.Context(), *binary, clientSide, "--server", "http://"+s.Addr, "--keys", keys, "--rate", "2000", "--duration", each, "--spin", "50us")
			log, rigErr := s.Close()
			if err != nil || rigErr != nil {
				t.Fatal(err, rigErr)
			}
			if q := r.Requests; q.Answered != 6000 || q.OK != 5700 || q.Throttled != 300 {
				t.Errorf("%+v, want 6000 answers, 300 of them shed", q)
			}
			held := make([]time.Duration, len(log))
			for i, e := range log {
				held[i] = e.Answered.Sub(e.Received)
			}
			line := fmt.Sprintf("delay %v:", delay)
			sortDurations(held)
			for _, p := range percentiles[:3] {
				known, reported := exact(held, p.p), p.of(&r.Service)
				off = append(off, reported-known)
				line += fmt.Sprintf("  p%v held %.0f us, reported %.0f us (response %.0f us)", p.p, known, reported, p.of(&r.Response))
				if reported-known > max(0.01*known, 100) {
					t.Errorf("delay %v: p%v is reported as %.1f us; the server held requests for %.1f us", delay, p.p, reported, known)
				}
			}
			t.Log(line)
		}
		t.Logf("delay %v: reported less what the server held, at p50, p90 and p95: %v us; 1 %% or 100 us is allowed", delay, lab.SpreadOf(off))
	}
}

// wrk stops asking when it is not answered: that is coordinated omission. It
// then makes up what it has not asked from its mean rate, which flatters still.
func TestCheckAStallBesideWrk(t *testing.T) {
	quiet(t)
	stall := rig.Behaviour{Delay: time.Millisecond, StallAt: 2 * time.Second, Stall: time.Second, Processor: serverSide}
	s, err := rig.Serve(stall)
	if err != nil {
		t.Fatal(err)
	}
	out, err := lab.Run(t.Context(), clientSide, "wrk", "-t1", "-c4", "-d5s", "--latency", "http://"+s.Addr+"/x")
	asked, rigErr := s.Close()
	if err != nil || rigErr != nil {
		t.Fatal(err, rigErr)
	}
	if s, err = rig.Serve(stall); err != nil {
		t.Fatal(err)
	}
	keys := filepath.Join(t.TempDir(), "keys")
	if err := os.WriteFile(keys, []byte("x\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	r, err := lab.Load(t.Context(), *binary, clientSide, "--server", "http://"+s.Addr, "--keys", keys, "--connections", "4", "--rate", "2000", "--duration", "5s", "--spin", "50us")
	if _, rigErr := s.Close(); err != nil || rigErr != nil {
		t.Fatal(err, rigErr)
	}
	t.Logf("a server that stood still for 1 s of 5 s, asked over 4 connections\nwrk, which asked %d requests and nothing in that second:\n%s", len(asked), tail(out, "Latency Distribution"))
	t.Logf("loadgen at 2,000/s, %d requests: response p50 %.1f ms, p90 %.1f ms, p95 %.1f ms, p99 %.1f ms, max %.1f ms; service p99 %.1f ms", r.Requests.Sent,
		r.Response.P50/1000, r.Response.P90/1000, r.Response.P95/1000, r.Response.P99/1000, r.Response.Max/1000, r.Service.P99/1000)
	// At the rate of its other four seconds a fifth of the requests would have
	// fallen into the stall, and the middle of them waited half of it.
	if p90 := percentileOf(t, out, "90%"); p90 > 450_000 {
		t.Errorf("wrk's p90 is %.0f us: it was expected to be below the 500 ms that its own rate means", p90)
	}
	if r.Response.P99 < 900_000 || r.Response.P90 < 500_000 {
		t.Errorf("loadgen reports p90 %.0f us and p99 %.0f us: a fifth of its requests fell due in the stall", r.Response.P90, r.Response.P99)
	}
	if q := r.Requests; q.Due != 10_000 || q.Sent != 10_000 {
		t.Errorf("%+v, want every one of 10,000 requests sent", q)
	}
}

func tail(out []byte, from string) string {
	if i := strings.Index(string(out), from); i >= 0 {
		return string(out[i:])
	}
	return string(out)
}

// percentileOf reads "     99%    1.23ms" in what wrk prints, in microseconds.
func percentileOf(t *testing.T, out []byte, name string) float64 {
	t.Helper()
	for line := range strings.Lines(string(out)) {
		if f := strings.Fields(line); len(f) == 2 && f[0] == name {
			d, err := time.ParseDuration(f[1])
			if err != nil {
				t.Fatal(err)
			}
			return float64(d) / 1000
		}
	}
	t.Fatalf("wrk did not say its %s: %s", name, out)
	return 0
}

// An attack is what vegeta says of a run: percentiles of latency by name, in
// microseconds.
func attack(t *testing.T, url, rate string) map[string]float64 {
	t.Helper()
	targets, results := filepath.Join(t.TempDir(), "targets"), filepath.Join(t.TempDir(), "results")
	if err := os.WriteFile(targets, []byte("GET "+url+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := lab.Run(t.Context(), clientSide, *vegeta, "attack", "-targets", targets, "-rate", rate, "-duration", each, "-output", results); err != nil {
		t.Fatal(err)
	}
	out, err := lab.Run(t.Context(), -1, *vegeta, "report", "-type", "json", results)
	if err != nil {
		t.Fatal(err)
	}
	var v struct {
		Latencies map[string]float64 `json:"latencies"`
		Success   float64            `json:"success"`
	}
	if err := json.Unmarshal(out, &v); err != nil || v.Success != 1 {
		t.Fatalf("%v: %s", err, out)
	}
	for name := range v.Latencies {
		v.Latencies[name] /= 1000
	}
	return v.Latencies
}

// What both are asked for, by vegeta's names.
var compared = []string{"50th", "90th", "95th"}

// Who of two generators is right where they differ, a server knows that notes
// how long it held each request: what is reported above that is the kernel's
// and the generator's own. vegeta sleeps until a request is due, and what it
// costs to be woken is in its figures, so it is held against a loadgen that
// sleeps, too.
func TestCheckVegetaAgreesOnAKnownServer(t *testing.T) {
	quiet(t)
	keys := filepath.Join(t.TempDir(), "keys")
	if err := os.WriteFile(keys, []byte("x\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	// known runs one of the two and returns what the server held requests for.
	known := func(delay time.Duration, run func(addr string)) map[string]float64 {
		s, err := rig.Serve(rig.Behaviour{Delay: delay, Processor: serverSide})
		if err != nil {
			t.Fatal(err)
		}
		run(s.Addr)
		log, err := s.Close()
		if err != nil {
			t.Fatal(err)
		}
		held := make([]time.Duration, len(log))
		for i, e := range log {
			held[i] = e.Answered.Sub(e.Received)
		}
		sortDurations(held)
		truth := map[string]float64{}
		for i, name := range compared {
			truth[name] = exact(held, percentiles[i].p)
		}
		return truth
	}
	for _, delay := range []time.Duration{0, 5 * time.Millisecond, 20 * time.Millisecond} {
		for _, rate := range []string{"500", "1000", "2000"} {
			said, own := map[string][2][]float64{}, map[string][2][]float64{}
			note := func(who int, truth, latencies map[string]float64) {
				for _, name := range compared {
					s, o := said[name], own[name]
					s[who], o[who] = append(s[who], latencies[name]), append(o[who], latencies[name]-truth[name])
					said[name], own[name] = s, o
				}
			}
			for range *rounds {
				var v, l map[string]float64
				truth := known(delay, func(addr string) { v = attack(t, "http://"+addr+"/x", rate) })
				note(1, truth, v)
				truth = known(delay, func(addr string) {
					r, err := lab.Load(t.Context(), *binary, clientSide, "--server", "http://"+addr, "--keys", keys, "--rate", rate, "--duration", each, "--spin", "-1ns")
					if err != nil {
						t.Fatal(err)
					}
					l = map[string]float64{}
					for i, name := range compared {
						l[name] = percentiles[i].of(&r.Response)
					}
				})
				note(0, truth, l)
			}
			for _, name := range compared {
				l, v := lab.SpreadOf(said[name][0]), lab.SpreadOf(said[name][1])
				lo, vo := lab.SpreadOf(own[name][0]), lab.SpreadOf(own[name][1])
				t.Logf("held %v, %s/s, %s percentile: loadgen %v us, vegeta %v us; above what the server held: %v and %v us", delay, rate, name, l, v, lo, vo)
				switch {
				case delay == 0 && lo.Median > vo.Median:
					t.Errorf("a server that answers at once, %s/s, %s percentile: loadgen is further from what the server knows than vegeta", rate, name)
				case delay > 0 && !agree(l.Median, v.Median):
					t.Errorf("held %v, %s/s, %s percentile: they differ by more than 10 %% and 100 us", delay, rate, name)
				}
			}
		}
	}
}

// A hit takes 20 us of a server, and reaching it takes a generator more: here
// the two are compared at the median, and what they differ by above it is said.
func TestCheckVegetaAgreesOnHits(t *testing.T) {
	quiet(t)
	s := serve(t)
	for _, rate := range []string{"500", "1000", "2000"} {
		ours, asleep, theirs := map[string][]float64{}, map[string][]float64{}, map[string][]float64{}
		for range *rounds {
			v := attack(t, s.URL()+oneKey, rate)
			r := load(t, s, "--rate", rate, "--duration", each)
			sleeping := load(t, s, "--rate", rate, "--duration", each, "--spin", "-1ns")
			for i, name := range compared {
				ours[name] = append(ours[name], percentiles[i].of(&r.Response))
				asleep[name] = append(asleep[name], percentiles[i].of(&sleeping.Response))
				theirs[name] = append(theirs[name], v[name])
			}
		}
		for _, name := range compared {
			o, a, v := lab.SpreadOf(ours[name]), lab.SpreadOf(asleep[name]), lab.SpreadOf(theirs[name])
			t.Logf("hits, %s/s, %s percentile: loadgen %v us, sleeping as vegeta does %v us, vegeta %v us", rate, name, o, a, v)
			if name == "50th" && !agree(a.Median, v.Median) {
				t.Errorf("%s/s, %s percentile: they differ by more than 10 %% and 100 us", rate, name)
			}
		}
	}
}

func TestCheckWrkAgreesOnTheClosedLoop(t *testing.T) {
	quiet(t)
	s := serve(t)
	var ratios []float64
	for range *rounds {
		out, err := lab.Run(t.Context(), clientSide, "wrk", "-t1", "-c64", "-d3s", s.URL()+oneKey)
		if err != nil {
			t.Fatal(err)
		}
		var wrk float64
		if _, err := fmt.Sscanf(tail(out, "Requests/sec:"), "Requests/sec: %f", &wrk); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		r := load(t, s, "--rate", "0", "--connections", "64", "--duration", each)
		t.Logf("closed loop, 64 connections: loadgen %.0f/s, wrk %.0f/s; our thread was %.0f %% at work", r.Requests.Rate, wrk, 100*r.Generator.Busiest)
		ratios = append(ratios, r.Requests.Rate/wrk)
	}
	ratio := lab.SpreadOf(ratios)
	t.Logf("loadgen/wrk: %v", ratio)
	if math.Abs(ratio.Median-1) > 0.1 {
		t.Errorf("the rates differ by more than 10 %%")
	}
}

func TestCheckTheGeneratorCostsLessThanTheServer(t *testing.T) {
	quiet(t)
	s := serve(t)
	for _, pace := range [][]string{
		{"--rate", "20000", "--spin", "-1ns"}, // spinning is not what a request costs
		{"--rate", "50000", "--spin", "-1ns"},
		{"--rate", "0"},
	} {
		var ratios, ours, theirs []float64
		for range *rounds {
			before, err := lab.UsageOf(s.PID)
			if err != nil {
				t.Fatal(err)
			}
			r := load(t, s, append(pace, "--duration", each, "--connections", "64")...)
			after, err := lab.UsageOf(s.PID)
			if err != nil {
				t.Fatal(err)
			}
			n := float64(r.Requests.Answered)
			server := float64((after.CPU - before.CPU).Microseconds()) / n
			generator := r.Generator.ProcessCPU * (r.Setup.DurationS) * 1e6 / n
			ours, theirs, ratios = append(ours, generator), append(theirs, server), append(ratios, generator/server)
		}
		ratio := lab.SpreadOf(ratios)
		t.Logf("%v: generator %v us, server %v us of processor time a request; ratio %v", pace, lab.SpreadOf(ours), lab.SpreadOf(theirs), ratio)
		if ratio.Median > 1 {
			t.Errorf("%v: the generator costs %.2f times what the server does", pace, ratio.Median)
		}
	}
}

func TestCheckMedianBesideABusyPollingClient(t *testing.T) {
	quiet(t)
	s := serve(t)
	_, port, err := net.SplitHostPort(s.Addr)
	if err != nil {
		t.Fatal(err)
	}
	var above []float64
	for range *rounds {
		out, err := lab.Run(t.Context(), clientSide, *busy, port, oneKey, "20000", "3", "64")
		if err != nil {
			t.Fatal(err)
		}
		var n, p50, p90, p99, top int64
		if _, err := fmt.Sscan(string(out), &n, &p50, &p90, &p99, &top); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		r := load(t, s, "--rate", "20000", "--duration", each, "--connections", "64")
		t.Logf("20,000/s: busy-polling C p50 %.1f us, p90 %.1f us, p99 %.1f us; loadgen p50 %.1f us, p90 %.1f us, p99 %.1f us",
			float64(p50)/1000, float64(p90)/1000, float64(p99)/1000, r.Response.P50, r.Response.P90, r.Response.P99)
		above = append(above, r.Response.P50-float64(p50)/1000)
	}
	off := lab.SpreadOf(above)
	t.Logf("p50 of loadgen above the busy-polling client's: %v us", off)
	if off.Median > 15 {
		t.Errorf("p50 is %.1f us above the busy-polling client's, 15 us are allowed", off.Median)
	}
}

func TestCheckFiftyThousandASecondFromOneCore(t *testing.T) {
	quiet(t)
	s := serve(t)
	for _, rate := range []string{"50000", "60000"} {
		valid := 0
		for range *rounds {
			r := load(t, s, "--rate", rate, "--duration", each, "--connections", "64")
			t.Logf("%s/s: %.0f/s answered, p50 %.0f us, p99 %.0f us, our thread %.0f %% at work, sent late by p99 %.0f us; valid %v %v",
				rate, r.Requests.Rate, r.Response.P50, r.Response.P99, 100*r.Generator.Busiest, r.Generator.Lag.P99, r.Valid, r.Reason)
			if r.Valid && r.Requests.Failed == 0 {
				valid++
			}
		}
		if valid*2 < *rounds {
			t.Errorf("%s/s: only %d of %d runs were valid", rate, valid, *rounds)
		}
	}
}

func TestCheckFiveThousandConnections(t *testing.T) {
	quiet(t)
	s := serve(t, "limits.max_conns=5500")
	valid := 0
	for range *rounds {
		// Idle connections are taken in turn, so each of them is asked four times a second.
		r := load(t, s, "--rate", "20000", "--duration", each, "--connections", "5000", "--warmup", "1s")
		t.Logf("5,000 connections at 20,000/s: %d opened, %d reopened; %.0f/s answered, p50 %.0f us, p99 %.0f us, our thread %.0f %% at work, sent late by p99 %.0f us; valid %v %v",
			r.Generator.Opened, r.Generator.Reopened, r.Requests.Rate, r.Response.P50, r.Response.P99, 100*r.Generator.Busiest, r.Generator.Lag.P99, r.Valid, r.Reason)
		if r.Generator.Opened < 5000 || len(r.Errors) > 0 || r.Requests.OK != r.Requests.Due {
			t.Errorf("%+v %+v, want 5,000 connections and no error", r.Requests, r.Errors)
		}
		if r.Valid {
			valid++
		}
	}
	if valid*2 < *rounds {
		t.Errorf("only %d of %d runs were valid", valid, *rounds)
	}
}
