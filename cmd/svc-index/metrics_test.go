package main

import (
	"bufio"
	"fmt"
	"io"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"svcindex/index"
)

// promised is section 4 of the specification: every metric, its kind and its
// labels, and no others.
var promised = map[string]struct{ kind, labels string }{
	"request_latency_seconds":                 {"histogram", "method,route"},
	"http_requests_total":                     {"counter", "method,route,status"},
	"inflight_requests":                       {"gauge", "route"},
	"rejected_total":                          {"counter", "reason"},
	"index_resolve_latency_seconds":           {"histogram", "type"},
	"index_cache_hits_total":                  {"counter", ""},
	"index_cache_misses_total":                {"counter", ""},
	"index_cache_size":                        {"gauge", ""},
	"index_dht_lookup_ms":                     {"histogram", ""},
	"index_dht_hops":                          {"histogram", ""},
	"dht_errors_total":                        {"counter", "kind"},
	"dht_hedged_requests_total":               {"counter", "result"},
	"index_integrity_fail_total":              {"counter", "stage"},
	"index_provider_set_changes_total":        {"counter", ""},
	"index_negative_served_after_write_total": {"counter", ""},
	"stage_queue_depth":                       {"gauge", "stage"},
	"stage_queue_capacity":                    {"gauge", "stage"},
	"stage_queue_wait_seconds":                {"histogram", "stage"},
	"stage_workers":                           {"gauge", "stage,state"},
	"stage_rejected_total":                    {"counter", "reason,stage"},
	"stage_expired_total":                     {"counter", "stage"},
	"stage_batch_size":                        {"gauge", "stage"},
	"breaker_state":                           {"gauge", "stage"},
	"amnesia_mode":                            {"gauge", "status"},
	"pq_enabled":                              {"gauge", ""},
	"quota_exhaustions_total":                 {"counter", "dimension"},
	"bus_lagged_total":                        {"counter", ""},
	"config_reloads_total":                    {"counter", "result"},
	"go_goroutines":                           {"gauge", ""},
	"process_open_fds":                        {"gauge", ""},
	"process_resident_memory_bytes":           {"gauge", ""},
	"process_start_time_seconds":              {"gauge", ""},
}

// words are all the values a label may have, of the metrics that requests
// move. Of other labels it is enough that they are not a client's.
var words = map[string]string{
	"route":  "resolve providers manifests names admin search graph health version other",
	"method": "GET HEAD PUT POST DELETE OPTIONS other",
	"status": "ok throttled error",
	"type":   "name cid facet",
	"stage":  "cache db dht write",
}

var rejectWords = "unauth over_capacity timeout body_cap decompress_cap bad_request upstream_unready internal"

// A sample is one line of an exposition.
type sample struct {
	name   string
	labels map[string]string
	value  float64
}

