package telemetry

import (
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"svcindex/index"
)

const (
	routes  = "admin graph health manifests names other providers resolve search version"
	methods = "DELETE GET HEAD OPTIONS POST PUT other"
	stages  = "cache db dht write"
)

// promised is what dashboards, alerts and rigs rely on: each metric, its type,
// and every value of each label.
var promised = []struct {
	name, kind string
	labels     []string // name=value value ..
}{
	{"request_latency_seconds", "histogram", []string{"route=" + routes, "method=" + methods}},
	{"http_requests_total", "counter", []string{"route=" + routes, "method=" + methods, "status=error ok throttled"}},
	{"inflight_requests", "gauge", []string{"route=" + routes}},
	{"rejected_total", "counter", []string{"reason=bad_request body_cap decompress_cap internal over_capacity timeout unauth upstream_unready"}},
	{"index_resolve_latency_seconds", "histogram", []string{"type=cid facet name"}},
	{"index_cache_hits_total", "counter", nil},
	{"index_cache_misses_total", "counter", nil},
	{"index_cache_size", "gauge", nil},
	{"index_dht_lookup_ms", "histogram", nil},
	{"index_dht_hops", "histogram", nil},
	{"dht_errors_total", "counter", []string{"kind=internal invalid timeout unreachable"}},
	{"dht_hedged_requests_total", "counter", []string{"result=lose tie win"}},
	{"index_integrity_fail_total", "counter", []string{"stage=db dht write"}},
	{"index_provider_set_changes_total", "counter", nil},
	{"index_negative_served_after_write_total", "counter", nil},
	{"stage_queue_depth", "gauge", []string{"stage=" + stages}},
	{"stage_queue_capacity", "gauge", []string{"stage=" + stages}},
	{"stage_queue_wait_seconds", "histogram", []string{"stage=" + stages}},
	{"stage_workers", "gauge", []string{"stage=" + stages, "state=busy total"}},
	{"stage_rejected_total", "counter", []string{"stage=" + stages, "reason=full inflight wait"}},
	{"stage_expired_total", "counter", []string{"stage=" + stages}},
	{"stage_batch_size", "gauge", []string{"stage=" + stages}},
	{"breaker_state", "gauge", []string{"stage=" + stages}},
	{"amnesia_mode", "gauge", []string{"status=disabled enabled"}},
	{"pq_enabled", "gauge", nil},
	{"quota_exhaustions_total", "counter", []string{"dimension=providers resolves rps_per_ip rps"}},
	{"bus_lagged_total", "counter", nil},
	{"config_reloads_total", "counter", []string{"result=failed ok"}},

	{"go_goroutines", "gauge", nil},
	{"go_memstats_alloc_bytes", "gauge", nil},
	{"go_memstats_sys_bytes", "gauge", nil},
	{"go_gc_cycles_total", "counter", nil},
	{"process_open_fds", "gauge", nil},
	{"process_max_fds", "gauge", nil},
	{"process_resident_memory_bytes", "gauge", nil},
	{"process_cpu_seconds_total", "counter", nil},
	{"process_start_time_seconds", "gauge", nil},
}

