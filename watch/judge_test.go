package watch

import (
	"runtime/metrics"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"svcindex/index"
)

var limits = Limits{Stall: 3 * time.Second, Sched: 250 * time.Millisecond, Slow: time.Second}

// kinds renders breaches as kind:where, for comparing.
func kinds(bs []Breach) string {
	var out []string
	for _, b := range bs {
		out = append(out, strings.TrimSuffix(b.Kind.String()+":"+b.Where, ":"))
	}
	return strings.Join(out, " ")
}

func TestJudge(t *testing.T) {
	now := time.Unix(1e9, 0)
	room := func(name string, depth, busy int, done uint64, oldest, step time.Duration) index.RoomStats {
		return index.RoomStats{Name: name, Depth: depth, Busy: busy, Workers: 8, Done: done, OldestWait: oldest, Step: step}
	}
	old := map[string]beat{"db": {done: 7, at: now.Add(-3 * time.Second)}}
	for _, tt := range []struct {
		why   string
		look  look
		beats map[string]beat
		want  string
	}{
		{"nothing there is nothing wrong", look{}, nil, ""},
		{"no work for long is rest", look{rooms: []index.RoomStats{room("db", 0, 0, 7, 0, 0)}}, old, ""},
		{"work, and none done for the limit", look{rooms: []index.RoomStats{room("db", 5, 8, 7, 4*time.Second, 4*time.Second)}}, old, "stage:db"},
		{"jobs wait and nobody comes for them", look{rooms: []index.RoomStats{room("db", 5, 0, 7, 0, 0)}}, old, "stage:db"},
		{"one done is a pulse", look{rooms: []index.RoomStats{room("db", 5, 8, 8, 0, 0)}}, old, ""},
		{"one step hangs beside others", look{rooms: []index.RoomStats{room("db", 5, 8, 8, 0, 3*time.Second)}}, old, "step:db"},
		{"a wait, though work gets done", look{rooms: []index.RoomStats{room("db", 5, 8, 8, 3*time.Second, 0)}}, old, "queue:db"},
		{"a stage met for the first time gets its chance", look{rooms: []index.RoomStats{room("write", 5, 8, 0, 0, 0)}}, old, ""},
		{"one loop of two", look{loops: []time.Duration{0, 3 * time.Second}}, nil, "loop"},
		{"a loop that is a little behind", look{loops: []time.Duration{2 * time.Second}}, nil, ""},
		{"goroutines wait for a processor", look{sched: sched{100, 300 * time.Millisecond}}, nil, "scheduler"},
		{"the watch itself woke late", look{late: time.Second}, nil, "scheduler"},
		{"a slow request", look{slow: 1}, nil, "slow"},
		{"all at once", look{rooms: []index.RoomStats{room("db", 5, 8, 7, 0, 0)}, loops: []time.Duration{time.Minute}, late: time.Minute, slow: 3},
			old, "stage:db loop scheduler slow"},
	} {
		beats := map[string]beat{}
		for k, v := range tt.beats {
			beats[k] = v
		}
		tt.look.at = now
		if got := kinds(judge(&tt.look, limits, beats)); got != tt.want {
			t.Errorf("%s: found %q, want %q", tt.why, got, tt.want)
		}
		if got := kinds(judge(&tt.look, Limits{}, beats)); got != "" {
			t.Errorf("%s: all limits are off, and it found %q", tt.why, got)
		}
	}
}

func TestABreachIsNewsOnceAndKeepsItsBeginning(t *testing.T) {
	at := func(s int64) time.Time { return time.Unix(s, 0) }
	stuck := Breach{Kind: index.StallStage, Where: "db", Since: at(1)}
	begun, ended := news(nil, []Breach{stuck})
	if kinds(begun) != "stage:db" || ended != nil {
		t.Errorf("the first time: begun %q, ended %q", kinds(begun), kinds(ended))
	}
	again := []Breach{{Kind: index.StallStage, Where: "db", Since: at(9)}, {Kind: index.StallStage, Where: "dht", Since: at(9)}}
	begun, ended = news([]Breach{stuck}, again)
	if kinds(begun) != "stage:dht" || ended != nil || !again[0].Since.Equal(at(1)) {
		t.Errorf("the second time: begun %q, ended %q, since %v", kinds(begun), kinds(ended), again[0].Since)
	}
	begun, ended = news(again, nil)
	if begun != nil || kinds(ended) != "stage:db stage:dht" {
		t.Errorf("when it is over: begun %q, ended %q", kinds(begun), kinds(ended))
	}
}

func TestSchedulerLatencyIsOfTheIntervalAlone(t *testing.T) {
	h := &metrics.Float64Histogram{Buckets: []float64{0, .001, .01, .1, 1}}
	for _, tt := range []struct {
		why           string
		before, after []uint64
		want          sched
	}{
		{"nothing happened", []uint64{5, 5, 5, 5}, []uint64{5, 5, 5, 5}, sched{}},
		{"all before is forgotten", []uint64{0, 0, 0, 99}, []uint64{50, 0, 0, 99}, sched{50, 0}},
		{"one of fifty is the p99", []uint64{0, 0, 0, 0}, []uint64{49, 0, 1, 0}, sched{50, 10 * time.Millisecond}},
		{"one of a thousand is not", []uint64{0, 0, 0, 0}, []uint64{999, 0, 1, 0}, sched{1000, 0}},
		{"all are slow", []uint64{0, 0, 0, 0}, []uint64{0, 0, 0, 3}, sched{3, 100 * time.Millisecond}},
	} {
		h.Counts = tt.after
		if d := cmp.Diff(tt.want, since(h, tt.before), cmp.AllowUnexported(sched{})); d != "" {
			t.Errorf("%s: %s", tt.why, d)
		}
	}
}
