package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"svcindex/auth"
	"svcindex/config"
	"svcindex/index"
)

// A testHouse is a real server on real sockets and a real disk.
type testHouse struct {
	*house
	t     *testing.T
	url   string
	token string
	http  *http.Client
}

// open starts a house on a directory of the test's.
func openHouse(t *testing.T, s seams, set ...string) *testHouse {
	t.Helper()
	return openHouseIn(t, t.TempDir(), s, set...)
}

func openHouseIn(t *testing.T, dir string, s seams, set ...string) *testHouse {
	t.Helper()
	h := openUnready(t, dir, s, set...)
	h.awaitReady()
	return h
}

// openUnready does not wait until the house says that it is ready.
func openUnready(t *testing.T, dir string, s seams, set ...string) *testHouse {
	t.Helper()
	set = append([]string{
		"listen=127.0.0.1:0", "admin=127.0.0.1:0", "data_dir=" + dir, "cache.bytes=4MiB", "limits.max_conns=2000", "dht.enabled=false",
	}, set...)
	cfg, err := config.Load(config.Input{Set: set})
	if err != nil {
		t.Fatal(err)
	}
	return openConfig(t, cfg, s)
}

func openConfig(t *testing.T, cfg config.Config, s seams) *testHouse {
	t.Helper()
	if err := cfg.Check(); err != nil {
		t.Fatal(err)
	}
	h, err := build(cfg, slog.New(slog.NewTextHandler(t.Output(), nil)), s)
	if err != nil {
		t.Fatal(err)
	}
	th := &testHouse{house: h, t: t, url: "http://" + h.addr.String()}
	th.token = th.mint(auth.Wish{Scope: 1<<len(index.ScopeNames()) - 1})
	th.http = &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 64}}
	t.Cleanup(th.shut)
	return th
}

// tryHouse opens a house and closes it again.
func tryHouse(t *testing.T, set ...string) error {
	t.Helper()
	cfg, err := config.Load(config.Input{Set: append([]string{
		"listen=127.0.0.1:0", "admin=127.0.0.1:0", "data_dir=" + t.TempDir(), "cache.bytes=4MiB", "dht.enabled=false",
	}, set...)})
	if err != nil {
		t.Fatal(err)
	}
	h, err := build(cfg, slog.New(slog.NewTextHandler(t.Output(), nil)), seams{})
	if err == nil {
		err = h.close(t.Context())
	}
	return err
}

// flip flips a bit of what the files under dir hold of text.
func flip(dir, text string) error {
	found := false
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		b, err := os.ReadFile(path)
		if i := bytes.Index(b, []byte(text)); err == nil && i >= 0 {
			found = true
			b[i] ^= 1
			err = os.WriteFile(path, b, 0o600)
		}
		return err
	})
	if err == nil && !found {
		err = fmt.Errorf("no file under %s holds it", dir)
	}
	return err
}

// mint signs a capability with the house's own keys. What w does not say is as
// for the tests' own requests: an hour, this node.
func (h *testHouse) mint(w auth.Wish) string {
	h.t.Helper()
	var err error
	if w.Aud == "" {
		if w.Aud, err = auth.NodeID(h.cfg.DataDir); err != nil {
			h.t.Fatal(err)
		}
	}
	if w.Life == 0 {
		w.Life = time.Hour
	}
	token, _, err := h.ring.Mint(w, time.Now())
	if err != nil {
		h.t.Fatal(err)
	}
	return token
}

// shut closes the house; safe to call twice.
func (h *testHouse) shut() {
	if h.house == nil {
		return
	}
	h.http.CloseIdleConnections()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	if err := h.close(ctx); err != nil {
		h.t.Errorf("closing the house: %v", err)
	}
	h.house = nil
}

func (h *testHouse) awaitReady() {
	h.t.Helper()
	for range 100 {
		if r := h.get("/readyz"); r.status == 200 {
			return
		}
		time.Sleep(50 * time.Millisecond)
	}
	h.t.Fatalf("never ready: %s", h.get("/readyz").body)
}

// An answered is an answer as the client saw it.
type answered struct {
	status int
	header http.Header
	body   []byte
}

func (a answered) String() string { return fmt.Sprintf("%d %s", a.status, a.body) }

// field returns a top-level field of a JSON body as text.
func (a answered) field(name string) string {
	var m map[string]any
	if json.Unmarshal(a.body, &m) != nil {
		return ""
	}
	switch v := m[name].(type) {
	case nil:
		return ""
	case string:
		return v
	default:
		b, _ := json.Marshal(v)
		return string(b)
	}
}

func (h *testHouse) do(method, path, body string, header ...string) answered {
	h.t.Helper()
	a, err := h.try(method, path, body, header...)
	if err != nil {
		h.t.Fatalf("%s %s: %v", method, path, err)
	}
	return a
}

