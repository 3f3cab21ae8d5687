package kaddht

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	pb "github.com/libp2p/go-libp2p-kad-dht/pb"
	record "github.com/libp2p/go-libp2p-record"
	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"
)

const (
	storeFor = 5 * time.Second // to find the nearest, and for each to take it
	storesAt = 8               // peers written to at once
)

// closest returns the peers nearest to key, as far as the nearest of them know:
// those further out are named by them, and not asked themselves.
func (n *Node) closest(ctx context.Context, key []byte) []*candidate {
	r := n.look(ctx, &question{what: pb.Message_FIND_NODE, key: key, rule: ruleClosest})
	if r.Answered == 0 {
		return nil
	}
	return r.search.nearest(n.opt.BucketSize)
}

// putValue stores a value at the nodes nearest to its key, and here if we keep
// records, too. It returns how many others took it.
func (n *Node) putValue(ctx context.Context, key string, value []byte) int {
	rec := record.MakePutRecord(key, value)
	if n.opt.Server {
		_ = n.shelf.Put(ctx, key, rec) // an older one than stands is refused, which is right
	}
	m := pb.NewMessage(pb.Message_PUT_VALUE, rec.Key, 0)
	m.Record = rec
	return n.store(ctx, []byte(key), m, true)
}

// provide tells the nodes nearest to key that we are a provider of it.
func (n *Node) provide(ctx context.Context, key []byte, addrs []ma.Multiaddr) int {
	m := pb.NewMessage(pb.Message_ADD_PROVIDER, key, 0)
	m.ProviderPeers = pb.RawPeerInfosToPBPeers([]peer.AddrInfo{{ID: n.self, Addrs: addrs}})
	return n.store(ctx, key, m, false)
}

// store sends m to the peers nearest to key and returns how many took it.
func (n *Node) store(ctx context.Context, key []byte, m *pb.Message, wait bool) int {
	ctx, cancel := context.WithTimeout(ctx, storeFor)
	defer cancel()
	frame, err := frameOf(m)
	if err != nil {
		return 0
	}
	var took atomic.Int64
	var all sync.WaitGroup
	slots := make(chan struct{}, storesAt)
	for _, c := range n.closest(ctx, key) {
		slots <- struct{}{}
		all.Go(func() {
			defer func() { <-slots }()
			n.introduce(c)
			a, err := n.sender.exchange(ctx, c.id, frame, wait, 0)
			if err == nil && (!wait || string(a.GetRecord().GetValue()) == string(m.GetRecord().GetValue())) {
				took.Add(1)
			}
		})
	}
	all.Wait()
	return int(took.Load())
}
