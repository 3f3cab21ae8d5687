package kaddht

import (
	"context"
	"crypto/ed25519"
	"encoding/base32"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"path/filepath"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	dht "github.com/libp2p/go-libp2p-kad-dht"
	pb "github.com/libp2p/go-libp2p-kad-dht/pb"
	"github.com/libp2p/go-libp2p-kad-dht/records"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	"github.com/libp2p/go-libp2p/p2p/transport/tcp"
	ma "github.com/multiformats/go-multiaddr"

	"svcindex/index"
)

// Options say who the node is, whom it talks to and how it asks.
type Options struct {
	Key          ed25519.PrivateKey
	Server       bool     // answer others and keep records for them; false: only ask
	Listen       string   // host:port; empty: nowhere
	Bootstrap    []string // multiaddrs of peers to begin with, each with its /p2p/ id
	Prefix       string   // of the protocol; who has another is in another network
	AllowPrivate bool     // deal with private, loopback and link-local addresses

	Alpha       int           // requests in flight
	Beta        int           // and as many more each time nothing happens for Hedge
	Hedge       time.Duration // 0: never
	Jitter      float64       // share of Hedge by which it varies
	HedgeBudget float64       // extra requests in a minute, as a share of the others
	BucketSize  int           // k; 0: 20

	Announce []string // addresses at which clients find this node's content
	Path     string   // directory for the records of others; empty: memory only

	Trusted func(*index.Key) []ed25519.PublicKey // keys that may speak for a name
	Verify  func(*index.Key, *index.NameRecord) error
	Calm    func() bool // whether there is room for extra requests; nil: always

	Counts    *index.DHTCounts
	Integrity *index.IntegrityCounts
	Log       *slog.Logger
	Now       func() time.Time

	// Serving is called before a request of somebody else is answered: the
	// knobs of a devnet hang on it.
	Serving func(s Serving)
	// Recent is how many look-ups /debug/dht shows; 0: 64.
	Recent int

	dialer tcp.DialerForAddr // nil: the usual one; tests put a bad line there
}

// A Serving is a request about to be answered.
type Serving struct {
	From  string
	Key   []byte // of the record it is about
	Reset func() // end the stream instead
}

// Times of the node.
const (
	readyFor     = 60 * time.Second // how long one answer proves that the network is there
	pulseEvery   = 5 * time.Second
	pulseQuick   = 500 * time.Millisecond // while nobody has been met
	quietFor     = 20 * time.Second       // without an answer for so long, somebody is asked how he is
	saveEvery    = 10 * time.Minute
	recordAge    = 48 * time.Hour // how long others' records are kept
	sweepRecords = time.Hour
	rememberMax  = 256 // peers remembered for the time after an outage
)

// A Node is this server's place in the network.
type Node struct {
	// Immutable.
	opt       Options
	log       *slog.Logger
	now       func() time.Time
	self      peer.ID
	policy    addrPolicy
	bootstrap []peer.AddrInfo

	host   *lean
	dht    *dht.IpfsDHT
	sender *sender
	vault  *vault
	shelf  *records.ValueStore // values of others, upon the vault
	quotas *quotas
	ask    func(context.Context, peer.ID, []byte) (*pb.Message, error)
	near   func(place) []heard
	table  table

	// Shared, each a value of its own.
	memory   *memory
	budget   *budget
	hedging  atomic.Pointer[Hedging] // in force
	recent   *recent
	profiles *profiles
	lost     lostList     // peers that were in the routing table
	spoke    time.Time    // when one of them last spoke for all; the pulse's
	pace     pace         // of answers
	met      atomic.Bool  // somebody has answered since the start
	answered atomic.Int64 // when somebody last did, unix ns

	ctx   context.Context
	stop  context.CancelFunc
	calls sync.WaitGroup // look-ups and their requests
	idle  sync.WaitGroup // the pulse

	mu sync.Mutex
	// Fields below are protected by mu.
	known  []peer.AddrInfo // the routing table when it last was well
	closed bool            // no look-up begins any more
}

// A table is what a look-up needs of the routing table.
type table interface {
	UpdateLastSuccessfulOutboundQueryAt(peer.ID, time.Time) bool
	TryAddPeer(p peer.ID, queried, replaceable bool) (bool, error)
	RemovePeer(peer.ID)
}

var _ index.Discoverer = (*Node)(nil)

