package main

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"svcindex/index"
)

// Each limit, as a client meets it: before it is set all is well, from the
// reload that sets it the client is told what it was over, and it is counted;
// taken back, all is well again.
func TestEachLimitIsSeenAndLive(t *testing.T) {
	release := make(chan struct{})
	wait := func(k *index.Key) {
		if strings.Contains(k.String(), "slow") {
			select {
			case <-release:
			case <-time.After(400 * time.Millisecond):
			}
		}
	}
	h := openReloading(t, seams{
		store: before(func(j *index.Job) error { wait(&j.Key); return nil }),
		writer: func(real index.Writer) index.Writer {
			return writerFunc(func(ms []*index.Mutation) error { wait(&ms[0].Key); return real.Commit(ms) })
		},
	}, "stages.db.breaker.min_requests=1000000", "stages.write.breaker.min_requests=1000000")
	defer close(release)
	put := func(body string, header ...string) string {
		return request("PUT", "/manifests", body, append(h.bearer(), header...)...)
	}
	// over sends requests on connections of their own, without waiting for
	// answers in between, and returns the answer to the last.
	over := func(requests ...string) answered {
		wires := make([]*wire, len(requests))
		for i, r := range requests {
			wires[i] = h.dial()
			wires[i].send(r)
			if i < len(requests)-1 {
				time.Sleep(60 * time.Millisecond) // until it is where it waits
			}
		}
		defer func() {
			for _, w := range wires {
				_ = w.Close()
			}
		}()
		return wires[len(wires)-1].answer("GET")
	}
	get := func(path string) string { return request("GET", path, "") }
	n := 0
	slow := func() string { n++; return get(fmt.Sprint("/resolve/name:slow", n)) }
	slowWrite := func() string {
		n++
		return request("PUT", fmt.Sprint("/names/name:slow", n), fmt.Sprintf(`{"manifest_cid":%q,"seq":1}`, cidOf("a")), h.bearer()...)
	}
	half := func() string {
		return strings.TrimSuffix(put(noise(900)), noise(900)) + noise(800)
	}

	for _, tt := range []struct {
		why    string
		set    string
		do     func() answered
		ok     int
		status int
		code   string
		reason string // part of it
		count  string
	}{
		{"time for a request", "limits.request_timeout = \"200ms\"", func() answered {
			w := h.dial()
			defer w.Close()
			w.send("GET /resolve/name:a HTTP/1.1\r\n")
			time.Sleep(600 * time.Millisecond)
			w.send("Host: a\r\n\r\n")
			return w.answer("GET")
		}, 404, 408, "request_timeout", "limits.request_timeout", `rejected_total{reason="timeout"}`},
		{"time for a look-up", "budget.resolve = \"100ms\"\nstages.db.slice = \"50ms\"\nstages.db.max_wait = \"0s\"\nstages.dht.slice = \"20ms\"\nstages.dht.max_wait = \"0s\"",
			func() answered { return over(slow()) }, 404, 504, "timeout", "budget.resolve", `rejected_total{reason="timeout"}`},
		{"time for a write", "limits.write_timeout = \"100ms\"\nstages.write.slice = \"50ms\"\nstages.write.max_wait = \"0s\"",
			func() answered { return over(slowWrite()) }, 200, 504, "timeout", "limits.write_timeout", `rejected_total{reason="timeout"}`},
		{"look-ups in flight", "limits.inflight = 1", func() answered { return over(slow(), slow()) },
			404, 429, "over_capacity", "limits.inflight", `stage_rejected_total{stage="cache",reason="inflight"}`},
		{"askers of one look-up", "limits.joined = 1", func() answered { s := slow(); return over(s, s, s) },
			404, 429, "over_capacity", "limits.joined", `stage_rejected_total{stage="cache",reason="inflight"}`},
		{"jobs that wait", "stages.db.depth = 1\nstages.db.workers_min = 1\nstages.db.workers_max = 1\nstages.db.max_wait = \"0s\"",
			func() answered { return over(slow(), slow(), slow()) },
			404, 429, "over_capacity", "stages.db.depth", `stage_rejected_total{stage="db",reason="full"}`},
		{"time to wait", "stages.db.workers_min = 1\nstages.db.workers_max = 1\nstages.db.max_wait = \"20ms\"",
			func() answered { return over(slow(), slow(), slow()) },
			404, 429, "over_capacity", "stages.db.max_wait", `stage_rejected_total{stage="db",reason="wait"}`},
		{"writes that wait", "stages.write.depth = 1\nstages.write.workers_min = 1\nstages.write.workers_max = 1\nstages.write.batch = 1\nstages.write.max_wait = \"0s\"",
			func() answered { return over(slowWrite(), slowWrite(), slowWrite()) },
			200, 429, "over_capacity", "stages.write.depth", `stage_rejected_total{stage="write",reason="full"}`},
		{"all clients a second", "limits.rps = 1", func() answered { return over(get("/resolve/name:a"), get("/resolve/name:b")) },
			404, 429, "over_capacity", "limits.rps", `quota_exhaustions_total{dimension="rps"}`},
		{"an address a second", "limits.rps_per_ip = 1", func() answered { return over(get("/manifests/"+cidOf("a")), get("/resolve/name:b")) },
			404, 429, "over_capacity", "limits.rps_per_ip", `quota_exhaustions_total{dimension="rps_per_ip"}`},
		{"resolves a minute", "quota.resolves_per_min = 1", func() answered { return over(get("/resolve/name:a"), get("/resolve/name:b")) },
			404, 429, "over_capacity", "quota.resolves_per_min", `quota_exhaustions_total{dimension="resolves"}`},
		{"provider look-ups a minute", "quota.providers_per_min = 1", func() answered {
			return over(get("/providers/"+cidOf("a")), get("/providers/"+cidOf("a")))
		}, 404, 429, "over_capacity", "quota.providers_per_min", `quota_exhaustions_total{dimension="providers"}`},
		{"connections", "limits.max_conns = 1", func() answered { return over("GET /healthz HTTP/1.1\r\n", get("/healthz")) },
			200, 503, "upstream_unready", "connections", `http_connections_refused_total`},
		{"connections of an address", "limits.conns_per_ip = 1", func() answered { return over("GET /healthz HTTP/1.1\r\n", get("/healthz")) },
			200, 503, "upstream_unready", "connections", `http_connections_refused_total`},
		{"a body", "limits.body = \"1KiB\"", func() answered { return over(put(noise(2000))) },
			201, 413, "body_cap", "limits.body", `rejected_total{reason="body_cap"}`},
		{"a body in chunks", "limits.body = \"1KiB\"", func() answered {
			return over(put("7d0\r\n"+noise(2000)+"\r\n0\r\n\r\n", "Transfer-Encoding", "chunked"))
		}, 200, 413, "body_cap", "limits.body", `rejected_total{reason="body_cap"}`},
		{"a body that inflates", "limits.decompress_ratio = 2", func() answered {
			return over(put(gzipped([]byte(strings.Repeat(noise(600), 9))), "Content-Encoding", "gzip"))
		}, 201, 413, "body_cap", "inflates", `rejected_total{reason="decompress_cap"}`},
		{"all members of it together", "limits.decompress_ratio = 2", func() answered {
			one := gzipped([]byte(strings.Repeat(noise(600), 3)))
			return over(put(one+one+one, "Content-Encoding", "gzip"))
		}, 200, 413, "body_cap", "inflates", `rejected_total{reason="decompress_cap"}`},
		{"a head", "limits.head_bytes = \"1KiB\"", func() answered {
			return over(request("GET", "/resolve/name:a", "", "X-Long", strings.Repeat("a", 2000)))
		}, 404, 431, "header_cap", "limits.head_bytes", `rejected_total{reason="bad_request"}`},
		{"a target", "limits.target_bytes = \"1KiB\"", func() answered {
			return over(get("/resolve/name:a?x=" + strings.Repeat("a", 2000)))
		}, 404, 414, "uri_too_long", "limits.target_bytes", `rejected_total{reason="bad_request"}`},
		{"a compressed body", "compression.enabled = false", func() answered {
			return over(put(gzipped([]byte(noise(600))), "Content-Encoding", "gzip"))
		}, 201, 415, "unsupported_type", "compression.enabled", `rejected_total{reason="bad_request"}`},
		{"bytes held for all", "limits.body = \"1KiB\"\nlimits.buffered_bytes = \"1KiB\"", func() answered { return over(half(), put(noise(1000))) },
			200, 503, "upstream_unready", "buffered_bytes", `rejected_total{reason="over_capacity"}`},
	} {
		t.Run(tt.why, func(t *testing.T) {
			h.must("")
			h.http.CloseIdleConnections()
			eventually(t, "nobody is left", func() bool { e, _ := h.line.Inflight(); return e == 0 && h.server.Counts().Conns.Load() == 0 })
			if a := tt.do(); a.status != tt.ok && (tt.ok != 201 || a.status != 200) && (tt.ok != 200 || a.status != 201) {
				t.Fatalf("without the limit: %v, want %d", a, tt.ok)
			}
			eventually(t, "nobody is left", func() bool { e, _ := h.line.Inflight(); return e == 0 && h.server.Counts().Conns.Load() == 0 })
			h.must(tt.set)
			was := h.scrape()[tt.count]
			a := tt.do()
			if a.status != tt.status || a.field("code") != tt.code || !strings.Contains(a.field("reason"), tt.reason) || a.field("message") == "" {
				t.Errorf("over the limit: %v, want %d %s because of %q", a, tt.status, tt.code, tt.reason)
			}
			if now, known := h.scrape()[tt.count]; !known || now <= was {
				t.Errorf("%s is %v, and was %v", tt.count, now, was)
			}
			if strings.Contains(tt.set, "rps") || strings.Contains(tt.set, "per_min") {
				if a.header.Get("RateLimit-Limit") != "1" || a.header.Get("RateLimit-Remaining") != "0" || a.header.Get("RateLimit-Reset") == "" {
					t.Errorf("the fields of the limit are %v", a.header)
				}
			}
			h.must("")
			eventually(t, "nobody is left", func() bool { e, _ := h.line.Inflight(); return e == 0 && h.server.Counts().Conns.Load() == 0 })
			if a := tt.do(); a.status != tt.ok && (tt.ok != 201 || a.status != 200) && (tt.ok != 200 || a.status != 201) {
				t.Errorf("taken back: %v, want %d", a, tt.ok)
			}
		})
	}
}

