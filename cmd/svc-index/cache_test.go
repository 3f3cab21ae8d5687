package main

import (
	"context"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"svcindex/index"
)

// An answer says where it came from and how old it is; a look past the cache
// says that it must not be kept, and does not spoil what is kept for others.
func TestSourceAndAge(t *testing.T) {
	h := openHouse(t, seams{})
	cid := h.putManifest(`{"v":1}`)
	h.want(h.do("PUT", "/names/name:a", `{"manifest_cid":"`+cid+`","seq":1}`), 200, "")
	h.want(h.do("PUT", "/providers/"+cid, `{"providers":[{"id":"p","addr":"/ip4/192.0.2.1"}]}`), 200, "")
	for _, tt := range []struct{ path, control, fresh string }{
		{"/resolve/name:a", "public, max-age=5", "?fresh=true"},
		{"/resolve/" + cid, "public, max-age=5", "?fresh=true"},
		{"/providers/" + cid, "public, max-age=5", "?fresh=true"},
		{"/manifests/" + cid, "public, max-age=31536000, immutable", ""},
	} {
		sees := func(path, source, control string) answered {
			t.Helper()
			a := h.want(h.get(path), 200, "")
			got := a.header.Get("X-Index-Source") + "|" + a.header.Get("Cache-Control") + "|" + a.header.Get("X-Index-Complete")
			if want := source + "|" + control + "|full"; got != want {
				t.Errorf("%s: got %s, want %s", path, got, want)
			}
			return a
		}
		if tt.fresh != "" {
			sees(tt.path+tt.fresh, "db", "no-cache")
		} else {
			sees(tt.path, "db", tt.control)
		}
		first := sees(tt.path, "cache", tt.control)
		if tt.fresh != "" {
			sees(tt.path+tt.fresh, "db", "no-cache")
			sees(tt.path, "cache", tt.control)
		}
		time.Sleep(1100 * time.Millisecond)
		later := sees(tt.path, "cache", tt.control)
		if string(first.body) != string(later.body) || first.header.Get("ETag") != later.header.Get("ETag") {
			t.Errorf("%s changed by waiting: %v, then %v", tt.path, first, later)
		}
		age := func(a answered) int { n, _ := strconv.Atoi(a.header.Get("Age")); return n }
		if age(first) != 0 || age(later) < 1 || age(later) > 3 {
			t.Errorf("%s: Age %d, and after 1.1 s %d", tt.path, age(first), age(later))
		}
	}
}

// A reindex looks past the cache too, and what it leaves there is for everybody.
func TestReindexKeepsWhatAllMayKeep(t *testing.T) {
	h := openHouse(t, seams{})
	h.want(h.do("PUT", "/names/name:a", `{"manifest_cid":"`+cidOf("a")+`","seq":1}`), 200, "")
	h.reindex(`{"keys":["name:a"]}`)
	a := h.want(h.get("/resolve/name:a"), 200, "")
	if a.header.Get("X-Index-Source") != "cache" || a.header.Get("Cache-Control") != "public, max-age=5" {
		t.Errorf("got %v", a.header)
	}
}

