package client

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"svcindex/index"
)

const cidA = "b3:af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262" // of no bytes

// serve returns a client of a server that answers with h.
func serve(t *testing.T, h http.HandlerFunc, opts ...Option) *Client {
	t.Helper()
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	c, err := New(s.URL, opts...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

func say(status int, body string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(status)
		io.WriteString(w, body)
	}
}

func ExampleClient_Resolve() {
	s := httptest.NewServer(say(200, `{"key":"name:go/src","kind":"name","manifest_cid":"`+cidA+`","seq":1}`))
	defer s.Close()
	c, err := New(s.URL)
	if err != nil {
		panic(err)
	}
	defer c.Close()
	r, err := c.Resolve(context.Background(), "name:go/src")
	if err != nil {
		panic(err)
	}
	fmt.Println(r.ManifestCID, r.Seq)
	// Output: b3:af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262 1
}

func TestParseServer(t *testing.T) {
	for _, tt := range []struct{ why, server, base, socket string }{
		{"the plain case", "http://127.0.0.1:8080", "http://127.0.0.1:8080", ""},
		{"a slash at the end is not part of paths", "http://h:1/", "http://h:1", ""},
		{"behind a proxy", "https://h/index/", "https://h/index", ""},
		{"a socket", "unix:/run/x.sock", "http://localhost", "/run/x.sock"},
		{"a socket with slashes", "unix:///run/x.sock", "http://localhost", "/run/x.sock"},
		{"a relative socket", "unix:data/x.sock", "http://localhost", "data/x.sock"},
		{"no scheme", "127.0.0.1:8080", "", ""},
		{"another scheme", "ftp://h", "", ""},
		{"no host", "http://", "", ""},
		{"a query makes no sense", "http://h?x=1", "", ""},
		{"secrets do not belong in a URL", "http://u:p@h", "", ""},
		{"no path", "unix:", "", ""},
		{"nothing", "", "", ""},
	} {
		base, socket, err := parseServer(tt.server)
		if base != tt.base || socket != tt.socket || (err != nil) != (tt.base == "") {
			t.Errorf("%s: parseServer(%q) = %q, %q, %v", tt.why, tt.server, base, socket, err)
		}
	}
}

func TestEscape(t *testing.T) {
	for _, tt := range []struct{ in, want string }{
		{"name:go/src/a.b_c~2d+e@f-g", "name:go/src/a.b_c~2d+e@f-g"},
		{"name:a b?c#d%", "name:a%20b%3Fc%23d%25"},
		{"name:a//b/../c", "name:a//b/../c"}, // the server refuses it; we must not mend it
		{"\xff", "%FF"},
	} {
		if got := escape(tt.in); got != tt.want {
			t.Errorf("escape(%q) = %q, want %q", tt.in, got, tt.want)
		}
	}
}

func TestResolveReadsBodyAndHead(t *testing.T) {
	c := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if r.RequestURI != "/resolve/name:go/a~2db?fresh=true" || r.Header.Get("Authorization") != "Bearer sesame" {
			t.Errorf("asked %s with %q", r.RequestURI, r.Header.Get("Authorization"))
		}
		w.Header().Set("X-Index-Source", "db")
		w.Header().Set("Age", "7")
		w.Header().Set("X-Index-Complete", "partial")
		w.Header().Set("X-Index-Stale", "true")
		w.Header().Set("X-Corr-ID", "c1")
		io.WriteString(w, `{"key":"name:go/a~2db","kind":"name","manifest_cid":"`+cidA+`","seq":7,"tomorrow":{"s":1}}`)
	}, WithToken("sesame"))
	r, err := c.ResolveFresh(t.Context(), "name:go/a~2db")
	if err != nil {
		t.Fatal(err)
	}
	if r.Seq != 7 || r.ManifestCID != index.Sum(nil) || r.Source != "db" || r.Age != 7*time.Second ||
		r.Complete || !r.Stale || r.CorrID != "c1" || !strings.Contains(string(r.Body), "tomorrow") {
		t.Errorf("got %+v", r)
	}
}

func TestProvidersSendsItsQuery(t *testing.T) {
	c := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if r.RequestURI != "/providers/"+cidA+"?limit=3&min_freshness=60&region=eu+west" {
			t.Errorf("asked %s", r.RequestURI)
		}
		io.WriteString(w, `{"cid":"`+cidA+`","providers":[{"id":"p","addr":"http://a","score":0.87}],"truncated":true}`)
	})
	r, err := c.Providers(t.Context(), index.Sum(nil), ProviderQuery{"eu west", 3, 60})
	if err != nil || len(r.Providers) != 1 || r.Providers[0].Score != 0.87 || !r.Truncated || !r.Complete {
		t.Errorf("got %+v, %v", r, err)
	}
}

