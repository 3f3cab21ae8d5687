package main

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"encoding/json"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"svcindex/auth"
	"svcindex/index"
	"svcindex/stages/kaddht"
)

var author = ed25519.NewKeyFromSeed(bytes.Repeat([]byte{9}, 32))

// trusting is the setting under which the author's names are trusted.
func trusting(prefix string) string {
	return "trust.publishers=" + prefix + "=" + auth.FormatPublicKey(author.Public().(ed25519.PublicKey))
}

// sign returns the body that says where a name points.
func sign(t *testing.T, name, content string, seq uint64, ttl time.Duration) string {
	t.Helper()
	k, err := index.ParseKey(name)
	if err != nil {
		t.Fatal(err)
	}
	b, err := json.Marshal(signed(author, &k, index.NameRecord{CID: index.Sum([]byte(content)), Seq: seq}, ttl, time.Now()))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// A fabric is a network whose contents a test decides.
type fabric struct {
	err   atomic.Pointer[error]
	said  atomic.Pointer[index.NameRecord]
	asked atomic.Int64
}

func (f *fabric) fails(err error) { f.err.Store(&err) }

func (f *fabric) says(name, content string, seq uint64) {
	k, _ := index.ParseKey(name)
	r := index.NameRecord{CID: index.Sum([]byte(content)), Seq: seq, ExpiresAt: time.Now().Add(time.Hour).Unix()}
	auth.SignName(author, &k, &r)
	f.said.Store(&r)
}

func (f *fabric) Discover(_ context.Context, j *index.Job) error {
	f.asked.Add(1)
	if err := f.err.Load(); err != nil && *err != nil {
		return *err
	}
	if r := f.said.Load(); r != nil && j.Key.IsName() {
		j.Answer.Name = *r
		return nil
	}
	return index.Missing
}

func TestASignedNameIsServedStaleWhileTheNetworkIsAway(t *testing.T) {
	net := new(fabric)
	h := openHouse(t, seams{network: net}, trusting("name:t"), "db.refresh_after=1s", "cache.ttl=1s", "cache.stale_for=1s")
	const name = "name:t/a"
	if a := h.do("GET", "/resolve/"+name, ""); a.status != 404 {
		t.Fatalf("nobody has it: %v", a)
	}
	net.says(name, "one", 3)
	if a := h.do("GET", "/resolve/"+name+"?fresh=true", ""); a.status != 200 || a.header.Get("X-Index-Source") != "dht" || a.field("signed") != "true" || a.field("seq") != "3" {
		t.Fatalf("the network has it: %v %v", a, a.header)
	}
	eventually(t, "the find is stored", func() bool { return h.scrape()["index_dht_kept_total"] == 1 })
	asked := net.asked.Load()
	if a := h.do("GET", "/resolve/"+name, ""); a.status != 200 || net.asked.Load() != asked {
		t.Errorf("within its time the network is asked again: %v", a)
	}
	net.fails(index.Down)
	eventually(t, "it is stale", func() bool { return h.do("GET", "/resolve/"+name, "").header.Get("X-Index-Stale") == "true" })
	a := h.do("GET", "/resolve/"+name, "")
	if a.status != 200 || a.header.Get("X-Index-Complete") != "partial" || a.header.Get("Cache-Control") != "no-store" || a.header.Get("X-Index-Source") != "db" {
		t.Errorf("a stale answer has %v %v", a, a.header)
	}
	if a := h.do("GET", "/resolve/"+name+"?fresh=true", ""); a.status != 503 || a.field("stage") != "dht" {
		t.Errorf("fresh gets %v, want 503: never stale", a)
	}
	if a := h.do("GET", "/resolve/name:t/other", ""); a.status != 503 {
		t.Errorf("what is nowhere here gets %v, want 503: never 404 in doubt", a)
	}
	if a := h.do("GET", "/resolve/name:free", ""); a.status != 404 {
		t.Errorf("a name nobody is trusted for gets %v, want 404: the network counts as asked", a)
	}

	// Replayed, the old word changes nothing; a newer one counts.
	net.fails(nil)
	net.says(name, "old", 2)
	if a := h.do("GET", "/resolve/"+name+"?fresh=true", ""); a.status != 200 || a.field("seq") != "3" {
		t.Errorf("an older word, replayed: %v", a)
	}
	if a := h.do("PUT", "/names/"+name, sign(t, name, "mine", 3, time.Hour)); a.status != 409 || a.field("current_seq") != "3" {
		t.Errorf("what the network said counts for clients, too: %v", a)
	}
	net.says(name, "two", 4)
	if a := h.do("GET", "/resolve/"+name+"?fresh=true", ""); a.status != 200 || a.field("seq") != "4" {
		t.Errorf("a newer word: %v", a)
	}
	eventually(t, "it is stored", func() bool { return h.scrape()["index_dht_kept_total"] == 2 })

	// And a false one is nobody's.
	r := *net.said.Load()
	r.Seq = 9
	net.said.Store(&r)
	if a := h.do("GET", "/resolve/"+name+"?fresh=true", ""); a.status != 503 {
		t.Errorf("a false signature: %v, want 503: it proves nothing", a)
	}
	if n := h.scrape()[`index_integrity_fail_total{stage="dht"}`]; n < 1 {
		t.Errorf("false signatures counted: %v", n)
	}
}

func TestSignedNamesOverHTTP(t *testing.T) {
	h := openHouse(t, seams{}, trusting("name:t"))
	k, _ := index.ParseKey("name:t/x")
	wrong := ed25519.NewKeyFromSeed(bytes.Repeat([]byte{8}, 32))
	other, _ := json.Marshal(signed(wrong, &k, index.NameRecord{CID: index.Sum(nil), Seq: 1}, time.Hour, time.Now()))
	expired, _ := json.Marshal(signed(author, &k, index.NameRecord{CID: index.Sum(nil), Seq: 1}, time.Hour, time.Now().Add(-2*time.Hour)))
	good := sign(t, "name:t/x", "one", 5, time.Hour)
	for _, tt := range []struct {
		why, method, path, body string
		want                    int
		reason                  string
	}{
		{"without a signature", "PUT", "name:t/x", `{"manifest_cid":"` + cidOf("one") + `","seq":1}`, 403, "needs pubkey and sig"},
		{"by a key nobody trusts", "PUT", "name:t/x", string(other), 403, "not one that is trusted"},
		{"expired", "PUT", "name:t/x", string(expired), 400, "past"},
		{"signed for another name", "PUT", "name:t/y", good, 403, "does not match"},
		{"with another manifest", "PUT", "name:t/x", strings.Replace(good, cidOf("one"), cidOf("two"), 1), 403, "does not match"},
		{"with another sequence", "PUT", "name:t/x", strings.Replace(good, `"seq":5`, `"seq":6`, 1), 403, "does not match"},
		{"as it was signed", "PUT", "name:t/x", good, 200, ""},
		{"and again", "PUT", "name:t/x", good, 200, ""},
		{"an older one by the right key", "PUT", "name:t/x", sign(t, "name:t/x", "old", 4, time.Hour), 409, ""},
		{"deleted without a word", "DELETE", "name:t/x", "", 403, "needs pubkey and sig"},
		{"the prefix itself", "PUT", "name:t", `{"manifest_cid":"` + cidOf("one") + `","seq":1}`, 403, ""},
		{"its neighbour is free", "PUT", "name:tt", `{"manifest_cid":"` + cidOf("one") + `","seq":1}`, 200, ""},
	} {
		a := h.do(tt.method, "/names/"+tt.path, tt.body)
		if a.status != tt.want || !strings.Contains(a.field("reason"), tt.reason) {
			t.Errorf("%s: %v, want %d, %q", tt.why, a, tt.want, tt.reason)
		}
	}
	a := h.get("/resolve/name:t/x")
	if a.status != 200 || a.field("signed") != "true" || a.field("expires_at") == "" || a.field("seq") != "5" {
		t.Errorf("it resolves as %v", a)
	}
}

// A signature that ends takes its name with it, from memory too.
func TestANameEndsWithItsSignature(t *testing.T) {
	h := openHouse(t, seams{}, trusting("name:t"))
	if a := h.do("PUT", "/names/name:t/x", sign(t, "name:t/x", "one", 5, 2*time.Second)); a.status != 200 {
		t.Fatal(a)
	}
	if a := h.get("/resolve/name:t/x"); a.status != 200 {
		t.Fatal(a)
	}
	eventually(t, "it has ended", func() bool { return h.get("/resolve/name:t/x").status == 404 })
	if a := h.do("PUT", "/names/name:t/x", sign(t, "name:t/x", "two", 5, time.Hour)); a.status != 409 {
		t.Errorf("its sequence counts for ever: %v", a)
	}
}

// Who may speak for a name can change between two starts: what is stored is
// held against who is trusted now.
func TestTrustThatEndsIsNotRemembered(t *testing.T) {
	dir := t.TempDir()
	h := openHouseIn(t, dir, seams{}, trusting("name:t"))
	h.do("PUT", "/names/name:t/x", sign(t, "name:t/x", "one", 5, time.Hour))
	h.shut()
	wrong := ed25519.NewKeyFromSeed(bytes.Repeat([]byte{8}, 32)).Public().(ed25519.PublicKey)
	h = openHouseIn(t, dir, seams{}, "trust.publishers=name:t="+auth.FormatPublicKey(wrong))
	if a := h.get("/resolve/name:t/x"); a.status != 404 {
		t.Errorf("signed by somebody no longer trusted: %v", a)
	}
	if v := h.explained("name:t/x"); !strings.Contains(v.DB.Verdict, "nobody who is trusted") || v.DB.Name.Seq != 5 {
		t.Errorf("explained as %+v", v.DB)
	}
}

func (h *testHouse) explained(key string) (e explanation) {
	h.t.Helper()
	body, err := fetchExplanation(h.t.Context(), h.admin.Addr(), key, "", true)
	if err != nil {
		h.t.Fatal(err)
	}
	if err := json.Unmarshal(body, &e); err != nil {
		h.t.Fatal(err)
	}
	return e
}

func TestExplainSaysWhatEachPlaceKnows(t *testing.T) {
	net := new(fabric)
	h := openHouse(t, seams{network: net}, trusting("name:t"))
	h.do("PUT", "/names/name:t/x", sign(t, "name:t/x", "one", 5, time.Hour))
	h.get("/resolve/name:t/x")
	h.get("/resolve/name:t/x")
	e := h.explained("name:t/x")
	if len(e.Cache) != 1 || e.Cache[0].State != "fresh" || !e.Trust.Signed || len(e.Trust.Keys) != 1 || e.DB.Name == nil ||
		e.DB.Name.From != "client" || !strings.Contains(e.DB.Verdict, "then the DHT is asked") || !e.DHT.Holds || e.DHT.Says != "content missing" {
		t.Errorf("explained as %+v", e)
	}
	if len(e.Last) != 1 || e.Last[0].Result != "ok" || len(e.Last[0].Legs) != 1 || e.Last[0].Legs[0].Stage != "db" {
		t.Errorf("the last look-up is told as %+v", e.Last)
	}
	h.put(t, "/providers/"+cidOf("one"), `{"providers":[{"id":"p","addr":"/ip4/192.0.2.1/tcp/1"}]}`)
	h.do("DELETE", "/providers/"+cidOf("one")+"/p", "")
	if e := h.explained(cidOf("one")); len(e.DB.Gone) != 1 || e.DB.Gone[0].ID != "p" {
		t.Errorf("a deleted provider is told as %+v", e.DB)
	}
	var text bytes.Buffer
	if err := e.show(&text); err != nil || !strings.Contains(text.String(), "needs a signature of") || !strings.Contains(text.String(), "sequence 5") {
		t.Errorf("for people it is %v\n%s", err, &text)
	}
	if _, err := fetchExplanation(t.Context(), h.admin.Addr(), "nonsense", "", false); err == nil || !strings.Contains(err.Error(), "400") {
		t.Errorf("a key that is none: %v", err)
	}
}

func (h *testHouse) put(t *testing.T, path, body string) {
	t.Helper()
	if a := h.do("PUT", path, body); a.status/100 != 2 {
		t.Fatalf("PUT %s: %v", path, a)
	}
}

// Denied providers are given to nobody, from memory neither.
func TestDeniedProvidersAreGivenToNobody(t *testing.T) {
	h := openHouse(t, seams{}, "rank.deny=bad,region:xx", "rank.allowed_regions=eu,xx")
	put := func(content, id, region string) {
		h.put(t, "/providers/"+cidOf(content), fmt.Sprintf(`{"providers":[{"id":%q,"addr":"/ip4/192.0.2.1/tcp/1","region":%q}]}`, id, region))
	}
	put("mixed", "good", "eu")
	put("mixed", "bad", "eu")
	put("mixed", "elsewhere", "us")
	put("mixed", "nowhere", "")
	put("none", "x", "xx")
	for range 2 { // the second time from memory
		if a := h.get("/providers/" + cidOf("mixed")); a.status != 200 || strings.Count(string(a.body), `"id"`) != 1 || !strings.Contains(string(a.body), `"good"`) {
			t.Errorf("some are denied: %v", a)
		}
		if a := h.get("/providers/" + cidOf("none")); a.status != 404 || a.field("reason") != "filtered" {
			t.Errorf("all are denied: %v", a)
		}
		if a := h.get("/providers/" + cidOf("none") + "?limit=9"); a.status != 404 {
			t.Errorf("all are denied, with wishes: %v", a)
		}
	}
}

// Two servers with databases of their own and a real network between them.
func TestASignedNameIsFoundThroughTheNetwork(t *testing.T) {
	d, err := kaddht.OpenDevnet(kaddht.DevnetPlan{Nodes: 6, Prefix: "/svc-index", Verify: auth.VerifyName})
	if err != nil {
		t.Fatal(err)
	}
	end := sync.OnceValue(d.Close)
	t.Cleanup(func() { _ = end() })
	set := []string{
		trusting("name:t"), "dht.enabled=true", "dht.listen=127.0.0.1:0", "dht.allow_private=true", "dht.bootstrap=" + strings.Join(d.Bootstrap(), ","),
		"db.refresh_after=1s", "cache.ttl=1s", "cache.neg_ttl=1s", "cache.stale_for=1s",
	}
	a, b := openHouse(t, seams{}, set...), openHouse(t, seams{}, set...)
	a.put(t, "/manifests", "content")
	a.put(t, "/names/name:t/x", sign(t, "name:t/x", "content", 1, time.Hour))
	eventually(t, "the other has it", func() bool { return b.get("/resolve/name:t/x").status == 200 })
	if r := b.get("/manifests/" + cidOf("content")); r.status != 200 || string(r.body) != "content" {
		t.Errorf("what it points to: %v", r)
	}
	eventually(t, "both are stored", func() bool { return b.scrape()["index_dht_kept_total"] >= 2 })
	if e := b.explained("name:t/x"); e.DB.Name == nil || e.DB.Name.From != "dht" || e.DB.Name.Seq != 1 {
		t.Errorf("stored as %+v", e.DB)
	}
	a.put(t, "/names/name:t/x", sign(t, "name:t/x", "newer", 2, time.Hour))
	eventually(t, "the other has the newer one", func() bool { return b.get("/resolve/name:t/x").field("seq") == "2" })
	if r := a.do("DELETE", "/names/name:t/x", gone(t, "name:t/x", 3)); r.status != 200 {
		t.Fatal(r)
	}
	eventually(t, "the other knows that it is deleted", func() bool { return b.get("/resolve/name:t/x").status == 404 })
	if r := b.do("PUT", "/names/name:t/x", sign(t, "name:t/x", "content", 2, time.Hour)); r.status != 409 || r.field("current_seq") != "3" {
		t.Errorf("what the network deleted came back: %v", r)
	}

	// The network goes away: what is stored is served, and says that it is
	// stale; what is not is never called absent.
	a.put(t, "/names/name:t/y", sign(t, "name:t/y", "content", 1, time.Hour))
	eventually(t, "the other has it, too", func() bool { return b.get("/resolve/name:t/y").status == 200 })
	a.shut()
	if err := end(); err != nil {
		t.Error(err)
	}
	eventually(t, "it is stale", func() bool {
		r := b.get("/resolve/name:t/y")
		if r.status != 200 {
			t.Fatalf("while the network is away: %v", r)
		}
		return r.header.Get("X-Index-Stale") == "true"
	})
	if r := b.get("/resolve/name:t/z"); r.status == 404 || r.status == 200 {
		t.Errorf("what is stored nowhere here: %v", r)
	}
}

func gone(t *testing.T, name string, seq uint64) string {
	t.Helper()
	k, err := index.ParseKey(name)
	if err != nil {
		t.Fatal(err)
	}
	b, err := json.Marshal(signed(author, &k, index.NameRecord{Seq: seq, Deleted: true}, time.Hour, time.Now()))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}
