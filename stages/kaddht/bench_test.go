package kaddht

import (
	"context"
	"crypto/ed25519"
	"encoding/binary"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/ipfs/go-cid"
	dht "github.com/libp2p/go-libp2p-kad-dht"
	pb "github.com/libp2p/go-libp2p-kad-dht/pb"
	record "github.com/libp2p/go-libp2p-record"
	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	mocknet "github.com/libp2p/go-libp2p/p2p/net/mock"
	ma "github.com/multiformats/go-multiaddr"
	"github.com/multiformats/go-multihash"

	"svcindex/index"
)

var (
	benchDHT = flag.Bool("bench-dht", false, "hold our look-ups to those of kad-dht and print the table")
	benchN   = flag.Int("lookups", 1000, "look-ups of each design, with -bench-dht")
)

// A sim is a network for measuring: servers that know each other and clients
// that ask. Each client is a host with two minds, ours and a plain kad-dht
// client, upon the same routing table.
type sim struct {
	t       testing.TB
	servers []*Node
	clients []*client
	base    time.Duration // an answer's time
	slow    time.Duration
	slowFor sync.Map // key + server -> struct{}
	slowAll sync.Map // server -> struct{}
}

type client struct {
	ours  *Node
	plain *dht.IpfsDHT
	sends *atomic.Int64 // requests of the plain one
}

// A counted sender is kad-dht's own, with a counter.
type countedSender struct {
	pb.MessageSenderWithDisconnect
	n *atomic.Int64
}

func (c countedSender) SendRequest(ctx context.Context, p peer.ID, m *pb.Message) (*pb.Message, error) {
	c.n.Add(1)
	return c.MessageSenderWithDisconnect.SendRequest(ctx, p, m)
}

// openSim makes one of n servers, in memory or over TCP and TLS.
func openSim(t testing.TB, n, k, clients int, tcp bool) *sim {
	s := &sim{t: t}
	var net mocknet.Mocknet
	if !tcp {
		net = mocknet.New()
		t.Cleanup(func() { _ = net.Close() })
	}
	open := func(i int, server bool) *Node {
		var self *Node
		o := Options{
			Key: DevKey(i), Server: server, Prefix: testPrefix, AllowPrivate: true, Alpha: 3, Beta: 2, Hedge: 150 * time.Millisecond, Jitter: .2,
			HedgeBudget: .1, Verify: verifyName, BucketSize: k, Serving: func(v Serving) { s.serve(self, v) },
		}
		node, err := newNode(o)
		if err != nil {
			t.Fatal(err)
		}
		self = node
		if tcp {
			at := ""
			if server {
				at = "127.0.0.1:0"
			}
			listen, _ := listenAddr(at)
			if node.host, err = newHost(o.Key, node.policy, listen, nil); err != nil {
				t.Fatal(err)
			}
		} else {
			priv, _ := crypto.UnmarshalEd25519PrivateKey(o.Key)
			addr, _ := ma.NewMultiaddr(fmt.Sprintf("/ip4/127.0.0.1/tcp/%d", 10000+i))
			h, err := net.AddPeer(priv, addr)
			if err != nil {
				t.Fatal(err)
			}
			node.host = &lean{Host: h, gate: &gate{policy: node.policy}}
		}
		if err := node.join(); err != nil { // no pulse: nothing but look-ups moves
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = node.Close() })
		return node
	}
	for i := range n {
		s.servers = append(s.servers, open(i, true))
	}
	for i := range clients {
		s.clients = append(s.clients, s.openClient(open(n+i, false)))
	}
	if net != nil {
		if err := net.LinkAll(); err != nil {
			t.Fatal(err)
		}
	}
	for _, a := range s.servers {
		for _, i := range rand.Perm(n) {
			if b := s.servers[i]; a != b {
				a.meets(b)
			}
		}
	}
	for _, c := range s.clients {
		for _, i := range rand.Perm(n) {
			c.ours.meets(s.servers[i])
			_, _ = c.plain.RoutingTable().TryAddPeer(s.servers[i].self, true, false)
		}
	}
	return s
}

