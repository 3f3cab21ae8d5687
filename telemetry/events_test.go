package telemetry

import (
	"context"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"svcindex/index"
)

// A listener is told what it asked for, what it missed, that all is quiet, and
// when it is over.
func TestStream(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		events := make(chan index.Event, 8)
		rec := httptest.NewRecorder()
		st := &stream{w: rec, c: http.NewResponseController(patientRecorder{rec}), kinds: []string{"pin"}}
		done := make(chan struct{})
		go func() {
			st.run(context.Background(), events, time.Now().Add(time.Minute), func() bool { return true })
			close(done)
		}()
		at := time.Unix(0, 0)
		events <- index.Event{N: 5, Kind: "pin", Key: "b3:x", At: at}
		events <- index.Event{N: 6, Kind: "name", Key: "name:x", At: at}
		events <- index.Event{N: 9, Kind: "pin", Key: "b3:y", At: at}
		synctest.Wait()
		time.Sleep(heartbeat + time.Second)
		synctest.Wait()
		time.Sleep(time.Minute)
		<-done
		want := ": listening\n\n" +
			"id: 5\nevent: pin\ndata: {\"key\":\"b3:x\",\"at\":\"1970-01-01T00:00:00Z\"}\n\n" +
			"event: lagged\ndata: {\"missed\":2}\n\n" +
			"id: 9\nevent: pin\ndata: {\"key\":\"b3:y\",\"at\":\"1970-01-01T00:00:00Z\"}\n\n" +
			": beat\n\n"
		if got := rec.Body.String(); !strings.HasPrefix(got, want) || !strings.HasSuffix(got, "has ended\"}\n\n") {
			t.Errorf("got %q", got)
		}
	})
}

// A capability that is revoked ends what it began.
func TestAStreamEndsWithItsCapability(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rec := httptest.NewRecorder()
		st := &stream{w: rec, c: http.NewResponseController(patientRecorder{rec})}
		began := time.Now()
		revoked := began.Add(heartbeat + time.Second)
		st.run(t.Context(), make(chan index.Event), began.Add(time.Hour), func() bool { return time.Now().Before(revoked) })
		if took := time.Since(began); took != 2*heartbeat || !strings.HasSuffix(rec.Body.String(), "has ended\"}\n\n") {
			t.Errorf("after %v: %q", took, rec.Body.String())
		}
	})
}

// A patientRecorder has no deadlines to miss.
type patientRecorder struct{ *httptest.ResponseRecorder }

func (patientRecorder) SetWriteDeadline(time.Time) error { return nil }

type anybody struct{}

func (anybody) Judge(*index.Claim) index.Grant {
	return index.Grant{Access: index.Granted, Who: "k.n", Until: time.Now().Add(time.Hour)}
}

// Of those who listen there are only so many, and each goes when it leaves.
func TestStreamsAreBounded(t *testing.T) {
	subscribed := make(chan func(), 64)
	src := Sources{Guard: anybody{}, Events: func() (<-chan index.Event, func()) {
		gone := make(chan struct{})
		subscribed <- func() { <-gone }
		return make(chan index.Event), func() { close(gone) }
	}}
	s := start(t, src)
	listen := func(ctx context.Context) *http.Response {
		t.Helper()
		req, err := http.NewRequestWithContext(ctx, "GET", "http://"+s.Addr()+"/events", nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Authorization", "Bearer x")
		tr := &http.Transport{DisableKeepAlives: true}
		resp, err := tr.RoundTrip(req)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = resp.Body.Close(); tr.CloseIdleConnections() })
		return resp
	}
	ctx, cancel := context.WithCancel(t.Context())
	for range streamsMax {
		if resp := listen(ctx); resp.StatusCode != 200 {
			t.Fatalf("status %d", resp.StatusCode)
		}
	}
	if resp := listen(t.Context()); resp.StatusCode != 503 || resp.Header.Get("Retry-After") == "" {
		t.Errorf("one too many: %d", resp.StatusCode)
	}
	cancel()
	for range streamsMax {
		(<-subscribed)() // each is let go
	}
	for s.streams.Load() > 0 {
		time.Sleep(time.Millisecond)
	}
	again, cancel := context.WithCancel(t.Context())
	defer cancel()
	if resp := listen(again); resp.StatusCode != 200 {
		t.Errorf("after they left: %d", resp.StatusCode)
	}
}
