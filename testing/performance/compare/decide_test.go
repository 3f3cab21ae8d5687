package compare

import (
	"encoding/json"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

var slow = Gate{Name: "p95 hit", Unit: "us", Threshold: .10, Floor: 20}

// rounds makes pairs of base and ratio.
func rounds(base float64, ratios ...float64) (all []Pair) {
	for _, r := range ratios {
		all = append(all, Pair{base, base * r})
	}
	return all
}

func TestDecide(t *testing.T) {
	rate := Gate{Name: "throughput", Unit: "/s", Less: true, Threshold: .10, Floor: 500}
	count := Gate{Name: "allocs", Unit: "allocs/op", Threshold: .15, Alone: true}
	for _, tt := range []struct {
		why    string
		gate   Gate
		rounds []Pair
		noise  float64
		want   State
	}{
		{"nothing changed", slow, rounds(500, 1, .99, 1.01, 1, 1.02, .98, 1), 0, Passed},
		{"better is no fault", slow, rounds(500, .5, .5, .5, .5, .5, .5, .5), 0, Passed},
		{"within the threshold", slow, rounds(500, 1.09, 1.09, 1.08, 1.09, 1.1, 1.09, 1.09), 0, Passed},
		{"all three agree", slow, rounds(500, 1.2, 1.18, 1.22, 1.2, 1.25, 1.19, 1.2), 0, Failed},
		{"the interval does not: two rounds of seven say the contrary", slow, rounds(500, 1.2, .8, 1.22, 1.2, .85, 1.19, 1.2), 0, Unsure},
		{"nor when this machine is off by as much", slow, rounds(500, 1.12, 1.08, 1.12, 1.2, 1.05, 1.12, 1.12), .09, Unsure},
		{"noise never forgives more than the threshold", slow, rounds(500, 1.5, 1.5, 1.5, 1.5, 1.5, 1.5, 1.5), .9, Failed},
		{"the floor does not: 10 us are nobody's", slow, rounds(50, 1.2, 1.18, 1.22, 1.2, 1.25, 1.19, 1.2), 0, Unsure},
		{"fewer answers a second", rate, rounds(20000, .8, .82, .79, .8, .81, .8, .8), 0, Failed},
		{"more of them", rate, rounds(20000, 1.8, 1.8, 1.8, 1.8, 1.8, 1.8, 1.8), 0, Passed},
		{"a tenth less, to the last", rate, rounds(20000, .9, .9, .9, .9, .9, .9, .9), 0, Passed},
		{"one allocation where there was none", count, []Pair{{0, 1}}, 0, Failed},
		{"none where there was none", count, []Pair{{0, 0}}, 0, Passed},
		{"one more of ten", count, []Pair{{10, 11}}, 0, Passed},
		{"two more of ten", count, []Pair{{10, 12}}, 0, Failed},
		{"a figure never fails", Gate{Name: "start", Figure: true}, rounds(1, 9), 0, Passed},
	} {
		v, err := Decide(tt.gate, tt.rounds, tt.noise)
		if err != nil || v.State != tt.want {
			t.Errorf("%s: %v (%s), %v; want %v", tt.why, v.State, v.Why, err, tt.want)
		}
	}
}

func TestTooFewRoundsOrNoFiguresDecideNothing(t *testing.T) {
	for why, rs := range map[string][]Pair{
		"none": nil, "four": rounds(1, 1, 1, 1, 1),
		"not a number": append(rounds(1, 1, 1, 1, 1), Pair{math.NaN(), 1}), "less than nothing": append(rounds(1, 1, 1, 1, 1), Pair{1, -1}),
		"no end": append(rounds(1, 1, 1, 1, 1), Pair{1, math.Inf(1)}),
	} {
		if v, err := Decide(slow, rs, 0); err == nil {
			t.Errorf("%s: decided %v", why, v.State)
		}
	}
}

func TestAFailureMustFailTwice(t *testing.T) {
	v := func(s State) Verdict { return Verdict{State: s} }
	for _, tt := range []struct{ first, second, want State }{
		{Failed, Failed, Failed}, {Failed, Passed, Unsure}, {Failed, Unsure, Unsure}, {Passed, Failed, Passed}, {Unsure, Failed, Unsure},
	} {
		if got := Confirm(v(tt.first), v(tt.second)).State; got != tt.want {
			t.Errorf("%v, then %v: %v, want %v", tt.first, tt.second, got, tt.want)
		}
	}
}

// usual is what each gate's figure is about, for planted samples.
var usual = map[string]float64{
	"p95 hit": 300, "p95 miss": 800, "p95 inter-region": 200_000, "throughput": 20_000, "cpu": 30, "memory": 60,
	"start version": 5, "start config": 5,
}

// TestEachGateFailsOnWhatIsPlanted plants a slowdown, a slower server, a hungrier
// one and a leak in samples as noisy as a shared machine's, and nothing in as
// many others.
func TestEachGateFailsOnWhatIsPlanted(t *testing.T) {
	for _, g := range Gates() {
		if g.Figure {
			continue
		}
		for _, tt := range []struct {
			planted float64
			want    State
		}{{1.4, Failed}, {1, Passed}} {
			for seed := range uint64(20) {
				dice := rand.New(rand.NewPCG(seed, 3))
				var rs []Pair
				for range 7 {
					machine := 1 + .1*dice.NormFloat64() // both builds of a round meet the same machine
					own := func() float64 { return usual[g.Name] * machine * (1 + .03*dice.NormFloat64()) }
					p := Pair{own(), own()}
					if g.Less {
						p.New /= tt.planted
					} else {
						p.New *= tt.planted
					}
					rs = append(rs, p)
				}
				v, err := Decide(g, rs, .05)
				if err != nil || v.State != tt.want {
					t.Errorf("%s, times %v, seed %d: %v (%s), %v; want %v", g.Name, tt.planted, seed, v.State, v.Why, err, tt.want)
				}
			}
		}
	}
}

// baselines are those that are kept.
func baselines(t *testing.T) (all []Baseline) {
	t.Helper()
	names, err := filepath.Glob("../baselines/linux-*.json")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		text, err := os.ReadFile(name)
		var b Baseline
		if err == nil {
			err = json.Unmarshal(text, &b)
		}
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if _, err := ReadBaseline(name, b.Host); err != nil {
			t.Fatal(err)
		}
		all = append(all, b)
	}
	if len(all) == 0 {
		t.Fatal("there is no recorded comparison of a build with itself in testing/performance/baselines: make gate-null")
	}
	return all
}