// openClient gives a host its second mind.
func (s *sim) openClient(ours *Node) *client {
	opts := []dht.Option{
		dht.ProtocolPrefix(testPrefix), dht.Mode(dht.ModeClient), dht.BucketSize(ours.opt.BucketSize), dht.Concurrency(3), dht.Resiliency(3),
		dht.DisableAutoRefresh(), dht.BootstrapPeers(), dht.Validator(record.NamespacedValidator{
			nsManifest: manifestJudge{ours}, nsName: nameJudge{ours}, nsProvider: profileJudge{ours},
		}),
	}
	donor, err := dht.New(ours.host, opts...)
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { _ = donor.Close() })
	c := &client{ours: ours, sends: new(atomic.Int64)}
	c.plain, err = dht.New(ours.host, append(opts, dht.WithCustomMessageSender(func(host.Host, []protocol.ID) pb.MessageSenderWithDisconnect {
		return countedSender{donor.MessageSender().(pb.MessageSenderWithDisconnect), c.sends}
	}))...)
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { _ = c.plain.Close() })
	return c
}

// serve is how long a server takes to answer.
func (s *sim) serve(n *Node, v Serving) {
	d := s.base
	if s.slow > 0 {
		_, this := s.slowFor.Load(string(v.Key) + string(n.self))
		_, all := s.slowAll.Load(n.self)
		if this || all {
			d = s.slow
		}
	}
	if d > 0 {
		time.Sleep(d)
	}
}

// nearest returns the k servers nearest to a key.
func (s *sim) nearest(key []byte, k int) []*Node {
	target := placeOf(key)
	all := slices.Clone(s.servers)
	slices.SortFunc(all, func(a, b *Node) int {
		x, y := placeOf([]byte(a.self)).to(target), placeOf([]byte(b.self)).to(target)
		return slices.Compare(x[:], y[:])
	})
	return all[:min(k, len(all))]
}

// place puts provider records and manifests of n keys at their nearest servers,
// without asking anybody.
func (s *sim) place(n int) []index.CID {
	k := s.servers[0].opt.BucketSize
	cids := make([]index.CID, n)
	for i := range cids {
		body := binary.BigEndian.AppendUint64([]byte("manifest "), uint64(i))
		cids[i] = index.Sum(body)
		mkey, pkey := manifestKey(&cids[i]), providerKey(&cids[i])
		for _, at := range s.nearest([]byte(mkey), k) {
			if err := at.shelf.Put(context.Background(), mkey, record.MakePutRecord(mkey, body)); err != nil {
				s.t.Fatal(err)
			}
		}
		for _, at := range s.nearest(pkey, k) {
			who := s.servers[(i+7)%len(s.servers)]
			if err := at.dht.ProviderStore().AddProvider(context.Background(), pkey, peer.AddrInfo{ID: who.self, Addrs: who.host.Addrs()}); err != nil {
				s.t.Fatal(err)
			}
		}
	}
	return cids
}

// A sample is what one design did.
type sample struct {
	took   []time.Duration
	hops   []int
	sends  int
	hedges int // requests
	fired  int // look-ups that hedged
	won    int
	misses int
	found  int // of whole sets, all finds together
}

func (s *sample) quantile(q float64) time.Duration {
	if len(s.took) == 0 {
		return 0
	}
	slices.Sort(s.took)
	return s.took[min(int(q*float64(len(s.took))), len(s.took)-1)]
}

func (s *sample) hop(q float64) int {
	if len(s.hops) == 0 {
		return 0
	}
	slices.Sort(s.hops)
	return s.hops[min(int(q*float64(len(s.hops))), len(s.hops)-1)]
}

func (s *sample) rpcs() float64 { return float64(s.sends) / float64(len(s.took)) }

const lookupTime = 1200 * time.Millisecond

// askOurs looks for one provider, as the table means it.
func (c *client) askOurs(id index.CID, out *sample) {
	ctx, cancel := context.WithTimeout(context.Background(), lookupTime)
	defer cancel()
	began := time.Now()
	votes := map[peer.ID]int{}
	rep := c.ours.look(ctx, &question{what: pb.Message_GET_PROVIDERS, key: providerKey(&id), rule: rule{most: 1, nearest: 3, sends: 40},
		judge: func(_ peer.ID, m *pb.Message) (n int) {
			for _, p := range m.GetProviderPeers() {
				if c.ours.vote(votes, peer.ID(p.Id)) {
					n++
				}
			}
			return n
		}})
	out.note(rep, time.Since(began))
}

func (s *sample) note(rep *report, took time.Duration) {
	s.took = append(s.took, took)
	s.hops = append(s.hops, rep.Hops)
	s.sends += rep.Sent
	s.hedges += rep.Hedged
	if rep.Fired > 0 {
		s.fired++
	}
	if rep.Won {
		s.won++
	}
	if rep.Finds == 0 {
		s.misses++
	}
}