// While a rate is on, every answer says how the limit stands; health is not
// measured.
func TestRateLimitFields(t *testing.T) {
	h := openReloading(t, seams{}, "limits.rps=1000", "limits.rps_per_ip=10", "quota.resolves_per_min=100")
	cid := h.putManifest("x")
	w := h.dial()
	for i, path := range []string{"/manifests/" + cid, "/manifests/" + cid, "/resolve/name:no", "/nowhere", "/resolve/"} {
		a := w.ask(path)
		if a.header.Get("RateLimit-Limit") != "10" || a.header.Get("RateLimit-Reset") != "1" {
			t.Errorf("%s: %v", path, a.header)
		}
		if left := a.header.Get("RateLimit-Remaining"); left == "" || left > "9" || i == 0 && left < "5" {
			t.Errorf("%s: %q are left", path, left)
		}
	}
	for range 30 {
		if a := w.ask("/healthz"); a.status != 200 || a.header.Get("RateLimit-Limit") != "" {
			t.Fatalf("/healthz got %v %v", a, a.header)
		}
	}
	refused := 0
	for range 30 {
		if a := w.ask("/resolve/name:no"); a.status == 429 {
			refused++
		}
	}
	if refused == 0 {
		t.Error("30 at once, and 10 a second are allowed")
	}
}