func TestManifestIsVerified(t *testing.T) {
	c := serve(t, say(200, "other bytes"))
	if _, err := c.Manifest(t.Context(), index.Sum(nil)); !errors.Is(err, ErrMismatch) {
		t.Errorf("wrong bytes: %v, want ErrMismatch", err)
	}
	if m, err := c.Manifest(t.Context(), index.Sum([]byte("other bytes"))); err != nil || string(m.Body) != "other bytes" {
		t.Errorf("right bytes: %q, %v", m.Body, err)
	}
}

// A 200 that is not about what was asked is no answer, whoever gave it.
func TestAnAnswerIsToItsQuestion(t *testing.T) {
	for _, body := range []string{`{}`, `{"ok":true}`, `{"key":"name:b","manifest_cid":"` + cidA + `"}`, `{"cid":"` + index.Sum([]byte("x")).String() + `"}`} {
		c := serve(t, say(200, body))
		if v, err := c.Resolve(t.Context(), "name:a"); err == nil {
			t.Errorf("%s: resolved to %v", body, v.ManifestCID)
		}
		if v, err := c.Providers(t.Context(), index.Sum(nil), ProviderQuery{}); err == nil {
			t.Errorf("%s: providers %v", body, v.Providers)
		}
	}
}

func TestErrorDecoding(t *testing.T) {
	for _, tt := range []struct {
		why    string
		status int
		body   string
		want   Error
		absent bool
	}{
		{"proven absent", 404, `{"code":"not_found","message":"m","corr_id":"c"}`,
			Error{Status: 404, Code: "not_found", Message: "m", CorrID: "c"}, true},
		{"filtered out is absent too", 404, `{"code":"not_found","message":"m","reason":"filtered"}`,
			Error{Status: 404, Code: "not_found", Message: "m", Reason: "filtered"}, true},
		{"a path nobody knows proves nothing", 404, `{"code":"not_found","message":"m","reason":"no_route"}`,
			Error{Status: 404, Code: "not_found", Message: "m", Reason: "no_route"}, false},
		{"another server's 404 proves nothing", 404, `<html>nope</html>`,
			Error{Status: 404, Message: "Not Found"}, false},
		{"a conflict names the sequence that stands", 409, `{"code":"conflict","message":"m","current_seq":9007199254740991}`,
			Error{Status: 409, Code: "conflict", Message: "m", CurrentSeq: 1<<53 - 1}, false},
		{"retry_after in the body counts when the head has none", 429, `{"code":"over_capacity","message":"m","stage":"db","retry_after":2}`,
			Error{Status: 429, Code: "over_capacity", Message: "m", Stage: "db", RetryAfter: 2 * time.Second}, false},
		{"unknown fields are ignored", 500, `{"code":"internal","message":"m","new":[1]}`,
			Error{Status: 500, Code: "internal", Message: "m"}, false},
		{"a redirect is not followed", 302, ``, Error{Status: 302, Message: "Found"}, false},
	} {
		c := serve(t, say(tt.status, tt.body), WithRetries(0, 0))
		_, err := c.Resolve(t.Context(), "name:a")
		got, ok := errors.AsType[*Error](err)
		if !ok || *got != tt.want {
			t.Errorf("%s: got %+v (%v), want %+v", tt.why, got, err, tt.want)
		}
		if IsNotFound(err) != tt.absent {
			t.Errorf("%s: IsNotFound = %v", tt.why, !tt.absent)
		}
	}
	seq, ok := IsConflict(fmt.Errorf("wrapped: %w", &Error{Status: 409, CurrentSeq: 4}))
	if !ok || seq != 4 {
		t.Errorf("IsConflict = %d, %v", seq, ok)
	}
}

func TestErrorText(t *testing.T) {
	for _, tt := range []struct {
		e    Error
		want string
	}{
		{Error{Status: 404, Code: "not_found", Message: "nobody has it"}, "404 not_found: nobody has it"},
		{Error{Status: 429, Code: "over_capacity", Message: "busy", Reason: "queue full", Stage: "db", CorrID: "c"},
			"429 over_capacity: busy (reason queue full, stage db, corr_id c)"},
	} {
		if got := tt.e.Error(); got != tt.want {
			t.Errorf("got %q, want %q", got, tt.want)
		}
	}
}

