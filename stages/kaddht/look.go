package kaddht

import (
	"context"
	"sync/atomic"
	"time"

	pb "github.com/libp2p/go-libp2p-kad-dht/pb"
	kb "github.com/libp2p/go-libp2p-kbucket"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/peerstore"
)

// hedgeWaves is how often one look-up may widen.
const hedgeWaves = 3

// The rules of satisfaction. What a look-up finds is judged before it counts.
var (
	ruleManifest  = rule{most: 1, nearest: 3, sends: 40}
	ruleName      = rule{most: 3, nearest: 3, sends: 40}
	ruleProviders = rule{most: providersMax, some: 3, nearest: 3, sends: 40}
	ruleProfile   = rule{most: 1, nearest: 3, sends: 20}
	ruleClosest   = rule{most: 1, nearest: 3, sends: 40}
	ruleRefresh   = rule{most: 1, nearest: 20, sends: 40}
)

// A question is what a look-up asks each peer.
type question struct {
	what pb.Message_MessageType
	key  []byte // of the record
	rule rule
	// judge looks at an answer and returns how many new finds are in it. It is
	// called by one goroutine.
	judge func(from peer.ID, m *pb.Message) int
}

// A report is how a look-up went.
type report struct {
	At       time.Time     `json:"at"`
	What     string        `json:"what"`
	Verdict  string        `json:"verdict"`
	Took     time.Duration `json:"took_ns"`
	Hops     int           `json:"hops"`
	Sent     int           `json:"sent"`
	Hedged   int           `json:"hedged"` // of these, in a second wave
	Fired    int           `json:"waves"`
	Won      bool          `json:"won"` // the satisfying answer was a hedge's
	Answered int           `json:"answered"`
	Failed   int           `json:"failed"`
	Finds    int           `json:"finds"`
	Calls    []call        `json:"calls"`

	verdict verdict
	search  *search

	hedging *Hedging // under which it began
}

// A call is one request of a look-up.
type call struct {
	Peer  peer.ID       `json:"peer"`
	Hop   int           `json:"hop"`
	Hedge bool          `json:"hedge"`
	Took  time.Duration `json:"took_ns"`
	How   string        `json:"how"` // answered, failed or cancelled

	c   *candidate
	m   *pb.Message
	err error
}

// look runs a search until it is over or ctx is done. Whatever is still under
// way is cancelled then.
func (n *Node) look(ctx context.Context, q *question) *report {
	frame, err := frameOf(pb.NewMessage(q.what, q.key, 0))
	if err != nil || !n.enter() {
		return &report{What: q.what.String(), Verdict: unreachable.String(), verdict: unreachable, hedging: n.hedging.Load()}
	}
	defer n.calls.Done()
	began, h := n.now(), n.hedging.Load()
	rep, slowAt := &report{At: began, What: q.what.String(), hedging: h}, n.stallOf(h)
	rule := q.rule
	if q.judge != nil {
		rule.absent = n.opt.BucketSize / 2 // of those who would hold it
	}
	s := newSearch(q.key, n.self, h.Alpha, rule, func(p peer.ID) grade { return n.memory.grade(p, began, slowAt) })
	rep.search = s
	s.offer(1, n.near(s.target))

	ctx, cancel := context.WithCancel(ctx)
	defer context.AfterFunc(n.ctx, cancel)()
	calls := make(chan call, q.rule.sends)
	out := make(map[*candidate]time.Time, 8)
	timer := time.NewTimer(n.patience(h))
	var winner *candidate
	for ctx.Err() == nil {
		for c := s.next(); c != nil; c = s.next() {
			now := time.Now()
			out[c] = now
			n.call(ctx, c, frame, now, calls)
		}
		if s.verdict() != going {
			break
		}
		select {
		case got := <-calls:
			delete(out, got.c)
			if n.land(s, q, rep, got) {
				winner = got.c
				timer.Reset(n.patience(h))
			}
		case <-timer.C:
			if rep.Fired < hedgeWaves && s.pick() != nil && n.mayHedge(h) {
				s.widen(h.Beta)
				rep.Fired++
			}
			for c, since := range out {
				if c.state == asked && time.Since(since) >= 2*h.After {
					s.passOver(c)
				}
			}
			timer.Reset(n.patience(h))
		case <-ctx.Done():
		}
	}
	timer.Stop()
	cancel()
	for c, since := range out {
		took := time.Since(since)
		rep.note(call{Peer: c.id, Hop: c.hop, Hedge: c.hedge, Took: took, How: "cancelled"})
		switch {
		case s.answers == 0:
		case took >= max(4*h.After, hangAfter):
			n.memory.failed(c.id, n.now())
		default:
			n.memory.waited(c.id, took, n.now())
		}
	}
	n.close(s, rep, winner)
	return rep
}

