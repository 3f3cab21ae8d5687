package main

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"svcindex/index"
)

// secret stands in keys, parameters and bodies that are refused. No answer may
// repeat it.
const secret = "zZsecretZz"

// gzipped returns b compressed.
func gzipped(b []byte) string {
	var out bytes.Buffer
	w := gzip.NewWriter(&out)
	_, _ = w.Write(b)
	_ = w.Close()
	return out.String()
}

func TestErrors(t *testing.T) {
	h := openHouse(t, seams{}, "limits.request_timeout=2s")
	name, cid := "/names/name:"+secret, cidOf(secret)
	held := h.putManifest(`{"v":1}`)
	h.want(h.do("PUT", "/names/name:standing", `{"manifest_cid":"`+held+`","seq":5}`), 200, "")
	h.want(h.do("POST", "/admin/reindex", `{"keys":["name:a"]}`, "Idempotency-Key", "k1"), 202, "")
	auth := h.bearer()
	row := func(fields string) string { return `{"providers":[{` + fields + `}]}` }
	record := func(fields string) string { return `{"manifest_cid":"` + cid + `",` + fields + `}` }
	many := func(n int) string {
		rows := make([]string, n)
		for i := range rows {
			rows[i] = fmt.Sprintf(`{"id":"p%d","addr":"/ip4/192.0.2.1"}`, i)
		}
		return `{"providers":[` + strings.Join(rows, ",") + `]}`
	}
	put := func(path, body string) string { return request("PUT", path, body, auth...) }
	post := func(path, body string) string { return request("POST", path, body, auth...) }
	get := func(target string) string { return request("GET", target, "") }

	for _, tt := range []struct {
		why    string
		send   string
		status int
		closes bool
		allow  string
	}{
		{"a key has a kind", get("/resolve/" + secret), 400, false, ""},
		{"a key is something", get("/resolve/"), 400, false, ""},
		{"a name is something", get("/resolve/name:"), 400, false, ""},
		{"a name has its bytes", get("/resolve/name:" + secret + "!"), 400, false, ""},
		{"a name is 200 bytes at most", get("/resolve/name:" + secret + strings.Repeat("a", 191)), 400, false, ""},
		{"no segment is empty", get("/resolve/name:" + secret + "//b"), 400, false, ""},
		{"no segment is ..", get("/resolve/name:" + secret + "/../b"), 400, false, ""},
		{"nor by way of percent", get("/resolve/name:" + secret + "/%2e%2e/b"), 400, false, ""},
		{"percent is decoded once", get("/resolve/name:" + secret + "%252Fb"), 400, false, ""},
		{"percent wants two digits", get("/resolve/name:" + secret + "%2"), 400, false, ""},
		{"hex is lowercase", get("/resolve/b3:" + strings.Repeat("AB", 32)), 400, false, ""},
		{"a cid has 64 digits", get("/providers/b3:" + strings.Repeat("a", 63)), 400, false, ""},
		{"a manifest has a cid", get("/manifests/name:" + secret), 400, false, ""},
		{"fresh is true or false", get("/resolve/name:a?fresh=" + secret), 400, false, ""},
		{"a known parameter comes once", get("/resolve/name:a?fresh=true&fresh=true"), 400, false, ""},
		{"limit is 1 at least", get("/providers/" + cid + "?limit=0"), 400, false, ""},
		{"limit is 32 at most", get("/providers/" + cid + "?limit=33"), 400, false, ""},
		{"limit is a number", get("/providers/" + cid + "?limit=" + secret), 400, false, ""},
		{"limit is not nothing", get("/providers/" + cid + "?limit="), 400, false, ""},
		{"min_freshness is not negative", get("/providers/" + cid + "?min_freshness=-1"), 400, false, ""},
		{"region is something", get("/providers/" + cid + "?region="), 400, false, ""},
		{"a deletion's seq is 1 at least", request("DELETE", name+"?seq=0", "", auth...), 400, false, ""},
		{"and 2^53-1 at most", request("DELETE", name+"?seq=9007199254740992", "", auth...), 400, false, ""},
		{"a cid is no name", put("/names/"+cid, record(`"seq":1`)), 400, false, ""},
		{"a provider id has its bytes", request("DELETE", "/providers/"+cid+"/"+secret+"!", "", auth...), 400, false, ""},

		{"a body is JSON", put(name, secret), 400, false, ""},
		{"a whole of it", put(name, record(`"seq":1`)[:20]), 400, false, ""},
		{"and nothing more", put(name, record(`"seq":1`)+"{}"), 400, false, ""},
		{"an object", put(name, `["`+secret+`"]`), 400, false, ""},
		{"no field is unknown", put(name, record(`"seq":1,"`+secret+`":1`)), 400, false, ""},
		{"names of fields have a case", put(name, record(`"SEQ":1`)), 400, false, ""},
		{"no field comes twice", put(name, record(`"seq":1,"seq":2`)), 400, false, ""},
		{"nor in another spelling", put(name, record(`"seq":1,"\u017feq":2`)), 400, false, ""},
		{"nor further in", put("/providers/"+cid, row(`"id":"a","id":"b","addr":"/ip4/192.0.2.1"`)), 400, false, ""},
		{"a name points somewhere", put(name, `{"seq":1}`), 400, false, ""},
		{"to a cid", put(name, `{"manifest_cid":"`+secret+`","seq":1}`), 400, false, ""},
		{"a name has a seq", put(name, `{"manifest_cid":"`+cid+`"}`), 400, false, ""},
		{"of 1 at least", put(name, record(`"seq":0`)), 400, false, ""},
		{"of 2^53-1 at most", put(name, record(`"seq":9007199254740992`)), 400, false, ""},
		{"a whole one", put(name, record(`"seq":1.5`)), 400, false, ""},
		{"a name ends in the future", put(name, record(`"seq":1,"expires_at":1000000000`)), 400, false, ""},
		{"providers is a list of some", put("/providers/"+cid, `{"providers":[]}`), 400, false, ""},
		{"64 at most", put("/providers/"+cid, many(65)), 400, false, ""},
		{"a row has an id", put("/providers/"+cid, row(`"addr":"/ip4/192.0.2.1"`)), 400, false, ""},
		{"of 128 bytes at most", put("/providers/"+cid, row(`"id":"`+strings.Repeat("a", 129)+`","addr":"/ip4/192.0.2.1"`)), 400, false, ""},
		{"and an address", put("/providers/"+cid, row(`"id":"a"`)), 400, false, ""},
		{"a multiaddr or URL", put("/providers/"+cid, row(`"id":"a","addr":"ftp://`+secret+`"`)), 400, false, ""},
		{"of 512 bytes at most", put("/providers/"+cid, row(`"id":"a","addr":"http://`+strings.Repeat("a", 512)+`"`)), 400, false, ""},
		{"ttl_s is 60 at least", put("/providers/"+cid, row(`"id":"a","addr":"/ip4/192.0.2.1","ttl_s":59`)), 400, false, ""},
		{"ttl_s is 172800 at most", put("/providers/"+cid, row(`"id":"a","addr":"/ip4/192.0.2.1","ttl_s":172801`)), 400, false, ""},
		{"a manifest is something", put("/manifests", ""), 400, false, ""},
		{"a pin has a cid", post("/admin/pin", `{}`), 400, false, ""},
		{"that is one", post("/admin/unpin", `{"cid":"name:`+secret+`"}`), 400, false, ""},
		{"reindex has keys", post("/admin/reindex", `{"keys":[]}`), 400, false, ""},
		{"10,000 at most", post("/admin/reindex", `{"keys":["name:a"`+strings.Repeat(`,"name:a"`, 10_000)+`]}`), 400, false, ""},
		{"all of them sound", post("/admin/reindex", `{"keys":["name:a","`+secret+`"]}`), 400, false, ""},
		{"and a priority it knows", post("/admin/reindex", `{"keys":["name:a"],"priority":"`+secret+`"}`), 400, false, ""},
		{"gzip that is none", request("PUT", "/manifests", secret, append(auth, "Content-Encoding", "gzip")...), 400, false, ""},
		{"gzip cut short", request("PUT", "/manifests", gzipped([]byte(secret))[:20], append(auth, "Content-Encoding", "gzip")...), 400, false, ""},
		{"two lengths are doubt", request("PUT", "/manifests", "ab", "Content-Length", "2", "Transfer-Encoding", "chunked"), 400, true, ""},
		{"no Host is doubt", "GET /resolve/name:" + secret + " HTTP/1.1\r\n\r\n", 400, true, ""},
		{"a bare LF is doubt", "GET /resolve/name:" + secret + " HTTP/1.1\nHost: a\r\n\r\n", 400, true, ""},

		{"a write needs a token", request("PUT", name, record(`"seq":1`), "Content-Type", "application/json"), 401, false, ""},
		{"the right one", request("PUT", name, record(`"seq":1`), "Authorization", "Bearer "+secret), 401, false, ""},
		{"in the right scheme", request("PUT", "/manifests", "x", "Authorization", "Basic "+h.token), 401, false, ""},
		{"a deletion, too", request("DELETE", name, ""), 401, false, ""},
		{"and a pin", request("POST", "/admin/pin", `{"cid":"`+cid+`"}`), 401, false, ""},
		{"and a look at a task", get("/admin/tasks/" + secret), 401, false, ""},

		{"no such name", get("/resolve/name:" + secret), 404, false, ""},
		{"no such manifest behind a cid", get("/resolve/" + cid), 404, false, ""},
		{"nobody has it", get("/providers/" + cid), 404, false, ""},
		{"no such manifest", get("/manifests/" + cid), 404, false, ""},
		{"no such provider", request("DELETE", "/providers/"+cid+"/"+secret, "", auth...), 404, false, ""},
		{"no such task", request("GET", "/admin/tasks/"+secret, "", auth...), 404, false, ""},
		{"no such path", get("/" + secret), 404, false, ""},
		{"no path at all", get("/"), 404, false, ""},
		{"a path is matched as sent", get("/%72esolve/name:a"), 404, false, ""},

		{"resolve is read", put("/resolve/name:"+secret, "{}"), 405, false, "GET, HEAD"},
		{"OPTIONS too", request("OPTIONS", "/resolve/name:"+secret, ""), 405, false, "GET, HEAD"},
		{"names are written", get(name), 405, false, "PUT, DELETE"},
		{"manifests come by PUT", post("/manifests", "x"), 405, false, "PUT"},
		{"a manifest is read", request("DELETE", "/manifests/"+cid, "", auth...), 405, false, "GET, HEAD"},
		{"providers", post("/providers/"+cid, "{}"), 405, false, "GET, HEAD, PUT"},
		{"one provider", get("/providers/" + cid + "/" + secret), 405, false, "DELETE"},
		{"admin is posted", get("/admin/reindex"), 405, false, "POST"},
		{"pin", put("/admin/pin", "{}"), 405, false, "POST"},
		{"a task is read", post("/admin/tasks/"+secret, ""), 405, false, "GET, HEAD"},
		{"search is read", post("/search/"+secret, ""), 405, false, "GET, HEAD"},
		{"graph is read", post("/graph/name:"+secret, ""), 405, false, "GET, HEAD"},
		{"health is read", post("/healthz", ""), 405, false, "GET, HEAD"},
		{"readiness is read", put("/readyz", ""), 405, false, "GET, HEAD"},
		{"the version is read", request("DELETE", "/version", ""), 405, false, "GET, HEAD"},

		{"neither JSON nor CBOR", request("GET", "/resolve/name:"+secret, "", "Accept", "text/html"), 406, false, ""},
		{"JSON not wanted", request("GET", "/resolve/name:"+secret, "", "Accept", "application/json;q=0"), 406, false, ""},
		{"of a write, too", request("PUT", name, record(`"seq":1`), append(auth, "Accept", "image/png")...), 406, false, ""},
		{"seq is not newer", put("/names/name:standing", record(`"seq":4`)), 409, false, ""},
		{"seq is the same, the value is not", put("/names/name:standing", record(`"seq":5`)), 409, false, ""},
		{"nor is a deletion's", request("DELETE", "/names/name:standing?seq=5", "", auth...), 409, false, ""},
		{"an idempotency key with another body", request("POST", "/admin/reindex", `{"keys":["name:b"]}`, append(auth, "Idempotency-Key", "k1")...), 409, false, ""},
		{"a megabyte is enough", request("PUT", "/manifests", strings.Repeat("a", 1<<20+1), auth...), 413, true, ""},
		{"promised is as good as sent", request("PUT", "/manifests", "", append(auth, "Content-Length", "1048577")...), 413, true, ""},
		{"chunked does not hide it", request("PUT", "/manifests", "100001\r\n"+strings.Repeat("a", 1<<20+1)+"\r\n0\r\n\r\n", append(auth, "Transfer-Encoding", "chunked")...), 413, true, ""},
		{"a bomb", request("PUT", "/manifests", gzipped(make([]byte, 1<<20)), append(auth, "Content-Encoding", "gzip")...), 413, false, ""},
		{"inflated over the limit", request("PUT", "/manifests", gzipped([]byte(noise(1<<20+1))), append(auth, "Content-Encoding", "gzip")...), 413, true, ""},
		{"a target of 8 KiB", get("/resolve/name:" + secret + strings.Repeat("a", 8<<10)), 414, true, ""},
		{"a body of JSON", request("PUT", name, record(`"seq":1`), "Authorization", "Bearer "+h.token, "Content-Type", "text/"+secret), 415, false, ""},
		{"that says so", request("PUT", name, record(`"seq":1`), "Authorization", "Bearer "+h.token), 415, false, ""},
		{"a coding we know", request("PUT", "/manifests", secret, append(auth, "Content-Encoding", "br")...), 415, false, ""},
		{"an expectation we know", request("PUT", "/manifests", secret, append(auth, "Expect", secret)...), 417, true, ""},
		{"a head of 16 KiB", request("GET", "/resolve/name:a", "", "X-Long", strings.Repeat(secret, 1700)), 431, true, ""},
		{"a head of 100 fields", request("GET", "/resolve/name:a", "", strings.Split(strings.Repeat("X-F,"+secret+",", 100), ",")[:200]...), 431, true, ""},
		{"no search yet", get("/search/" + secret), 501, false, ""},
		{"no graph yet", get("/graph/name:" + secret), 501, false, ""},
		{"a signature of the right size", put(name, record(`"seq":1,"pubkey":"a","sig":"b"`)), 400, false, ""},
		{"a signature that is true", put(name, record(`"seq":1,"pubkey":"`+strings.Repeat("A", 43)+`","sig":"`+strings.Repeat("A", 86)+`"`)), 403, false, ""},
		{"a self-certifying name by its key", put("/names/name:@"+strings.Repeat("a", 64)+"/"+secret, record(`"seq":1`)), 403, false, ""},
		{"no such method", request("BREW", "/resolve/name:"+secret, ""), 501, true, ""},
		{"another version", "GET /resolve/name:" + secret + " HTTP/2.0\r\nHost: a\r\n\r\n", 505, true, ""},
		{"the client is too slow", request("PUT", "/manifests", "half", append(auth, "Content-Length", "8")...), 408, true, ""},
	} {
		t.Run(fmt.Sprintf("%d %s", tt.status, tt.why), func(t *testing.T) {
			t.Parallel()
			w := h.dial()
			w.t = t
			w.send(tt.send)
			method, _, _ := strings.Cut(tt.send, " ")
			a := w.answer(method)
			if a.status != tt.status {
				t.Fatalf("got %v, want %d", a, tt.status)
			}
			if got := a.header.Get("Allow"); got != tt.allow {
				t.Errorf("Allow: %s, want %s", got, tt.allow)
			}
			for field, values := range a.header {
				if strings.Contains(strings.Join(values, ""), secret) {
					t.Errorf("%s repeats what was sent: %s", field, values)
				}
			}
			if bytes.Contains(a.body, []byte(secret)) || bytes.Contains(a.body, []byte(cid)) {
				t.Errorf("the body repeats what was sent: %s", a.body)
			}
			if a.status == 409 && strings.Contains(tt.send, "/names/") && a.field("current_seq") != "5" {
				t.Errorf("current_seq is %q, want 5", a.field("current_seq"))
			}
			if tt.closes != (a.header.Get("Connection") == "close") {
				t.Errorf("Connection: %q, want it closed: %v", a.header.Get("Connection"), tt.closes)
			}
			if tt.closes {
				if !w.ended() {
					t.Error("more came, or it stayed open")
				}
				return
			}
			if next := w.ask("/healthz"); next.status != 200 {
				t.Errorf("the next request on the connection got %v", next)
			}
		})
	}
}

