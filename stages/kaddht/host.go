package kaddht

import (
	"crypto/ed25519"
	"fmt"
	"io"
	"time"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/sec"
	basichost "github.com/libp2p/go-libp2p/p2p/host/basic"
	"github.com/libp2p/go-libp2p/p2p/host/eventbus"
	"github.com/libp2p/go-libp2p/p2p/host/peerstore/pstoremem"
	rcmgr "github.com/libp2p/go-libp2p/p2p/host/resource-manager"
	"github.com/libp2p/go-libp2p/p2p/muxer/yamux"
	"github.com/libp2p/go-libp2p/p2p/net/connmgr"
	"github.com/libp2p/go-libp2p/p2p/net/swarm"
	"github.com/libp2p/go-libp2p/p2p/net/upgrader"
	libp2ptls "github.com/libp2p/go-libp2p/p2p/security/tls"
	"github.com/libp2p/go-libp2p/p2p/transport/tcp"
	ma "github.com/multiformats/go-multiaddr"
)

// Bounds of the host. They are fixed: what scales with the machine scales with
// what an attacker may take of it.
const (
	connsLow   = 160 // connections kept when trimming
	connsHigh  = 224 // connections at which trimming begins
	connsLimit = 512
	streamsIn  = 512 // of others, in all
	streamsOut = 768
	inPeer     = 64 // of these, of one peer
	outPeer    = 64
	knownAddrs = 16384 // addresses of peers we are not connected to
	dialMax    = time.Second

	// Each stream may have a window of bytes on its way that nobody has read,
	// and is charged for it from the start; requests are charged as they come.
	window     = 256 << 10
	requests   = 64 << 20
	hostMemory = (streamsIn+streamsOut)*window + requests
	peerMemory = (inPeer+outPeer)*window + requests/8
)

// A lean is a libp2p host wired by hand of what we use: TCP, TLS and yamux. The
// package libp2p would link QUIC, WebRTC and relays with it, and a listener
// nobody asked for is a door nobody watches.
type lean struct {
	host.Host
	swarm *swarm.Swarm // nil: not ours
	gate  *gate
	also  []io.Closer
}

// newHost makes a host that listens at listen, or nowhere if it is nil, and
// dials with dialer, or as usual if it is nil.
func newHost(key ed25519.PrivateKey, policy addrPolicy, listen ma.Multiaddr, dialer tcp.DialerForAddr) (_ *lean, err error) {
	l := &lean{gate: &gate{policy: policy}}
	defer func() {
		if err != nil {
			_ = l.Close()
			err = fmt.Errorf("dht: %w", err)
		}
	}()
	priv, err := crypto.UnmarshalEd25519PrivateKey(key)
	if err != nil {
		return nil, err
	}
	id, err := peer.IDFromPrivateKey(priv)
	if err != nil {
		return nil, err
	}
	mem, err := pstoremem.NewPeerstore(pstoremem.WithMaxAddresses(knownAddrs), pstoremem.WithMaxAddressesPerPeer(4*addrsPerPeer))
	if err != nil {
		return nil, err
	}
	book := &cleanStore{mem, id, policy}
	if err := book.AddPrivKey(id, priv); err != nil {
		return nil, err
	}
	if err := book.AddPubKey(id, priv.GetPublic()); err != nil {
		return nil, err
	}
	limits, err := rcmgr.NewResourceManager(rcmgr.NewFixedLimiter(limits()), rcmgr.WithMetricsDisabled())
	if err != nil {
		return nil, err
	}
	l.also = append(l.also, limits)
	bus := eventbus.NewBus()
	l.swarm, err = swarm.NewSwarm(id, book, bus, swarm.WithConnectionGater(l.gate), swarm.WithResourceManager(limits),
		swarm.WithDialTimeout(dialMax), swarm.WithDialTimeoutLocal(dialMax))
	if err != nil {
		return nil, err
	}
	if err := transport(l.swarm, priv, limits, l.gate, dialer); err != nil {
		_ = l.swarm.Close()
		return nil, err
	}
	trimmer, err := connmgr.NewConnManager(connsLow, connsHigh, connmgr.WithGracePeriod(20*time.Second))
	if err != nil {
		_ = l.swarm.Close()
		return nil, err
	}
	h, err := basichost.NewHost(l.swarm, &basichost.HostOpts{
		EventBus: bus, ConnManager: trimmer, UserAgent: "svc-index", NegotiationTimeout: rpcMax,
		DisableSignedPeerRecord: true, // its store would hold addresses that our filter has not seen
	})
	if err != nil {
		_ = trimmer.Close()
		_ = l.swarm.Close()
		return nil, err
	}
	l.Host = h
	if listen != nil {
		if err := l.swarm.Listen(listen); err != nil {
			return nil, fmt.Errorf("%w; is another node running? set dht.listen to a free port", err)
		}
	}
	h.Start()
	return l, nil
}

func transport(s *swarm.Swarm, key crypto.PrivKey, limits network.ResourceManager, g *gate, dialer tcp.DialerForAddr) error {
	muxers := []upgrader.StreamMuxer{{ID: yamux.ID, Muxer: yamux.DefaultTransport}}
	tls, err := libp2ptls.New(libp2ptls.ID, key, muxers)
	if err != nil {
		return err
	}
	up, err := upgrader.New([]sec.SecureTransport{tls}, muxers, nil, limits, g, upgrader.WithAcceptTimeout(5*time.Second))
	if err != nil {
		return err
	}
	t, err := tcp.NewTCPTransport(up, limits, nil, tcp.DisableReuseport(), tcp.WithConnectionTimeout(dialMax), tcp.WithDialerForAddr(dialer))
	if err != nil {
		return err
	}
	return s.AddTransport(t)
}

// limits is what peers may cost us, in all and each.
func limits() rcmgr.ConcreteLimitConfig {
	all := rcmgr.ResourceLimits{
		Streams: streamsIn + streamsOut, StreamsInbound: streamsIn, StreamsOutbound: streamsOut,
		Conns: connsLimit, ConnsInbound: connsLimit, ConnsOutbound: connsLimit, FD: connsLimit, Memory: hostMemory,
	}
	half := rcmgr.ResourceLimits{
		Streams: (streamsIn + streamsOut) / 2, StreamsInbound: streamsIn / 2, StreamsOutbound: streamsOut / 2,
		Conns: connsLimit / 2, ConnsInbound: connsLimit / 2, ConnsOutbound: connsLimit / 2, FD: connsLimit / 2, Memory: hostMemory / 2,
	}
	one := rcmgr.ResourceLimits{
		Streams: inPeer + outPeer, StreamsInbound: inPeer, StreamsOutbound: outPeer,
		Conns: 8, ConnsInbound: 8, ConnsOutbound: 8, FD: 8, Memory: peerMemory,
	}
	return rcmgr.PartialLimitConfig{
		System: all, Transient: half, AllowlistedSystem: all, AllowlistedTransient: half,
		ServiceDefault: all, ServicePeerDefault: one, ProtocolDefault: all, ProtocolPeerDefault: one, PeerDefault: one,
	}.Build(rcmgr.DefaultLimits.Scale(0, connsLimit))
}

// forgive lets a peer be dialled at once that could not be a moment ago.
func (l *lean) forgive(p peer.ID) {
	if l.swarm != nil {
		l.swarm.Backoff().Clear(p)
	}
}

// Close closes the host and what hangs on it.
func (l *lean) Close() error {
	var err error
	if l.Host != nil {
		err = l.Host.Close()
	}
	for _, c := range l.also {
		_ = c.Close()
	}
	return err
}