// seeds returns the peers a search begins with.
func (n *Node) seeds(target place) []heard {
	ids := n.dht.RoutingTable().NearestPeers(kb.ID(target[:]), n.opt.BucketSize)
	hs := make([]heard, len(ids))
	for i, id := range ids {
		hs[i].id = id
	}
	return hs
}

// patienceMin is the least a look-up waits: below it, what looks like a slow
// peer is a busy processor.
const patienceMin = 50 * time.Millisecond

// A pace is about what three of four answers take at most, followed by small
// steps: it needs no memory and forgets.
type pace struct{ ns atomic.Int64 }

func (p *pace) usual() time.Duration { return time.Duration(p.ns.Load()) }

// saw moves it a sixteenth towards an answer, three times as readily up as
// down. Two that do so at once lose a step, which is nothing.
func (p *pace) saw(took time.Duration) {
	is := p.ns.Load()
	step := max(is/16, 1000)
	if int64(took) > is {
		p.ns.Store(is + step*3/4)
	} else {
		p.ns.Store(is - step/4)
	}
}

// call asks one peer. The answer comes through a channel that has room for all
// of them, so that nobody has to be there to take it.
func (n *Node) call(ctx context.Context, c *candidate, frame []byte, began time.Time, calls chan<- call) {
	n.calls.Add(1)
	go func() {
		defer n.calls.Done()
		if c.addrs != nil {
			n.introduce(c)
		}
		m, err := n.ask(ctx, c.id, frame)
		if err == nil && ctx.Err() != nil { // too late for the look-up, not to learn from
			n.memory.answered(c.id, time.Since(began), n.now())
		}
		calls <- call{Peer: c.id, Hop: c.hop, Hedge: c.hedge, Took: time.Since(began), c: c, m: m, err: err}
	}()
}

// introduce notes the addresses that came with the name of a peer. They are
// parsed only now: most of those that are named are never asked.
func (n *Node) introduce(c *candidate) {
	if n.host != nil && n.host.Network().Connectedness(c.id) != network.Connected {
		n.host.Peerstore().AddAddrs(c.id, n.policy.parse(c.addrs), peerstore.TempAddrTTL)
	}
}

// land takes one answer and reports whether it was one.
func (n *Node) land(s *search, q *question, rep *report, got call) bool {
	if got.err != nil {
		got.How = "failed"
		s.fail(got.c)
		rep.note(got)
		return false
	}
	got.How = "answered"
	n.memory.answered(got.Peer, got.Took, n.now())
	n.pace.saw(got.Took)
	finds := 0
	if q.judge != nil {
		finds = q.judge(got.Peer, got.m)
	}
	s.answer(got.c, named(got.m), finds)
	got.m = nil
	rep.note(got)
	return true
}

// peerIDMax is the longest peer id that is heard: ours have 38 bytes, and a hash
// of 64 bytes would still fit. Each is remembered and shown, which for one as
// long as an answer takes seconds and megabytes.
const peerIDMax = 66