// An entity tag is the BLAKE3 of the body as sent, and spares its owner a copy.
func TestConditional(t *testing.T) {
	h := openHouse(t, seams{})
	cid := h.putManifest(`{"v":1}`)
	h.want(h.do("PUT", "/names/name:a", `{"manifest_cid":"`+cid+`","seq":1}`), 200, "")
	h.want(h.do("PUT", "/providers/"+cid, `{"providers":[{"id":"p","addr":"/ip4/192.0.2.1"}]}`), 200, "")
	for _, path := range []string{
		"/resolve/name:a", "/resolve/" + cid, "/providers/" + cid, "/providers/" + cid + "?limit=1", "/manifests/" + cid,
		"/resolve/name:a?fresh=true",
	} {
		for _, accept := range []string{"application/json", "application/cbor"} {
			miss := h.want(h.get(path, "Accept", accept), 200, "")
			etag := miss.header.Get("ETag")
			if want := `"` + cidOf(string(miss.body)) + `"`; etag != want {
				t.Errorf("%s: ETag %s, the body has %s", path, etag, want)
			}
			other := `"` + cidOf("other") + `"`
			for _, tt := range []struct {
				field  string
				status int
			}{
				{etag, 304}, {"W/" + etag, 304}, {"*", 304}, {other + ", " + etag, 304}, {other + "," + "W/" + etag + " , " + other, 304},
				{other, 200}, {strings.Trim(etag, `"`), 200}, {"", 200}, {`"`, 200},
			} {
				a := h.want(h.get(path, "Accept", accept, "If-None-Match", tt.field), tt.status, "")
				if a.header.Get("ETag") != etag || a.header.Get("Cache-Control") != miss.header.Get("Cache-Control") || a.header.Get("Vary") != miss.header.Get("Vary") {
					t.Errorf("%s If-None-Match %s: %v, without it %v", path, tt.field, a.header, miss.header)
				}
				if a.status != 304 {
					continue
				}
				for name := range a.header {
					switch name {
					case "Date", "Etag", "Cache-Control", "Vary", "X-Corr-Id", "Age", "X-Index-Source", "X-Index-Complete":
					default:
						t.Errorf("a 304 for %s has %s: %s", path, name, a.header.Get(name))
					}
				}
			}
			if h.do("HEAD", path, "", "Accept", accept, "If-None-Match", etag).status != 304 {
				t.Errorf("HEAD %s: no 304", path)
			}
		}
	}
	h.want(h.get("/resolve/name:none", "If-None-Match", "*"), 404, "not_found")
}

// A write that forbids itself unless something holds is not done without
// looking whether it does.
func TestConditionalWritesAreRefused(t *testing.T) {
	h := openHouse(t, seams{})
	cid := h.putManifest("m")
	h.want(h.putName("name:a", cid, 1), 200, "")
	for _, field := range []string{"If-None-Match", "If-Match"} {
		h.want(h.do("PUT", "/names/name:a", `{"manifest_cid":"`+cidOf("other")+`","seq":2}`, field, "*"), 501, "not_implemented")
		h.want(h.do("DELETE", "/names/name:a", "", field, `"x"`), 501, "not_implemented")
		h.want(h.do("PUT", "/manifests", "other", field, "*"), 501, "not_implemented")
	}
	if a := h.want(h.get("/resolve/name:a"), 200, ""); a.field("seq") != "1" {
		t.Errorf("it was written all the same: %v", a)
	}
	h.want(h.do("PUT", "/names/name:a", `{"manifest_cid":"`+cid+`","seq":2}`, "If-Unmodified-Since", "Sat, 28 Nov 2026 10:00:00 GMT"), 200, "") // no date is known: ignored
}

// JSON and CBOR are two entities of one resource.
func TestFormatsHaveTagsOfTheirOwn(t *testing.T) {
	h := openHouse(t, seams{})
	h.want(h.do("PUT", "/names/name:a", `{"manifest_cid":"`+cidOf("a")+`","seq":1}`), 200, "")
	etag := func(accept string) string {
		a := h.want(h.get("/resolve/name:a", "Accept", accept), 200, "")
		if a.header.Get("Vary") != "Accept" || a.header.Get("Content-Type") != accept {
			t.Errorf("Accept: %s got %v", accept, a.header)
		}
		return a.header.Get("ETag")
	}
	for range 2 { // missed, then hit
		if j, c := etag("application/json"), etag("application/cbor"); j == c {
			t.Errorf("both have %s", j)
		}
	}
	h.want(h.get("/resolve/name:a", "Accept", "application/cbor", "If-None-Match", etag("application/json")), 200, "")
}