// exposition fetches /metrics and takes it apart.
func (h *testHouse) exposition() (text string, kinds map[string]string, samples []sample) {
	h.t.Helper()
	resp, err := http.Get("http://" + h.admin.Addr() + "/metrics")
	if err != nil {
		h.t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil || !strings.HasPrefix(resp.Header.Get("Content-Type"), "text/plain; version=0.0.4") {
		h.t.Fatalf("%v %s", err, resp.Header.Get("Content-Type"))
	}
	kinds = make(map[string]string)
	line := regexp.MustCompile(`^([a-z_]+)(?:\{(.*)\})? (\S+)$`)
	label := regexp.MustCompile(`([a-z_]+)="([^"\\]*)",?`)
	for sc := bufio.NewScanner(strings.NewReader(string(b))); sc.Scan(); {
		if f := strings.Fields(sc.Text()); f[0] == "#" {
			if f[1] == "TYPE" {
				kinds[f[2]] = f[3]
			}
			continue
		}
		m := line.FindStringSubmatch(sc.Text())
		if m == nil {
			h.t.Fatalf("no sample: %s", sc.Text())
		}
		s := sample{name: m[1], labels: map[string]string{}}
		for _, l := range label.FindAllStringSubmatch(m[2], -1) {
			s.labels[l[1]] = l[2]
		}
		if s.value, err = strconv.ParseFloat(m[3], 64); err != nil {
			h.t.Fatalf("%v in %s", err, sc.Text())
		}
		samples = append(samples, s)
	}
	return string(b), kinds, samples
}

// sum adds up the samples of a name with all of the labels.
func sum(samples []sample, name string, labels ...string) (total float64, found bool) {
next:
	for _, s := range samples {
		if s.name != name {
			continue
		}
		for i := 0; i < len(labels); i += 2 {
			if s.labels[labels[i]] != labels[i+1] {
				continue next
			}
		}
		total, found = total+s.value, true
	}
	return total, found
}

// A crowd counts the answers it gets.
type crowd struct {
	h        *testHouse
	answers  atomic.Int64
	rejected atomic.Int64
}

func (c *crowd) got(a answered) answered {
	c.answers.Add(1)
	if a.status >= 400 && a.status != 404 && a.status != 409 {
		c.rejected.Add(1)
	}
	return a
}

// one sends one request on a connection of its own and takes its answer.
func (c *crowd) one(text string) (a answered) {
	w := c.h.dial()
	defer w.Close()
	w.send(text)
	method, _, _ := strings.Cut(text, " ")
	a, err := w.next(method)
	if err != nil {
		c.h.t.Errorf("%.80q: %v", text, err)
		return a
	}
	return c.got(a)
}

func TestMetricsAfterHostileTraffic(t *testing.T) {
	var slow, broken atomic.Bool
	release := make(chan struct{})
	h := openHouse(t, seams{store: before(func(j *index.Job) error {
		switch {
		case j.Key.String() == "name:panics":
			panic("on purpose")
		case broken.Load():
			return index.Down
		case slow.Load():
			<-release
		}
		return nil
	})}, "limits.inflight=4", "limits.request_timeout=300ms", "limits.conns_per_ip=0",
		"stages.db.breaker.min_requests=100000", "budget.resolve=500ms", "stages.db.slice=100ms", "stages.db.max_wait=50ms",
		"stages.dht.slice=100ms", "stages.dht.max_wait=50ms")
	_, _, start := h.exposition()
	began, _ := sum(start, "http_requests_total") // the house's own look at /readyz
	c := &crowd{h: h}
	auth := h.bearer()

	// Good traffic, so that there is something to tell apart.
	cid := h.putManifest("m")
	c.answers.Add(1)
	c.got(h.want(h.putProviders(cid, `{"id":"p","addr":"/ip4/192.0.2.1"}`), 200, ""))
	c.got(h.want(h.putName("name:a", cid, 1), 200, ""))
	for range 3 {
		for _, path := range []string{"/resolve/name:a", "/resolve/" + cid, "/providers/" + cid, "/manifests/" + cid, "/version", "/healthz"} {
			c.got(h.want(h.get(path), 200, ""))
		}
	}
	// A thousand keys nobody has.
	w := h.dial()
	for i := range 1000 {
		c.got(h.want(w.ask(fmt.Sprintf("/resolve/name:%s/%d", secret, i), "X-Corr-ID", secret, "User-Agent", secret), 404, ""))
	}
	// Bad methods, paths, tokens, bodies, framing.
	for _, method := range []string{"BREW", secret, "OPTIONS", "PATCH", "CONNECT", "TRACE"} {
		c.one(request(method, "/resolve/name:"+secret, ""))
	}
	for _, path := range []string{"/" + secret, "/resolve/" + secret, "/metrics", "/search/" + secret, "/graph/" + secret, "/admin/" + secret, "/manifests/" + secret, "/../" + secret, "*"} {
		c.one(request("GET", path, ""))
		c.one(request("HEAD", path, ""))
		c.one(request("DELETE", path, "", auth...))
	}
	for _, token := range []string{"", "Bearer", "Bearer " + secret, "Basic " + secret} {
		c.one(request("PUT", "/names/name:"+secret, "{}", "Authorization", token))
	}
	c.one(request("PUT", "/names/name:"+secret, secret, auth...))
	c.one(request("PUT", "/manifests", strings.Repeat("a", 1<<20+1), auth...))
	c.one(request("PUT", "/manifests", gzipped(make([]byte, 1<<20)), append(auth, "Content-Encoding", "gzip")...))
	c.one(request("PUT", "/manifests", "x", append(auth, "Content-Encoding", secret)...))
	c.one(request("POST", "/admin/reindex", `{"keys":["name:`+secret+`"]}`, append(auth, "Idempotency-Key", secret)...))
	c.one("GET /" + secret + "\r\n\r\n")
	c.one("GET / HTTP/1.1\r\nHost: " + secret + "\r\n" + secret + "\r\n\r\n")
	c.one("GET /resolve/name:" + secret + " HTTP/3.0\r\n\r\n")
	c.one(request("GET", "/resolve/name:"+secret, "", "Accept", "x/"+secret))
	c.one("PUT /manifests HTTP/1.1\r\nHost: " + secret) // and no more
	c.one(request("GET", "/resolve/name:panics", ""))
	// A flood: more distinct keys at once than may be looked up.
	slow.Store(true)
	var wait sync.WaitGroup
	var throttled atomic.Int64
	for i := range 40 {
		wait.Go(func() {
			if a := c.one(request("GET", fmt.Sprintf("/resolve/name:flood/%s/%d", secret, i), "")); a.status == 429 {
				throttled.Add(1)
			}
		})
	}
	wait.Wait()
	slow.Store(false)
	close(release)
	eventually(t, "the flood is over", func() bool { n, _ := h.line.Inflight(); return n == 0 })
	if throttled.Load() == 0 {
		t.Error("nobody of 40 was refused by a house that takes 4")
	}
	broken.Store(true)
	c.one(request("GET", "/resolve/name:down", ""))
	broken.Store(false)

	time.Sleep(100 * time.Millisecond)
	text, kinds, samples := h.exposition()
	for _, bit := range []string{secret, h.token, cid[3:20], "name:", "127.0.0.1", "flood"} {
		if strings.Contains(text, bit) {
			t.Errorf("the exposition holds %q, which a request brought", bit)
		}
	}
	checkPromised(t, kinds, samples)
	checkWords(t, samples)

	total, _ := sum(samples, "http_requests_total")
	if total-began != float64(c.answers.Load()) {
		t.Errorf("http_requests_total grew by %v, and there were %d answers", total-began, c.answers.Load())
	}
	if n, _ := sum(samples, "request_latency_seconds_count"); n != total {
		t.Errorf("request_latency_seconds counts %v, http_requests_total %v", n, total)
	}
	if n, _ := sum(samples, "rejected_total"); n != float64(c.rejected.Load()) {
		t.Errorf("rejected_total is %v, and there were %d refusals", n, c.rejected.Load())
	}
	if n, _ := sum(samples, "inflight_requests"); n != 0 {
		t.Errorf("%v requests are in flight, and nobody waits", n)
	}
	for _, moved := range [][]string{
		{"http_requests_total", "route", "resolve", "method", "GET", "status", "ok"},
		{"http_requests_total", "route", "resolve", "method", "GET", "status", "throttled"},
		{"http_requests_total", "route", "resolve", "method", "GET", "status", "error"},
		{"http_requests_total", "route", "resolve", "method", "HEAD"}, {"http_requests_total", "route", "resolve", "method", "OPTIONS"},
		{"http_requests_total", "route", "resolve", "method", "other"}, {"http_requests_total", "route", "providers"},
		{"http_requests_total", "route", "manifests", "method", "PUT"}, {"http_requests_total", "route", "manifests", "method", "GET"},
		{"http_requests_total", "route", "names", "method", "PUT"}, {"http_requests_total", "route", "admin", "method", "POST"},
		{"http_requests_total", "route", "search", "status", "error"}, {"http_requests_total", "route", "graph"},
		{"http_requests_total", "route", "health"}, {"http_requests_total", "route", "version"}, {"http_requests_total", "route", "other"},
		{"rejected_total", "reason", "unauth"}, {"rejected_total", "reason", "over_capacity"}, {"rejected_total", "reason", "timeout"},
		{"rejected_total", "reason", "body_cap"}, {"rejected_total", "reason", "decompress_cap"}, {"rejected_total", "reason", "bad_request"},
		{"rejected_total", "reason", "upstream_unready"}, {"rejected_total", "reason", "internal"},
		{"index_resolve_latency_seconds_count", "type", "name"}, {"index_resolve_latency_seconds_count", "type", "cid"},
		{"index_cache_hits_total"}, {"index_cache_misses_total"}, {"index_cache_size"}, {"index_provider_set_changes_total"},
		{"stage_queue_wait_seconds_count", "stage", "cache"}, {"stage_queue_wait_seconds_count", "stage", "db"}, {"stage_queue_wait_seconds_count", "stage", "write"},
		{"stage_queue_capacity", "stage", "cache"}, {"stage_queue_capacity", "stage", "db"}, {"stage_queue_capacity", "stage", "write"},
		{"stage_workers", "stage", "db", "state", "total"}, {"stage_batch_size", "stage", "db"},
		{"stage_rejected_total", "reason", "inflight"}, {"process_start_time_seconds"}, {"go_goroutines"},
	} {
		if n, found := sum(samples, moved[0], moved[1:]...); n <= 0 {
			t.Errorf("%v is %v (there: %v), and should have moved", moved, n, found)
		}
	}
	if n, _ := sum(samples, "index_negative_served_after_write_total"); n != 0 {
		t.Errorf("index_negative_served_after_write_total is %v", n)
	}
	if n, _ := sum(samples, "index_resolve_latency_seconds_count", "type", "name"); n < 1000 {
		t.Errorf("index_resolve_latency_seconds saw %v of more than 1000 names", n)
	}
}

// checkPromised holds an exposition to section 4.
func checkPromised(t *testing.T, kinds map[string]string, samples []sample) {
	t.Helper()
	for name, want := range promised {
		if kinds[name] != want.kind {
			t.Errorf("%s is a %q, want a %s", name, kinds[name], want.kind)
			continue
		}
		seen := name
		if want.kind == "histogram" {
			seen += "_count"
		}
		if _, found := sum(samples, seen); !found {
			t.Errorf("%s has no series", name)
		}
	}
	for _, s := range samples {
		name := s.name
		for _, suffix := range []string{"_bucket", "_sum", "_count"} {
			if base, ok := strings.CutSuffix(s.name, suffix); ok && kinds[base] == "histogram" {
				name = base
			}
		}
		want, ok := promised[name]
		if !ok {
			continue
		}
		var names []string
		for l := range s.labels {
			if l != "le" {
				names = append(names, l)
			}
		}
		slices.Sort(names)
		if got := strings.Join(names, ","); got != want.labels {
			t.Errorf("%s has the labels %s, want %s", s.name, got, want.labels)
		}
		if _, le := s.labels["le"]; le != strings.HasSuffix(s.name, "_bucket") {
			t.Errorf("%s %v: le", s.name, s.labels)
		}
	}
}

// checkWords holds label values to the words there are.
func checkWords(t *testing.T, samples []sample) {
	t.Helper()
	seen := map[string]bool{}
	for _, s := range samples {
		for label, value := range s.labels {
			allowed, ok := words[label]
			switch {
			case label == "reason" && s.name == "rejected_total":
				allowed, ok = rejectWords, true
			case label == "status" && s.name == "amnesia_mode":
				allowed = "enabled disabled"
			}
			if ok && !slices.Contains(strings.Fields(allowed), value) {
				t.Errorf("%s has %s=%q, want one of %s", s.name, label, value, allowed)
			}
			seen[label+"="+value] = true
		}
		if n, err := strconv.ParseFloat(s.labels["le"], 64); s.labels["le"] != "" && (err != nil || n < 0) {
			t.Errorf("%s has le=%q", s.name, s.labels["le"])
		}
	}
	for label, all := range words {
		for _, w := range strings.Fields(all) {
			if !seen[label+"="+w] {
				t.Errorf("there is no series with %s=%q", label, w)
			}
		}
	}
	for _, w := range strings.Fields(rejectWords) {
		if !seen["reason="+w] {
			t.Errorf("there is no series with reason=%q", w)
		}
	}
}

// Damage is counted by who found it, takes readiness, and is not served; nor
// does it make anybody say that something is not there.
func TestMetricsOfDamage(t *testing.T) {
	dir := t.TempDir()
	h := openHouseIn(t, dir, seams{})
	content := noise(3000)
	cid := h.putManifest(content)
	h.shut()
	openHouseIn(t, dir, seams{}).shut() // moves it from the journal to a table
	if err := flip(dir, content[1000:1064]); err != nil {
		t.Fatal(err)
	}
	h = openUnready(t, dir, seams{})
	for _, path := range []string{"/manifests/" + cid, "/resolve/" + cid, "/manifests/" + cid} {
		if a := h.get(path); a.status < 500 {
			t.Errorf("%s: got %d", path, a.status)
		}
	}
	h.want(h.get("/readyz"), 503, "")
	_, _, samples := h.exposition()
	if n, _ := sum(samples, "index_integrity_fail_total", "stage", "db"); n < 1 {
		t.Errorf("index_integrity_fail_total{stage=db} is %v", n)
	}
}

// A connection over the cap gets a canned 503 and is counted apart: nothing
// was asked on it.
func TestConnectionCap(t *testing.T) {
	h := openHouse(t, seams{}, "limits.conns_per_ip=20")
	h.http.CloseIdleConnections()
	eventually(t, "nobody is connected", func() bool { return h.scrape()["http_connections_open"] == 0 })
	before := h.scrape()
	var conns []*wire
	for range 20 {
		w := h.dial()
		w.ask("/healthz")
		conns = append(conns, w)
	}
	late := h.dial()
	if a := late.answer("GET"); a.status != 503 || a.field("code") != "upstream_unready" || !late.ended() {
		t.Errorf("one too many got %v %v", a, a.header)
	}
	m := h.scrape()
	if m["http_connections_refused_total"] != 1 || m[`rejected_total{reason="over_capacity"}`] != before[`rejected_total{reason="over_capacity"}`]+1 {
		t.Errorf("refused %v, rejected %v", m["http_connections_refused_total"], m[`rejected_total{reason="over_capacity"}`])
	}
	_ = conns[0].Close()
	eventually(t, "there is room again", func() bool {
		w := h.dial()
		defer w.Close()
		w.send(request("GET", "/healthz", ""))
		a, err := w.next("GET")
		return err == nil && a.status == 200
	})
}