// refuse answers the first n requests with status and Retry-After, the others
// with body, and counts them.
func refuse(n int64, status int, after, body string) (http.HandlerFunc, *atomic.Int64) {
	var asked atomic.Int64
	return func(w http.ResponseWriter, _ *http.Request) {
		if asked.Add(1) > n {
			io.WriteString(w, body)
			return
		}
		if after != "" {
			w.Header().Set("Retry-After", after)
		}
		w.WriteHeader(status)
		io.WriteString(w, `{"code":"over_capacity","message":"m"}`)
	}, &asked
}

func TestRetries(t *testing.T) {
	const fine = `{"key":"name:a","manifest_cid":"` + cidA + `"}`
	for _, tt := range []struct {
		why     string
		refused int64
		status  int
		after   string
		retries int
		tries   int64
		ok      bool
	}{
		{"429 is waited out", 2, 429, "0.01", 3, 3, true},
		{"503 too", 1, 503, "0.01", 3, 2, true},
		{"without Retry-After it backs off by itself", 1, 429, "", 3, 2, true},
		{"patience is bounded", 9, 429, "0.001", 3, 4, false},
		{"patience can be none", 1, 429, "0.001", 0, 1, false},
		{"too long a wait is an answer", 1, 503, "3600", 3, 1, false},
		{"504 is an answer", 1, 504, "0.001", 3, 1, false},
		{"400 is an answer", 1, 400, "0.001", 3, 1, false},
	} {
		h, asked := refuse(tt.refused, tt.status, tt.after, fine)
		c := serve(t, h, WithRetries(tt.retries, time.Second))
		_, err := c.Resolve(t.Context(), "name:a")
		if (err == nil) != tt.ok || asked.Load() != tt.tries {
			t.Errorf("%s: %d tries, %v; want %d, ok %v", tt.why, asked.Load(), err, tt.tries, tt.ok)
		}
	}
}

func TestAWaitLongerThanTheContextIsNotBegun(t *testing.T) {
	h, asked := refuse(9, 429, "5", "")
	c := serve(t, h)
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	start := time.Now()
	_, err := c.Version(ctx)
	if e, ok := errors.AsType[*Error](err); !ok || e.Status != 429 || e.RetryAfter != 5*time.Second {
		t.Errorf("got %v, want the 429 itself", err)
	}
	if asked.Load() != 1 || time.Since(start) > time.Second {
		t.Errorf("%d tries in %v", asked.Load(), time.Since(start))
	}
}

func TestCancelEndsAWait(t *testing.T) {
	h, _ := refuse(9, 429, "8", "")
	c := serve(t, h)
	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(50*time.Millisecond, cancel)
	start := time.Now()
	if _, err := c.Version(ctx); err == nil || time.Since(start) > 5*time.Second {
		t.Errorf("%v after %v", err, time.Since(start))
	}
}

func TestRetryAfterForms(t *testing.T) {
	for _, tt := range []struct {
		in       string
		min, max time.Duration
	}{
		{"3", 3 * time.Second, 3 * time.Second},
		{"", 0, 0},
		{"soon", 0, 0},
		{"-1", 0, 0},
		{"1e300", 24 * time.Hour, 24 * time.Hour},
		{time.Now().Add(time.Minute).UTC().Format(http.TimeFormat), 50 * time.Second, time.Minute},
		{time.Now().Add(-time.Minute).UTC().Format(http.TimeFormat), 0, 0},
	} {
		if got := retryAfter(tt.in); got < tt.min || got > tt.max {
			t.Errorf("retryAfter(%q) = %v, want %v to %v", tt.in, got, tt.min, tt.max)
		}
	}
}

// sent is what a test server saw of a request.
type sent struct{ method, uri, kind, body string }

func record(got *sent, answer string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		*got = sent{r.Method, r.RequestURI, r.Header.Get("Content-Type"), string(b)}
		if len(r.Header.Values("Idempotency-Key")) > 0 {
			got.kind = "Idempotency-Key was sent"
		}
		io.WriteString(w, answer)
	}
}

