package kaddht

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"slices"
	"strconv"
	"sync/atomic"
	"time"

	pb "github.com/libp2p/go-libp2p-kad-dht/pb"
	record "github.com/libp2p/go-libp2p-record"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/peerstore"
	"github.com/libp2p/go-libp2p/core/protocol"
	"github.com/libp2p/go-libp2p/p2p/transport/tcp"

	"svcindex/index"
)

// DevnetMax is how many nodes a devnet may have: each is a listener, and each
// connection between two of them takes two descriptors of this process.
const DevnetMax = 200

// A DevnetPlan says what network to start.
type DevnetPlan struct {
	Nodes      int
	Host       string // IP address; empty: 127.0.0.1
	Port       int    // of the first node, the others follow; 0: any free ones
	Prefix     string
	BucketSize int
	Verify     func(*index.Key, *index.NameRecord) error
	Log        *slog.Logger

	dialer func(node int) tcp.DialerForAddr // nil: the usual one
}

// A Devnet is a private network in one process, to try things: real nodes on
// real sockets that know each other from the start.
type Devnet struct{ nodes []*DevNode }

// A DevNode is one of them, with knobs for what peers do to each other.
type DevNode struct {
	*Node
	slow atomic.Int64 // ns that each answer waits
	hang atomic.Bool  // answers never
	torn atomic.Bool  // breaks the stream instead of answering
	end  chan struct{}
	said bool // it has told of itself
}

// OpenDevnet starts one. The nodes' keys come from their numbers, so that a
// devnet on given ports has the same addresses every time; they guard nothing.
func OpenDevnet(p DevnetPlan) (d *Devnet, err error) {
	if p.Nodes < 1 || p.Nodes > DevnetMax {
		return nil, fmt.Errorf("devnet: found %d nodes, expected 1 to %d", p.Nodes, DevnetMax)
	}
	if p.Host == "" {
		p.Host = "127.0.0.1"
	}
	d = new(Devnet)
	for i := range p.Nodes {
		node, err := openDevNode(p, i)
		if err != nil {
			return nil, errors.Join(err, d.Close())
		}
		d.nodes = append(d.nodes, node)
	}
	d.acquaint()
	return d, nil
}

func openDevNode(p DevnetPlan, i int) (*DevNode, error) {
	port := p.Port
	if port > 0 {
		port += i
	}
	dn := &DevNode{end: make(chan struct{})}
	var dialer tcp.DialerForAddr
	if p.dialer != nil {
		dialer = p.dialer(i)
	}
	n, err := Open(Options{
		Key: DevKey(i), Server: true, Listen: net.JoinHostPort(p.Host, strconv.Itoa(port)), Prefix: p.Prefix, AllowPrivate: true,
		Alpha: 3, Beta: 2, Hedge: 150 * time.Millisecond, Jitter: .2, HedgeBudget: .1, BucketSize: p.BucketSize,
		Verify: p.Verify, Log: p.Log, Serving: dn.serving, dialer: dialer,
	})
	if err != nil {
		return nil, err
	}
	dn.Node = n
	return dn, nil
}

// DevKey is the key of a devnet's node.
func DevKey(i int) ed25519.PrivateKey {
	seed := index.Sum(binary.BigEndian.AppendUint64([]byte("svc-index devnet"), uint64(i)))
	return ed25519.NewKeyFromSeed(seed[:])
}

// serving is where the knobs take hold: before a request is answered.
func (d *DevNode) serving(s Serving) {
	if d.hang.Load() {
		<-d.end
	}
	if d.torn.Load() {
		s.Reset()
	}
	if t := time.Duration(d.slow.Load()); t > 0 {
		select {
		case <-time.After(t):
		case <-d.end:
		}
	}
}

// acquaint puts everybody into everybody's routing table, in random order,
// without a connection: what refreshes would come to, at a hundredth of the
// price.
func (d *Devnet) acquaint() {
	for _, a := range d.nodes {
		for _, i := range rand.Perm(len(d.nodes)) {
			if b := d.nodes[i]; a != b {
				a.meets(b.Node)
			}
		}
	}
}

// meets puts b into n's routing table.
func (n *Node) meets(b *Node) {
	n.host.Peerstore().AddAddrs(b.self, b.host.Addrs(), peerstore.PermanentAddrTTL)
	_, _ = n.dht.RoutingTable().TryAddPeer(b.self, true, false)
}

// Nodes returns the nodes.
func (d *Devnet) Nodes() []*DevNode { return d.nodes }

// Bootstrap returns the addresses of the first few, for dht.bootstrap.
func (d *Devnet) Bootstrap() (out []string) {
	for _, n := range d.nodes[:min(3, len(d.nodes))] {
		out = append(out, n.Addrs()...)
	}
	return out
}

