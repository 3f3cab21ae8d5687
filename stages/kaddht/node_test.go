package kaddht

import (
	"context"
	"crypto/ed25519"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"svcindex/index"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const testPrefix = "/svc-index"

// verifyName and signName are what auth does, without what it adds: a room does
// not import its neighbours.
func verifyName(name *index.Key, r *index.NameRecord) error {
	if !ed25519.Verify(r.PubKey, index.AppendSigned(nil, name, r), r.Sig) {
		return errSignature
	}
	return nil
}

func signName(key ed25519.PrivateKey, name *index.Key, r *index.NameRecord) {
	r.PubKey = key.Public().(ed25519.PublicKey)
	r.Sig = ed25519.Sign(key, index.AppendSigned(nil, name, r))
}

func openDevnet(t testing.TB, nodes int) *Devnet {
	t.Helper()
	d, err := OpenDevnet(DevnetPlan{Nodes: nodes, Prefix: testPrefix, Verify: verifyName})
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

// openNode opens a node that begins with the devnet, and waits until it knows
// somebody.
func openNode(t testing.TB, d *Devnet, change ...func(*Options)) *Node {
	t.Helper()
	_, key, _ := ed25519.GenerateKey(nil)
	o := Options{
		Key: key, Prefix: testPrefix, AllowPrivate: true, Alpha: 3, Beta: 2, Hedge: 150 * time.Millisecond, Jitter: .2,
		HedgeBudget: .1, Verify: verifyName, Announce: []string{"/ip4/127.0.0.1/tcp/8080/http"},
	}
	if d != nil {
		o.Bootstrap = d.Bootstrap()
	}
	for _, c := range change {
		c(&o)
	}
	n, err := Open(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := n.Close(); err != nil {
			t.Errorf("closing a node: %v", err)
		}
	})
	if d != nil {
		for range 800 { // what is lost of the first look round comes with the next
			if n.Ready() == nil && n.dht.RoutingTable().Size() >= min(len(d.nodes), 20)*3/4 {
				return n
			}
			time.Sleep(25 * time.Millisecond)
		}
		t.Fatalf("it met nobody: %v, %d peers", n.Ready(), n.dht.RoutingTable().Size())
	}
	return n
}

func askFor(ask index.Ask, key string) *index.Job {
	k, err := index.ParseKey(key)
	if err != nil {
		panic(err)
	}
	return &index.Job{Ask: ask, Key: k}
}

// discover asks n with the time a stage has.
func discover(n *Node, j *index.Job) error {
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Second)
	defer cancel()
	return n.Discover(ctx, j)
}

func TestWhatOneNodePublishesAnotherFinds(t *testing.T) {
	d := openDevnet(t, 12)
	a, b := openNode(t, d), openNode(t, d)
	ctx := t.Context()
	body := []byte(`{"v":1,"files":[]}`)
	c := index.Sum(body)

	if err := discover(b, askFor(index.AskManifest, c.String())); err != index.Missing {
		t.Errorf("before it is published: %v, want missing", err)
	}
	if took := a.putValue(ctx, manifestKey(&c), body); took < 10 {
		t.Errorf("%d nodes took the manifest", took)
	}
	j := askFor(index.AskManifest, c.String())
	if err := discover(b, j); err != nil || string(j.Answer.Body) != string(body) || j.Answer.From != index.FromDHT {
		t.Errorf("the manifest: %v %q from %v", err, j.Answer.Body, j.Answer.From)
	}

	pub, key, _ := ed25519.GenerateKey(nil)
	name, _ := index.ParseKey("name:go/src")
	rec := index.NameRecord{CID: c, Seq: 3, IssuedAt: time.Now().Unix(), ExpiresAt: time.Now().Add(time.Hour).Unix()}
	signName(key, &name, &rec)
	v, err := index.MarshalSignedName(&name, &rec)
	if err != nil {
		t.Fatal(err)
	}
	a.putValue(ctx, nameKey(pub, &name), v)
	j = askFor(index.AskResolve, "name:go/src")
	if err := discover(b, j); err != index.Missing {
		t.Errorf("a name nobody is trusted for: %v, want missing", err)
	}
	b.opt.Trusted = func(*index.Key) []ed25519.PublicKey { return []ed25519.PublicKey{pub} }
	if err := discover(b, j); err != nil || j.Answer.Name.CID != c || j.Answer.Name.Seq != 3 {
		t.Errorf("the name: %v, %+v", err, j.Answer.Name)
	}
	if rep := b.recent.list()[0]; rep.Hops < 1 || rep.Hops > 4 || !strings.Contains(rep.What, "GET_VALUE") {
		t.Errorf("the look-up is told as %+v", rep)
	}
}
