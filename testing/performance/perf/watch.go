package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"sync"
	"time"

	"svcindex/testing/performance/lab"
)

// codeOf is the code that each status always has.
var codeOf = map[int]string{
	400: "bad_request", 401: "unauthorized", 403: "forbidden", 404: "not_found", 405: "method_not_allowed",
	406: "not_acceptable", 408: "request_timeout", 409: "conflict", 413: "body_cap", 414: "uri_too_long",
	415: "unsupported_type", 429: "over_capacity", 431: "header_cap", 500: "internal", 501: "not_implemented",
	503: "upstream_unready", 504: "timeout", 505: "http_version", 507: "insufficient_storage",
}

const (
	watchEvery = 100 * time.Millisecond
	strayMax   = 10 // faults that are kept of each kind
)

// A watch asks a server now and then while others load it: is it ready, and is
// what it refuses refused as the specification says?
type watch struct {
	s    *lab.Server
	http http.Client
	quit context.CancelFunc
	gone sync.WaitGroup

	// Belong to the goroutine until gone.
	asked, ready, unready int
	refused               int
	untrue, unstructured  []string
}

func startWatch(ctx context.Context, s *lab.Server) *watch {
	ctx, quit := context.WithCancel(ctx)
	w := &watch{s: s, quit: quit, http: http.Client{Timeout: 10 * time.Second}}
	w.gone.Go(func() {
		tick := time.NewTicker(watchEvery)
		defer tick.Stop()
		for n := 0; ; n++ {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
				w.lookAt(n)
			}
		}
	})
	return w
}

func (w *watch) close() {
	w.quit()
	w.gone.Wait()
	w.http.CloseIdleConnections()
}

// lookAt asks in turn for readiness, on both listeners, and for keys that have
// to be looked up: those meet every limit there is.
func (w *watch) lookAt(n int) {
	addr := w.s.Admin
	if n%4 == 2 {
		addr = w.s.Addr
	}
	if n%2 == 0 {
		w.readyz(addr)
		return
	}
	paths := []string{
		fmt.Sprintf("/resolve/name:perf-watch/%d", n), "/resolve/name:load/00000000?fresh=true",
		"/resolve/name:..", "/nowhere", fmt.Sprintf("/providers/b3:%064x", n),
	}
	w.refusal(paths[n/2%len(paths)])
}

func (w *watch) readyz(addr string) {
	w.asked++
	status, body, err := w.s.Get(addr, "/readyz")
	var r struct {
		Ready   bool     `json:"ready"`
		Keys    []string `json:"keys"`
		Missing []string `json:"missing"`
	}
	switch {
	case err != nil:
		note(&w.untrue, "no answer: %v", err)
	case json.Unmarshal(body, &r) != nil:
		note(&w.untrue, "%d: %.200s", status, body)
	case status == 200 && r.Ready && len(r.Keys) > 0 && len(r.Missing) == 0:
		w.ready++
	case status == 503 && !r.Ready && len(r.Missing) > 0:
		w.unready++
	default:
		note(&w.untrue, "%d: %.200s", status, body)
	}
}

// refusal asks for something, and if the answer is a refusal holds it to the form.
func (w *watch) refusal(path string) {
	resp, err := w.http.Get(w.s.URL() + path)
	if err != nil {
		note(&w.unstructured, "%s: %v", path, err)
		return
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		note(&w.unstructured, "%s: %v", path, err)
		return
	}
	if resp.StatusCode < 400 {
		return
	}
	w.refused++
	if fault := faultOf(resp, body); fault != "" {
		note(&w.unstructured, "%s: %d %s: %.200s", path, resp.StatusCode, fault, body)
	}
}

// faultOf says what is wrong with a refusal; "" is nothing.
func faultOf(resp *http.Response, body []byte) string {
	var e struct {
		Code    string `json:"code"`
		Message string `json:"message"`
		CorrID  string `json:"corr_id"`
	}
	h := resp.Header
	wait, waitErr := strconv.Atoi(h.Get("Retry-After"))
	switch {
	case h.Get("Content-Type") != "application/json":
		return "is not JSON"
	case json.Unmarshal(body, &e) != nil:
		return "cannot be read"
	case e.Code != codeOf[resp.StatusCode]:
		return "has not the code " + codeOf[resp.StatusCode]
	case e.Message == "":
		return "has no message"
	case e.CorrID == "" || e.CorrID != h.Get("X-Corr-Id"):
		return "has not its X-Corr-ID"
	case h.Get("Cache-Control") != "no-store":
		return "may be cached"
	case (resp.StatusCode == 429 || resp.StatusCode == 503) && (waitErr != nil || wait < 0):
		return "has no Retry-After"
	}
	return ""
}

func note(faults *[]string, format string, args ...any) {
	if len(*faults) < strayMax {
		*faults = append(*faults, fmt.Sprintf(format, args...))
	}
}

// judge adds to a result what was seen.
func (w *watch) judge(r *result, mayBeUnready bool) {
	r.check("", "/readyz tells the truth on both listeners: ready while the server serves", len(w.untrue) == 0 && (w.unready == 0 || mayBeUnready) && w.ready > 0,
		"asked %d times, ready %d, not ready %d, neither %v", w.asked, w.ready, w.unready, w.untrue)
	r.check("", "refusals have their form: JSON with code, message and corr_id, Retry-After, no-store", len(w.unstructured) == 0 && w.refused > 0,
		"%d looked at, in breach %v", w.refused, w.unstructured)
}
