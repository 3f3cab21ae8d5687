package telemetry

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"svcindex/index"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func Example() {
	net := new(index.NetCounts)
	net.Conns.Add(3)
	s := New(Sources{Net: net}, nil)
	for line := range strings.Lines(string(s.exposition())) {
		if strings.Contains(line, "http_connections_open") {
			fmt.Print(line)
		}
	}
	// Output:
	// # HELP http_connections_open Connections open now.
	// # TYPE http_connections_open gauge
	// http_connections_open 3
}

// start listens on a free port and ends with the test.
func start(t *testing.T, src Sources) *Server {
	t.Helper()
	s := New(src, nil)
	if err := s.Listen("127.0.0.1:0"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		if err := s.Close(ctx); err != nil {
			t.Error(err)
		}
	})
	return s
}

// ask makes a request on a connection of its own.
func ask(t *testing.T, method string, s *Server, path string) (*http.Response, string) {
	t.Helper()
	req, err := http.NewRequest(method, "http://"+s.Addr()+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Close = true
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp, string(body)
}

func TestEveryPage(t *testing.T) {
	s := start(t, Sources{
		Version:   map[string]string{"version": "v0", "node_id": "12D3"},
		Config:    func(w io.Writer) error { _, err := io.WriteString(w, "listen = 'x'"); return err },
		Recording: func(io.Writer) error { return errors.New("set watch.flight") },
		Watch:     func() any { return "awake" },
	})
	for _, tt := range []struct {
		why, method, path string
		status            int
		mediaType, part   string
	}{
		{"links for people", "GET", "/", 200, "text/plain; charset=utf-8", "/metrics"},
		{"links for people without a browser", "HEAD", "/", 200, "text/plain; charset=utf-8", ""},
		{"figures for machines", "GET", "/metrics", 200, textType, "# TYPE breaker_state gauge"},
		{"it turns", "GET", "/healthz", 200, "application/json", `{"ok":true}`},
		{"it is not ready", "GET", "/readyz", 503, "application/json", `"ready":false`},
		{"what it is", "GET", "/version", 200, "application/json", `"node_id":"12D3"`},
		{"stages", "GET", "/debug/stages", 200, "application/json", `{"stages":[],"watch":"awake"}`},
		{"what it runs with", "GET", "/debug/config", 200, "application/toml", "listen"},
		{"no recording is a conflict, with the knob", "GET", "/debug/flight", 409, "text/plain; charset=utf-8", "watch.flight"},
		{"too long a recording", "GET", "/debug/pprof/contention?seconds=9999", 400, "text/plain; charset=utf-8", "1..300"},
		{"profiles", "GET", "/debug/pprof/", 200, "text/plain; charset=utf-8", "/debug/pprof/heap"},
		{"a profile to read", "GET", "/debug/pprof/goroutine?debug=1", 200, "text/plain; charset=utf-8", "goroutine profile"},
		{"a profile for the tool", "GET", "/debug/pprof/heap?gc=1", 200, "application/octet-stream", ""},
		{"the command", "GET", "/debug/pprof/cmdline", 200, "text/plain; charset=utf-8", "test"},
		{"no such profile", "GET", "/debug/pprof/nothing", 404, "text/plain; charset=utf-8", "/debug/pprof/"},
		{"too long a profile", "GET", "/debug/pprof/profile?seconds=9999", 400, "text/plain; charset=utf-8", "1..300"},
		{"a length where there is none", "GET", "/debug/pprof/heap?seconds=1", 400, "text/plain; charset=utf-8", "-base"},
		{"no such page", "GET", "/metricsx", 404, "text/plain; charset=utf-8", ""},
		{"nothing is written here", "POST", "/metrics", 405, "text/plain; charset=utf-8", ""},
		{"HEAD is GET without body", "HEAD", "/metrics", 200, textType, ""},
	} {
		resp, body := ask(t, tt.method, s, tt.path)
		if resp.StatusCode != tt.status || resp.Header.Get("Content-Type") != tt.mediaType || !strings.Contains(body, tt.part) {
			t.Errorf("%s: %s %s: %d %q %.200s", tt.why, tt.method, tt.path, resp.StatusCode, resp.Header.Get("Content-Type"), body)
		}
		if resp.Header.Get("Cache-Control") != "no-store" {
			t.Errorf("%s: may be kept: %v", tt.why, resp.Header)
		}
	}
}

func TestOthersPagesAreRefused(t *testing.T) {
	s := start(t, Sources{})
	for _, tt := range []struct {
		why, host, site string
		status          int
	}{
		{"an operator's curl", s.Addr(), "", 200},
		{"an operator's browser", "localhost:9108", "same-origin", 200},
		{"an address that was typed", "[::1]:9108", "none", 200},
		{"no port", "127.0.0.1", "", 200},
		{"a name that was made to mean this machine", "evil.example:9108", "same-origin", 403},
		{"a page of another site", s.Addr(), "cross-site", 403},
		{"a page of another port", s.Addr(), "same-site", 403},
	} {
		req := httptest.NewRequest("GET", "/healthz", nil)
		req.Host = tt.host
		if tt.site != "" {
			req.Header.Set("Sec-Fetch-Site", tt.site)
		}
		rec := httptest.NewRecorder()
		s.http.Handler.ServeHTTP(rec, req)
		if rec.Code != tt.status {
			t.Errorf("%s: %d, want %d", tt.why, rec.Code, tt.status)
		}
	}
}

func TestReadyzFollowsReadiness(t *testing.T) {
	ready := NewReadiness(nil)
	s := start(t, Sources{Ready: ready})
	hold(ready, ConfigLoaded, DBOpen, DHTClientReady, BusAttached, ListenersBound) // metrics_live is the server's own
	resp, body := ask(t, "GET", s, "/readyz")
	if resp.StatusCode != 200 || !strings.HasPrefix(body, `{"ready":true,"keys":[`) || resp.Header.Get("Retry-After") != "" {
		t.Errorf("ready: %d %s", resp.StatusCode, body)
	}
	ready.Drain()
	resp, body = ask(t, "GET", s, "/readyz")
	if resp.StatusCode != 503 || resp.Header.Get("Retry-After") != "10" {
		t.Errorf("draining: %d %v %s", resp.StatusCode, resp.Header, body)
	}
	if err := s.Close(context.Background()); err != nil {
		t.Fatal(err)
	}
	if ready.Snapshot().holds(MetricsLive) {
		t.Error("metrics_live after Close")
	}
}

func TestProfilesAreReachableHereAndNowhereElse(t *testing.T) {
	s := start(t, Sources{})
	_, body := ask(t, "GET", s, "/debug/pprof/profile?seconds=1")
	if !bytes.HasPrefix([]byte(body), []byte{0x1f, 0x8b}) {
		t.Errorf("the processor profile is not gzip: %.40q", body)
	}
	_, body = ask(t, "GET", s, "/debug/pprof/trace?seconds=1")
	if !strings.HasPrefix(body, "go 1.") {
		t.Errorf("the trace is none: %.40q", body)
	}
	for _, path := range []string{"/", "/debug/pprof/", "/debug/pprof/heap", "/debug/vars", "/metrics"} {
		req, err := http.NewRequest("GET", "http://x"+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		if _, pattern := http.DefaultServeMux.Handler(req); pattern != "" {
			t.Errorf("http.DefaultServeMux serves %s as %q", path, pattern)
		}
	}
}

func TestCloseEndsAProfileUnderWay(t *testing.T) {
	s := start(t, Sources{})
	conn, err := net.Dial("tcp", s.Addr())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	fmt.Fprint(conn, "GET /debug/pprof/trace?seconds=60 HTTP/1.1\r\nHost: x\r\n\r\n")
	if _, err := conn.Read(make([]byte, 1)); err != nil { // it has begun
		t.Fatal(err)
	}
	began := time.Now()
	if err := s.Close(context.Background()); err != nil {
		t.Fatal(err)
	}
	if took := time.Since(began); took > 10*time.Second {
		t.Errorf("Close took %v", took)
	}
}

func TestListenRefuses(t *testing.T) {
	taken := start(t, Sources{})
	for _, tt := range []struct{ why, addr, want string }{
		{"the world", "0.0.0.0:0", "loopback"},
		{"an empty host is the world", ":0", "loopback"},
		{"a name may be anywhere", "example.org:0", "loopback"},
		{"no port", "127.0.0.1", "host:port"},
		{"a port in use", taken.Addr(), "another server"},
	} {
		s := New(Sources{}, nil)
		err := s.Listen(tt.addr)
		if err == nil || !strings.Contains(err.Error(), tt.want) || !strings.Contains(err.Error(), "admin = ") {
			t.Errorf("%s: Listen(%q): %v", tt.why, tt.addr, err)
		}
		if s.Addr() != "" || s.Close(context.Background()) != nil {
			t.Errorf("%s: it listens", tt.why)
		}
	}
	if err := taken.Listen("127.0.0.1:0"); err == nil {
		t.Error("it listens twice")
	}
	open := New(Sources{AnyAddress: true}, nil)
	if err := open.Listen("0.0.0.0:0"); err != nil {
		t.Errorf("told to take any address: %v", err)
	}
	if err := open.Close(context.Background()); err != nil {
		t.Error(err)
	}
}

// The 33rd connection is closed at once, and its slot is free again when
// another leaves.
func TestConnectionsAreCapped(t *testing.T) {
	s := start(t, Sources{})
	var conns []net.Conn
	dial := func() net.Conn {
		c, err := net.Dial("tcp", s.Addr())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		if err := c.SetDeadline(time.Now().Add(5 * time.Second)); err != nil {
			t.Fatal(err)
		}
		return c
	}
	answers := func(c net.Conn) bool {
		fmt.Fprint(c, "GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
		_, err := c.Read(make([]byte, 1024))
		return err == nil
	}
	for range connsMax {
		c := dial()
		conns = append(conns, c)
		if !answers(c) {
			t.Fatal("a connection within the cap is refused")
		}
	}
	if answers(dial()) {
		t.Error("a connection over the cap is served")
	}
	conns[0].Close()
	for end := time.Now().Add(5 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		if answers(dial()) {
			return
		}
		if time.Now().After(end) {
			t.Fatal("a slot is not given back")
		}
	}
}

func TestRatesLookBackTenSeconds(t *testing.T) {
	counts := new(index.RoomCounts)
	rooms := []index.RoomStats{{Name: "db", Counts: counts}}
	var r rates
	now := time.Unix(0, 0)
	if got := r.dressAt(now, rooms)[0]; got.Rates != (tally{}) || got.Window != 0 {
		t.Errorf("before the first note: %+v", got)
	}
	counts.Found.Add(1000) // before the window: must not count
	for range 60 {         // 20 found and 5 refused a second
		r.note(now, rooms)
		now = now.Add(time.Second)
		counts.Found.Add(20)
		counts.RejectedFull.Add(3)
		counts.RejectedWait.Add(2)
	}
	got := r.dressAt(now, rooms)[0]
	if want := (tally{Found: 20, Rejected: 5}); got.Rates != want || got.Window != ratesKept {
		t.Errorf("rates %+v over %v s, want %+v over %d", got.Rates, got.Window, want, ratesKept)
	}
}

func TestRatesAreNotedEachSecond(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := New(Sources{}, nil)
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		wg.Go(func() { s.observe(ctx) })
		time.Sleep(4*time.Second + time.Millisecond)
		s.rates.mu.Lock()
		n := len(s.rates.past)
		s.rates.mu.Unlock()
		if n != 5 {
			t.Errorf("%d notes in 4 seconds, want one at once and one each second", n)
		}
		cancel()
		wg.Wait()
	})
}

func TestStagesPage(t *testing.T) {
	src := Sources{
		Rooms: func() []index.RoomStats {
			return []index.RoomStats{{
				Name: "db", Depth: 1, Capacity: 256, OldestWait: 5 * time.Millisecond, Busy: 2, Workers: 8, Batch: 8,
				LastBatch: 3, Slice: 180 * time.Millisecond, Breaker: 1,
			}}
		},
		Stages: func() any { return map[string]int{"joined": 4} },
	}
	_, body := ask(t, "GET", start(t, src), "/debug/stages")
	var got struct {
		Stages []map[string]any
		Extra  map[string]any
	}
	if err := json.Unmarshal([]byte(body), &got); err != nil {
		t.Fatalf("%v: %s", err, body)
	}
	delete(got.Stages[0], "rates_per_s")
	delete(got.Stages[0], "rates_window_s")
	want := map[string]any{
		"name": "db", "depth": 1.0, "capacity": 256.0, "oldest_wait_s": 0.005, "busy": 2.0, "workers": 8.0,
		"batch": 8.0, "last_batch": 3.0, "slice_s": 0.18, "breaker": "half-open",
	}
	if diff := cmp.Diff(want, got.Stages[0]); diff != "" || got.Extra["joined"] != 4.0 {
		t.Errorf("extra %v, -want +got:\n%s", got.Extra, diff)
	}
}

func TestContentionIsRecordedForOneAtATimeAndThenNoMore(t *testing.T) {
	s := start(t, Sources{})
	first := make(chan string, 1)
	go func() {
		_, body := ask(t, "GET", s, "/debug/pprof/contention?seconds=2")
		first <- body
	}()
	for runtime.SetMutexProfileFraction(-1) != mutexFraction {
		time.Sleep(time.Millisecond)
	}
	if resp, body := ask(t, "GET", s, "/debug/pprof/contention?seconds=1"); resp.StatusCode != 409 {
		t.Errorf("the second: %d %s", resp.StatusCode, body)
	}
	<-first
	for runtime.SetMutexProfileFraction(-1) != 0 { // the answer may be here before the handler has returned
		time.Sleep(time.Millisecond)
	}
}