// askPlain looks for one provider with kad-dht's own look-up.
func (c *client) askPlain(id index.CID, out *sample) {
	ctx, cancel := context.WithTimeout(context.Background(), lookupTime)
	defer cancel()
	mh, _ := multihash.Encode(id[:], multihash.BLAKE3)
	began := time.Now()
	found := false
	for range c.plain.FindProvidersAsync(ctx, cid.NewCidV1(cid.Raw, mh), 1) {
		found = true
		out.took = append(out.took, time.Since(began))
		cancel()
	}
	if !found {
		out.took = append(out.took, time.Since(began))
		out.misses++
	}
}

// one asks both designs for one provider.
func one(cids []index.CID) (ours, plain asking) {
	return func(c *client, i int, out *sample) { c.askOurs(cids[i%len(cids)], out) },
		func(c *client, i int, out *sample) { c.askPlain(cids[i%len(cids)], out) }
}

// An asking is one look-up of the ith key.
type asking func(c *client, i int, out *sample)

// interleave runs both designs over the keys, in an order of its own for each.
func (s *sim) interleave(askOurs, askPlain asking, workers int) (ours, plain sample) {
	var mu sync.Mutex
	var all sync.WaitGroup
	before := int64(0)
	for _, c := range s.clients {
		before += c.sends.Load()
	}
	for w := range workers {
		all.Go(func() {
			c := s.clients[w%len(s.clients)]
			var a, b sample
			r := rand.New(rand.NewPCG(uint64(w), 1))
			for i := w; i < *benchN; i += workers {
				if r.IntN(2) == 0 {
					askOurs(c, i, &a)
					askPlain(c, i, &b)
				} else {
					askPlain(c, i, &b)
					askOurs(c, i, &a)
				}
			}
			mu.Lock()
			defer mu.Unlock()
			ours.add(&a)
			plain.add(&b)
		})
	}
	all.Wait()
	for _, c := range s.clients {
		plain.sends += int(c.sends.Load())
	}
	plain.sends -= int(before)
	return ours, plain
}

func (s *sample) add(o *sample) {
	s.took = append(s.took, o.took...)
	s.hops = append(s.hops, o.hops...)
	s.sends += o.sends
	s.hedges += o.hedges
	s.fired += o.fired
	s.won += o.won
	s.misses += o.misses
	s.found += o.found
}

func cpu() time.Duration {
	var r syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &r)
	return time.Duration(r.Utime.Nano() + r.Stime.Nano())
}

// warm has every client meet the servers it will ask.
func (s *sim) warm(cids []index.CID) {
	for _, c := range s.clients {
		for _, id := range cids {
			var none sample
			c.askOurs(id, &none)
			c.askPlain(id, &none)
		}
	}
}

// forget lets our clients forget who was slow.
func (s *sim) forget() {
	for _, c := range s.clients {
		c.ours.memory.forget()
		c.ours.budget = &budget{share: c.ours.opt.HedgeBudget}
	}
}

func TestBenchDHT(t *testing.T) {
	if !*benchDHT {
		t.Skip("make bench-dht")
	}
	t.Cleanup(func() { time.Sleep(time.Second) }) // for the last of those that are slow
	out := os.Stdout
	fmt.Fprintf(out, "%s, %d cores, %d look-ups of each design\n\n", runtime.Version(), runtime.NumCPU(), *benchN)
	for _, net := range []struct {
		name string
		n, k int
		tcp  bool
	}{{"N=200 in memory, k=20", 200, 20, false}, {"N=60 TCP+TLS, k=20", 60, 20, true}, {"N=200 in memory, k=4", 200, 4, false}} {
		t.Run(net.name, func(t *testing.T) {
			s := openSim(t, net.n, net.k, 5, net.tcp)
			cids := s.place(300)
			s.warm(cids[:100])
			s.healthy(out, net.name, cids)
			s.stalled(out, net.name, cids)
			s.whole(out, net.name)
			if net.k == 4 {
				s.random(out, net.name, cids)
			}
		})
	}
}