// Open joins the network. It does not wait until anybody has answered.
func Open(o Options) (n *Node, err error) {
	n, err = newNode(o)
	if err != nil {
		return nil, err
	}
	listen, err := listenAddr(o.Listen)
	if err != nil {
		return nil, err
	}
	if n.host, err = newHost(o.Key, n.policy, listen, o.dialer); err != nil {
		return nil, err
	}
	if err := n.start(); err != nil {
		return nil, err
	}
	return n, nil
}

// start joins the network upon the host, which it closes if it cannot.
func (n *Node) start() error {
	if err := n.join(); err != nil {
		return errors.Join(fmt.Errorf("dht: %w", err), n.host.Close())
	}
	n.idle.Go(n.pulse)
	return nil
}

func newNode(o Options) (*Node, error) {
	n := &Node{opt: o, log: o.Log, now: o.Now, policy: addrPolicy{o.AllowPrivate}}
	if n.now == nil {
		n.now = time.Now
	}
	if n.log == nil {
		n.log = slog.New(slog.DiscardHandler)
	}
	if o.BucketSize == 0 {
		n.opt.BucketSize = 20
	}
	if o.Calm == nil {
		n.opt.Calm = func() bool { return true }
	}
	if o.Counts == nil {
		n.opt.Counts = new(index.DHTCounts)
	}
	if o.Integrity == nil {
		n.opt.Integrity = new(index.IntegrityCounts)
	}
	if o.Trusted == nil {
		n.opt.Trusted = func(*index.Key) []ed25519.PublicKey { return nil }
	}
	if o.Verify == nil {
		n.opt.Verify = func(*index.Key, *index.NameRecord) error { return errSignature } // nobody to ask: nothing is believed
	}
	for _, text := range o.Bootstrap {
		ai, err := peer.AddrInfoFromString(text)
		if err != nil {
			return nil, fmt.Errorf("dht.bootstrap: found %q, expected a multiaddr with a peer id, such as /ip4/192.0.2.7/tcp/4001/p2p/12D3Koo..: %w", text, err)
		}
		if len(n.policy.filter(ai.Addrs)) == 0 {
			return nil, fmt.Errorf("dht.bootstrap: %s is not an address this node may dial: give /ip4 or /ip6 and /tcp; private and loopback ones need dht.allow_private", text)
		}
		n.bootstrap = append(n.bootstrap, *ai)
	}
	n.memory = newMemory()
	n.budget = new(budget)
	n.Tune(Hedging{o.Alpha, o.Beta, o.Hedge, o.Jitter, o.HedgeBudget})
	n.pace.ns.Store(int64(n.hedging.Load().After / 4))
	n.recent = newRecent(o.Recent)
	n.profiles = newProfiles()
	n.vault = newVault()
	n.quotas = newQuotas()
	n.ctx, n.stop = context.WithCancel(context.Background())
	return n, nil
}

// listenAddr returns the multiaddr of a host:port.
func listenAddr(hostport string) (ma.Multiaddr, error) {
	if hostport == "" {
		return nil, nil
	}
	h, port, err := net.SplitHostPort(hostport)
	ip := net.ParseIP(h)
	if n, perr := strconv.ParseUint(port, 10, 16); err != nil || perr != nil || ip == nil {
		return nil, fmt.Errorf("dht.listen: found %q (port %d), expected an IP address and a port, such as 127.0.0.1:4001", hostport, n)
	}
	family := "/ip6/"
	if ip.To4() != nil {
		family = "/ip4/"
	}
	return ma.NewMultiaddr(family + ip.String() + "/tcp/" + port)
}

// join makes the DHT upon the host.
func (n *Node) join() error {
	n.self = n.host.ID()
	if n.opt.Path != "" {
		if err := n.vault.load(n.recordsPath()); err != nil {
			n.log.Warn("dht: records of others", "err", err)
		}
	}
	n.vault.where = n.networkOf
	mode := dht.ModeClient
	if n.opt.Server {
		mode = dht.ModeServer
	}
	var err error
	n.dht, err = dht.New(strict{n.host},
		dht.ProtocolPrefix(protocol.ID(n.opt.Prefix)), dht.Mode(mode), dht.BucketSize(n.opt.BucketSize),
		dht.Concurrency(n.opt.Alpha), dht.Resiliency(3), dht.BootstrapPeers(n.bootstrap...),
		dht.DisableAutoRefresh(), // ours does not throw peers out while it is we who are cut off
		dht.Validator(n.validators()), dht.AddressFilter(n.policy.filter), dht.Datastore(n.vault),
		dht.MaxRecordAge(recordAge), dht.ValueGCInterval(sweepRecords),
		dht.ProviderManagerOpts(records.ProvideValidity(recordAge), records.ProviderAddrTTL(time.Hour),
			records.CleanupInterval(sweepRecords), records.Cache(noCache{})),
		dht.WithCustomMessageSender(func(h host.Host, ps []protocol.ID) pb.MessageSenderWithDisconnect {
			n.sender = newSender(h, ps)
			n.sender.heard = n.hear
			return n.sender
		}),
		dht.OnRequestHook(n.serving),
	)
	if err != nil {
		return err
	}
	n.shelf = records.NewValueStore(n.vault, n.validators(), recordAge)
	n.ask, n.table = n.sender.ask, n.dht.RoutingTable()
	n.near = n.seeds
	return nil
}