// noise returns n bytes that do not compress.
func noise(n int) string {
	var b []byte
	for i := 0; len(b) < n; i++ {
		c := index.Sum(fmt.Append(nil, i))
		b = append(b, c[:]...)
	}
	return string(b[:n])
}

// HEAD has the head that GET has, also of an error.
func TestErrorsUnderHead(t *testing.T) {
	h := openHouse(t, seams{})
	for _, path := range []string{"/resolve/name:no", "/resolve/", "/nowhere", "/search/x", "/admin/pin", "/manifests/" + cidOf("no"), "/admin/tasks/x"} {
		get, head := h.get(path), h.do("HEAD", path, "")
		for _, a := range []answered{get, head} {
			a.header.Del("X-Corr-ID")
			a.header.Del("Date")
		}
		if get.status != head.status || fmt.Sprint(get.header) != fmt.Sprint(head.header) {
			t.Errorf("%s: HEAD got %d %v, GET %d %v", path, head.status, head.header, get.status, get.header)
		}
	}
}

// What goes wrong behind the cache has its status, names the stage, and is
// never a 404.
func TestErrorsOfPlaces(t *testing.T) {
	readRelease, writeRelease := make(chan struct{}), make(chan struct{})
	for _, tt := range []struct {
		why    string
		seams  seams
		set    []string
		method string
		status int
		stage  string
	}{
		{"a panic in a step", seams{store: before(func(*index.Job) error { panic(secret) })}, nil, "GET", 500, "db"},
		{"damage", seams{store: before(func(*index.Job) error { return index.Broken })}, nil, "GET", 500, "db"},
		{"a disk that cannot be read", seams{store: before(func(*index.Job) error { return fmt.Errorf("%s", secret) })}, nil, "GET", 503, "db"},
		{"a disk that hangs", seams{store: before(func(*index.Job) error { <-readRelease; return nil })},
			[]string{"budget.resolve=300ms", "stages.db.slice=100ms", "stages.db.max_wait=50ms", "stages.dht.slice=100ms", "stages.dht.max_wait=50ms"}, "GET", 504, ""},
		{"a broken disk and a network that has not got it", seams{
			store:   before(func(*index.Job) error { return index.Down }),
			network: networkFunc(func(context.Context, *index.Job) error { return index.Missing }),
		}, nil, "GET", 503, "db"},
		{"a sound disk and a network that fails", seams{
			network: networkFunc(func(context.Context, *index.Job) error { return index.Down }),
		}, nil, "GET", 503, "dht"},
		{"a full disk", seams{writer: func(index.Writer) index.Writer {
			return writerFunc(func([]*index.Mutation) error { return index.Full })
		}}, nil, "PUT", 507, ""},
		{"a disk that went read-only", seams{writer: func(index.Writer) index.Writer {
			return writerFunc(func([]*index.Mutation) error { return index.Down })
		}}, nil, "PUT", 503, ""},
		{"a panic in the writer", seams{writer: func(index.Writer) index.Writer {
			return writerFunc(func([]*index.Mutation) error { panic(secret) })
		}}, nil, "PUT", 500, ""},
		{"a writer that hangs", seams{writer: func(index.Writer) index.Writer {
			return writerFunc(func([]*index.Mutation) error { <-writeRelease; return nil })
		}}, []string{"limits.write_timeout=300ms", "stages.write.slice=200ms", "stages.write.max_wait=100ms"}, "PUT", 504, ""},
	} {
		t.Run(tt.why, func(t *testing.T) {
			h := openHouse(t, tt.seams, tt.set...)
			path, body := "/resolve/name:"+secret, ""
			if tt.seams.network != nil {
				path = "/resolve/" + cidOf(secret) // a name that nobody is trusted to sign is not looked for there
			}
			if tt.method == "PUT" {
				path, body = "/manifests", secret
			}
			a := h.do(tt.method, path, body)
			if a.status != tt.status || tt.stage != "" && a.field("stage") != tt.stage {
				t.Errorf("got %v, want %d from %s", a, tt.status, tt.stage)
			}
			if bytes.Contains(a.body, []byte(secret)) {
				t.Errorf("the body says what went wrong in whose words: %s", a.body)
			}
			switch {
			case tt.status == 504 && tt.method == "GET":
				close(readRelease)
			case tt.status == 504:
				close(writeRelease)
			}
		})
	}
}

