package kaddht

import (
	"bytes"
	"cmp"
	"container/list"
	"context"
	"net/netip"
	"slices"
	"sync"
	"time"

	pb "github.com/libp2p/go-libp2p-kad-dht/pb"
	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"

	"svcindex/index"
)

// Bounds of what a look-up takes.
const (
	providersMax = 32 // providers of one cid
	perAnswer    = 16 // of them that count from one answer: a liar may send thousands
	namedMax     = 64 // and that are looked at
	profilesAt   = 8  // profiles fetched at once
	perSubnet    = 2  // providers from one /24 or /48
)

// Discover implements index.Discoverer.
func (n *Node) Discover(ctx context.Context, j *index.Job) error {
	switch named := j.Key.IsName(); {
	case j.Ask == index.AskResolve && named:
		return n.discoverName(ctx, j)
	case j.Ask == index.AskResolve, j.Ask == index.AskManifest && !named:
		return n.discoverManifest(ctx, j)
	case j.Ask == index.AskProviders && !named:
		return n.discoverProviders(ctx, j)
	}
	return index.Missing // nothing of the kind is in the network
}

// outcome turns a look-up that found nothing into what the pipeline is told.
// Absent is a promise; unreachable counts against the network; running out of
// time while others answered says nothing about it, nor does it that some of
// those who would know are silent: what the others hold is still found.
func (n *Node) outcome(ctx context.Context, r *report) error {
	switch {
	case r.Finds > 0:
		return nil
	case r.verdict == complete || r.verdict == enough:
		return index.Missing
	case n.lone():
		return index.Missing // it is its own network, and has looked in itself
	case context.Cause(ctx) == context.Canceled:
		return index.Late // nobody waits any more
	case r.verdict == going && (r.Answered > 0 || r.Took < r.hedging.After), r.partly():
		return index.Late
	}
	return index.Down
}

// unheard reports whether nobody but this node had a say. What it keeps for
// others counts beside what they say; alone it is not the network's word, and
// may be as old as the last time somebody came by.
func (n *Node) unheard(rs ...*report) bool {
	return !n.lone() && !slices.ContainsFunc(rs, func(r *report) bool { return r.Answered > 0 })
}

// values asks for the values of a key. judge is called with each value, our
// own first, and says whether it is a valid one.
func (n *Node) values(ctx context.Context, key string, r rule, judge func([]byte) bool) *report {
	if v := n.vault.value(key); v != nil && judge(v) {
		if r.most--; r.most == 0 {
			return &report{verdict: enough, Verdict: enough.String(), Finds: 1}
		}
	}
	return n.look(ctx, &question{what: pb.Message_GET_VALUE, key: []byte(key), rule: r, judge: func(_ peer.ID, m *pb.Message) int {
		rec := m.GetRecord()
		switch {
		case rec == nil || len(rec.GetValue()) == 0:
			return 0
		case string(rec.GetKey()) != key || !judge(rec.GetValue()):
			n.opt.Counts.Invalid.Add(1)
			return 0
		}
		return 1
	}})
}

func (n *Node) discoverManifest(ctx context.Context, j *index.Job) error {
	c := j.Key.CID()
	var body []byte
	r := n.values(ctx, manifestKey(&c), ruleManifest, func(v []byte) bool {
		if len(v) > ManifestMax || index.Sum(v) != c {
			n.opt.Integrity.DHT.Add(1)
			return false
		}
		body = v
		return true
	})
	if body == nil {
		return n.outcome(ctx, r)
	}
	a := &j.Answer
	a.Body, a.Hint = body, 0
	a.From, a.Age, a.Until = index.FromDHT, 0, time.Time{}
	return nil
}

// discoverName asks under every key that may speak for the name, at once. The
// highest sequence wins, and of equals the key that is configured first.
func (n *Node) discoverName(ctx context.Context, j *index.Job) error {
	keys := n.opt.Trusted(&j.Key)
	if len(keys) == 0 {
		return index.Missing // by rule it cannot be there
	}
	best := make([]index.NameRecord, len(keys))
	reports := make([]*report, len(keys))
	var all sync.WaitGroup
	for i, pub := range keys {
		all.Go(func() {
			key := nameKey(pub, &j.Key)
			reports[i] = n.values(ctx, key, ruleName, func(v []byte) bool {
				name, r, err := n.readName(key, v)
				if err != nil || name != j.Key || !bytes.Equal(r.PubKey, pub) {
					return false
				}
				if best[i].Seq == 0 || newer(&r, &best[i]) > 0 {
					best[i] = r
				}
				return true
			})
		})
	}
	all.Wait()
	won, doubt := index.NameRecord{}, error(index.Missing)
	for i := range keys {
		if best[i].Seq > won.Seq {
			won = best[i]
		}
		if best[i].Seq == 0 {
			doubt = index.Stronger(index.KindOf(doubt), index.KindOf(n.outcome(ctx, reports[i])))
		}
	}
	if won.Seq == 0 {
		return doubt
	}
	if n.unheard(reports...) {
		return index.Down
	}
	a := &j.Answer
	a.Name, a.Hint = won, 0
	a.From, a.Age, a.Until = index.FromDHT, 0, time.Time{}
	if won.ExpiresAt > 0 {
		a.Until = time.Unix(won.ExpiresAt, 0)
	}
	if won.Deleted {
		return index.Missing // a.Name says since when
	}
	return nil
}

