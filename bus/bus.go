// Package bus tells whoever listens in this process that something changed.
//
// Publish never waits and the bus never grows: a subscriber that falls behind
// misses events, and the misses are counted. An event is therefore a hint to
// look again, never the only record of a change. The package starts no
// goroutine.
package bus

import (
	"sync"
	"sync/atomic"

	"svcindex/index"
)

// An Event says that something changed.
type Event = index.Event

// A Bus carries events from those who change things to those who want to know.
type Bus struct {
	depth  int
	lagged atomic.Uint64

	mu     sync.Mutex // protects the fields below
	last   uint64     // event published last
	subs   map[chan Event]struct{}
	closed bool
}

// New returns a bus on which each subscriber may be depth events behind; a
// depth below 1 counts as 1.
func New(depth int) *Bus {
	return &Bus{depth: max(depth, 1), subs: map[chan Event]struct{}{}}
}

// Publish numbers e and shows it to every subscriber that has room for it, in
// the order of the numbers: whoever misses some sees a gap. After Close it does
// nothing.
func (b *Bus) Publish(e Event) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.last++
	e.N = b.last
	for ch := range b.subs {
		select {
		case ch <- e:
		default:
			b.lagged.Add(1) // its loss; the writer must not pay for a slow reader
		}
	}
}

// Subscribe returns the events published from now on. The channel is closed by
// cancel, which may be called more than once, or by Close.
func (b *Bus) Subscribe() (events <-chan Event, cancel func()) {
	ch := make(chan Event, b.depth)
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		close(ch)
		return ch, func() {}
	}
	b.subs[ch] = struct{}{}
	return ch, func() { b.drop(ch) }
}

// drop ends one subscription, unless it has ended.
func (b *Bus) drop(ch chan Event) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if _, ok := b.subs[ch]; ok {
		delete(b.subs, ch)
		close(ch)
	}
}

// Subscribers returns how many listen now.
func (b *Bus) Subscribers() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.subs)
}

// Lagged returns how many events some subscriber has missed since start.
func (b *Bus) Lagged() uint64 { return b.lagged.Load() }

// Close ends every subscription. What a subscriber has not read yet it can
// still read.
func (b *Bus) Close() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.closed = true
	for ch := range b.subs {
		close(ch)
	}
	clear(b.subs)
}
