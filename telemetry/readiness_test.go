package telemetry

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

var errTest = errors.New("/secret/path is broken")

func hold(r *Readiness, keys ...Key) {
	for _, k := range keys {
		r.Set(k, nil)
	}
}

func holdAll(r *Readiness) {
	for k := range keyCount {
		r.Set(k, nil)
	}
}

func ExampleReadiness() {
	r := NewReadiness(nil)
	defer r.Close()
	hold(r, ConfigLoaded, DBOpen, BusAttached, ListenersBound, MetricsLive)
	_, body, retryAfter := r.Body()
	fmt.Println(string(body), retryAfter)
	r.Set(DHTClientReady, nil)
	_, body, _ = r.Body()
	fmt.Println(string(body))
	// Output:
	// {"ready":false,"missing":["dht_client_ready"],"degraded":true,"retry_after":5} 5
	// {"ready":true,"keys":["config_loaded","db_open","dht_client_ready","bus_attached","listeners_bound","metrics_live"]}
}

func TestReadinessTruthTable(t *testing.T) {
	fault := func(k Key, err error) func(*Readiness) { return func(r *Readiness) { r.Set(k, err) } }
	for _, tt := range []struct {
		why  string
		do   []func(*Readiness)
		body string
	}{
		{"all hold", nil,
			`{"ready":true,"keys":["config_loaded","db_open","dht_client_ready","bus_attached","listeners_bound","metrics_live"]}`},
		{"no configuration", []func(*Readiness){fault(ConfigLoaded, errTest)},
			`{"ready":false,"missing":["config_loaded"],"degraded":false,"retry_after":1}`},
		{"no store", []func(*Readiness){fault(DBOpen, errTest)},
			`{"ready":false,"missing":["db_open"],"degraded":false,"retry_after":1}`},
		{"a store that can only be read", []func(*Readiness){fault(DBOpen, fmt.Errorf("disk: %w", Degraded(errTest)))},
			`{"ready":false,"missing":["db_open"],"degraded":true,"retry_after":5}`},
		{"no network", []func(*Readiness){fault(DHTClientReady, errTest)},
			`{"ready":false,"missing":["dht_client_ready"],"degraded":true,"retry_after":5}`},
		{"neither network nor writes", []func(*Readiness){fault(DHTClientReady, errTest), fault(DBOpen, Degraded(errTest))},
			`{"ready":false,"missing":["db_open","dht_client_ready"],"degraded":true,"retry_after":5}`},
		{"no network and something worse", []func(*Readiness){fault(DHTClientReady, errTest), fault(BusAttached, errTest)},
			`{"ready":false,"missing":["dht_client_ready","bus_attached"],"degraded":false,"retry_after":1}`},
		{"no listener", []func(*Readiness){fault(ListenersBound, errTest)},
			`{"ready":false,"missing":["listeners_bound"],"degraded":false,"retry_after":1}`},
		{"no metrics", []func(*Readiness){fault(MetricsLive, errTest)},
			`{"ready":false,"missing":["metrics_live"],"degraded":false,"retry_after":1}`},
		{"draining", []func(*Readiness){(*Readiness).Drain},
			`{"ready":false,"missing":["listeners_bound"],"degraded":false,"retry_after":10}`},
		{"draining is for good", []func(*Readiness){(*Readiness).Drain, fault(ListenersBound, nil)},
			`{"ready":false,"missing":["listeners_bound"],"degraded":false,"retry_after":10}`},
		{"draining without a network serves no reads either", []func(*Readiness){fault(DHTClientReady, errTest), (*Readiness).Drain},
			`{"ready":false,"missing":["dht_client_ready","listeners_bound"],"degraded":false,"retry_after":10}`},
		{"a fault that passed", []func(*Readiness){fault(DBOpen, errTest), fault(DBOpen, nil)},
			`{"ready":true,"keys":["config_loaded","db_open","dht_client_ready","bus_attached","listeners_bound","metrics_live"]}`},
	} {
		r := NewReadiness(nil)
		holdAll(r)
		for _, do := range tt.do {
			do(r)
		}
		ready, body, _ := r.Body()
		if string(body) != tt.body || ready != r.Snapshot().Ready {
			t.Errorf("%s:\n got %s\nwant %s", tt.why, body, tt.body)
		}
	}
}

func TestNothingHoldsUntilItIsSaid(t *testing.T) {
	r := NewReadiness(nil)
	if s := r.Snapshot(); s.Ready || len(s.Missing) != int(keyCount) || len(s.Held) != 0 {
		t.Errorf("at the start: %+v", s)
	}
}

func TestAWatchedConditionIsFollowed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := NewReadiness(nil)
		defer r.Close()
		holdAll(r)
		var broken atomic.Bool
		r.Watch(DBOpen, func() error {
			if broken.Load() {
				return errTest
			}
			return nil
		})
		for _, b := range []bool{false, true, false} {
			broken.Store(b)
			time.Sleep(pollEvery + 1)
			synctest.Wait()
			if got := r.Snapshot().Ready; got == b {
				t.Errorf("broken is %v and ready is %v", b, got)
			}
		}
	})
}

// A frozen disk must show within a second, though its check never returns; and
// once the check returns, what it says counts again.
func TestAHangingCheckDoesNotHold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := NewReadiness(nil)
		holdAll(r)
		thaw := make(chan struct{})
		r.Watch(DBOpen, func() error { <-thaw; return nil })
		var other atomic.Int64
		r.Watch(BusAttached, func() error { other.Add(1); return nil })
		time.Sleep(hangAfter + time.Millisecond)
		synctest.Wait()
		if r.Snapshot().Ready {
			t.Errorf("ready %v into a check that hangs", hangAfter)
		}
		time.Sleep(time.Second)
		if n := other.Load(); n < 8 {
			t.Errorf("the other check ran %d times; it waited for the one that hangs", n)
		}
		close(thaw)
		synctest.Wait()
		if !r.Snapshot().Ready {
			t.Error("not ready after the check returned")
		}
		time.Sleep(time.Minute) // no late timer may speak for a check that returned
		synctest.Wait()
		if !r.Snapshot().Ready {
			t.Error("not ready a minute after")
		}
		r.Close()
		r.Watch(DBOpen, func() error { t.Error("asked after Close"); return nil })
		r.Close()
	})
}

func TestChangesAreLoggedWithReasonsAndShownWithout(t *testing.T) {
	var log bytes.Buffer
	r := NewReadiness(slog.New(slog.NewTextHandler(&log, nil)))
	holdAll(r)
	if !strings.Contains(log.String(), "msg=ready") {
		t.Errorf("becoming ready is not logged: %s", log.String())
	}
	log.Reset()
	r.Set(DBOpen, errTest)
	r.Set(DBOpen, errTest)
	if n := strings.Count(log.String(), "/secret/path"); n != 1 {
		t.Errorf("logged %d times, want the change once: %s", n, log.String())
	}
	if _, body, _ := r.Body(); bytes.Contains(body, []byte("secret")) {
		t.Errorf("the body says why: %s", body)
	}
	log.Reset()
	r.Drain()
	if !strings.Contains(log.String(), "draining=true") {
		t.Errorf("draining is not logged: %s", log.String())
	}
}

func TestBodyIsCheap(t *testing.T) {
	r := NewReadiness(nil)
	if n := testing.AllocsPerRun(100, func() { r.Body() }); n != 0 {
		t.Errorf("Body allocates %v times, want 0", n)
	}
}