// HEAD has GET's head: for a miss, a hit, an answer made for one asker, and an
// absence that is known.
func TestHead(t *testing.T) {
	h := openHouse(t, seams{})
	cid := h.putManifest(`{"v":1}`)
	h.want(h.do("PUT", "/names/name:a", `{"manifest_cid":"`+cid+`","seq":1}`), 200, "")
	h.want(h.do("PUT", "/providers/"+cid, `{"providers":[{"id":"p","addr":"/ip4/192.0.2.1"},{"id":"q","addr":"/ip4/192.0.2.1"}]}`), 200, "")
	for _, path := range []string{
		"/resolve/name:a", "/resolve/" + cid, "/providers/" + cid, "/providers/" + cid + "?limit=1", "/manifests/" + cid,
		"/resolve/name:none", "/resolve/name:a?fresh=true", "/healthz", "/readyz", "/version",
	} {
		for range 3 {
			head, get := h.do("HEAD", path, ""), h.get(path)
			if head.header.Get("Content-Length") != strconv.Itoa(len(get.body)) {
				t.Errorf("HEAD %s has Content-Length %s, the body has %d", path, head.header.Get("Content-Length"), len(get.body))
			}
			for _, a := range []answered{head, get} {
				for _, name := range []string{"X-Corr-Id", "Date", "Age", "X-Index-Source"} {
					a.header.Del(name)
				}
			}
			if head.status != get.status || fmt.Sprint(head.header) != fmt.Sprint(get.header) {
				t.Errorf("%s: HEAD got %d %v, GET %d %v", path, head.status, head.header, get.status, get.header)
			}
		}
	}
	if a := h.do("HEAD", "/resolve/name:a", ""); a.header.Get("X-Index-Source") != "cache" {
		t.Errorf("HEAD of what is cached came from %s", a.header.Get("X-Index-Source"))
	}
}

// A name that has ended is gone, also from the cache, to the second.
func TestExpiry(t *testing.T) {
	h := openHouse(t, seams{})
	ends := time.Now().Unix() + 2
	h.want(h.do("PUT", "/names/name:a", fmt.Sprintf(`{"manifest_cid":"%s","seq":1,"expires_at":%d}`, cidOf("a"), ends)), 200, "")
	for range 2 {
		a := h.want(h.get("/resolve/name:a"), 200, "")
		if a.field("expires_at") != strconv.FormatInt(ends, 10) {
			t.Errorf("expires_at is %s, want %d", a.field("expires_at"), ends)
		}
	}
	h.want(h.get("/resolve/name:a", "Accept", "application/cbor"), 200, "")
	time.Sleep(time.Until(time.Unix(ends, 0)))
	h.want(h.get("/resolve/name:a"), 404, "not_found")
	h.want(h.get("/resolve/name:a?fresh=true"), 404, "not_found")
	if a := h.get("/resolve/name:a", "Accept", "application/cbor"); a.status != 404 {
		t.Errorf("as CBOR: %d", a.status)
	}
	a := h.want(h.do("PUT", "/names/name:a", `{"manifest_cid":"`+cidOf("a")+`","seq":1}`), 409, "conflict")
	if a.field("current_seq") != "1" {
		t.Errorf("an ended name forgot its seq: %v", a)
	}
}

