// Package queue holds work that has been accepted but not begun.
//
// A queue here never grows and never makes its producer wait. A full queue is
// not a fault: it is the one signal of overload that the whole server runs on.
package queue

import (
	"sync"
	"sync/atomic"
)

// A Queue is a bounded first-in, first-out queue for many producers and many
// consumers. Nobody ever waits on it but for its mutex, which is held for a
// few copies.
type Queue[T any] struct {
	n     atomic.Int32 // len, readable without the lock
	depth atomic.Int32 // how many may wait

	mu sync.Mutex
	// Fields below are protected by mu.
	ring   []T
	head   int
	closed bool
}

// New returns a queue with room for depth items.
func New[T any](depth int) *Queue[T] {
	q := &Queue[T]{ring: make([]T, max(depth, 1))}
	q.depth.Store(int32(len(q.ring)))
	return q
}

// Resize changes how many items may wait. What waits already stays, also above
// the new depth; then nothing is taken until it is below.
func (q *Queue[T]) Resize(depth int) {
	q.mu.Lock()
	defer q.mu.Unlock()
	n := int(q.n.Load())
	ring := make([]T, max(depth, n, 1))
	for i := range n {
		ring[i] = q.ring[(q.head+i)%len(q.ring)]
	}
	q.ring, q.head = ring, 0
	q.depth.Store(int32(max(depth, 1)))
}

// Push adds v and reports whether there was room. If it reports false, v still
// belongs to the caller.
func (q *Queue[T]) Push(v T) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	n := int(q.n.Load())
	if q.closed || n >= int(q.depth.Load()) {
		return false
	}
	q.ring[(q.head+n)%len(q.ring)] = v
	q.n.Store(int32(n + 1))
	return true
}

// PushAll adds the items of vs in order while there is room and returns how
// many it took; the rest still belong to the caller.
func (q *Queue[T]) PushAll(vs []T) int {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.closed {
		return 0
	}
	n := int(q.n.Load())
	took := min(len(vs), max(int(q.depth.Load())-n, 0))
	for i, v := range vs[:took] {
		q.ring[(q.head+n+i)%len(q.ring)] = v
	}
	q.n.Store(int32(n + took))
	return took
}

// PopUpTo moves what is waiting into dst, oldest first, at most len(dst), and
// returns how many. It does not wait.
func (q *Queue[T]) PopUpTo(dst []T) int {
	q.mu.Lock()
	defer q.mu.Unlock()
	n := int(q.n.Load())
	took := min(n, len(dst))
	var none T
	for i := range took {
		dst[i] = q.ring[q.head]
		q.ring[q.head] = none // a popped item must not be kept alive from here
		q.head = (q.head + 1) % len(q.ring)
	}
	q.n.Store(int32(n - took))
	return took
}

// Oldest calls look with the item that has waited longest, under the lock; it
// reports false when nothing waits. look must only read.
func (q *Queue[T]) Oldest(look func(T)) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.n.Load() == 0 {
		return false
	}
	look(q.ring[q.head])
	return true
}

// Len returns how many items wait.
func (q *Queue[T]) Len() int { return int(q.n.Load()) }

// Cap returns how many items may wait.
func (q *Queue[T]) Cap() int { return int(q.depth.Load()) }

// Close makes every later Push fail. What waits can still be popped.
func (q *Queue[T]) Close() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.closed = true
}