// healthy measures CPU, hops and needless hedges where nobody is slow.
func (s *sim) healthy(out *os.File, name string, cids []index.CID) {
	var ratios []float64
	var ours, plain sample
	for round := range 8 {
		s.forget()
		var used [2]time.Duration
		for half := range 2 {
			ask := half == round%2
			began := cpu()
			for i := range *benchN / 4 {
				c := s.clients[i%len(s.clients)]
				if ask {
					c.askOurs(cids[i%len(cids)], &ours)
				} else {
					c.askPlain(cids[i%len(cids)], &plain)
				}
			}
			if ask {
				used[0] = cpu() - began
			} else {
				used[1] = cpu() - began
			}
		}
		ratios = append(ratios, float64(used[0])/float64(used[1]))
	}
	slices.Sort(ratios)
	fmt.Fprintf(out, "%s, healthy: CPU ours/kad-dht median %.2f (%.2f..%.2f); p50 %v against %v, p99 %v against %v; hops p99 %d; extra requests %.1f %%; misses %d, %d\n",
		name, ratios[len(ratios)/2], ratios[0], ratios[len(ratios)-1], ours.quantile(.5).Round(10*time.Microsecond), plain.quantile(.5).Round(10*time.Microsecond),
		ours.quantile(.99).Round(10*time.Microsecond), plain.quantile(.99).Round(10*time.Microsecond), ours.hop(.99), 100*float64(ours.hedges)/float64(ours.sends-ours.hedges), ours.misses, plain.misses)
}

// stalled measures where the nearest servers of 30 % of the keys are slow.
func (s *sim) stalled(out *os.File, name string, cids []index.CID) {
	s.base, s.slow = 20*time.Millisecond, 600*time.Millisecond
	defer func() { s.base, s.slow = 0, 0 }()
	slow := s.slow
	s.slow = 0
	s.warm(cids[:20]) // how quick the network is, is known to a node that has run for a while
	s.slow = slow
	for i, id := range cids {
		if i%10 < 3 {
			key := providerKey(&id)
			for _, n := range s.nearest(key, 3) {
				s.slowFor.Store(string(key)+string(n.self), struct{}{})
			}
		}
	}
	defer s.slowFor.Clear()
	for round := range 2 {
		s.forget()
		a, b := one(cids)
		ours, plain := s.interleave(a, b, 10)
		s.line(out, fmt.Sprintf("%s, nearest 3 of 30 %% of keys slow, round %d", name, round+1), &ours, &plain)
	}
}

// setSize is how many providers each cid of a whole set has.
const setSize = 8

// whole measures look-ups that one answer does not satisfy: of a name, which
// wants three valid records, and of all providers of a cid. kad-dht is asked
// for as much: for three values, and for every provider there is.
func (s *sim) whole(out *os.File, name string) {
	const n = 100
	pub, key, _ := ed25519.GenerateKey(nil)
	ctx, names, sets := context.Background(), make([]string, n), make([][]byte, n)
	for i := range n {
		k, _ := index.ParseKey(fmt.Sprintf("name:bench/%d", i))
		r := index.NameRecord{CID: index.Sum([]byte{byte(i)}), Seq: 1, IssuedAt: time.Now().Unix(), ExpiresAt: time.Now().Add(time.Hour).Unix()}
		signName(key, &k, &r)
		v, err := index.MarshalSignedName(&k, &r)
		if err != nil {
			s.t.Fatal(err)
		}
		c := index.Sum(fmt.Appendf(nil, "set %d", i))
		names[i], sets[i] = nameKey(pub, &k), providerKey(&c)
		for _, at := range s.nearest([]byte(names[i]), s.servers[0].opt.BucketSize) {
			if err := at.shelf.Put(ctx, names[i], record.MakePutRecord(names[i], v)); err != nil {
				s.t.Fatal(err)
			}
		}
		for _, at := range s.nearest(sets[i], s.servers[0].opt.BucketSize) {
			for j := range setSize {
				who := s.servers[(i+j)%len(s.servers)]
				if err := at.dht.ProviderStore().AddProvider(ctx, sets[i], peer.AddrInfo{ID: who.self, Addrs: who.host.Addrs()}); err != nil {
					s.t.Fatal(err)
				}
			}
		}
	}
	s.base = 20 * time.Millisecond
	defer func() { s.base, s.slow = 0, 0 }()
	for _, slow := range []time.Duration{0, 600 * time.Millisecond} {
		how := "nobody slow"
		if s.slow = slow; slow > 0 {
			how = "nearest 3 of 30 % of keys slow"
		}
		for i := range n {
			for _, key := range []string{names[i], string(sets[i])} {
				for _, at := range s.nearest([]byte(key), 3) {
					if i%10 < 3 {
						s.slowFor.Store(key+string(at.self), struct{}{})
					}
				}
			}
		}
		s.forget()
		ours, plain := s.interleave(
			func(c *client, i int, out *sample) { c.nameOurs(names[i%n], out) },
			func(c *client, i int, out *sample) { c.namePlain(names[i%n], out) }, 10)
		s.line(out, name+", names, "+how, &ours, &plain)
		s.forget()
		ours, plain = s.interleave(
			func(c *client, i int, out *sample) { c.setOurs(sets[i%n], out) },
			func(c *client, i int, out *sample) { c.setPlain(sets[i%n], out) }, 10)
		s.line(out, name+", provider sets, "+how, &ours, &plain)
		fmt.Fprintf(out, "%s, provider sets, %s: of %d providers each, %.2f against %.2f were found\n",
			name, how, setSize, float64(ours.found)/float64(len(ours.took)), float64(plain.found)/float64(len(plain.took)))
		s.slowFor.Clear()
	}
}