// A row that has ended is gone, unless it is pinned: a pin's rows do not end.
func TestProvidersExpire(t *testing.T) {
	h := openHouse(t, seams{})
	ends := time.Now().Unix() + 2
	c, pinned := index.Sum([]byte("c")), index.Sum([]byte("pinned"))
	for _, cid := range []index.CID{c, pinned} {
		m := index.Mutation{Op: index.PutProviders, Key: index.CIDKey(cid), Providers: []index.Provider{
			{ID: "ends", Addr: "/ip4/192.0.2.1", LastSeen: ends - 60, Expires: ends}, // ttl_s is too long to wait for
		}}
		if err := h.store.Commit([]*index.Mutation{&m}); err != nil || m.Err != nil {
			t.Fatal(err, m.Err)
		}
	}
	h.want(h.do("POST", "/admin/pin", `{"cid":"`+pinned.String()+`"}`), 200, "")
	for range 2 {
		h.want(h.get("/providers/"+c.String()), 200, "")
		h.want(h.get("/providers/"+pinned.String()), 200, "")
		h.want(h.get("/providers/"+c.String()+"?limit=9"), 200, "")
	}
	time.Sleep(time.Until(time.Unix(ends, 0)))
	h.want(h.get("/providers/"+c.String()+"?limit=9"), 404, "not_found")
	h.want(h.get("/providers/"+c.String()), 404, "not_found")
	for _, q := range []string{"", "?fresh=true", "?limit=9"} {
		h.want(h.get("/providers/"+pinned.String()+q), 200, "")
	}
	h.want(h.do("POST", "/admin/unpin", `{"cid":"`+pinned.String()+`"}`), 200, "")
	h.want(h.get("/providers/"+pinned.String()), 404, "not_found")
}

// What is past its time is served when the source cannot be asked, says so, is
// not to be kept, and never instead of what was asked for fresh.
func TestStale(t *testing.T) {
	var broken atomic.Bool
	h := openHouse(t, seams{store: before(func(*index.Job) error {
		if broken.Load() {
			return index.Down
		}
		return nil
	})}, "cache.ttl=500ms")
	cid := cidOf("a")
	h.want(h.do("PUT", "/names/name:a", `{"manifest_cid":"`+cid+`","seq":1}`), 200, "")
	h.want(h.do("PUT", "/providers/"+cid, `{"providers":[{"id":"p","addr":"/ip4/192.0.2.1"}]}`), 200, "")
	for _, path := range []string{"/resolve/name:a", "/providers/" + cid} {
		broken.Store(false)
		whole := h.want(h.get(path), 200, "")
		broken.Store(true)
		time.Sleep(1100 * time.Millisecond)
		a := h.want(h.get(path), 200, "")
		h.want(h.get(path, "If-None-Match", whole.header.Get("ETag")), 200, "")
		h.want(h.do("HEAD", path, ""), 200, "")
		h.want(h.get(path+"?fresh=true"), 503, "upstream_unready")
		for name, want := range map[string]string{
			"X-Index-Stale": "true", "Cache-Control": "no-store", "X-Index-Source": "cache", "X-Index-Complete": "partial", "Age": "1",
		} {
			if a.header.Get(name) != want {
				t.Errorf("%s: %s is %q, want %q", path, name, a.header.Get(name), want)
			}
		}
		if string(a.body) != string(whole.body) {
			t.Errorf("%s: stale %v, fresh %v", path, a, whole)
		}
	}
	// That nobody is left of a set that may be out of date proves nothing.
	broken.Store(false)
	path := "/providers/" + cidOf("b")
	h.want(h.do("PUT", path, `{"providers":[{"id":"p","addr":"/ip4/192.0.2.1"}]}`), 200, "")
	h.want(h.get(path), 200, "")
	broken.Store(true)
	time.Sleep(3100 * time.Millisecond)
	h.want(h.get(path+"?min_freshness=10"), 200, "")
	h.want(h.get(path+"?min_freshness=2"), 503, "upstream_unready")
}