func scrape(t *testing.T, s *Server) map[string]*parsed {
	t.Helper()
	out, err := parse(string(s.exposition()))
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func TestEveryPromisedMetricIsThereFromTheStart(t *testing.T) {
	got := scrape(t, New(Sources{}, nil))
	for _, want := range promised {
		f := got[want.name]
		if f == nil {
			t.Errorf("%s is missing", want.name)
			continue
		}
		if f.kind != want.kind {
			t.Errorf("%s is a %s, want a %s", want.name, f.kind, want.kind)
		}
		checkLabels(t, want.name, f, want.labels)
	}
}

// checkLabels wants exactly these label names on every series, exactly these
// values, and every combination of them.
func checkLabels(t *testing.T, name string, f *parsed, labels []string) {
	t.Helper()
	names, combinations := []string{}, 1
	for _, l := range labels {
		label, values, _ := strings.Cut(l, "=")
		names, combinations = append(names, label), combinations*len(strings.Fields(values))
		got := map[string]bool{}
		for _, s := range f.series {
			got[s.labels[label]] = true
		}
		for _, v := range strings.Fields(values) {
			if !got[v] {
				t.Errorf("%s lacks %s=%q", name, label, v)
			}
			delete(got, v)
		}
		for v := range got {
			t.Errorf("%s has an unknown %s=%q", name, label, v)
		}
	}
	whole := 0
	for _, s := range f.series {
		without := slices.DeleteFunc(slices.Clone(s.names), func(n string) bool { return n == "le" })
		if !slices.Equal(without, names) {
			t.Errorf("%s has labels %v, want %v", s.name, s.names, names)
		}
		if !strings.HasSuffix(s.name, "_bucket") && !strings.HasSuffix(s.name, "_sum") {
			whole++
		}
	}
	if whole != combinations {
		t.Errorf("%s has %d series, want all %d combinations of its labels", name, whole, combinations)
	}
}

// Parts that are not built must not look as if something happened there.
func TestWhatIsNotBuiltIsZero(t *testing.T) {
	got := scrape(t, New(Sources{}, nil))
	for name, f := range got {
		if strings.HasPrefix(name, "go_") || strings.HasPrefix(name, "process_") {
			continue
		}
		for _, s := range f.series {
			if s.labels["status"] == "disabled" { // amnesia: then that is the mode in force
				continue
			}
			if s.value != 0 {
				t.Errorf("%s%v = %v with nothing behind it", s.name, s.labels, s.value)
			}
		}
	}
}

func TestHistogramsAddUp(t *testing.T) {
	net := new(index.NetCounts)
	h := &net.Latency[index.RouteResolve][index.MethodGet]
	h.Observe(50 * time.Microsecond)
	h.Observe(100 * time.Microsecond) // a bound belongs to its bucket
	h.Observe(3 * time.Millisecond)
	h.Observe(time.Minute)
	got := scrape(t, New(Sources{Net: net}, nil))
	f := got["request_latency_seconds"]
	labels := []string{"route", "resolve", "method", "GET"}
	for le, want := range map[string]float64{"0.0001": 2, "0.0025": 2, "0.005": 3, "5": 3, "+Inf": 4} {
		if v := f.values("request_latency_seconds_bucket", append(labels, "le", le)...); len(v) != 1 || v[0] != want {
			t.Errorf("le=%s: %v, want [%v]", le, v, want)
		}
	}
	if v := f.values("request_latency_seconds_sum", labels...); len(v) != 1 || v[0] != 60.00315 {
		t.Errorf("sum is %v, want 60.00315 seconds", v)
	}
	for name, f := range got {
		if f.kind == "histogram" {
			checkBuckets(t, name, f)
		}
	}
}

// checkBuckets wants, for each set of labels, bounds that rise to +Inf, counts
// that never fall, and a _count that is the last of them.
func checkBuckets(t *testing.T, name string, f *parsed) {
	t.Helper()
	bound, count := -1.0, 0.0
	for _, s := range f.series {
		switch s.name {
		case name + "_bucket":
			le, err := strconv.ParseFloat(s.labels["le"], 64) // reads +Inf too
			if err != nil || le <= bound || s.value < count {
				t.Errorf("%s%v = %v after le=%v with %v: %v", s.name, s.labels, s.value, bound, count, err)
			}
			bound, count = le, s.value
		case name + "_count":
			if s.value != count || bound < 1e300 {
				t.Errorf("%s%v = %v, want the +Inf bucket's %v", s.name, s.labels, s.value, count)
			}
			bound, count = -1, 0
		}
	}
}

func TestCountersMove(t *testing.T) {
	counts := new(index.RoomCounts)
	src := Sources{
		Rooms: func() []index.RoomStats {
			return []index.RoomStats{{
				Name: "db", Depth: 3, Capacity: 256, OldestWait: 20 * time.Millisecond, Busy: 2, Workers: 8,
				Batch: 8, LastBatch: 5, Slice: 180 * time.Millisecond, Breaker: 2, Counts: counts,
			}, {Name: "attic", Depth: 9}} // not a name we know: not a label
		},
		Net: new(index.NetCounts), Cache: new(index.CacheCounts), Lookups: new(index.LookupCounts), Integrity: new(index.IntegrityCounts),
		CacheSize: func() int64 { return 42 },
		Bus:       func() uint64 { return 7 },
		Ready:     NewReadiness(nil),
	}
	s := New(src, nil)
	before := scrape(t, s)
	src.Net.Requests[index.RouteNames][index.MethodPut][index.OutcomeThrottled].Add(2)
	src.Net.Inflight[index.RouteAdmin].Add(3)
	src.Net.Rejected[index.RejectBodyCap].Add(4)
	src.Net.Conns.Add(5)
	src.Net.BufferedBytes.Add(1 << 20)
	src.Cache.Hits.Add(6)
	src.Lookups.NegativeAfterWrite.Add(1)
	src.Lookups.ResolveName.Observe(time.Millisecond)
	src.Integrity.DB.Add(8)
	counts.Found.Add(9)
	counts.RejectedFull.Add(10)
	counts.RejectedInflight.Add(11)
	counts.Expired.Add(12)
	counts.Wait.ObserveN(time.Millisecond, 13)
	src.Ready.Set(DBOpen, nil)
	after := scrape(t, s)
	for _, tt := range []struct {
		series string // name label value ..
		want   float64
	}{
		{"http_requests_total route names method PUT status throttled", 2},
		{"inflight_requests route admin", 3},
		{"rejected_total reason body_cap", 4},
		{"http_connections_open", 5},
		{"http_buffered_bytes", 1 << 20},
		{"index_cache_hits_total", 6},
		{"index_cache_size", 42},
		{"index_negative_served_after_write_total", 1},
		{"index_integrity_fail_total stage db", 8},
		{"bus_lagged_total", 7},
		{"stage_attempts_total stage db result found", 9},
		{"stage_rejected_total stage db reason full", 10},
		{"stage_rejected_total stage db reason inflight", 11},
		{"stage_expired_total stage db", 12},
		{"stage_expired_total stage cache", 0},
		{"stage_queue_depth stage db", 3},
		{"stage_queue_capacity stage db", 256},
		{"stage_oldest_wait_seconds stage db", 0.02},
		{"stage_workers stage db state busy", 2},
		{"stage_workers stage db state total", 8},
		{"stage_batch_size stage db", 5},
		{"stage_slice_seconds stage db", 0.18},
		{"breaker_state stage db", 2},
		{"breaker_state stage dht", 0},
		{"readiness_key_held key db_open", 1},
		{"readiness_key_held key config_loaded", 0},
		{"ready", 0},
	} {
		f := strings.Fields(tt.series)
		if v := after[f[0]].values(f[0], f[1:]...); len(v) != 1 || v[0] != tt.want {
			t.Errorf("%s = %v, want [%v]", tt.series, v, tt.want)
		}
	}
	for _, h := range []struct{ name, label, value string }{
		{"stage_queue_wait_seconds", "stage", "db"}, {"index_resolve_latency_seconds", "type", "name"},
	} {
		if v := after[h.name].values(h.name+"_count", h.label, h.value); len(v) != 1 || v[0] == 0 {
			t.Errorf("%s did not move: %v", h.name, v)
		}
	}
	if b, a := size(before), size(after); b != a {
		t.Errorf("the set of series went from %d to %d; it is fixed at start", b, a)
	}
}

func size(fs map[string]*parsed) (n int) {
	for _, f := range fs {
		n += len(f.series)
	}
	return n
}

// What the process says of itself is held to what the system says.
func TestProcessFiguresAreTrue(t *testing.T) {
	s := New(Sources{}, nil)
	value := func(name string) float64 { return scrape(t, s)[name].values(name)[0] }
	before := value("process_open_fds")
	f, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if after := value("process_open_fds"); after != before+1 {
		t.Errorf("open descriptors went from %v to %v with one file opened", before, after)
	}
	now := float64(time.Now().Unix())
	if start := value("process_start_time_seconds"); start > now+1 || start < now-3600 {
		t.Errorf("started at %v, now is %v", start, now)
	}
	for name, least := range map[string]float64{
		"process_resident_memory_bytes": 1 << 20, "process_max_fds": 16, "go_goroutines": 1, "go_threads": 1,
		"go_memstats_alloc_bytes": 1 << 10, "go_memstats_sys_bytes": 1 << 20, "go_sched_gomaxprocs_threads": 1,
	} {
		if v := value(name); v < least {
			t.Errorf("%s = %v, want at least %v", name, v, least)
		}
	}
	end := time.Now().Add(50 * time.Millisecond)
	for time.Now().Before(end) { // burn some time, so that some is counted
		_ = fmt.Sprint(end)
	}
	if v := value("process_cpu_seconds_total"); v <= 0 {
		t.Errorf("process_cpu_seconds_total = %v", v)
	}
}

// A scrape in the middle of the traffic adds up like any other.
func TestScrapesUnderLoadAddUp(t *testing.T) {
	net := new(index.NetCounts)
	s := New(Sources{Net: net}, nil)
	stop := make(chan struct{})
	var wg sync.WaitGroup
	defer wg.Wait()
	defer close(stop)
	for range 2 {
		wg.Go(func() {
			for i := 0; ; i++ {
				select {
				case <-stop:
					return
				default:
					net.Latency[index.RouteResolve][index.MethodGet].Observe(time.Duration(i%6000) * time.Millisecond)
				}
			}
		})
	}
	for range 5 {
		checkBuckets(t, "request_latency_seconds", scrape(t, s)["request_latency_seconds"])
	}
}

func BenchmarkScrape(b *testing.B) {
	s := New(Sources{}, nil)
	b.ReportAllocs()
	for b.Loop() {
		b.SetBytes(int64(len(s.exposition())))
	}
}
