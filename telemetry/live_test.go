package telemetry

import (
	"bufio"
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"svcindex/index"
)

func TestASecondIsWhatHappenedInIt(t *testing.T) {
	src := Sources{Net: new(index.NetCounts), Cache: new(index.CacheCounts)}.orZero()
	room := index.RoomStats{Name: "db", Counts: new(index.RoomCounts)}
	rooms := []index.RoomStats{room}
	b := newBook()
	enter(b, src, newView())
	l := newLive(src, b)

	happen := func() {
		src.Net.Requests[index.RouteResolve][index.MethodGet][index.OutcomeOK].Add(3)
		src.Net.Requests[index.RouteResolve][index.MethodGet][index.OutcomeThrottled].Add(1)
		src.Net.Latency[index.RouteResolve][index.MethodGet].ObserveN(200*time.Microsecond, 3)
		src.Net.Latency[index.RouteNames][index.MethodPut].Observe(time.Second) // a write: not a look-up's latency
		src.Cache.Hits.Add(5)
		room.Counts.Found.Add(2)
		room.Counts.RejectedFull.Add(1)
		room.Counts.Wait.Observe(30 * time.Millisecond)
	}
	now := time.Unix(100, 0)
	happen() // before the first tick: belongs to no second
	l.tick(now, rooms)
	happen()
	rooms[0].Depth, rooms[0].Busy = 7, 2
	l.tick(now.Add(time.Second), rooms)

	if len(l.past) != 1 {
		t.Fatalf("%d seconds after two ticks, want 1", len(l.past))
	}
	got := l.past[0]
	bucket := func(i, n int) []uint64 {
		b := make([]uint64, len(index.LatencyBounds)+1)
		b[i] = uint64(n)
		return b
	}
	want := second{
		At: 101_000, Took: 1, Requests: []uint64{3, 1, 0}, Latency: bucket(1, 3), Hits: 5,
		Stages: []stageSecond{{Name: "db", Depth: 7, Busy: 2, Done: tally{Found: 2, Rejected: 1}, Wait: bucket(8, 1)}},
	}
	got.DHT = dhtSecond{}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

func TestTheLastFiveMinutesAreKept(t *testing.T) {
	s := New(Sources{}, nil)
	for i := range historyKept + 50 {
		s.live.tick(time.Unix(int64(i), 0), nil)
	}
	past := s.live.past
	if len(past) != historyKept || past[historyKept-1].At != (historyKept+49)*1000 {
		t.Errorf("%d seconds, the last %d", len(past), past[len(past)-1].At)
	}
}

// follow reads the events of a stream.
func follow(t *testing.T, s *Server) (next func() (name, data string)) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	t.Cleanup(cancel)
	req, _ := http.NewRequestWithContext(ctx, "GET", "http://"+s.Addr()+"/debug/live", nil)
	resp, err := new(http.Transport).RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { resp.Body.Close() })
	if resp.StatusCode != 200 || resp.Header.Get("Content-Type") != "text/event-stream" {
		t.Fatalf("%d %v", resp.StatusCode, resp.Header)
	}
	in := bufio.NewReader(resp.Body)
	line := func(field string) string {
		text, err := in.ReadString('\n')
		value, found := strings.CutPrefix(strings.TrimSuffix(text, "\n"), field)
		if err != nil || !found {
			t.Fatalf("want %q…, got %.80q, %v", field, text, err)
		}
		return value
	}
	return func() (name, data string) {
		name, data = line("event: "), line("data: ")
		line("")
		return name, data
	}
}

func TestAWatcherIsToldEachSecond(t *testing.T) {
	net := new(index.NetCounts)
	ready := NewReadiness(nil)
	s := start(t, Sources{
		Net: net, Ready: ready, Version: map[string]string{"node_id": "12D3"},
		Rooms:  func() []index.RoomStats { return []index.RoomStats{{Name: "cache", Workers: 2}} },
		Stages: func() any { return map[string]int{"connections": 4} },
	})
	next := follow(t, s)
	name, data := next()
	var h hello
	if err := json.Unmarshal([]byte(data), &h); name != "hello" || err != nil || len(h.Bounds) == 0 || len(h.HopBounds) == 0 || h.Kept != historyKept {
		t.Fatalf("%s %.200s: %v", name, data, err)
	}
	seen := uint64(0)
	for range 3 {
		net.Requests[index.RouteResolve][index.MethodGet][index.OutcomeOK].Add(10)
		name, data = next()
		var m liveMoment
		if err := json.Unmarshal([]byte(data), &m); name != "moment" || err != nil {
			t.Fatalf("%s %.200s: %v", name, data, err)
		}
		seen += m.Second.Requests[index.OutcomeOK]
		if len(m.Stages) != 1 || m.Stages[0].Workers != 2 || m.Ready.Ready || len(m.Ready.Missing) == 0 || m.Process.Resident == 0 {
			t.Errorf("%.400s", data)
		}
	}
	if seen == 0 || seen > 30 {
		t.Errorf("the seconds add up to %d of 30 requests", seen)
	}
}

func TestMoreWatchersThanMayBeAreRefused(t *testing.T) {
	s := start(t, Sources{})
	for range watchersMax {
		follow(t, s)() // hello
	}
	resp, body := ask(t, "GET", s, "/debug/live")
	if resp.StatusCode != 503 || !strings.Contains(body, "close one") {
		t.Errorf("%d %s", resp.StatusCode, body)
	}
}

func TestABrowserGetsThePageWhole(t *testing.T) {
	s := start(t, Sources{})
	req := httptest.NewRequest("GET", "http://"+s.Addr()+"/", nil)
	req.Header.Set("Accept", "text/html,application/xhtml+xml,*/*;q=0.8")
	rec := httptest.NewRecorder()
	s.http.Handler.ServeHTTP(rec, req)
	page := rec.Body.String()
	if rec.Header().Get("Content-Type") != "text/html; charset=utf-8" || rec.Header().Get("Content-Security-Policy") == "" {
		t.Errorf("%v", rec.Header())
	}
	for _, outside := range []string{"http://", "https://", "<link", "src=", "@import", "url("} {
		if strings.Contains(page, outside) {
			t.Errorf("the page names something outside of it: %s", outside)
		}
	}
}
