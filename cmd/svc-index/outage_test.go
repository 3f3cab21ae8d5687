package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"svcindex/stages/kaddht"
)

// debugDHT is what /debug/dht shows.
func (h *testHouse) debugDHT() (s kaddht.State) {
	h.t.Helper()
	resp, err := http.Get("http://" + h.admin.Addr() + "/debug/dht")
	if err != nil {
		h.t.Fatal(err)
	}
	defer resp.Body.Close()
	if body, _ := io.ReadAll(resp.Body); json.Unmarshal(body, &s) != nil {
		h.t.Fatalf("/debug/dht: %s", body)
	}
	return s
}

// soon is eventually for what takes the network a few attempts.
func soon(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for until := time.Now().Add(40 * time.Second); time.Now().Before(until); time.Sleep(50 * time.Millisecond) {
		if ok() {
			return
		}
	}
	t.Fatalf("not within 40 s: %s", what)
}

// The whole story of an outage, as clients and operators see it: every node of
// the network goes away, and comes back.
func TestTheNetworkGoesAwayAndComesBack(t *testing.T) {
	d := openDevnet(t, 8)
	set := in(d, trusting("name:t"), "dht.listen=127.0.0.1:0", "db.refresh_after=1s", "cache.ttl=1s", "cache.neg_ttl=1s", "cache.stale_for=1s",
		"stages.dht.breaker.window=5s", "stages.dht.breaker.min_requests=4", "stages.dht.breaker.cooldown=1s", "stages.dht.breaker.probes=2")
	var ahead atomic.Int64 // of the clock by which the node says that nobody has answered for a minute
	a := openHouse(t, seams{}, set...)
	b := openHouse(t, seams{now: func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) }}, set...)
	const name = "name:t/x"
	cid := a.putManifest("content")
	a.put(t, "/names/"+name, sign(t, name, "content", 1, time.Hour))
	a.put(t, "/providers/"+cid, fmt.Sprintf(`{"providers":[{"id":%q,"addr":"http://127.0.0.1:1","region":"eu"}]}`, a.nodeID()))
	for _, path := range []string{"/resolve/" + name, "/providers/" + cid, "/manifests/" + cid} {
		soon(t, path+" is found", func() bool { return b.get(path).status == 200 })
	}
	soon(t, "all three are stored", func() bool { return b.scrape()["index_dht_kept_total"] >= 3 })
	publisher := a.nodeID()
	a.shut()
	const fuse = `breaker_state{stage="dht"}`
	nowhere, asked := func(i int) string { return "/resolve/" + cidOf(fmt.Sprint("nowhere ", i)) }, 0
	ask := func() answered { asked++; return b.get(nowhere(asked)) }
	b.want(ask(), 404, "not_found")
	known := len(b.debugDHT().Table)
	if b.scrape()[fuse] != 0 || known < 8 {
		t.Fatalf("before the outage the breaker is %v, and %d peers are known", b.scrape()[fuse], known)
	}

	var back []func()
	for _, n := range d.Nodes() {
		back = append(back, n.Vanish())
	}
	soon(t, "the breaker opens", func() bool {
		if r := ask(); r.status != 503 && r.status != 504 {
			t.Fatalf("nobody could be asked, and the answer is %v", r)
		}
		return b.scrape()[fuse] == 2
	})
	for _, tt := range []struct{ path, has string }{
		{"/resolve/" + name, `"manifest_cid":"` + cid}, {"/providers/" + cid, `"id":"` + publisher},
	} {
		soon(t, tt.path+" is stale", func() bool { return b.get(tt.path).header.Get("X-Index-Stale") == "true" })
		r := b.get(tt.path)
		if r.status != 200 || !strings.Contains(string(r.body), tt.has) || r.header.Get("X-Index-Complete") != "partial" || r.header.Get("Cache-Control") != "no-store" {
			t.Errorf("%s while the network is away: %v %v", tt.path, r, r.header)
		}
		if r := b.get(tt.path + "?fresh=true"); r.status != 503 && r.status != 504 {
			t.Errorf("%s, which has to be fresh, while the network is away: %v", tt.path, r)
		}
	}
	if r := b.get("/manifests/" + cid); r.status != 200 || string(r.body) != "content" || r.header.Get("X-Index-Stale") != "" {
		t.Errorf("content that is here and proves itself: %v %v", r, r.header)
	}
	ahead.Store(int64(2 * time.Minute))
	var ready answered
	soon(t, "/readyz says so", func() bool { ready = b.get("/readyz"); return ready.status == 503 })
	if !strings.Contains(ready.field("missing"), "dht_client_ready") || ready.field("degraded") != "true" || ready.header.Get("Retry-After") == "" {
		t.Errorf("/readyz: %v %v", ready, ready.header)
	}
	if now := len(b.debugDHT().Table); now < known {
		t.Errorf("the outage took the routing table from %d to %d peers", known, now)
	}

	for _, f := range back {
		f()
	}
	soon(t, "the breaker closes, and what nobody has is absent again", func() bool {
		r := ask()
		if r.status != 503 && r.status != 504 && r.status != 404 {
			t.Fatalf("what nobody has: %v", r)
		}
		return r.status == 404 && b.scrape()[fuse] == 0
	})
	soon(t, "/readyz is content", func() bool { return b.get("/readyz").status == 200 })
	soon(t, "the name is not stale", func() bool {
		r := b.get("/resolve/" + name)
		return r.status == 200 && r.header.Get("X-Index-Stale") == "" && r.header.Get("X-Index-Complete") == "full"
	})
	if m := b.scrape(); m[`index_negative_served_after_write_total`] != 0 || m[`index_integrity_fail_total{stage="dht"}`] != 0 {
		t.Errorf("absences after a write: %v, false finds: %v", m[`index_negative_served_after_write_total`], m[`index_integrity_fail_total{stage="dht"}`])
	}
}
