package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"svcindex/index"
)

const (
	warmedTotal  = "index_cache_warmed_total"
	renewedTotal = "index_cache_renewed_total"
	droppedTotal = "index_cache_renew_dropped_total"
)

// What was asked for before a restart is in memory after it, before the first
// client; but not what is no longer so.
func TestACacheIsWarmAfterARestart(t *testing.T) {
	dir := t.TempDir()
	warm := []string{"cache.warmup_keys=100"}
	h := openHouseIn(t, dir, seams{}, warm...)
	cid := h.putManifest("m")
	h.want(h.do("PUT", "/providers/"+cid, `{"providers":[{"id":"p","addr":"http://192.0.2.1/"}]}`), 200, "")
	for i := range 20 {
		h.want(h.do("PUT", fmt.Sprintf("/names/name:w/%d", i), fmt.Sprintf(`{"manifest_cid":%q,"seq":1}`, cid)), 200, "")
	}
	ask := func(h *testHouse, source string) {
		t.Helper()
		for _, path := range []string{"/resolve/name:w/1", "/resolve/" + cid, "/providers/" + cid, "/manifests/" + cid} {
			if a := h.want(h.get(path), 200, ""); a.header.Get("X-Index-Source") != source {
				t.Errorf("%s is from %q, want %q", path, a.header.Get("X-Index-Source"), source)
			}
		}
		cbor := h.want(h.get("/resolve/name:w/2", "Accept", "application/cbor"), 200, "")
		if cbor.header.Get("X-Index-Source") != source || cbor.header.Get("Content-Type") != "application/cbor" {
			t.Errorf("in CBOR: %v", cbor.header)
		}
	}
	ask(h, "db")
	h.want(h.get("/resolve/name:w/3"), 200, "")
	h.want(h.do("DELETE", "/names/name:w/3", ""), 200, "")
	h.want(h.get("/resolve/name:w/absent"), 404, "")
	h.shut()

	h = openHouseIn(t, dir, seams{}, warm...)
	if n := h.scrape()[warmedTotal]; n != 5 {
		t.Errorf("%s is %v, want 5: what was asked and is there", warmedTotal, n)
	}
	ask(h, "cache")
	h.want(h.get("/resolve/name:w/3"), 404, "not_found")
	h.want(h.do("PUT", "/names/name:w/1", fmt.Sprintf(`{"manifest_cid":%q,"seq":2}`, cidOf("other"))), 200, "")
	if a := h.get("/resolve/name:w/1"); a.field("seq") != "2" {
		t.Errorf("after a write: %v", a)
	}
	h.shut()

	h = openHouseIn(t, dir, seams{}, "cache.warmup_keys=2")
	if n := h.scrape()[warmedTotal]; n != 2 {
		t.Errorf("%s is %v, want the 2 that were wanted", warmedTotal, n)
	}
	h.shut()

	list := filepath.Join(dir, warmFile)
	for why, text := range map[string]string{
		"empty": "", "of another version": "svc-index warm keys 2\nresolve json name:w/1\n",
		"damaged": warmHead + "\n\x00\x00\nresolve json\nresolve xml name:w/1\nlook json name:w/1\n json name:w/1\nresolve json name:../x\n" + strings.Repeat("x", 1<<17),
	} {
		if err := os.WriteFile(list, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		h = openHouseIn(t, dir, seams{}, warm...)
		if n := h.scrape()[warmedTotal]; n != 0 {
			t.Errorf("a list that is %s: %s is %v", why, warmedTotal, n)
		}
		h.shut()
		if now, err := os.ReadFile(list); err != nil || string(now) != text {
			t.Errorf("a list that is %s, and nothing was asked: it was replaced by %q", why, now)
		}
	}
	h = openHouseIn(t, dir, seams{})
	h.want(h.get("/resolve/name:w/5"), 200, "")
	h.shut()
	if now, err := os.ReadFile(list); err != nil || strings.Contains(string(now), "w/5") {
		t.Errorf("nobody wanted a list: %q, %v", now, err)
	}
}

// An answer near its end is looked up again for whoever asks next, once for all
// who ask now, and only while the rooms have little to do.
func TestAnAnswerNearItsEndIsRenewed(t *testing.T) {
	var reads atomic.Int64
	hold := make(chan struct{})
	var held atomic.Bool
	h := openReloading(t, seams{store: before(func(*index.Job) error {
		reads.Add(1)
		if held.Load() {
			<-hold
		}
		return nil
	})}, "cache.ttl=1h", "dht.enabled=false", "watch.stall=20s", "stages.db.slice=4s", "stages.db.workers_min=1", "stages.db.workers_max=1", "stages.db.depth=4",
		"stages.db.max_wait=0s", "stages.db.batch=1", "budget.resolve=5s", "stages.db.breaker.min_requests=100000")
	cid := h.putManifest("m")
	path := "/resolve/" + cid
	h.want(h.get(path), 200, "")
	hit := func() {
		t.Helper()
		if a := h.want(h.get(path), 200, ""); a.header.Get("X-Index-Source") != "cache" {
			t.Errorf("from %q", a.header.Get("X-Index-Source"))
		}
	}
	for range 20 {
		hit()
	}
	if n := reads.Load(); n != 1 || h.scrape()[renewedTotal] != 0 {
		t.Fatalf("%d reads, and nothing was to be renewed", n)
	}
	h.must("cache.refresh_ahead = 1.0") // all of its life is near its end
	eventually(t, "the answer is renewed", func() bool { hit(); return reads.Load() > 1 })
	eventually(t, "and younger than it was", func() bool {
		for _, p := range h.cache.Peek(h.gens.Hash(keyOf(t, cid)), keyOf(t, cid)) {
			if p.Asked == "resolve" && p.Age < 1 {
				return true
			}
		}
		return false
	})

	held.Store(true)
	was, before := reads.Load(), time.Now()
	eventually(t, "the next renewal", func() bool { hit(); return reads.Load() > was })
	for range 50 {
		hit() // while it is under way
	}
	if n := reads.Load(); n != was+1 {
		t.Errorf("%d look-ups under way for one answer in %v", n-was, time.Since(before))
	}
	dropped := h.scrape()[droppedTotal]
	for i := range 2 { // over a quarter of the queue
		w := h.dial()
		w.send(request("GET", fmt.Sprint("/resolve/name:waits/", i), ""))
	}
	eventually(t, "two wait", func() bool { return h.room("db").Depth >= 2 })
	eventually(t, "a renewal gives way to clients", func() bool { hit(); return h.scrape()[droppedTotal] > dropped })
	held.Store(false)
	close(hold)
	eventually(t, "all is done", func() bool { e, _ := h.line.Inflight(); return e == 0 })

	h.must("")
	n := h.scrape()[renewedTotal]
	time.Sleep(1200 * time.Millisecond)
	for range 20 {
		hit()
	}
	if now := h.scrape()[renewedTotal]; now != n {
		t.Errorf("switched off, and %v renewals more", now-n)
	}
}

func keyOf(t *testing.T, text string) *index.Key {
	t.Helper()
	k, err := index.ParseKey(text)
	if err != nil {
		t.Fatal(err)
	}
	return &k
}
