package index

import (
	"slices"
	"sync"
	"testing"
	"time"
)

// upTo returns what a scraper would see for the bucket with upper bound i.
func upTo(h *Hist, i int) (n uint64) {
	for k := range i + 1 {
		n += h.Counts[k].Load()
	}
	return n
}

func TestABucketHoldsItsUpperBound(t *testing.T) {
	for i, s := range LatencyBounds {
		bound := time.Duration(s * 1e9)
		var h Hist
		h.Observe(bound)
		if upTo(&h, i) != 1 || i > 0 && upTo(&h, i-1) != 0 {
			t.Errorf("%v is not counted as at most %v, and as more than the bound before", bound, s)
		}
		h.Observe(bound + 1)
		if upTo(&h, i) != 1 || upTo(&h, len(LatencyBounds)) != 2 {
			t.Errorf("%v is counted as at most %v", bound+1, s)
		}
	}
}

func TestObserve(t *testing.T) {
	for _, tt := range []struct {
		why    string
		d      time.Duration
		bucket int
		nanos  uint64
	}{
		{"no time at all", 0, 0, 0},
		{"a clock that stepped back", -time.Second, 0, 0},
		{"a nanosecond", 1, 0, 1},
		{"over the last bound", 6 * time.Second, len(LatencyBounds), 6e9},
		{"an hour", time.Hour, len(LatencyBounds), 3600e9},
	} {
		var h Hist
		h.Observe(tt.d)
		if h.Counts[tt.bucket].Load() != 1 || h.Nanos.Load() != tt.nanos {
			t.Errorf("%s: not in bucket %d with a sum of %d ns", tt.why, tt.bucket, tt.nanos)
		}
	}
}

func TestObserveNCountsThingsThatWaitedTogether(t *testing.T) {
	var h Hist
	h.ObserveN(time.Millisecond, 7)
	if n, sum := upTo(&h, len(LatencyBounds)), h.Nanos.Load(); n != 7 || sum != 7e6 {
		t.Errorf("counted %d, %d ns; want 7, 7 ms", n, sum)
	}
}

func TestTheBoundsAscendAndSpanWhatIsPromised(t *testing.T) {
	if !slices.IsSorted(LatencyBounds[:]) || LatencyBounds[0] != .0001 || LatencyBounds[len(LatencyBounds)-1] != 5 {
		t.Errorf("bounds are %v, want 0.0001 .. 5 in order", LatencyBounds)
	}
}

func TestObserversDoNotLoseCounts(t *testing.T) {
	var h Hist
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			for range 1000 {
				h.Observe(time.Millisecond)
			}
		})
	}
	all.Wait()
	if n := upTo(&h, len(LatencyBounds)); n != 8000 || h.Nanos.Load() != 8000e6 {
		t.Errorf("%d of 8000 observations are left", n)
	}
}

func TestObserveDoesNotAllocate(t *testing.T) {
	var h Hist
	if n := testing.AllocsPerRun(100, func() { h.Observe(3 * time.Millisecond) }); n != 0 {
		t.Errorf("Observe allocates %v times, want 0", n)
	}
}

// Dashboards and alerts are written against these words.
func TestLabelsAreThoseOfTheSpecification(t *testing.T) {
	var got []string
	for r := range Routes {
		got = append(got, r.String())
	}
	slices.Sort(got)
	if want := []string{"admin", "graph", "health", "manifests", "names", "other", "providers", "resolve", "search", "version"}; !slices.Equal(got, want) {
		t.Errorf("routes are %q, want %q", got, want)
	}
	got = nil
	for r := range Rejects {
		got = append(got, r.String())
	}
	if want := []string{"unauth", "over_capacity", "timeout", "body_cap", "decompress_cap", "bad_request", "upstream_unready", "internal"}; !slices.Equal(got, want) {
		t.Errorf("reasons of rejected_total are %q, want %q", got, want)
	}
	got = nil
	for m := range Methods {
		got = append(got, m.String())
	}
	if want := []string{"other", "GET", "HEAD", "PUT", "POST", "DELETE", "OPTIONS"}; !slices.Equal(got, want) {
		t.Errorf("methods are %q, want %q", got, want)
	}
	got = nil
	for s := FromNowhere; s <= FromDHT; s++ {
		got = append(got, s.String())
	}
	if want := []string{"", "cache", "db", "dht"}; !slices.Equal(got, want) {
		t.Errorf("sources are %q, want %q", got, want)
	}
}

func TestOutcomeOf(t *testing.T) {
	for _, tt := range []struct {
		why    string
		status int
		want   string
	}{
		{"answered", 200, "ok"},
		{"not modified", 304, "ok"},
		{"absent is an answer", 404, "ok"},
		{"the client's fault is not ours", 400, "ok"},
		{"nor his slowness", 408, "ok"},
		{"nor his lack of a capability", 401, "ok"},
		{"refused", 429, "throttled"},
		{"not ready", 503, "throttled"},
		{"broken", 500, "error"},
		{"not built", 501, "error"},
		{"late", 504, "error"},
		{"a full disk", 507, "error"},
	} {
		if got := OutcomeOf(tt.status).String(); got != tt.want {
			t.Errorf("%s: %d counts as %s, want %s", tt.why, tt.status, got, tt.want)
		}
	}
}

func BenchmarkObserve(b *testing.B) {
	b.ReportAllocs()
	var h Hist
	for b.Loop() {
		h.Observe(3 * time.Millisecond)
	}
}