// A full house says 429 at once, with a time to come back, and no room behind
// it hears of it.
func TestOverCapacity(t *testing.T) {
	release, reads := make(chan struct{}), make(chan struct{}, 100)
	h := openHouse(t, seams{store: before(func(*index.Job) error {
		reads <- struct{}{}
		<-release
		return nil
	})}, "limits.inflight=2", "budget.resolve=10s")
	var wait sync.WaitGroup
	for i := range 2 {
		wait.Go(func() { h.want(h.get(fmt.Sprintf("/resolve/name:%d", i)), 404, "not_found") })
	}
	eventually(t, "both look-ups are under way", func() bool { n, _ := h.line.Inflight(); return n == 2 })
	for i := range 20 {
		start := time.Now()
		h.want(h.get(fmt.Sprintf("/resolve/name:more%d", i)), 429, "over_capacity")
		if d := time.Since(start); d > 5*time.Second { // half of what the look-ups have; a busy machine is slow
			t.Errorf("a refusal took %v", d)
		}
	}
	h.want(h.do("PUT", "/manifests", "x"), 429, "over_capacity")
	h.want(h.get("/healthz"), 200, "")
	close(release)
	wait.Wait()
	if len(reads) != 2 {
		t.Errorf("the database was asked %d times, want 2", len(reads))
	}
	h.want(h.get("/resolve/name:after"), 404, "not_found")
}