// A connection on which nothing is asked is closed without a word, and counted.
func TestTheIdleLimitIsSeenAndLive(t *testing.T) {
	h := openReloading(t, seams{})
	const idle = "http_idle_closed_total"
	quiet := func() *wire {
		w := h.dial()
		h.want(w.ask("/healthz"), 200, "")
		return w
	}
	h.http.CloseIdleConnections()
	eventually(t, "nobody is left", func() bool { return h.server.Counts().Conns.Load() == 0 })
	before := quiet()
	h.must("limits.idle_timeout = \"300ms\"")
	for _, w := range []*wire{before, quiet()} { // it counts for those who are here already, too
		if !w.ended() {
			t.Error("a quiet connection stays open")
		}
	}
	if n := h.scrape()[idle]; n != 2 {
		t.Errorf("%s is %v, want 2", idle, n)
	}
	h.must("")
	after := quiet()
	time.Sleep(700 * time.Millisecond)
	h.want(after.ask("/healthz"), 200, "")
	if n := h.scrape()[idle]; n != 2 {
		t.Errorf("taken back, %s is %v, want 2", idle, n)
	}
}

// What a client may send compressed is the operator's choice; what it gets is
// sent as it is, whatever it would take: one form of each answer, one tag, and
// no field says that another might have come.
func TestCompressionIsOfWhatIsSent(t *testing.T) {
	h := openReloading(t, seams{})
	cid := h.putManifest(strings.Repeat("compressible ", 4000))
	h.want(h.do("PUT", "/providers/"+cid, `{"providers":[{"id":"p","addr":"http://192.0.2.1/"}]}`), 200, "")
	zipped := func(coding string) answered {
		return h.do("PUT", "/manifests", gzipped([]byte("zipped "+coding)), "Content-Encoding", coding)
	}
	if a := h.want(zipped("br"), 415, "unsupported_type"); a.header.Get("Accept-Encoding") != "gzip" {
		t.Errorf("the answer to another coding tells of %q", a.header.Get("Accept-Encoding"))
	}
	h.want(zipped("gzip"), 201, "")
	h.must("compression.enabled = false")
	for _, coding := range []string{"gzip", "x-gzip", "br"} {
		if a := h.want(zipped(coding), 415, "unsupported_type"); a.header.Get("Accept-Encoding") != "identity" || a.field("reason") != "compression.enabled" {
			t.Errorf("%s: %v %v", coding, a, a.header)
		}
	}
	h.want(zipped("identity"), 201, "") // the same bytes under no coding
	for _, toml := range []string{"compression.enabled = false", ""} {
		h.must(toml)
		for path, vary := range map[string]string{"/resolve/" + cid: "Accept", "/providers/" + cid: "Accept", "/manifests/" + cid: ""} {
			a := h.want(h.get(path, "Accept-Encoding", "gzip"), 200, "")
			if a.header.Get("Content-Encoding") != "" || a.header.Get("Vary") != vary {
				t.Errorf("%s under %q: Content-Encoding %q, Vary %q", path, toml, a.header.Get("Content-Encoding"), a.header.Get("Vary"))
			}
			tag := `"` + cidOf(string(a.body)) + `"`
			if path == "/manifests/"+cid {
				tag = `"` + cid + `"`
			}
			if a.header.Get("ETag") != tag || cidOf(string(a.body)) != strings.Trim(tag, `"`) {
				t.Errorf("%s: ETag %s is not that of the body as sent, %s", path, a.header.Get("ETag"), tag)
			}
		}
	}
}
