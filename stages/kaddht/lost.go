package kaddht

import (
	"context"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/peerstore"
)

// Bounds of what is remembered of peers that were taken out of the routing
// table.
const (
	lostMax = 256
	lostFor = 6 * time.Hour // whoever is away for longer has gone
	lostTry = 2             // of them are tried in one beat
	// One that is back speaks for all at most so often: who comes and goes would
	// have everybody tried again each time.
	speakEvery = time.Minute
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
func (l *lostList) list(now time.Time) (all []gone) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for id, g := range l.of {
		if now.Sub(g.since) > lostFor {
			delete(l.of, id)
			continue
		}
		all = append(all, g)
	}
	return all
}

// drop takes a peer out of the routing table, and keeps in mind where it was.
func (n *Node) drop(p peer.ID, now time.Time) {
	if n.host != nil && n.dht.RoutingTable().Find(p) != "" {
		n.lost.add(n.host.Peerstore().PeerInfo(p), now)
	}
	n.table.RemovePeer(p)
}

// missBootstrap has those looked for that the node began with, if they are
// neither in the routing table nor connected: after long enough nobody else of
// the other side is remembered.
func (n *Node) missBootstrap(now time.Time) {
	for _, a := range n.bootstrap {
		if a.ID != n.self && n.dht.RoutingTable().Find(a.ID) == "" && n.host.Network().Connectedness(a.ID) != network.Connected {
			n.lost.add(a, now)
		}
	}
}

// findAgain tries a few of those that are lost or left alone. When one is back,
// so may be all: each of them is given another chance, and the routing table is
// filled anew.
func (n *Node) findAgain() {
	now := n.now()
	all := append(n.lost.list(now), n.resting(now)...)
	rand.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
	if !slices.ContainsFunc(all[:min(lostTry, len(all))], n.isBack) || now.Sub(n.spoke) < speakEvery {
		return
	}
	n.spoke = now
	for _, g := range all {
		n.host.forgive(g.info.ID)
		n.hangUpOn(g)
		n.memory.parole(g.info.ID)
		n.host.Peerstore().AddAddrs(g.info.ID, g.info.Addrs, peerstore.TempAddrTTL)
	}
	n.refresh()
}

// resting returns who is left alone, and since when.
func (n *Node) resting(now time.Time) (all []gone) {
	for id, since := range n.memory.resting(now) {
		if a := n.host.Peerstore().PeerInfo(id); len(a.Addrs) > 0 && len(all) < lostMax {
			all = append(all, gone{a, since})
		}
	}
	return all
}

// isBack tries one of the lost.
func (n *Node) isBack(g gone) bool {
	ctx, cancel := context.WithTimeout(n.ctx, 2*dialMax)
	defer cancel()
	p := g.info.ID
	n.hangUpOn(g)
	n.host.forgive(p)
	n.host.Peerstore().AddAddrs(p, g.info.Addrs, peerstore.TempAddrTTL)
	if n.host.Connect(ctx, g.info) != nil || n.dht.Ping(ctx, p) != nil {
		return false
	}
	n.lost.remove(p)
	n.memory.parole(p)
	_, _ = n.dht.RoutingTable().TryAddPeer(p, true, false)
	return true
}

// hangUpOn ends connections that are older than the silence: over what lost
// packets for long, nothing will come for as long again.
func (n *Node) hangUpOn(g gone) {
	for _, c := range n.host.Network().ConnsToPeer(g.info.ID) {
		if c.Stat().Opened.Before(g.since) {
			_ = c.Close()
		}
	}
}