// TestTwentyNullComparisonsPass takes what a real machine measured of a build
// against itself, and holds twenty comparisons of it to the gate's own rules. The
// noise is taken from the one half of the rounds, and the comparisons from the
// other: nobody forgives himself. Each is decided once; make gate asks twice.
func TestTwentyNullComparisonsPass(t *testing.T) {
	for _, b := range baselines(t) {
		half := len(b.Null) / 2
		nulls, others := Nulls(b.Null[:half], 20, b.Rounds), Nulls(b.Null[half:], 20, b.Rounds)
		if len(nulls) != 20 || len(others) != 20 {
			t.Fatalf("%s: %d rounds are too few for comparisons of %d in each half", b.Host.Class, len(b.Null), b.Rounds)
		}
		for _, g := range Gates() {
			var elsewhere [][]Pair
			for _, c := range others {
				elsewhere = append(elsewhere, Of(c, g.Name))
			}
			bare := 0
			for i, c := range nulls {
				v, err := Decide(g, Of(c, g.Name), Noise(g, elsewhere))
				if err != nil || v.State == Failed {
					t.Errorf("%s, comparison %d of %s: %v (%s), %v", b.Host.Class, i, g.Name, v.State, v.Why, err)
				}
				if v, err := Decide(g, Of(c, g.Name), 0); err != nil || v.State == Failed {
					bare++
				}
			}
			t.Logf("%s, %s: %d of 20 would fail with no noise allowed for", b.Host.Class, g.Name, bare)
		}
	}
}

// TestTheSameRoundsFailWhenSomethingIsPlanted does to the real rounds what a bad
// change would do: the gates must see it through this machine's noise.
func TestTheSameRoundsFailWhenSomethingIsPlanted(t *testing.T) {
	for _, b := range baselines(t) {
		for _, g := range Gates() {
			if g.Figure {
				continue
			}
			failed := 0
			all := Nulls(b.Null, 20, b.Rounds)
			for _, c := range all {
				rs := Of(c, g.Name)
				for i := range rs {
					if g.Less {
						rs[i].New *= .6
					} else {
						rs[i].New *= 1.6
					}
				}
				if v, err := Decide(g, rs, b.Noise[g.Name]); err == nil && v.State == Failed {
					failed++
				}
			}
			if failed < len(all)*9/10 {
				t.Errorf("%s: %s saw %d of %d planted changes of 60 %%", b.Host.Class, g.Name, failed, len(all))
			}
		}
	}
}

