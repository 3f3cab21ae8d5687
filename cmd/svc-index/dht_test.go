package main

import (
	"crypto/ed25519"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"svcindex/auth"
	"svcindex/index"
	"svcindex/stages/kaddht"
)

func openDevnet(t *testing.T, nodes int) *kaddht.Devnet {
	t.Helper()
	d, err := kaddht.OpenDevnet(kaddht.DevnetPlan{Nodes: nodes, Prefix: "/svc-index", Verify: auth.VerifyName})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := d.Close(); err != nil {
			t.Errorf("closing the devnet: %v", err)
		}
	})
	return d
}

// A node looks round the network as soon as it is open, before there is a line
// whose room it could ask for.
func TestANodeMayHedgeBeforeThereIsALine(t *testing.T) {
	if h := new(house); !h.dhtCalm() {
		t.Error("nothing is under way yet, and there is no room for more")
	}
}

// in are the settings of a house in the devnet.
func in(d *kaddht.Devnet, set ...string) []string {
	return append([]string{
		"dht.enabled=true", "dht.allow_private=true", "dht.bootstrap=" + strings.Join(d.Bootstrap(), ","),
	}, set...)
}

// nodeID is the id under which a house is a provider.
func (h *testHouse) nodeID() string { return h.get("/version").field("node_id") }

// signedName is the body of a PUT /names.
func signedName(key ed25519.PrivateKey, name string, r index.NameRecord) string {
	k, err := index.ParseKey(name)
	if err != nil {
		panic(err)
	}
	auth.SignName(key, &k, &r)
	b, _ := json.Marshal(map[string]any{
		"manifest_cid": r.CID.String(), "seq": r.Seq, "issued_at": r.IssuedAt, "expires_at": r.ExpiresAt,
		"pubkey": auth.FormatPublicKey(r.PubKey), "sig": base64.RawURLEncoding.EncodeToString(r.Sig),
	})
	return string(b)
}

func TestWhatOneServerPublishesAnotherFinds(t *testing.T) {
	d := openDevnet(t, 8)
	_, key, _ := ed25519.GenerateKey(nil)
	trust := "trust.publishers=name:demo=" + auth.FormatPublicKey(key.Public().(ed25519.PublicKey))
	a := openHouse(t, seams{}, in(d, trust)...)
	b := openHouse(t, seams{}, in(d, trust)...)

	content := `{"v":1,"files":[],"dirs":[]}`
	cid := cidOf(content)
	name := "name:demo/site"
	b.want(b.get("/manifests/"+cid), 404, "not_found")
	b.want(b.get("/resolve/"+name), 404, "not_found")
	put := a.want(a.do("PUT", "/manifests", content), 201, "")
	if put.field("announced") != "true" {
		t.Errorf("the server does not say that it announces: %s", put.body)
	}
	c, _ := index.ParseCID(cid)
	now := time.Now()
	a.want(a.do("PUT", "/names/"+name, signedName(key, name, index.NameRecord{
		CID: c, Seq: 1, IssuedAt: now.Unix(), ExpiresAt: now.Add(time.Hour).Unix(),
	})), 200, "")
	row := fmt.Sprintf(`{"providers":[{"id":%q,"addr":"http://127.0.0.1:1","region":"eu"},{"id":"somebody-else","addr":"http://127.0.0.1:2"}]}`, a.nodeID())
	a.want(a.do("PUT", "/providers/"+cid, row), 200, "")

	for _, tt := range []struct{ path, has string }{
		{"/resolve/" + name, `"manifest_cid":"` + cid},
		{"/manifests/" + cid, content},
		{"/providers/" + cid, `"id":"` + a.nodeID()},
		{"/resolve/" + cid, `"manifest_cid":"` + cid},
	} {
		var got answered
		eventually(t, tt.path+" is found by the other server", func() bool {
			got = b.get(tt.path, "Cache-Control", "no-cache")
			return got.status == 200
		})
		if !strings.Contains(string(got.body), tt.has) {
			t.Errorf("%s: %s, want it to have %s", tt.path, got.body, tt.has)
		}
		if from := got.header.Get("X-Index-Source"); from != "dht" && from != "cache" && from != "db" {
			t.Errorf("%s is from %q", tt.path, from)
		}
	}
	if got := b.get("/providers/" + cid); strings.Contains(string(got.body), "somebody-else") {
		t.Errorf("a row of another id went out: %s", got.body)
	}
	if m := b.scrape(); m[`index_dht_lookup_ms_count`] == 0 || m[`index_dht_hops_count`] == 0 {
		t.Errorf("look-ups are not counted: %v %v", m["index_dht_lookup_ms_count"], m["index_dht_hops_count"])
	}
	resp, err := http.Get("http://" + b.admin.Addr() + "/debug/dht")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	var page kaddht.State
	if body, _ := io.ReadAll(resp.Body); json.Unmarshal(body, &page) != nil || page.ID != b.nodeID() || len(page.Table) == 0 || len(page.Lookups) == 0 {
		t.Errorf("/debug/dht: %s", body)
	}
}

