package kaddht

import (
	"context"
	"crypto/ed25519"
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	ma "github.com/multiformats/go-multiaddr"

	"svcindex/index"
)

// Holdings are what this node has to tell: a store, seen by an announcer.
type Holdings interface {
	// Walk visits the next stretch after from and returns where to go on, nil
	// at the end.
	Walk(from []byte, own string, visit func(index.Holding)) (next []byte, err error)
	Held(k *index.Key, own string) (index.Holding, error)
	Get(j *index.Job) error // the bytes of a manifest
}

// Bounds of announcing.
const (
	announceDepth  = 16 << 10 // keys just written that wait; one more is left to the next walk
	announceWalk   = 256      // keys of a walk that wait behind them
	announceAt     = 4        // keys told at once
	announceMax    = 150      // keys a second
	announceEvery  = 12 * time.Hour
	announceSoon   = 30 * time.Second // after keys that did not fit, or nobody to tell
	profileEvery   = 5 * time.Minute
	profileExpires = 24 * time.Hour
)

// An AnnouncerOptions says what to tell, and as whom.
type AnnouncerOptions struct {
	Node  *Node
	Store Holdings
	Key   ed25519.PrivateKey
	Addrs []string      // where clients find what this node serves
	Every time.Duration // between two tellings of everything; 0: 12 h
	Log   *slog.Logger
}

// An Announcer tells the network what this node has: what was just written, and
// everything again now and then, since others forget. It never makes a writer
// wait.
type Announcer struct {
	// Immutable.
	opt   AnnouncerOptions
	addrs []ma.Multiaddr
	queue chan index.Key // just written
	later chan index.Key // of a walk

	missed atomic.Bool // keys did not fit into the queue
	counts AnnounceCounts
	region atomic.Pointer[string] // of this node's rows, as last seen
	provid atomic.Bool            // there are such rows: a profile is wanted

	ctx  context.Context
	stop context.CancelFunc
	idle sync.WaitGroup

	mu sync.Mutex
	// Fields below are protected by mu.
	waiting map[index.Key]struct{} // what is in the queue
	pace    time.Time
	sealed  time.Time // when the profile was last told
}

// AnnounceCounts count what was told.
type AnnounceCounts struct {
	Told   atomic.Uint64 // keys that at least one peer took
	Nobody atomic.Uint64 // keys that no peer took
	Missed atomic.Uint64 // keys left to the next walk
	Walks  atomic.Uint64
}

// NewAnnouncer starts one.
func NewAnnouncer(o AnnouncerOptions) (*Announcer, error) {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Every <= 0 {
		o.Every = announceEvery
	}
	a := &Announcer{opt: o, queue: make(chan index.Key, announceDepth), later: make(chan index.Key, announceWalk), waiting: make(map[index.Key]struct{})}
	for _, text := range o.Addrs {
		addr, err := ma.NewMultiaddr(text)
		if err != nil {
			return nil, errors.Join(errors.New("dht.announce_addrs: expected multiaddrs such as /ip4/192.0.2.7/tcp/8080/http, found "+text), err)
		}
		a.addrs = append(a.addrs, addr)
	}
	none := ""
	a.region.Store(&none)
	a.ctx, a.stop = context.WithCancel(context.Background())
	for range announceAt {
		a.idle.Go(a.tell)
	}
	a.idle.Go(a.walks)
	return a, nil
}

// Counts returns the live counters.
func (a *Announcer) Counts() *AnnounceCounts { return &a.counts }

// Pending returns how many keys wait.
func (a *Announcer) Pending() int { return len(a.queue) + len(a.later) }

// Changed tells the announcer that a key was written. It never waits.
func (a *Announcer) Changed(k *index.Key) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if _, waits := a.waiting[*k]; waits {
		return
	}
	select {
	case a.queue <- *k:
		a.waiting[*k] = struct{}{}
	default:
		a.missed.Store(true)
		a.counts.Missed.Add(1)
	}
}

// tell works off the queues, what was just written first.
func (a *Announcer) tell() {
	for {
		var k index.Key
		select {
		case k = <-a.queue:
		default:
			select {
			case <-a.ctx.Done():
				return
			case k = <-a.queue:
			case k = <-a.later:
			}
		}
		a.mu.Lock()
		delete(a.waiting, k)
		a.mu.Unlock()
		if !a.breathe() {
			return
		}
		a.announce(&k)
	}
}