// A filter that empties a set of which a part could not be asked proves
// nothing either.
func TestFilteredOnlyOfACompleteSet(t *testing.T) {
	var broken atomic.Bool
	h := openHouse(t, seams{
		store: before(func(*index.Job) error {
			if broken.Load() {
				return index.Down
			}
			return nil
		}),
		network: networkFunc(func(_ context.Context, j *index.Job) error {
			if j.Ask != index.AskProviders {
				return index.Missing
			}
			now := time.Now().Unix()
			j.Answer.Providers = []index.Provider{{ID: "p", Addr: "/ip4/192.0.2.1", LastSeen: now - 1000, Expires: now + 1000}}
			j.Answer.From = index.FromDHT
			return nil
		}),
	})
	path := "/providers/" + cidOf("a")
	broken.Store(true)
	a := h.want(h.get(path), 200, "")
	if a.header.Get("X-Index-Complete") != "partial" {
		t.Errorf("X-Index-Complete is %q, want partial", a.header.Get("X-Index-Complete"))
	}
	h.want(h.get(path+"?min_freshness=9"), 503, "upstream_unready")
	broken.Store(false)
	a = h.want(h.get(path+"?min_freshness=9"), 404, "not_found")
	if a.field("reason") != "filtered" {
		t.Errorf("reason is %q, want filtered", a.field("reason"))
	}
}

// Whoever asks after a write was acknowledged is told what was written,
// whatever the cache knew and whoever else was asking meanwhile.
func TestReadAfterWrite(t *testing.T) {
	trials := 10_000
	if testing.Short() || raceEnabled {
		trials = 2_000
	}
	h := openHouse(t, seams{}, "limits.inflight=4096", "limits.conns_per_ip=0", "limits.write_timeout=30s", "watch.stall=40s",
		"stages.write.slice=30s", "stages.write.max_wait=30s", "budget.resolve=30s", "stages.db.slice=20s", "stages.db.max_wait=20s")
	h.http.Transport.(*http.Transport).MaxIdleConnsPerHost = 128
	kinds := []struct {
		name  string
		trial func(i int) (path, put, body, other string)
	}{
		{"name", func(i int) (string, string, string, string) {
			key, cid := fmt.Sprintf("name:n%d", i), cidOf(fmt.Sprint(i))
			return "/resolve/" + key, "/names/" + key, `{"manifest_cid":"` + cid + `","seq":1}`, cid
		}},
		{"providers", func(i int) (string, string, string, string) {
			cid := cidOf(fmt.Sprint("p", i))
			return "/providers/" + cid, "/providers/" + cid, `{"providers":[{"id":"p","addr":"/ip4/192.0.2.1"}]}`, "192.0.2.1"
		}},
		{"manifest", func(i int) (string, string, string, string) {
			text := fmt.Sprint("manifest ", i)
			return "/manifests/" + cidOf(text), "/manifests", text, text
		}},
		{"cid", func(i int) (string, string, string, string) {
			text := fmt.Sprint("resolved ", i)
			return "/resolve/" + cidOf(text), "/manifests", text, cidOf(text)
		}},
	}
	var next, served atomic.Int64
	var workers sync.WaitGroup
	for range 64 {
		workers.Go(func() {
			for {
				i := int(next.Add(1)) - 1
				if i >= trials || t.Failed() {
					return
				}
				k := kinds[i%len(kinds)]
				path, put, body, want := k.trial(i)
				if a, err := h.try("GET", path, ""); err != nil || a.status != 404 {
					t.Errorf("%s %d before the write: %v %v", k.name, i, a, err)
				}
				var others sync.WaitGroup
				others.Go(func() { // one who asks while it is written
					a, err := h.try("GET", path, "")
					if err != nil || a.status != 404 && a.status != 200 {
						t.Errorf("%s %d during the write: %v %v", k.name, i, a, err)
					}
				})
				if a, err := h.try("PUT", put, body); err != nil || a.status > 201 {
					t.Errorf("%s %d: the write: %v %v", k.name, i, a, err)
				}
				for range 2 {
					a, err := h.try("GET", path, "")
					if err != nil || a.status != 200 || !strings.Contains(string(a.body), want) {
						t.Errorf("%s %d after the write: %v %v", k.name, i, a, err)
					}
				}
				others.Wait()
				served.Add(1)
			}
		})
	}
	workers.Wait()
	if int(served.Load()) != trials {
		t.Errorf("%d trials of %d", served.Load(), trials)
	}
	if n, ok := h.scrape()["index_negative_served_after_write_total"]; n != 0 || !ok {
		t.Errorf("index_negative_served_after_write_total is %v (there: %v)", n, ok)
	}
}

