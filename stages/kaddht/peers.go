package kaddht

import (
	"container/list"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
)

// Bounds of what is remembered of peers.
const (
	peersMax   = 4096             // peers remembered
	tripAfter  = 3                // failures in a row after which a peer is left alone
	restMin    = 10 * time.Second // for how long, at first
	restMax    = 5 * time.Minute  // and at most
	slowMemory = 30 * time.Second // how long a peer is held to be as slow as it was
)

// A memory knows how peers did of late: which are slow, and which are better
// left alone for a while. It forgets whom it has not met for longest.
type memory struct {
	mu sync.Mutex
	// Fields below are protected by mu.
	of    map[peer.ID]*list.Element // of *memo
	order *list.List                // met last first
}

// A memo is what is known of one peer.
type memo struct {
	id    peer.ID
	took  time.Duration // moving average of its answers
	at    time.Time     // when it was last heard or waited for
	fails int           // in a row
	rest  time.Duration // how long it is left alone next time
	until time.Time     // when it may be asked again
}

func newMemory() *memory {
	return &memory{of: make(map[peer.ID]*list.Element), order: list.New()}
}

// grade says how p stands at now, where slower than slowAt is slow. After its
// rest a peer is slow until it proves itself.
func (m *memory) grade(p peer.ID, now time.Time, slowAt time.Duration) grade {
	m.mu.Lock()
	defer m.mu.Unlock()
	e := m.of[p]
	if e == nil {
		return good
	}
	switch o := e.Value.(*memo); {
	case now.Before(o.until):
		return broken
	case o.fails > 0, o.took > slowAt && now.Sub(o.at) < slowMemory:
		return slow
	}
	return good
}

// answered notes that p took so long.
func (m *memory) answered(p peer.ID, took time.Duration, now time.Time) {
	m.mu.Lock()
	defer m.mu.Unlock()
	o := m.meet(p, now)
	if o.took == 0 {
		o.took = took
	}
	o.took += (took - o.took) / 4
	o.fails, o.rest, o.until = 0, 0, time.Time{}
}

// waited notes that p was not waited for any longer than this: it would have
// taken longer.
func (m *memory) waited(p peer.ID, atLeast time.Duration, now time.Time) {
	m.mu.Lock()
	defer m.mu.Unlock()
	e := m.of[p]
	if e == nil && atLeast < patienceMin {
		return // nothing learned
	}
	if e == nil || e.Value.(*memo).took < atLeast {
		m.meet(p, now).took = atLeast
	}
}

// failed notes that p did not answer, and returns how often in a row.
func (m *memory) failed(p peer.ID, now time.Time) int {
	m.mu.Lock()
	defer m.mu.Unlock()
	o := m.meet(p, now)
	o.fails++
	if o.fails >= tripAfter {
		o.rest = min(max(2*o.rest, restMin), restMax)
		o.until = now.Add(o.rest)
	}
	return o.fails
}

// parole ends the rest of p, which may have been cut off as others were. It is
// not forgotten: one more failure, and the rest is twice as long.
func (m *memory) parole(p peer.ID) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if e := m.of[p]; e != nil {
		o := e.Value.(*memo)
		o.fails, o.until, o.took = min(o.fails, tripAfter-1), time.Time{}, 0
	}
}

// resting returns who is left alone at now, and since when.
func (m *memory) resting(now time.Time) map[peer.ID]time.Time {
	m.mu.Lock()
	defer m.mu.Unlock()
	since := make(map[peer.ID]time.Time)
	for id, e := range m.of {
		if o := e.Value.(*memo); now.Before(o.until) {
			since[id] = o.until.Add(-o.rest)
		}
	}
	return since
}

// meet returns the memo of p, a new one if need be.
func (m *memory) meet(p peer.ID, now time.Time) *memo {
	e := m.of[p]
	if e == nil {
		e = m.order.PushFront(&memo{id: p})
		m.of[p] = e
		if m.order.Len() > peersMax {
			last := m.order.Back()
			m.order.Remove(last)
			delete(m.of, last.Value.(*memo).id)
		}
	}
	m.order.MoveToFront(e)
	o := e.Value.(*memo)
	o.at = now
	return o
}

// count returns how many peers are remembered, and how many of them are left
// alone now.
func (m *memory) count(now time.Time) (known, resting int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for e := m.order.Front(); e != nil; e = e.Next() {
		if now.Before(e.Value.(*memo).until) {
			resting++
		}
	}
	return m.order.Len(), resting
}