// A drain refuses what comes on new connections, and answers what has arrived.
func TestDraining(t *testing.T) {
	release, read := make(chan struct{}), make(chan struct{}, 1)
	h := openHouse(t, seams{store: before(func(*index.Job) error {
		read <- struct{}{}
		<-release
		return nil
	})}, "budget.resolve=10s")
	w := h.dial()
	w.send(request("GET", "/resolve/name:a", ""))
	<-read
	shut := make(chan struct{})
	go func() { h.shut(); close(shut) }()
	addr, ready := h.addr.String(), h.ready
	eventually(t, "readiness is off", func() bool { ok, _, _ := ready.Body(); return !ok })
	time.Sleep(50 * time.Millisecond)

	late := dialWire(t, "tcp", addr)
	if a := late.ask("/resolve/name:b"); a.status != 503 || a.field("code") != "upstream_unready" || a.header.Get("Connection") != "close" {
		t.Errorf("a request during the drain got %v %v", a, a.header)
	}
	readyz := dialWire(t, "tcp", addr)
	a := readyz.ask("/readyz")
	var body struct {
		Ready   *bool    `json:"ready"`
		Missing []string `json:"missing"`
		Retry   int      `json:"retry_after"`
	}
	if err := json.Unmarshal(a.body, &body); err != nil || a.status != 503 || body.Ready == nil || *body.Ready || len(body.Missing) == 0 || body.Retry < 1 {
		t.Errorf("/readyz says %v (%v)", a, err)
	}
	close(release)
	if a := w.answer("GET"); a.status != 404 || !w.ended() {
		t.Errorf("what had arrived got %v %v, want 404 and the end of the connection", a, a.header)
	}
	<-shut
}
