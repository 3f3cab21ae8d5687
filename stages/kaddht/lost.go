package kaddht

import (
	"context"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/peerstore"
)

// Bounds of what is remembered of peers that were taken out of the routing
// table.
const (
	lostMax = 256
	lostFor = 6 * time.Hour // whoever is away for longer has gone
	lostTry = 2             // of them are tried in one beat
)

// A lostList holds peers that stopped answering while others went on. If it was
// a partition, nobody of our side knows them any more when it is over: each
// node has to look for its own.
type lostList struct {
	mu sync.Mutex
	// Fields below are protected by mu.
	of map[peer.ID]gone
}

type gone struct {
	info  peer.AddrInfo
	since time.Time
}

func (l *lostList) add(ai peer.AddrInfo, now time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if _, again := l.of[ai.ID]; again || len(ai.Addrs) == 0 {
		return
	}
	if l.of == nil {
		l.of = make(map[peer.ID]gone)
	}
	for id := range l.of {
		if len(l.of) < lostMax {
			break
		}
		delete(l.of, id) // by chance: nobody chooses whom we forget
	}
	l.of[ai.ID] = gone{ai, now}
}

func (l *lostList) remove(p peer.ID) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.of, p)
}

// list returns all of them, and forgets those it is too late for.
func (l *lostList) list(now time.Time) (as []peer.AddrInfo) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for id, g := range l.of {
		if now.Sub(g.since) > lostFor {
			delete(l.of, id)
			continue
		}
		as = append(as, g.info)
	}
	return as
}

// drop takes a peer out of the routing table, and keeps in mind where it was.
func (n *Node) drop(p peer.ID, now time.Time) {
	if n.host != nil && n.dht.RoutingTable().Find(p) != "" {
		n.lost.add(n.host.Peerstore().PeerInfo(p), now)
	}
	n.table.RemovePeer(p)
}

// missBootstrap has those looked for that the node began with, if they are not
// in the routing table: after long enough nobody else of the other side is
// remembered.
func (n *Node) missBootstrap(now time.Time) {
	for _, a := range n.bootstrap {
		if n.dht.RoutingTable().Find(a.ID) == "" {
			n.lost.add(a, now)
		}
	}
}

// findAgain tries a few of those that are lost or left alone. When one is back,
// so may be all: none of them is left alone any longer, and the routing table is
// filled anew.
func (n *Node) findAgain() {
	all := n.silent(n.now())
	if !slices.ContainsFunc(all[:min(lostTry, len(all))], n.isBack) {
		return
	}
	for _, a := range all {
		n.host.forgive(a.ID)
		n.hangUpOn(a.ID)
		n.memory.pardon(a.ID)
		n.host.Peerstore().AddAddrs(a.ID, a.Addrs, peerstore.TempAddrTTL)
	}
	n.refresh()
}

// silent returns, in random order, who is lost or left alone.
func (n *Node) silent(now time.Time) []peer.AddrInfo {
	all := n.lost.list(now)
	for _, id := range n.memory.resting(now) {
		if a := n.host.Peerstore().PeerInfo(id); len(a.Addrs) > 0 && len(all) < 2*lostMax {
			all = append(all, a)
		}
	}
	rand.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
	return all
}

// isBack tries one of the lost.
func (n *Node) isBack(a peer.AddrInfo) bool {
	ctx, cancel := context.WithTimeout(n.ctx, dialMax)
	defer cancel()
	n.hangUpOn(a.ID)
	n.host.forgive(a.ID)
	n.host.Peerstore().AddAddrs(a.ID, a.Addrs, peerstore.TempAddrTTL)
	if n.host.Connect(ctx, a) != nil || n.dht.Ping(ctx, a.ID) != nil {
		return false
	}
	n.lost.remove(a.ID)
	n.memory.pardon(a.ID)
	_, _ = n.dht.RoutingTable().TryAddPeer(a.ID, true, false)
	return true
}

// hangUpOn ends connections on which nothing came back: over what lost packets
// for long, nothing will for as long again.
func (n *Node) hangUpOn(p peer.ID) {
	if now := n.now(); n.memory.grade(p, now, hangAfter) != good || n.dht.RoutingTable().Find(p) == "" {
		_ = n.host.Network().ClosePeer(p)
	}
}