func TestWithoutAnybodyThereIsNo404(t *testing.T) {
	// A port that nobody listens at: the node is told of somebody who is gone.
	gone := fmt.Sprintf("/ip4/127.0.0.1/tcp/9/p2p/%s", auth.PeerID(kaddht.DevKey(0).Public().(ed25519.PublicKey)))
	h := openUnready(t, t.TempDir(), seams{}, "dht.enabled=true", "dht.allow_private=true", "dht.bootstrap="+gone)
	h.want(h.get("/resolve/"+cidOf("nowhere")), 503, "upstream_unready")
	ready := h.get("/readyz")
	if ready.status != 503 || !strings.Contains(string(ready.body), "dht_client_ready") || ready.field("degraded") != "true" {
		t.Errorf("/readyz: %v", ready)
	}
	cid := h.putManifest("here")
	h.want(h.get("/resolve/"+cid), 200, "") // the database still answers
}

func TestANodeThatWasToldOfNobodyIsItsOwnNetwork(t *testing.T) {
	h := openHouse(t, seams{}, "dht.enabled=true", "dht.allow_private=true")
	h.want(h.get("/resolve/"+cidOf("nowhere")), 404, "not_found")
}

// listeners returns the TCP ports this process listens at.
func listeners(t *testing.T) map[int]bool {
	t.Helper()
	ports, inodes := map[int]bool{}, map[string]int{}
	for _, file := range []string{"/proc/self/net/tcp", "/proc/self/net/tcp6"} {
		b, err := os.ReadFile(file)
		if err != nil {
			t.Skip(err)
		}
		for line := range strings.Lines(string(b)) {
			if f := strings.Fields(line); len(f) > 9 && f[3] == "0A" {
				p, _ := strconv.ParseInt(f[1][strings.LastIndexByte(f[1], ':')+1:], 16, 32)
				inodes["socket:["+f[9]+"]"] = int(p)
			}
		}
	}
	fds, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Skip(err)
	}
	for _, fd := range fds {
		if to, err := os.Readlink("/proc/self/fd/" + fd.Name()); err == nil && inodes[to] != 0 {
			ports[inodes[to]] = true
		}
	}
	return ports
}

func TestTheDHTOpensNoDoorBesideItsOwn(t *testing.T) {
	for _, tt := range []struct {
		why   string
		set   []string
		doors int // beside the public and the admin listener
	}{
		{"a client listens nowhere", []string{"dht.mode=client", "dht.listen="}, 0},
		{"a server at dht.listen", []string{"dht.mode=server", "dht.listen=127.0.0.1:0"}, 1},
	} {
		before := listeners(t)
		h := openHouse(t, seams{}, append(tt.set, "dht.enabled=true", "dht.allow_private=true")...)
		opened := listeners(t)
		for p := range before {
			delete(opened, p)
		}
		if len(opened) != 2+tt.doors {
			t.Errorf("%s: %d ports were opened: %v", tt.why, len(opened), opened)
		}
		_, port, _ := net.SplitHostPort(h.addr.String())
		if p, _ := strconv.Atoi(port); !opened[p] {
			t.Errorf("%s: the count is wrong: %v has not got %s", tt.why, opened, port)
		}
		h.shut()
	}
}