func (n *Node) discoverProviders(ctx context.Context, j *index.Job) error {
	c := j.Key.CID()
	votes := make(map[peer.ID]int)
	r := n.providers(ctx, providerKey(&c), votes)
	if len(votes) == 0 {
		return n.outcome(ctx, r)
	}
	if n.unheard(r) {
		return index.Down
	}
	rows, sure := n.vouched(ctx, votes)
	if len(rows) == 0 {
		if !sure {
			return index.Late
		}
		r.Finds = 0
		return n.outcome(ctx, r)
	}
	a := &j.Answer
	a.Providers = rows
	a.From, a.Age = index.FromDHT, 0
	until := rows[0].Expires
	for _, p := range rows {
		until = min(until, p.Expires)
	}
	a.Until = time.Unix(until, 0)
	return nil
}

// providers counts in votes how many peers named each provider.
func (n *Node) providers(ctx context.Context, key []byte, votes map[peer.ID]int) *report {
	if own, err := n.dht.ProviderStore().GetProviders(ctx, key); err == nil {
		for _, p := range own {
			n.vote(votes, p.ID)
		}
	}
	return n.look(ctx, &question{what: pb.Message_GET_PROVIDERS, key: key, rule: ruleProviders, judge: func(_ peer.ID, m *pb.Message) int {
		finds := 0
		for i, p := range m.GetProviderPeers() {
			if i == namedMax {
				break
			}
			if n.vote(votes, peer.ID(p.Id)) && finds < perAnswer {
				finds++
			}
		}
		return finds
	}})
}

// vote counts one mention of p and reports whether it was the first.
func (n *Node) vote(votes map[peer.ID]int, p peer.ID) bool {
	if p == n.self || votes[p] == 0 && !isNodeID(p) {
		return false
	}
	votes[p]++
	return votes[p] == 1
}

// isNodeID reports whether p is an id that carries an Ed25519 key, as those of
// all our nodes do.
func isNodeID(p peer.ID) bool {
	return len(p) == 38 && p[:6] == "\x00\x24\x08\x01\x12\x20"
}

// vouched returns the rows of those providers that speak for themselves. sure
// is false when some could not be asked. Providers that more peers named come
// first: what one liar invents is behind what everybody knows.
func (n *Node) vouched(ctx context.Context, votes map[peer.ID]int) (rows []index.Provider, sure bool) {
	ids := make([]peer.ID, 0, len(votes))
	for id := range votes {
		ids = append(ids, id)
	}
	slices.SortFunc(ids, func(a, b peer.ID) int { return cmp.Or(votes[b]-votes[a], cmp.Compare(a, b)) })
	ids = ids[:min(len(ids), 2*providersMax)]

	found := make([]*index.Provider, len(ids))
	var all sync.WaitGroup
	var unsure sync.Once
	sure = true
	slots := make(chan struct{}, profilesAt)
	for i, id := range ids {
		slots <- struct{}{}
		all.Go(func() {
			defer func() { <-slots }()
			p, ok := n.profileOf(ctx, id)
			found[i] = p
			if !ok {
				unsure.Do(func() { sure = false })
			}
		})
	}
	all.Wait()
	subnets := make(map[netip.Prefix]int)
	for _, p := range found {
		if p != nil && len(rows) < providersMax && n.roomIn(subnets, p.Addr) {
			rows = append(rows, *p)
		}
	}
	slices.SortFunc(rows, func(a, b index.Provider) int { return cmp.Compare(a.ID, b.ID) })
	return rows, sure
}

// roomIn keeps one network from being all there is to choose from.
func (n *Node) roomIn(subnets map[netip.Prefix]int, addr string) bool {
	if n.policy.private {
		return true
	}
	a, err := ma.NewMultiaddr(addr)
	if err != nil {
		return false
	}
	net, ok := subnet(a)
	if !ok {
		return false
	}
	subnets[net]++
	return subnets[net] <= perSubnet
}

// profileOf returns what id says of itself, or nil if it says nothing that
// clients could be told. ok is false when it could not be found out.
func (n *Node) profileOf(ctx context.Context, id peer.ID) (row *index.Provider, ok bool) {
	if row, ok := n.profiles.get(id, n.now()); ok {
		return row, true
	}
	key := profileKey(id)
	var best profile
	r := n.values(ctx, key, ruleProfile, func(v []byte) bool {
		p, err := n.readProfile(key, v)
		if err != nil {
			return false
		}
		if p.Seq >= best.Seq {
			best = p
		}
		return true
	})
	if best.Peer == "" {
		if n.outcome(ctx, r) != index.Missing {
			return nil, false
		}
	} else if p, fit := n.provider(&best); fit {
		row = &p
	}
	n.profiles.put(id, row, n.now())
	return row, true
}

// How long profiles are remembered.
const (
	profileFor  = 2 * time.Minute
	noneFor     = 30 * time.Second // that there is none
	profilesMax = 4096
)

// profiles remember what providers said of themselves.
type profiles struct {
	mu sync.Mutex
	// Fields below are protected by mu.
	of    map[peer.ID]*list.Element // of *said
	order *list.List                // put last first
}

type said struct {
	id    peer.ID
	row   *index.Provider // nil: nothing
	until time.Time
}

func newProfiles() *profiles {
	return &profiles{of: make(map[peer.ID]*list.Element), order: list.New()}
}

func (s *profiles) get(id peer.ID, now time.Time) (*index.Provider, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	e := s.of[id]
	if e == nil || now.After(e.Value.(*said).until) {
		return nil, false
	}
	return e.Value.(*said).row, true
}

func (s *profiles) put(id peer.ID, row *index.Provider, now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if e := s.of[id]; e != nil {
		s.order.Remove(e)
	}
	keep := profileFor
	if row == nil {
		keep = noneFor
	}
	s.of[id] = s.order.PushFront(&said{id, row, now.Add(keep)})
	if s.order.Len() > profilesMax {
		last := s.order.Back()
		s.order.Remove(last)
		delete(s.of, last.Value.(*said).id)
	}
}