func TestWrites(t *testing.T) {
	cid, ctx := index.Sum(nil), context.Background()
	for _, tt := range []struct {
		why    string
		answer string
		do     func(*Client) error
		want   sent
	}{
		{"a name", `{}`, func(c *Client) error {
			return c.PutName(ctx, "name:a/b", NameRecord{ManifestCID: cid, Seq: 3})
		}, sent{"PUT", "/names/name:a/b", "application/json", `{"manifest_cid":"` + cidA + `","seq":3}`}},
		{"a tombstone", `{}`, func(c *Client) error { return c.DeleteName(ctx, "name:a", 4) },
			sent{"DELETE", "/names/name:a?seq=4", "", ""}},
		{"the next tombstone", `{}`, func(c *Client) error { return c.DeleteName(ctx, "name:a", 0) },
			sent{"DELETE", "/names/name:a", "", ""}},
		{"providers", `{"stored":1}`, func(c *Client) error {
			n, err := c.PutProviders(ctx, cid, Provider{ID: "p", Addr: "http://a", TTL: 60})
			if n != 1 {
				return fmt.Errorf("stored %d", n)
			}
			return err
		}, sent{"PUT", "/providers/" + cidA, "application/json", `{"providers":[{"id":"p","addr":"http://a","ttl_s":60}]}`}},
		{"a provider less", `{}`, func(c *Client) error { return c.DeleteProvider(ctx, cid, "p") },
			sent{"DELETE", "/providers/" + cidA + "/p", "", ""}},
		{"a pin", `{"ok":true}`, func(c *Client) error { return c.Pin(ctx, cid) },
			sent{"POST", "/admin/pin", "application/json", `{"cid":"` + cidA + `"}`}},
		{"a manifest", `{"cid":"` + index.Sum([]byte("m")).String() + `","size":1}`, func(c *Client) error {
			_, err := c.PutManifest(ctx, []byte("m"))
			return err
		}, sent{"PUT", "/manifests", "application/octet-stream", "m"}},
	} {
		var got sent
		if err := tt.do(serve(t, record(&got, tt.answer))); err != nil || got != tt.want {
			t.Errorf("%s: sent %+v (%v), want %+v", tt.why, got, err, tt.want)
		}
	}
}

func TestPutManifestKnowsNewFromOldAndDamage(t *testing.T) {
	body := `{"cid":"` + cidA + `","size":0,"announced":false}`
	for status, created := range map[int]bool{200: false, 201: true} {
		s, err := serve(t, say(status, body)).PutManifest(t.Context(), nil)
		if err != nil || s.Created != created {
			t.Errorf("%d: %+v, %v", status, s, err)
		}
	}
	if _, err := serve(t, say(201, body)).PutManifest(t.Context(), []byte("x")); !errors.Is(err, ErrMismatch) {
		t.Errorf("the server stored something else: %v, want ErrMismatch", err)
	}
}

func TestReady(t *testing.T) {
	for _, tt := range []struct {
		why    string
		status int
		body   string
		ready  bool
		ok     bool
	}{
		{"ready", 200, `{"ready":true,"keys":["db_open"]}`, true, true},
		{"not yet", 503, `{"ready":false,"missing":["db_open"],"degraded":true}`, false, true},
		{"refused at the door", 503, `{"code":"upstream_unready","message":"m"}`, false, false},
		{"not our server", 404, `nope`, false, false},
	} {
		r, err := serve(t, say(tt.status, tt.body)).Ready(t.Context())
		if (err == nil) != tt.ok || err == nil && r.Ready != tt.ready {
			t.Errorf("%s: %+v, %v", tt.why, r, err)
		}
	}
}

func TestUnixSocket(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	s := &http.Server{Handler: say(200, `{"node_id":"n","version":"v"}`)}
	go s.Serve(l) // ended by Close
	defer s.Close()
	c, err := New("unix:" + path)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if v, err := c.Version(t.Context()); err != nil || v.NodeID != "n" {
		t.Errorf("Version = %+v, %v", v, err)
	}
}

func TestConnectionsAreKept(t *testing.T) {
	var conns atomic.Int64
	s := httptest.NewUnstartedServer(say(200, `{"node_id":"n"}`))
	s.Config.ConnState = func(_ net.Conn, st http.ConnState) {
		if st == http.StateNew {
			conns.Add(1)
		}
	}
	s.Start()
	defer s.Close()
	c, err := New(s.URL)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for range 20 {
		if _, err := c.Version(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if n := conns.Load(); n != 1 {
		t.Errorf("20 requests took %d connections, want 1", n)
	}
}

func TestAnAnswerWithoutEndIsNotRead(t *testing.T) {
	c := serve(t, say(200, strings.Repeat(" ", answerMax+1)))
	if _, err := c.Version(t.Context()); err == nil || !strings.Contains(err.Error(), "over") {
		t.Errorf("got %v", err)
	}
}