// noCache keeps nothing: kad-dht's own cache of provider sets has no bound on
// one set, and our vault is as quick.
type noCache struct{}

func (noCache) Add(any, any) bool              { return false }
func (noCache) Get(any) (any, bool)            { return nil, false }
func (noCache) Contains(any) bool              { return false }
func (noCache) Peek(any) (any, bool)           { return nil, false }
func (noCache) Remove(any) bool                { return false }
func (noCache) RemoveOldest() (any, any, bool) { return nil, nil, false }
func (noCache) GetOldest() (any, any, bool)    { return nil, nil, false }
func (noCache) Keys() []any                    { return nil }
func (noCache) Len() int                       { return 0 }
func (noCache) Purge()                         {}
func (noCache) Resize(int) int                 { return 0 }

// networkOf returns the network that a provider, as the vault calls it,
// announces from; "" where all may be of one.
func (n *Node) networkOf(who string) string {
	id, err := base32.StdEncoding.WithPadding(base32.NoPadding).DecodeString(who)
	if err != nil || n.policy.private {
		return ""
	}
	for _, c := range n.host.Network().ConnsToPeer(peer.ID(id)) {
		if net, ok := subnet(c.RemoteMultiaddr()); ok {
			return net.String()
		}
	}
	return ""
}

func (n *Node) recordsPath() string { return filepath.Join(n.opt.Path, "records") }

// serving is called before each request of others is answered. One that is over
// its sender's quota loses its key, and with it its effect.
func (n *Node) serving(_ context.Context, s network.Stream, m *pb.Message) {
	from := s.Conn().RemotePeer()
	key := m.GetKey()
	if t := m.GetType(); (t == pb.Message_PUT_VALUE || t == pb.Message_ADD_PROVIDER) && !n.quotas.take(from, n.now()) {
		m.Key = nil
	}
	if n.opt.Serving != nil {
		n.opt.Serving(Serving{From: from.String(), Key: key, Reset: func() { _ = s.Reset() }})
	}
}

// hear notes that p answered.
func (n *Node) hear(peer.ID) {
	n.met.Store(true)
	n.answered.Store(n.now().UnixNano())
}

// ID returns the node's peer id.
func (n *Node) ID() string { return n.self.String() }

// Addrs returns the multiaddrs others can bootstrap from.
func (n *Node) Addrs() (out []string) {
	for _, a := range n.host.Addrs() {
		out = append(out, a.String()+"/p2p/"+n.self.String())
	}
	return out
}

// lone reports whether the node is its own network: it was told of nobody and
// has met nobody.
func (n *Node) lone() bool { return len(n.bootstrap) == 0 && !n.met.Load() }

// Ready says whether the network can be asked now.
func (n *Node) Ready() error {
	if len(n.bootstrap) == 0 || n.now().Sub(time.Unix(0, n.answered.Load())) < readyFor {
		return nil
	}
	return fmt.Errorf("no peer of the DHT has answered in the last %v; are those in dht.bootstrap up?", readyFor)
}

// enter lets a look-up begin, unless the node closes: who waits for the last
// one must not see another come. It ends with n.calls.Done.
func (n *Node) enter() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	if !n.closed {
		n.calls.Add(1)
	}
	return !n.closed
}

// Close leaves the network.
func (n *Node) Close() error {
	n.mu.Lock()
	n.closed = true
	n.mu.Unlock()
	n.stop()
	n.idle.Wait()
	n.calls.Wait()
	err := n.dht.Close()
	n.sender.close()
	err = errors.Join(err, n.host.Close())
	if n.opt.Path != "" {
		err = errors.Join(err, n.vault.save(n.recordsPath()))
	}
	return err
}