// breathe keeps announcing below announceMax keys a second: it is the least
// urgent thing a node does. False: the announcer closes.
func (a *Announcer) breathe() bool {
	a.mu.Lock()
	now := time.Now()
	if a.pace.Before(now) {
		a.pace = now
	}
	a.pace = a.pace.Add(time.Second / announceMax)
	wait := a.pace.Sub(now)
	a.mu.Unlock()
	select {
	case <-time.After(wait):
		return true
	case <-a.ctx.Done():
		return false
	}
}

// announce tells the network what the store holds under k now.
func (a *Announcer) announce(k *index.Key) {
	h, err := a.opt.Store.Held(k, a.opt.Node.ID())
	if err != nil {
		a.missed.Store(true)
		return
	}
	told, tried := 0, false
	if h.Name.Signed() && h.Name.Seq > 0 {
		tried, told = true, told+a.name(k, &h.Name)
	}
	if h.Manifest > 0 && h.Manifest <= ManifestMax {
		tried, told = true, told+a.manifest(k)
	}
	if h.Provider.ID != "" && len(a.addrs) > 0 {
		a.region.Store(&h.Provider.Region)
		if !a.provid.Swap(true) {
			a.profile()
		}
		c := k.CID()
		tried, told = true, told+a.opt.Node.provide(a.ctx, providerKey(&c), a.addrs)
	}
	switch {
	case told > 0:
		a.counts.Told.Add(1)
	case tried:
		a.counts.Nobody.Add(1)
		a.missed.Store(true)
	}
}

func (a *Announcer) name(k *index.Key, r *index.NameRecord) int {
	v, err := index.MarshalSignedName(k, r)
	if err != nil {
		return 0
	}
	return a.opt.Node.putValue(a.ctx, nameKey(r.PubKey, k), v)
}

func (a *Announcer) manifest(k *index.Key) int {
	j := &index.Job{Ask: index.AskManifest, Key: *k}
	if a.opt.Store.Get(j) != nil || len(j.Answer.Body) > ManifestMax {
		return 0
	}
	c := k.CID()
	return a.opt.Node.putValue(a.ctx, manifestKey(&c), j.Answer.Body)
}

// profile tells the network who and where this provider is. Without it nobody
// believes the rest.
func (a *Announcer) profile() {
	n, now := a.opt.Node, time.Now()
	p := profile{
		Addrs: a.opt.Addrs[:min(len(a.opt.Addrs), addrsPerPeer)], Peer: n.ID(), Region: *a.region.Load(),
		Seq: uint64(now.UnixMilli()), LastSeen: uint64(now.Unix()), Expires: uint64(now.Add(profileExpires).Unix()),
	}
	v, err := sealProfile(a.opt.Key, p)
	if err == nil && n.putValue(a.ctx, profileKey(n.self), v) > 0 {
		a.mu.Lock()
		a.sealed = now
		a.mu.Unlock()
	}
}

// walks tells everything again, every so often: at the start, when keys did not
// fit or nobody was there to hear them, and in time before others forget.
func (a *Announcer) walks() {
	var last time.Time
	t := time.NewTicker(time.Second)
	defer t.Stop()
	for {
		select {
		case <-a.ctx.Done():
			return
		case <-t.C:
		}
		if a.opt.Node.dht.RoutingTable().Size() == 0 {
			continue // nobody to tell
		}
		now := time.Now()
		a.mu.Lock()
		stale := now.Sub(a.sealed) > profileEvery
		a.mu.Unlock()
		if stale && a.provid.Load() {
			a.profile()
		}
		if since := now.Sub(last); since > a.opt.Every || since > announceSoon && a.missed.Load() && len(a.queue) == 0 {
			last = now
			a.missed.Store(false)
			a.walk()
		}
	}
}

// walk queues every key of the store, waiting for room as it goes.
func (a *Announcer) walk() {
	a.counts.Walks.Add(1)
	var from []byte
	for {
		var keys []index.Key
		next, err := a.opt.Store.Walk(from, a.opt.Node.ID(), func(h index.Holding) {
			if h.Manifest > 0 && h.Manifest <= ManifestMax || h.Name.Signed() || h.Provider.ID != "" {
				keys = append(keys, h.Key)
			}
		})
		for _, k := range keys {
			select {
			case a.later <- k:
			case <-a.ctx.Done():
				return
			}
		}
		if err != nil {
			a.missed.Store(true)
			return
		}
		if next == nil || a.ctx.Err() != nil {
			return
		}
		from = next
	}
}

// Close stops announcing. What was not told is told after the next start.
func (a *Announcer) Close() {
	a.stop()
	a.idle.Wait()
}