// named returns the peers that an answer names, their addresses as they came:
// most of them are never asked.
func named(m *pb.Message) []heard {
	ps := m.GetCloserPeers()
	ps = ps[:min(len(ps), heardMax)]
	hs := make([]heard, 0, len(ps))
	for _, p := range ps {
		if len(p.GetId()) <= peerIDMax {
			hs = append(hs, heard{peer.ID(p.GetId()), ofSize(p.GetAddrs())})
		}
	}
	return hs
}

// addrBytesMax is how much the addresses of one peer may take: a look-up keeps
// them to its end.
const addrBytesMax = 4 << 10

// ofSize returns the addresses of a peer, or none if they are more than any
// peer has.
func ofSize(addrs [][]byte) [][]byte {
	size := 24 * cap(addrs) // what a slice takes beside its bytes
	for _, a := range addrs {
		size += len(a)
	}
	if size > addrBytesMax {
		return nil
	}
	return addrs
}

func (r *report) note(c call) {
	c.c, c.m = nil, nil
	r.Calls = append(r.Calls, c)
}

// close settles what a search taught. Of failures nothing is learned unless
// somebody answered: it is more likely we who are cut off than all of them.
func (n *Node) close(s *search, rep *report, winner *candidate) {
	now := n.now()
	v := s.verdict()
	rep.Took, rep.Hops, rep.Sent, rep.Hedged = now.Sub(rep.At), s.hops, s.sent, s.hedged
	rep.Answered, rep.Failed, rep.Finds = s.answers, s.failed, s.finds
	rep.verdict, rep.Verdict = v, v.String()
	satisfied := v == enough || v == complete
	rep.Won = rep.Fired > 0 && satisfied && winner != nil && winner.hedge
	n.budget.charge(s.sent-s.hedged, max(s.hedged-rep.Fired*rep.hedging.Beta, 0), now)
	n.count(rep, satisfied)
	shown := *rep
	shown.search = nil // whoever looks at it later needs none of the candidates
	n.recent.add(&shown)
	if s.answers == 0 {
		n.forgive(s.near)
		return
	}
	for _, c := range s.near {
		switch c.state {
		case answered:
			n.lost.remove(c.id)
			if !n.table.UpdateLastSuccessfulOutboundQueryAt(c.id, now) {
				_, _ = n.table.TryAddPeer(c.id, true, false) // full buckets refuse, which is right
			}
		case failed:
			if n.memory.failed(c.id, now) >= dropAfter {
				n.drop(c.id, now)
			}
		}
	}
}

// forgive lets those that failed be dialled again at once. The swarm holds each
// failure against a peer, for minutes in the end: after an outage of ours that
// would be the longer part of it.
func (n *Node) forgive(cs []*candidate) {
	if n.host == nil {
		return
	}
	for _, c := range cs {
		if c.state == failed {
			n.host.forgive(c.id)
		}
	}
}

// partly reports whether it is unsure although the network was there: some of
// those who would know are silent, or were not asked since they had been.
func (r *report) partly() bool {
	return r.verdict == unsure && (r.Answered >= absentMin || r.Failed == 0)
}

// hangAfter is how long a peer may be silent while others answer before that
// counts as a failure.
const hangAfter = 500 * time.Millisecond

// dropAfter is how many failures in a row take a peer out of the routing n.table.
const dropAfter = 2

// count adds a look-up to the metrics.
func (n *Node) count(rep *report, satisfied bool) {
	c := n.opt.Counts
	c.Lookup.Observe(rep.Took)
	if rep.Answered > 0 {
		c.ObserveHops(rep.Hops)
	}
	switch {
	case rep.Fired == 0:
	case rep.Won:
		c.HedgeWin.Add(1)
	case satisfied:
		c.HedgeLose.Add(1)
	default:
		c.HedgeTie.Add(1)
	}
	switch {
	case rep.verdict == going, rep.partly():
		c.Timeout.Add(1)
	case rep.verdict == unreachable, rep.verdict == unsure:
		c.Unreachable.Add(1)
	}
}
