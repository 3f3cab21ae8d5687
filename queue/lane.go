package queue

import "sync/atomic"

// A Lane is a bounded queue for one producer and one consumer: an event loop
// and its cache worker. The two share no cache line but the two counters, and
// neither ever takes a lock.
//
// The consumer may be a different goroutine from one moment to the next, as
// long as there is one at a time and the hand-over synchronizes.
type Lane[T any] struct {
	ring []T
	mask uint64

	_    [64]byte // the producer's and the consumer's counters on lines of their own
	tail atomic.Uint64
	_    [64]byte
	head atomic.Uint64
	_    [64]byte
}

// NewLane returns a lane with room for at least depth items.
func NewLane[T any](depth int) *Lane[T] {
	n := uint64(1)
	for n < uint64(depth) {
		n <<= 1
	}
	return &Lane[T]{ring: make([]T, n), mask: n - 1}
}

// PushAll adds the items of vs in order while there is room, publishes them
// together and returns how many it took; the rest still belong to the caller.
// Only the producer may call it.
func (l *Lane[T]) PushAll(vs []T) int {
	tail := l.tail.Load()
	room := uint64(len(l.ring)) - (tail - l.head.Load())
	took := min(uint64(len(vs)), room)
	for i := range took {
		l.ring[(tail+i)&l.mask] = vs[i]
	}
	l.tail.Store(tail + took)
	return int(took)
}

// PopUpTo moves what is waiting into dst, oldest first, at most len(dst), and
// returns how many. Only the consumer may call it.
func (l *Lane[T]) PopUpTo(dst []T) int {
	head := l.head.Load()
	took := min(l.tail.Load()-head, uint64(len(dst)))
	var none T
	for i := range took {
		at := (head + i) & l.mask
		dst[i] = l.ring[at]
		l.ring[at] = none
	}
	l.head.Store(head + took)
	return int(took)
}

// Cap returns how many items may wait.
func (l *Lane[T]) Cap() int { return len(l.ring) }

// Len returns how many items wait.
func (l *Lane[T]) Len() int {
	head := l.head.Load() // first: read the other way round the difference could be negative
	return int(l.tail.Load() - head)
}