func TestABaselineOfAnotherClassIsRefused(t *testing.T) {
	path := filepath.Join(t.TempDir(), "b.json")
	text, err := json.Marshal(Baseline{Schema: Schema, Host: Host{Class: "linux-amd64-epyc-2"}})
	if err == nil {
		err = os.WriteFile(path, text, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	if _, err := ReadBaseline(path, Host{Class: "linux-amd64-epyc-2"}); err != nil {
		t.Errorf("its own class: %v", err)
	}
	if _, err := ReadBaseline(path, Host{Class: "linux-arm64-graviton-8"}); err == nil || !strings.Contains(err.Error(), "cannot be compared") {
		t.Errorf("another class: %v", err)
	}
}

func TestAClassIsWhatMachinesShare(t *testing.T) {
	if got, want := ClassOf("linux-amd64", "AMD EPYC 7B13 (rev 2)", 2), "linux-amd64-amd-epyc-7b13-rev-2-2"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
	if got, want := ClassOf("linux-arm64", "", 4), "linux-arm64-unknown-4"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
}

func TestWaive(t *testing.T) {
	day := time.Date(2026, 12, 31, 23, 0, 0, 0, time.UTC)
	failed := Verdict{Gate: Gate{Name: "cpu"}, State: Failed, Ratio: 1.2}
	for _, tt := range []struct {
		why  string
		w    Waiver
		now  time.Time
		want State
		bad  string
	}{
		{"it holds to the end of its last day", Waiver{"cpu", "ann", "signing", "2026-12-31", .25}, day, Waived, ""},
		{"an expired one fails", Waiver{"cpu", "ann", "signing", "2026-12-31", .25}, day.Add(time.Hour), Failed, "expired"},
		{"so it does when its gate has not failed", Waiver{"memory", "ann", "signing", "2026-12-30", .25}, day, Failed, "expired"},
		{"of another gate", Waiver{"memory", "ann", "signing", "2026-12-31", .25}, day, Failed, ""},
		{"not that much", Waiver{"cpu", "ann", "signing", "2026-12-31", .1}, day, Failed, ""},
		{"nobody's", Waiver{"cpu", "", "signing", "2026-12-31", .25}, day, Failed, "owner"},
		{"for no reason", Waiver{"cpu", "ann", "", "2026-12-31", .25}, day, Failed, "reason"},
		{"for ever", Waiver{"cpu", "ann", "signing", "never", .25}, day, Failed, "expected a day"},
		{"without a limit", Waiver{"cpu", "ann", "signing", "2026-12-31", 0}, day, Failed, "up to"},
	} {
		vs, errs := Waive([]Verdict{failed}, []Waiver{tt.w}, tt.now)
		said := fmt.Sprint(errs)
		if vs[0].State != tt.want || (tt.bad == "") != (errs == nil) || !strings.Contains(said, tt.bad) {
			t.Errorf("%s: %v, %s", tt.why, vs[0].State, said)
		}
	}
	if ws, err := ReadWaivers("../waivers.json"); err != nil {
		t.Errorf("the waivers that are kept: %v, %v", ws, err)
	}
}

func TestAllocationsFailAlone(t *testing.T) {
	const text = `goos: linux
pkg: svcindex/netio
BenchmarkHit-2   	 200	 812.0 ns/op	 0 B/op	 1 allocs/op
BenchmarkHead/long-2  200	 136.0 ns/op	 12.5 MB/s	 64 B/op	 14 allocs/op
pkg: svcindex/queue
BenchmarkQueue 	 200	 43 ns/op	 0 B/op	 0 allocs/op
PASS`
	base := Allocs{"svcindex/netio.BenchmarkHit": 0, "svcindex/netio.BenchmarkHead/long": 13, "svcindex/queue.BenchmarkQueue": 0, "svcindex/queue.BenchmarkGone": 0}
	var got strings.Builder
	for _, v := range DecideAllocs(base, ParseBench(text)) {
		fmt.Fprintf(&got, "%s %v\n", v.Name, v.State)
	}
	const want = "svcindex/netio.BenchmarkHead/long ok\nsvcindex/netio.BenchmarkHit FAILED\n" +
		"svcindex/queue.BenchmarkGone FAILED\nsvcindex/queue.BenchmarkQueue ok\n"
	if got.String() != want {
		t.Errorf("got\n%swant\n%s", got.String(), want)
	}
}

func ExampleDecide() {
	cpu := Gate{Name: "cpu", Unit: "us/request", Threshold: .15, Floor: 1}
	v, _ := Decide(cpu, []Pair{{30, 39}, {31, 40}, {29, 38}, {30, 39.5}, {33, 42}}, .03)
	fmt.Println(v.State, v.Why)
	// Output:
	// FAILED worse by 30.0 %, surely by 27.3 %; at most 15.0 % may be
}
