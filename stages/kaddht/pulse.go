package kaddht

import (
	"container/list"
	"context"
	"math/rand/v2"
	"sync"
	"time"

	pb "github.com/libp2p/go-libp2p-kad-dht/pb"
	kb "github.com/libp2p/go-libp2p-kbucket"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/peerstore"
)

// When the routing table is filled again.
const (
	refreshEvery = 10 * time.Minute
	refreshSoon  = 10 * time.Second // after it was nearly empty
	refreshFew   = 20               // peers, or fewer, are nearly empty
	refreshFar   = 12               // bits of distance from us that are looked into
	visitAfter   = 2 * time.Minute  // without an answer, a peer is asked how it is
)

// pulse keeps the node in the network: it looks for somebody while it knows
// nobody, fills the routing table now and then, asks how others are, and brings
// back, after an outage, those who were there before it.
func (n *Node) pulse() {
	t := time.NewTimer(0)
	defer t.Stop()
	saved, filled := n.now(), time.Time{}
	for {
		select {
		case <-n.ctx.Done():
			return
		case <-t.C:
		}
		n.beat()
		size, now := n.dht.RoutingTable().Size(), n.now()
		if since := now.Sub(filled); size > 0 && (since > refreshEvery || since > refreshSoon && size < refreshFew) {
			n.refresh()
			n.missBootstrap(now)
			filled = now
		}
		if n.opt.Path != "" && now.Sub(saved) > saveEvery {
			saved = now
			if err := n.vault.save(n.recordsPath()); err != nil {
				n.log.Warn("dht: the records of others could not be written", "err", err)
			}
		}
		if size == 0 && len(n.bootstrap) > 0 {
			t.Reset(pulseQuick)
		} else {
			t.Reset(pulseEvery)
		}
	}
}

// refresh looks for ourselves and for places at every distance from us: who
// answers on the way enters the routing table.
func (n *Node) refresh() {
	n.fill([]byte(n.self))
	for bits := range uint(refreshFar) {
		id, err := n.dht.RoutingTable().GenRandPeerID(bits)
		if err != nil || n.ctx.Err() != nil || bits > 0 && n.dht.RoutingTable().Size() < n.opt.BucketSize {
			return // the first look-up has met all there are
		}
		n.fill([]byte(id))
	}
}

func (n *Node) fill(key []byte) {
	ctx, cancel := context.WithTimeout(n.ctx, 3*time.Second)
	defer cancel()
	n.look(ctx, &question{what: pb.Message_FIND_NODE, key: key, rule: ruleRefresh})
}

// meetMax is how many peers are tried in one beat.
const meetMax = 8

func (n *Node) beat() {
	size := n.dht.RoutingTable().Size()
	n.mu.Lock()
	known := n.known
	n.mu.Unlock()
	switch {
	case size < (len(known)+1)/2:
		n.meet(known)
	case size == 0:
		n.meet(n.bootstrap)
	case n.now().Sub(time.Unix(0, n.answered.Load())) > quietFor:
		if n.anybody() {
			n.remember()
		}
	default:
		n.visit()
		n.findAgain()
		n.remember()
	}
}

// visit asks the peer that was silent for longest how it is. If it does not
// answer while others do, it has left.
func (n *Node) visit() {
	var oldest kb.PeerInfo
	for _, p := range n.dht.RoutingTable().GetPeerInfos() {
		if oldest.Id == "" || p.LastSuccessfulOutboundQueryAt.Before(oldest.LastSuccessfulOutboundQueryAt) {
			oldest = p
		}
	}
	if oldest.Id == "" || n.now().Sub(oldest.LastSuccessfulOutboundQueryAt) < visitAfter {
		return
	}
	ctx, cancel := context.WithTimeout(n.ctx, 2*dialMax)
	defer cancel()
	if n.dht.Ping(ctx, oldest.Id) == nil {
		n.table.UpdateLastSuccessfulOutboundQueryAt(oldest.Id, n.now())
	} else if n.anybody() && n.memory.failed(oldest.Id, n.now()) >= dropAfter {
		n.drop(oldest.Id, n.now())
	}
}

