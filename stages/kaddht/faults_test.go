package kaddht

import (
	"context"
	"crypto/ed25519"
	"encoding/binary"
	"flag"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	pb "github.com/libp2p/go-libp2p-kad-dht/pb"
	record "github.com/libp2p/go-libp2p-record"
	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"

	"svcindex/index"
)

var full = flag.Bool("full", false, "the long versions of the fault tests")

// answerWith returns a lie that answers every GET_VALUE with a value.
func answerWith(value []byte) func(*pb.Message) *pb.Message {
	return func(m *pb.Message) *pb.Message {
		out := pb.NewMessage(m.GetType(), m.GetKey(), 0)
		if m.GetType() == pb.Message_GET_VALUE {
			out.Record = record.MakePutRecord(string(m.GetKey()), value)
		}
		return out
	}
}

// junk returns a peer id that carries a key, as a liar can make by the million.
func junk(i int) peer.ID {
	sum := index.Sum(binary.BigEndian.AppendUint64(nil, uint64(i)))
	return peer.ID("\x00\x24\x08\x01\x12\x20" + string(sum[:]))
}

func TestNothingThatIsPoisonedIsAccepted(t *testing.T) {
	pub, key, _ := ed25519.GenerateKey(nil)
	_, strange, _ := ed25519.GenerateKey(nil)
	name, _ := index.ParseKey("name:a/b")
	other, _ := index.ParseKey("name:a/c")
	c := index.Sum([]byte("hello"))
	now := time.Now()
	sealed := func(k ed25519.PrivateKey, n *index.Key, change func(*index.NameRecord)) []byte {
		r := index.NameRecord{CID: c, Seq: 9, IssuedAt: now.Unix(), ExpiresAt: now.Add(time.Hour).Unix()}
		change(&r)
		signName(k, n, &r)
		b, err := index.MarshalSignedName(n, &r)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	plain := func(*index.NameRecord) {}
	good := sealed(key, &name, plain)
	flipped := append([]byte(nil), good...)
	flipped[len(flipped)-1] ^= 1
	// A provider that signed for somebody else.
	p := profile{Addrs: []string{"/ip4/127.0.0.1/tcp/1/http"}, Peer: junk(0).String(), Seq: 1, LastSeen: uint64(now.Unix()), Expires: uint64(now.Unix() + 60)}
	forged, _ := sealProfile(strange, p)

	d := openDevnet(t, 5)
	n := openNode(t, d, func(o *Options) {
		o.Trusted = func(*index.Key) []ed25519.PublicKey { return []ed25519.PublicKey{pub} }
	})
	for _, tt := range []struct {
		why  string
		ask  index.Ask
		key  string
		lie  func(*pb.Message) *pb.Message
		want error
	}{
		{"other bytes than those of the content id", index.AskManifest, c.String(), answerWith([]byte("hullo")), index.Missing},
		{"nothing", index.AskManifest, c.String(), answerWith(nil), index.Missing},
		{"a manifest over the limit", index.AskManifest, c.String(), answerWith(make([]byte, ManifestMax+1)), index.Missing},
		{"an answer over the limit", index.AskManifest, c.String(), answerWith(make([]byte, answerMax+1)), index.Down},
		{"a name under another key", index.AskResolve, "name:a/b", answerWith(sealed(strange, &name, plain)), index.Missing},
		{"a name whose signature is off by a bit", index.AskResolve, "name:a/b", answerWith(flipped), index.Missing},
		{"another name of the same publisher", index.AskResolve, "name:a/b", answerWith(sealed(key, &other, plain)), index.Missing},
		{"an expired name", index.AskResolve, "name:a/b", answerWith(sealed(key, &name, func(r *index.NameRecord) { r.ExpiresAt = now.Unix() - 1 })), index.Missing},
		{"a name from the future", index.AskResolve, "name:a/b", answerWith(sealed(key, &name, func(r *index.NameRecord) { r.IssuedAt = now.Unix() + 7200 })), index.Missing},
		{"no CBOR", index.AskResolve, "name:a/b", answerWith([]byte("x")), index.Missing},
		{"1,000 providers that exist nowhere", index.AskProviders, c.String(), func(m *pb.Message) *pb.Message {
			out := pb.NewMessage(m.GetType(), m.GetKey(), 0)
			if m.GetType() == pb.Message_GET_PROVIDERS {
				inside, _ := ma.NewMultiaddr("/ip4/169.254.169.254/tcp/80/http")
				for i := range 1000 {
					out.ProviderPeers = append(out.ProviderPeers, pb.RawPeerInfosToPBPeers([]peer.AddrInfo{{ID: junk(i), Addrs: []ma.Multiaddr{inside}}})...)
				}
			}
			return out
		}, index.Missing},
		{"a provider whose profile somebody else signed", index.AskProviders, c.String(), func(m *pb.Message) *pb.Message {
			out := answerWith(forged)(m)
			if m.GetType() == pb.Message_GET_PROVIDERS {
				out.ProviderPeers = pb.RawPeerInfosToPBPeers([]peer.AddrInfo{{ID: junk(0)}})
			}
			return out
		}, index.Missing},
		{"the answer to another question", index.AskManifest, c.String(), func(m *pb.Message) *pb.Message {
			out := pb.NewMessage(m.GetType(), m.GetKey(), 0)
			out.Record = record.MakePutRecord("/svcm/other", []byte("hello"))
			return out
		}, index.Missing},
		{"peers without end", index.AskManifest, c.String(), func(m *pb.Message) *pb.Message {
			out := pb.NewMessage(m.GetType(), m.GetKey(), 0)
			for i := range 500 {
				out.CloserPeers = append(out.CloserPeers, pb.RawPeerInfosToPBPeers([]peer.AddrInfo{{ID: junk(i)}})...)
			}
			return out
		}, nil},
	} {
		for _, liar := range d.nodes {
			liar.Lie(tt.lie)
		}
		n.memory.forget()
		j := askFor(tt.ask, tt.key)
		err := discover(n, j)
		if err == nil || tt.want != nil && err != tt.want {
			t.Errorf("%s: %v, want %v; answer %+v", tt.why, err, tt.want, j.Answer)
		}
		if tt.want == nil && (n.recent.list()[0].Sent > ruleManifest.sends) {
			t.Errorf("%s: %d requests", tt.why, n.recent.list()[0].Sent)
		}
		for range 100 { // whom the liars' errors took out comes back
			if n.dht.RoutingTable().Size() == len(d.nodes) {
				break
			}
			for _, peer := range d.nodes {
				n.meets(peer.Node)
			}
		}
	}
	if n.opt.Integrity.DHT.Load() == 0 || n.opt.Counts.Invalid.Load() == 0 {
		t.Error("what was refused is not counted")
	}
}

// forget makes every peer a stranger again, also to calls that are on their way.
func (m *memory) forget() {
	m.mu.Lock()
	defer m.mu.Unlock()
	clear(m.of)
	m.order.Init()
}

func TestAReplayedOlderSequenceLosesToTheNewer(t *testing.T) {
	pub, key, _ := ed25519.GenerateKey(nil)
	name, _ := index.ParseKey("name:a/b")
	d := openDevnet(t, 8)
	a := openNode(t, d)
	b := openNode(t, d, func(o *Options) {
		o.Trusted = func(*index.Key) []ed25519.PublicKey { return []ed25519.PublicKey{pub} }
	})
	value := func(seq uint64) []byte {
		r := index.NameRecord{CID: index.Sum([]byte("x")), Seq: seq, IssuedAt: 1, ExpiresAt: time.Now().Unix() + 3600}
		signName(key, &name, &r)
		v, _ := index.MarshalSignedName(&name, &r)
		return v
	}
	a.putValue(t.Context(), nameKey(pub, &name), value(5))
	for _, liar := range d.nodes[:2] {
		liar.Lie(answerWith(value(3)))
	}
	if took := a.putValue(t.Context(), nameKey(pub, &name), value(4)); took > 2 {
		t.Errorf("%d nodes took an older record over the newer", took)
	}
	for range 10 {
		j := askFor(index.AskResolve, "name:a/b")
		if err := discover(b, j); err != nil || j.Answer.Name.Seq != 5 {
			t.Fatalf("%v, sequence %d, want 5", err, j.Answer.Name.Seq)
		}
	}
}

// settle waits until f is true.
func settle(t *testing.T, what string, f func() bool) {
	t.Helper()
	for range 400 {
		if f() {
			return
		}
		time.Sleep(25 * time.Millisecond)
	}
	t.Errorf("not within 10 s: %s", what)
}

func TestCancelledLookupsLeaveNothingBehind(t *testing.T) {
	d := openDevnet(t, 10)
	n := openNode(t, d)
	for i := range 60 { // connections and streams that stay
		_ = discover(n, askFor(index.AskManifest, index.Sum([]byte{byte(i)}).String()))
	}
	for _, s := range d.nodes {
		s.Slow(30 * time.Millisecond)
	}
	size := n.dht.RoutingTable().Size()
	before := runtime.NumGoroutine()
	var all sync.WaitGroup
	for i := range 500 {
		all.Go(func() {
			ctx, cancel := context.WithTimeout(t.Context(), 2*time.Millisecond)
			defer cancel()
			key := index.Sum(binary.BigEndian.AppendUint32(nil, uint32(i)))
			if err := n.Discover(ctx, askFor(index.AskProviders, key.String())); err == nil {
				t.Error("found what is nowhere")
			}
		})
		if i%50 == 49 {
			all.Wait()
		}
	}
	all.Wait()
	for _, s := range d.nodes {
		s.Slow(0)
	}
	settle(t, fmt.Sprintf("goroutines are back at %d", before), func() bool { return runtime.NumGoroutine() <= before+20 })
	if got := n.dht.RoutingTable().Size(); got != size {
		t.Errorf("the routing table has %d peers, before it had %d", got, size)
	}
	if _, resting := n.memory.count(time.Now()); resting > 0 {
		t.Errorf("%d peers are left alone for what we cancelled", resting)
	}
	out := 0
	for _, c := range n.host.Network().Conns() {
		out += len(c.GetStreams())
	}
	if most := len(d.nodes) * (idlePerPeer + 2); out > most {
		t.Errorf("%d streams are open, at most %d are kept", out, most)
	}
}

func TestAnOutageHereDoesNotEmptyTheRoutingTable(t *testing.T) {
	d := openDevnet(t, 10)
	a, n := openNode(t, d), openNode(t, d)
	body := []byte("still there")
	c := index.Sum(body)
	a.putValue(t.Context(), manifestKey(&c), body)
	n.remember()
	size := n.dht.RoutingTable().Size()
	n.cut(true)
	for range 30 {
		began := time.Now()
		ctx, cancel := context.WithTimeout(t.Context(), 900*time.Millisecond)
		if err := n.Discover(ctx, askFor(index.AskManifest, c.String())); err != index.Down && err != index.Late {
			t.Fatalf("cut off, it says %v, want down", err)
		}
		cancel()
		if took := time.Since(began); took > 5*time.Second {
			t.Fatalf("it took %v, the deadline was 900ms", took)
		}
	}
	if got := n.dht.RoutingTable().Size(); got < size {
		t.Errorf("the outage took the routing table from %d to %d peers", size, got)
	}
	n.cut(false)
	settle(t, "the manifest is found again", func() bool {
		n.beat()
		return discover(n, askFor(index.AskManifest, c.String())) == nil
	})
}

func TestSlowHangingAndTearingPeersDoNotStopALookup(t *testing.T) {
	d := openDevnet(t, 12)
	a := openNode(t, d)
	var keys []index.CID
	for i := range 40 {
		body := fmt.Appendf(nil, "manifest %d", i)
		c := index.Sum(body)
		if took := a.putValue(t.Context(), manifestKey(&c), body); took < 8 {
			t.Fatalf("%d nodes took it", took)
		}
		keys = append(keys, c)
	}
	n := openNode(t, d, func(o *Options) { o.Hedge = 60 * time.Millisecond })
	for i, s := range d.nodes {
		switch i {
		case 0, 1:
			s.Hang()
		case 2, 3:
			s.Tear(true)
		case 4:
			s.Slow(700 * time.Millisecond)
		case 5:
			s.Vanish()
		}
	}
	for _, c := range keys {
		began := time.Now()
		if err := discover(n, askFor(index.AskManifest, c.String())); err != nil {
			t.Errorf("%v after %v, with half of the nodes well", err, time.Since(began))
		}
	}
	absent := index.Sum([]byte("nowhere"))
	if err := discover(n, askFor(index.AskManifest, absent.String())); err == nil {
		t.Error("found what is nowhere")
	}
}

func TestChurnDoesNotLoseWhatIsHeld(t *testing.T) {
	nodes, replaced, lookups := 16, 5, 150
	if *full {
		nodes, replaced, lookups = 60, 28, 3000
	}
	d := openDevnet(t, nodes)
	a := openNode(t, d)
	var keys []index.CID
	for i := range 50 {
		body := fmt.Appendf(nil, "manifest %d", i)
		c := index.Sum(body)
		a.putValue(t.Context(), manifestKey(&c), body)
		keys = append(keys, c)
	}
	n := openNode(t, d)
	var done atomic.Bool
	var churn sync.WaitGroup
	churn.Go(func() {
		defer done.Store(true)
		for i := range replaced {
			gone := d.nodes[nodes-1-i]
			close(gone.end)
			if err := gone.Close(); err != nil {
				t.Error(err)
			}
			fresh, err := openDevNode(DevnetPlan{Prefix: testPrefix, Host: "127.0.0.1", Verify: verifyName}, 1000+i)
			if err != nil {
				t.Error(err)
				return
			}
			d.nodes[nodes-1-i] = fresh
			fresh.meets(d.nodes[i%(nodes-replaced)].Node)
			fresh.refresh()
			time.Sleep(9 * time.Second / 28)
		}
	})
	misses, asked := 0, 0
	for i := 0; i < lookups || !done.Load(); i++ {
		ctx, cancel := context.WithTimeout(t.Context(), 1200*time.Millisecond)
		if err := n.Discover(ctx, askFor(index.AskManifest, keys[i%len(keys)].String())); err != nil {
			misses++
			t.Logf("look-up %d: %v %+v", i, err, n.recent.list()[0])
		}
		cancel()
		asked++
		if *full {
			time.Sleep(2 * time.Millisecond)
		}
	}
	churn.Wait()
	if misses > 0 {
		t.Errorf("%d of %d look-ups missed while %d of %d nodes were replaced", misses, asked, replaced, nodes)
	}
	t.Logf("%d look-ups, %d misses, while %d of %d nodes were replaced", asked, misses, replaced, nodes)
}