func (h *testHouse) try(method, path, body string, header ...string) (a answered, err error) {
	req, err := http.NewRequest(method, h.url+path, strings.NewReader(body))
	if err != nil {
		return a, err
	}
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	if method != "GET" && method != "HEAD" {
		req.Header.Set("Authorization", "Bearer "+h.token)
	}
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
		if header[i+1] == "" {
			req.Header.Del(header[i])
		}
	}
	resp, err := h.http.Do(req)
	if err != nil {
		return a, err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	a = answered{resp.StatusCode, resp.Header, b}
	if err == nil {
		err = a.audit(method, resp.ContentLength)
	}
	return a, err
}

var corrIDs = regexp.MustCompile(`^[A-Za-z0-9_-]{1,64}$`)

// audit holds an answer to what the specification says of every answer.
func (a answered) audit(method string, length int64) error {
	if at, err := http.ParseTime(a.header.Get("Date")); err != nil || time.Since(at).Abs() > 5*time.Second {
		return fmt.Errorf("Date is %q", a.header.Get("Date"))
	}
	if id := a.header.Get("X-Corr-ID"); !corrIDs.MatchString(id) {
		return fmt.Errorf("X-Corr-ID is %q", id)
	}
	switch {
	case a.status == 304:
		if length > 0 || len(a.body) > 0 {
			return fmt.Errorf("a 304 with a body of %d", length)
		}
	case length < 0:
		return fmt.Errorf("a %d without Content-Length", a.status)
	case method == "HEAD" && len(a.body) > 0:
		return fmt.Errorf("HEAD got a body: %s", a.body)
	case a.status >= 400:
		return a.auditError(method)
	}
	return nil
}

// auditError holds an error to what the specification says of every error.
func (a answered) auditError(method string) error {
	if c := a.header.Get("Cache-Control"); c != "no-store" {
		return fmt.Errorf("a %d with Cache-Control: %q", a.status, c)
	}
	retry := a.header.Get("Retry-After")
	if n, err := strconv.Atoi(retry); (a.status == 429 || a.status == 503) && (err != nil || n < 1) {
		return fmt.Errorf("a %d with Retry-After: %q", a.status, retry)
	}
	for status, name := range map[int]string{401: "WWW-Authenticate", 405: "Allow"} {
		if has := a.header.Get(name) != ""; has != (a.status == status) {
			return fmt.Errorf("a %d, and %s is there: %v", a.status, name, has)
		}
	}
	if method == "HEAD" || a.header.Get("Content-Type") != "application/json" || bytes.HasPrefix(a.body, []byte(`{"ready":`)) {
		return nil
	}
	code, known := errorCodes[a.status]
	switch {
	case !known || a.field("code") != code:
		return fmt.Errorf("code of a %d is %q, want %q", a.status, a.field("code"), code)
	case a.field("message") == "":
		return fmt.Errorf("a %d without a message: %s", a.status, a.body)
	case a.field("corr_id") != a.header.Get("X-Corr-ID"):
		return fmt.Errorf("corr_id %q under X-Corr-ID %q", a.field("corr_id"), a.header.Get("X-Corr-ID"))
	case (a.status == 429 || a.status == 503) && a.field("retry_after") != retry:
		return fmt.Errorf("retry_after %s under Retry-After %s", a.field("retry_after"), retry)
	}
	return nil
}

// errorCodes is the table of statuses of the specification. Of 417 it is
// silent; it is a malformed request.
var errorCodes = map[int]string{
	400: "bad_request", 401: "unauthorized", 403: "forbidden", 404: "not_found", 405: "method_not_allowed",
	406: "not_acceptable", 408: "request_timeout", 409: "conflict", 413: "body_cap", 414: "uri_too_long",
	415: "unsupported_type", 417: "bad_request", 429: "over_capacity", 431: "header_cap", 500: "internal",
	501: "not_implemented", 503: "upstream_unready", 504: "timeout", 505: "http_version", 507: "insufficient_storage",
}

func (h *testHouse) get(path string, header ...string) answered {
	h.t.Helper()
	return h.do("GET", path, "", header...)
}

// want fails the test unless the answer has the status and, if one is named,
// the code.
func (h *testHouse) want(a answered, status int, code string) answered {
	h.t.Helper()
	if a.status != status || code != "" && a.field("code") != code {
		h.t.Errorf("got %v, want %d %s", a, status, code)
	}
	return a
}

// put stores a manifest and returns its cid.
func (h *testHouse) putManifest(content string) string {
	h.t.Helper()
	a := h.do("PUT", "/manifests", content)
	if a.status != 201 && a.status != 200 {
		h.t.Fatalf("PUT /manifests: %v", a)
	}
	return a.field("cid")
}

func cidOf(content string) string { return index.Sum([]byte(content)).String() }

// A wire is a bare connection: what is sent goes out as it is, and answers are
// read one by one.
type wire struct {
	net.Conn
	t  *testing.T
	in *bufio.Reader
}

func (h *testHouse) dial() *wire {
	h.t.Helper()
	return dialWire(h.t, "tcp", h.addr.String())
}