// meet connects to some of as. A peer that could not be reached a moment ago is
// tried all the same: the swarm's own patience is 5 s and more.
func (n *Node) meet(as []peer.AddrInfo) {
	ctx, cancel := context.WithTimeout(n.ctx, 2*dialMax)
	defer cancel()
	var all sync.WaitGroup
	for _, i := range rand.Perm(len(as))[:min(meetMax, len(as))] {
		a := as[i]
		all.Go(func() {
			n.host.forgive(a.ID)
			n.host.Peerstore().AddAddrs(a.ID, a.Addrs, peerstore.TempAddrTTL)
			if n.host.Connect(ctx, a) != nil || n.dht.Ping(ctx, a.ID) != nil {
				return
			}
			_, _ = n.dht.RoutingTable().TryAddPeer(a.ID, true, false)
		})
	}
	all.Wait()
	if len(n.bootstrap) > 0 && n.dht.RoutingTable().Size() == 0 {
		n.reach()
	}
}

// reach tries the bootstrap peers beside those remembered.
func (n *Node) reach() {
	ctx, cancel := context.WithTimeout(n.ctx, 2*dialMax)
	defer cancel()
	for _, i := range rand.Perm(len(n.bootstrap))[:min(2, len(n.bootstrap))] {
		a := n.bootstrap[i]
		n.host.forgive(a.ID)
		if n.host.Connect(ctx, a) == nil && n.dht.Ping(ctx, a.ID) == nil {
			_, _ = n.dht.RoutingTable().TryAddPeer(a.ID, true, false)
		}
	}
}

// anybody asks a few peers how they are.
func (n *Node) anybody() bool {
	ctx, cancel := context.WithTimeout(n.ctx, 2*dialMax)
	defer cancel()
	ids := n.dht.RoutingTable().ListPeers()
	for _, i := range rand.Perm(len(ids))[:min(3, len(ids))] {
		n.host.forgive(ids[i])
		if n.dht.Ping(ctx, ids[i]) == nil {
			return true
		}
	}
	return false
}

// remember notes who is in the routing table.
func (n *Node) remember() {
	ids := n.dht.RoutingTable().ListPeers()
	known := make([]peer.AddrInfo, 0, min(len(ids), rememberMax))
	for _, id := range ids[:min(len(ids), rememberMax)] {
		if ai := n.host.Peerstore().PeerInfo(id); len(ai.Addrs) > 0 {
			known = append(known, ai)
		}
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.known = known
}

// What one peer may have us write.
const (
	quotaRate  = 400  // records a second
	quotaBurst = 8192 // and at once: a node that comes back announces all it has
)

// quotas hold each peer to a rate of records.
type quotas struct {
	mu sync.Mutex
	// Fields below are protected by mu.
	of    map[peer.ID]*list.Element // of *quota
	order *list.List                // seen last first
}

type quota struct {
	id   peer.ID
	left float64
	at   time.Time
}

func newQuotas() *quotas {
	return &quotas{of: make(map[peer.ID]*list.Element), order: list.New()}
}

// take reports whether p may have one more record written.
func (q *quotas) take(p peer.ID, now time.Time) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	e := q.of[p]
	if e == nil {
		e = q.order.PushFront(&quota{id: p, left: quotaBurst, at: now})
		q.of[p] = e
		if q.order.Len() > peersMax {
			last := q.order.Back()
			q.order.Remove(last)
			delete(q.of, last.Value.(*quota).id)
		}
	}
	q.order.MoveToFront(e)
	o := e.Value.(*quota)
	o.left = min(o.left+now.Sub(o.at).Seconds()*quotaRate, quotaBurst)
	o.at = now
	if o.left < 1 {
		return false
	}
	o.left--
	return true
}