// Slow makes the node take t for each answer.
func (d *DevNode) Slow(t time.Duration) { d.slow.Store(int64(t)) }

// Hang makes it accept and never answer.
func (d *DevNode) Hang() { d.hang.Store(true) }

// Tear makes it break streams instead of answering.
func (d *DevNode) Tear(on bool) { d.torn.Store(on) }

// Vanish cuts the node off: its connections end and it takes and makes no more.
// back brings it back.
func (d *DevNode) Vanish() (back func()) {
	d.cut(true)
	return func() { d.cut(false) }
}

// cut cuts the node off from everybody, or ends that.
func (n *Node) cut(on bool) {
	n.host.gate.cut.Store(on)
	if on {
		for _, c := range n.host.Network().Conns() {
			_ = c.Close()
		}
	}
}

// Lie makes the node answer every request with what lie returns.
func (d *DevNode) Lie(lie func(*pb.Message) *pb.Message) {
	proto := protocol.ID(d.opt.Prefix + "/kad/1.0.0")
	defer d.hangUp(proto) // streams that are open are still with who served before
	d.host.SetStreamHandler(proto, func(s network.Stream) {
		l := &line{s: s, r: newReader(s)}
		defer s.Close()
		for {
			m, err := l.read()
			if err != nil {
				return
			}
			answer := lie(m)
			if answer == nil {
				continue
			}
			frame, err := frameOf(answer)
			if err == nil {
				_, err = s.Write(frame)
			}
			if err != nil {
				return
			}
		}
	})
}

// hangUp resets the streams that others have open to us.
func (n *Node) hangUp(proto protocol.ID) {
	for _, c := range n.host.Network().Conns() {
		for _, s := range c.GetStreams() {
			if s.Protocol() == proto && s.Stat().Direction == network.DirInbound {
				_ = s.Reset()
			}
		}
	}
}

// Publish has a node say that it serves some content: the manifest, the
// provider and what it says of itself are put where announcing would have put
// them, at once, and for a day.
func (d *Devnet) Publish(by int, manifest []byte) error {
	ctx, who, c := context.Background(), d.nodes[by%len(d.nodes)], index.Sum(manifest)
	if err := d.hold(ctx, manifestKey(&c), manifest); err != nil {
		return err
	}
	for _, n := range d.nearest(providerKey(&c)) {
		if err := n.dht.ProviderStore().AddProvider(ctx, providerKey(&c), peer.AddrInfo{ID: who.self, Addrs: who.host.Addrs()}); err != nil {
			return err
		}
	}
	if who.said {
		return nil
	}
	who.said = true
	now, addrs := time.Now(), []string{}
	for _, a := range who.host.Addrs() {
		addrs = append(addrs, a.String())
	}
	v, err := sealProfile(who.opt.Key, profile{
		Addrs: addrs, Peer: who.ID(), Seq: uint64(now.UnixMilli()), LastSeen: uint64(now.Unix()), Expires: uint64(now.Add(profileExpires).Unix()),
	})
	if err != nil {
		return err
	}
	return d.hold(ctx, profileKey(who.self), v)
}

// hold puts a value into the nodes nearest to its key.
func (d *Devnet) hold(ctx context.Context, key string, value []byte) error {
	for _, n := range d.nearest([]byte(key)) {
		if err := n.shelf.Put(ctx, key, record.MakePutRecord(key, value)); err != nil {
			return err
		}
	}
	return nil
}

// nearest returns the nodes that keep what is under a key.
func (d *Devnet) nearest(key []byte) []*DevNode {
	target := placeOf(key)
	far := make(map[*DevNode]place, len(d.nodes))
	for _, n := range d.nodes {
		far[n] = placeOf([]byte(n.self)).to(target)
	}
	all := slices.Clone(d.nodes)
	slices.SortFunc(all, func(a, b *DevNode) int {
		x, y := far[a], far[b]
		return bytes.Compare(x[:], y[:])
	})
	return all[:min(len(all), d.nodes[0].opt.BucketSize)]
}

// Close ends the network.
func (d *Devnet) Close() error {
	var errs []error
	for _, n := range d.nodes {
		close(n.end)
	}
	done := make(chan error)
	for _, n := range d.nodes {
		go func() { done <- n.Close() }()
	}
	for range d.nodes {
		errs = append(errs, <-done)
	}
	return errors.Join(errs...)
}

// Put stores a value at the nodes nearest to its key, as announcing does, and
// returns how many took it.
func (n *Node) Put(ctx context.Context, key string, value []byte) int {
	return n.putValue(ctx, key, value)
}