func dialWire(t *testing.T, network, addr string) *wire {
	t.Helper()
	nc, err := net.Dial(network, addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = nc.Close() })
	return &wire{nc, t, bufio.NewReader(nc)}
}

// send writes text. A server that has refused already may have closed: that is
// for answer to find out.
func (w *wire) send(text string) {
	w.t.Helper()
	_ = w.SetWriteDeadline(time.Now().Add(20 * time.Second))
	_, _ = io.WriteString(w, text)
}

// next reads the answer to a request with the method.
func (w *wire) next(method string) (a answered, err error) {
	_ = w.SetReadDeadline(time.Now().Add(20 * time.Second))
	resp, err := http.ReadResponse(w.in, &http.Request{Method: method})
	if err != nil {
		return a, err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if resp.Close {
		resp.Header.Set("Connection", "close") // ReadResponse takes it out
	}
	a = answered{resp.StatusCode, resp.Header, b}
	if err == nil && a.status >= 200 {
		err = a.audit(method, resp.ContentLength)
	}
	return a, err
}

func (w *wire) answer(method string) answered {
	w.t.Helper()
	a, err := w.next(method)
	if err != nil {
		w.t.Fatalf("answer to %s: %v (%v)", method, err, a)
	}
	return a
}

// ask is a GET over the wire.
func (w *wire) ask(path string, header ...string) answered {
	w.t.Helper()
	w.send(request("GET", path, "", header...))
	return w.answer("GET")
}

// ended reports whether the server has closed and has said nothing more.
func (w *wire) ended() bool {
	_ = w.SetReadDeadline(time.Now().Add(5 * time.Second))
	b, err := io.ReadAll(w.in)
	return err == nil && len(b) == 0
}

// request renders a request. A body is counted unless a field says how it is
// delimited.
func request(method, target, body string, header ...string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s HTTP/1.1\r\nHost: test\r\n", method, target)
	counted := body != "" || method == "PUT" || method == "POST"
	for i := 0; i < len(header); i += 2 {
		fmt.Fprintf(&b, "%s: %s\r\n", header[i], header[i+1])
		if header[i] == "Content-Length" || header[i] == "Transfer-Encoding" {
			counted = false
		}
	}
	if counted {
		fmt.Fprintf(&b, "Content-Length: %d\r\n", len(body))
	}
	return b.String() + "\r\n" + body
}

// reindex posts a reindex and returns how its task ended.
func (h *testHouse) reindex(body string, header ...string) (done answered) {
	h.t.Helper()
	a := h.want(h.do("POST", "/admin/reindex", body, header...), 202, "")
	eventually(h.t, "the task is done", func() bool {
		done = h.do("GET", "/admin/tasks/"+a.field("task_id"), "", "Authorization", "Bearer "+h.token)
		return done.field("state") == "done"
	})
	return done
}

// bearer is the field that lets its sender write.
func (h *testHouse) bearer() []string {
	return []string{"Authorization", "Bearer " + h.token, "Content-Type", "application/json"}
}

// Seams as functions.
type (
	storeFunc   func(*index.Job) error
	writerFunc  func([]*index.Mutation) error
	networkFunc func(context.Context, *index.Job) error
)

func (f storeFunc) Get(j *index.Job) error                             { return f(j) }
func (f writerFunc) Commit(ms []*index.Mutation) error                 { return f(ms) }
func (f networkFunc) Discover(ctx context.Context, j *index.Job) error { return f(ctx, j) }

// before returns a seam that runs f before each read of the real store, and
// instead of it if f returns an error.
func before(f func(*index.Job) error) func(index.Store) index.Store {
	return func(real index.Store) index.Store {
		return storeFunc(func(j *index.Job) error {
			if err := f(j); err != nil {
				return err
			}
			return real.Get(j)
		})
	}
}

// eventually fails the test unless ok comes true within a while.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for range 400 {
		if ok() {
			return
		}
		time.Sleep(25 * time.Millisecond)
	}
	t.Fatalf("not within 10 s: %s", what)
}

// scrape returns the samples of /metrics by series.
func (h *testHouse) scrape() map[string]float64 {
	h.t.Helper()
	resp, err := http.Get("http://" + h.admin.Addr() + "/metrics")
	if err != nil {
		h.t.Fatal(err)
	}
	defer resp.Body.Close()
	m := make(map[string]float64)
	for sc := bufio.NewScanner(resp.Body); sc.Scan(); {
		line := sc.Text()
		if i := strings.LastIndexByte(line, ' '); i > 0 && line[0] != '#' {
			var v float64
			if _, err := fmt.Sscan(line[i+1:], &v); err == nil {
				m[line[:i]] = v
			}
		}
	}
	return m
}

// sharedDir is where the corpus lies: beside the project.
func sharedDir(t *testing.T) string {
	t.Helper()
	dir, err := filepath.Abs("../../../shared/http1")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(dir, "run.py")); err != nil {
		t.Fatalf("the HTTP/1 corpus has to lie in ../shared/http1, beside the project: %v", err)
	}
	return dir
}