// The same for what replaces something: no reader goes back in time.
func TestReadsNeverGoBack(t *testing.T) {
	h := openHouse(t, seams{}, "limits.inflight=4096", "limits.write_timeout=30s", "watch.stall=40s", "stages.write.slice=30s", "stages.write.max_wait=30s")
	const rounds = 150
	var acked atomic.Int64
	var wait sync.WaitGroup
	stop := make(chan struct{})
	for range 16 {
		wait.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				least := acked.Load()
				a, err := h.try("GET", "/resolve/name:a", "")
				seq, _ := strconv.ParseInt(a.field("seq"), 10, 64)
				if err != nil || least > 0 && (a.status != 200 || seq < least) {
					t.Errorf("seq %d was acknowledged, then: %v %v", least, a, err)
					return
				}
			}
		})
	}
	for i := range rounds {
		h.want(h.do("PUT", "/names/name:a", fmt.Sprintf(`{"manifest_cid":"%s","seq":%d}`, cidOf(fmt.Sprint(i)), i+1)), 200, "")
		acked.Store(int64(i + 1))
	}
	close(stop)
	wait.Wait()
}

// Ten thousand who ask for one absent key at once cost one read of the
// database and one look-up in the network.
func TestAskersOfOneKeyShareOneLookup(t *testing.T) {
	askers, perConn := 10_000, 16
	if testing.Short() || raceEnabled {
		askers = 1_000
	}
	askers -= askers % perConn
	var reads, lookups atomic.Int64
	all := make(chan struct{})
	h := openHouse(t, seams{
		store: before(func(j *index.Job) error { reads.Add(1); <-all; return nil }),
		network: networkFunc(func(context.Context, *index.Job) error {
			lookups.Add(1)
			return index.Missing
		}),
	}, "limits.conns_per_ip=0", "budget.resolve=60s", "stages.cache.depth=32768")
	conns := make([]*wire, askers/perConn)
	var wait sync.WaitGroup
	for i := range conns {
		conns[i] = h.dial()
		wait.Go(func() { conns[i].send(strings.Repeat(request("GET", "/resolve/"+cidOf("absent"), ""), perConn)) })
	}
	wait.Wait()
	eventually(t, "everybody waits", func() bool { _, n := h.line.Inflight(); return n == askers })
	close(all)
	for _, w := range conns {
		for range perConn {
			if a, err := w.next("GET"); err != nil || a.status != 404 {
				t.Fatalf("an asker got %v %v", a, err)
			}
		}
	}
	if reads.Load() != 1 || lookups.Load() != 1 {
		t.Errorf("%d askers cost %d reads and %d look-ups, want one of each", askers, reads.Load(), lookups.Load())
	}
	if n := h.scrape()["index_lookups_joined_total"]; n != float64(askers-1) {
		t.Errorf("%v joined, want %d", n, askers-1)
	}
}

// A leaver does not take the look-up from those who stay.
func TestOneLeaverOneStays(t *testing.T) {
	release, reads := make(chan struct{}), atomic.Int64{}
	h := openHouse(t, seams{store: before(func(*index.Job) error { reads.Add(1); <-release; return nil })}, "budget.resolve=20s")
	leaver, stayer := h.dial(), h.dial()
	leaver.send(request("GET", "/resolve/name:a", ""))
	stayer.send(request("GET", "/resolve/name:a", ""))
	eventually(t, "both wait", func() bool { _, n := h.line.Inflight(); return n == 2 })
	_ = leaver.Close()
	time.Sleep(300 * time.Millisecond)
	close(release)
	if a := stayer.answer("GET"); a.status != 404 || reads.Load() != 1 {
		t.Errorf("who stayed got %v after %d reads", a, reads.Load())
	}
}