// nameOurs looks for a name, as discoverName does.
func (c *client) nameOurs(key string, out *sample) {
	ctx, cancel := context.WithTimeout(context.Background(), lookupTime)
	defer cancel()
	began := time.Now()
	rep := c.ours.values(ctx, key, ruleName, func(v []byte) bool {
		_, _, err := c.ours.readName(key, v)
		return err == nil
	})
	out.note(rep, time.Since(began))
}

func (c *client) namePlain(key string, out *sample) {
	ctx, cancel := context.WithTimeout(context.Background(), lookupTime)
	defer cancel()
	began := time.Now()
	if _, err := c.plain.GetValue(ctx, key, dht.Quorum(2)); err != nil { // it stops at one more
		out.misses++
	}
	out.took = append(out.took, time.Since(began))
}

// setOurs looks for all providers of a cid, as discoverProviders does.
func (c *client) setOurs(key []byte, out *sample) {
	ctx, cancel := context.WithTimeout(context.Background(), lookupTime)
	defer cancel()
	began := time.Now()
	votes := map[peer.ID]int{}
	rep := c.ours.providers(ctx, key, votes)
	out.found += len(votes)
	out.note(rep, time.Since(began))
}

func (c *client) setPlain(key []byte, out *sample) {
	ctx, cancel := context.WithTimeout(context.Background(), lookupTime)
	defer cancel()
	began := time.Now()
	found := 0
	for range c.plain.FindProvidersAsync(ctx, cid.NewCidV1(cid.Raw, multihash.Multihash(key)), providersMax) {
		found++
	}
	out.took = append(out.took, time.Since(began))
	out.found += found
	if found == 0 {
		out.misses++
	}
}

// random measures where 20 % of the servers are slow, for all keys.
func (s *sim) random(out *os.File, name string, cids []index.CID) {
	s.base, s.slow = 20*time.Millisecond, 600*time.Millisecond
	defer func() { s.base, s.slow = 0, 0 }()
	for i, n := range s.servers {
		if i%5 == 0 {
			s.slowAll.Store(n.self, struct{}{})
		}
	}
	defer s.slowAll.Clear()
	s.forget()
	a, b := one(cids)
	ours, plain := s.interleave(a, b, 10)
	s.line(out, name+", 20 % of the servers slow", &ours, &plain)
}

func (s *sim) line(out *os.File, name string, ours, plain *sample) {
	win := 0.0
	if ours.fired > 0 {
		win = float64(ours.won) / float64(ours.fired)
	}
	fmt.Fprintf(out, "%s: p50 %v/%v p90 %v/%v p99 %v/%v = %.2fx at %.2fx requests (%.2f/%.2f); hedged %d won %.2f extra %.1f %%; hops p99 %d; misses %d/%d\n",
		name, ours.quantile(.5).Round(time.Millisecond), plain.quantile(.5).Round(time.Millisecond),
		ours.quantile(.9).Round(time.Millisecond), plain.quantile(.9).Round(time.Millisecond),
		ours.quantile(.99).Round(time.Millisecond), plain.quantile(.99).Round(time.Millisecond),
		float64(ours.quantile(.99))/float64(plain.quantile(.99)), ours.rpcs()/plain.rpcs(), ours.rpcs(), plain.rpcs(),
		ours.fired, win, 100*float64(ours.hedges)/float64(ours.sends-ours.hedges), ours.hop(.99), ours.misses, plain.misses)
}
