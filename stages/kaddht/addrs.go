package kaddht

import (
	"net/netip"
	"sync/atomic"

	"github.com/libp2p/go-libp2p/core/connmgr"
	"github.com/libp2p/go-libp2p/core/control"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/peerstore"
	ma "github.com/multiformats/go-multiaddr"

	"time"
)

// What may be dialled, stored and given out.
const (
	addrsPerPeer = 8    // addresses kept of one peer
	portMin      = 1024 // below, only the ports of the web
)

// never are ranges no host of a network can be at, whatever is allowed.
var never = prefixes("0.0.0.0/8", "224.0.0.0/4", "240.0.0.0/4", "::/128", "ff00::/8", "64:ff9b::/96", "2002::/16", "2001::/32")

// inside are ranges that only a private network may use: this host, its
// neighbours, and where clouds keep their metadata.
var inside = prefixes(
	"127.0.0.0/8", "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "169.254.0.0/16",
	"192.0.0.0/24", "192.0.2.0/24", "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24",
	"::1/128", "fc00::/7", "fe80::/10", "2001:db8::/32",
)

func prefixes(text ...string) (ps []netip.Prefix) {
	for _, t := range text {
		ps = append(ps, netip.MustParsePrefix(t))
	}
	return ps
}

func within(ip netip.Addr, ps []netip.Prefix) bool {
	for _, p := range ps {
		if p.Contains(ip) {
			return true
		}
	}
	return false
}

// An addrPolicy says which addresses this node has to do with.
type addrPolicy struct{ private bool }

// allowed reports whether an address may be dialled, stored or given out: an
// IP address and TCP, never a name to resolve or a relay to go through.
func (p addrPolicy) allowed(a ma.Multiaddr) bool {
	ip, port, ok := endpoint(a)
	switch {
	case !ok, port == 0, within(ip, never), ip.Is6() && ip.Zone() != "":
		return false
	case p.private:
		return true
	}
	return !within(ip, inside) && (port >= portMin || port == 80 || port == 443)
}

// trailing are the protocols that may follow ip and tcp.
var trailing = map[int]bool{ma.P_HTTP: true, ma.P_HTTPS: true, ma.P_TLS: true, ma.P_WS: true, ma.P_WSS: true, ma.P_P2P: true}

// endpoint returns where a points, if it is ip/tcp with at most what trailing
// allows behind.
func endpoint(a ma.Multiaddr) (ip netip.Addr, port int, ok bool) {
	for i, c := range a {
		switch code := c.Protocol().Code; {
		case i == 0 && (code == ma.P_IP4 || code == ma.P_IP6):
			ip, ok = netip.AddrFromSlice(c.RawValue())
			if ip.Is4In6() {
				return ip, 0, false // it says one thing and means another
			}
		case i == 1 && code == ma.P_TCP && ok:
			v := c.RawValue()
			port = int(v[0])<<8 | int(v[1])
		case i > 1 && i < 5 && trailing[code]:
		default:
			return ip, 0, false
		}
	}
	return ip, port, ok && len(a) >= 2
}

// subnet returns the network that an address is of: its /24, or its /48.
func subnet(a ma.Multiaddr) (netip.Prefix, bool) {
	ip, _, ok := endpoint(a)
	bits := 48
	if ip.Is4() {
		bits = 24
	}
	net, err := ip.Prefix(bits)
	return net, ok && err == nil
}

// filter returns those of as that are allowed, a few at most.
func (p addrPolicy) filter(as []ma.Multiaddr) []ma.Multiaddr {
	var out []ma.Multiaddr
	for _, a := range as {
		if len(out) < addrsPerPeer && p.allowed(a) {
			out = append(out, a)
		}
	}
	return out
}

// parse returns the allowed addresses among those of a message.
func (p addrPolicy) parse(raw [][]byte) []ma.Multiaddr {
	var out []ma.Multiaddr
	for _, b := range raw {
		if len(out) == addrsPerPeer {
			break
		}
		if a, err := ma.NewMultiaddrBytes(b); err == nil && p.allowed(a) {
			out = append(out, a)
		}
	}
	return out
}

// A gate is the ConnectionGater: whatever talked somebody into dialling, this
// is where it ends.
type gate struct {
	policy addrPolicy
	cut    atomic.Bool // the node is cut off, as in a partition
}

var _ connmgr.ConnectionGater = (*gate)(nil)

func (g *gate) InterceptPeerDial(peer.ID) bool { return !g.cut.Load() }

func (g *gate) InterceptAddrDial(_ peer.ID, a ma.Multiaddr) bool { return g.policy.allowed(a) }

func (g *gate) InterceptAccept(network.ConnMultiaddrs) bool { return !g.cut.Load() }

func (g *gate) InterceptSecured(network.Direction, peer.ID, network.ConnMultiaddrs) bool { return true }

func (g *gate) InterceptUpgraded(network.Conn) (bool, control.DisconnectReason) { return true, 0 }

// A cleanStore is a peerstore that takes in and gives out allowed addresses
// only: what is in it goes to whoever asks for closer peers.
type cleanStore struct {
	peerstore.Peerstore
	self   peer.ID
	policy addrPolicy
}

func (c *cleanStore) AddAddr(p peer.ID, a ma.Multiaddr, ttl time.Duration) {
	c.AddAddrs(p, []ma.Multiaddr{a}, ttl)
}

func (c *cleanStore) AddAddrs(p peer.ID, as []ma.Multiaddr, ttl time.Duration) {
	c.Peerstore.AddAddrs(p, c.clean(p, as), ttl)
}

func (c *cleanStore) SetAddr(p peer.ID, a ma.Multiaddr, ttl time.Duration) {
	c.SetAddrs(p, []ma.Multiaddr{a}, ttl)
}

func (c *cleanStore) SetAddrs(p peer.ID, as []ma.Multiaddr, ttl time.Duration) {
	c.Peerstore.SetAddrs(p, c.clean(p, as), ttl)
}

func (c *cleanStore) clean(p peer.ID, as []ma.Multiaddr) []ma.Multiaddr {
	if p == c.self {
		return as
	}
	return c.policy.filter(as)
}
