package loadgen

import (
	"slices"
	"sync"
	"time"
)

// openMax is how many seconds are kept open for threads that are behind.
const openMax = 4

// A collector puts the threads' seconds together. Each thread comes by once a
// second, so a mutex is no burden.
type collector struct {
	mu      sync.Mutex // protects the fields below
	open    []pending
	spare   []*window
	seconds []Second
}

type pending struct {
	second int64
	target float64
	*window
}

// put adds a thread's window.
func (c *collector) put(second int64, target float64, w *window) {
	c.mu.Lock()
	defer c.mu.Unlock()
	i := slices.IndexFunc(c.open, func(p pending) bool { return p.second == second })
	if i < 0 {
		c.open = append(c.open, pending{second, target, c.fresh()})
		i = len(c.open) - 1
	}
	c.open[i].merge(w)
	for len(c.open) > openMax {
		c.finish(0)
	}
}

func (c *collector) fresh() *window {
	if n := len(c.spare); n > 0 {
		w := c.spare[n-1]
		c.spare = c.spare[:n-1]
		return w
	}
	w := newWindow()
	return &w
}

// finish turns an open second into its figures and keeps only those.
func (c *collector) finish(i int) {
	p := c.open[i]
	c.seconds = append(c.seconds, p.window.second(time.Duration(p.second)*time.Second, p.target))
	p.reset()
	c.spare = append(c.spare, p.window)
	c.open = slices.Delete(c.open, i, i+1)
}

// latest returns the figures of the last second that any thread has finished.
func (c *collector) latest() Second {
	c.mu.Lock()
	defer c.mu.Unlock()
	if n := len(c.open); n > 0 {
		p := c.open[n-1]
		return p.window.second(time.Duration(p.second)*time.Second, p.target)
	}
	return Second{}
}

// all returns every second, in order, when no thread is left to add to them.
func (c *collector) all() []Second {
	c.mu.Lock()
	defer c.mu.Unlock()
	for len(c.open) > 0 {
		c.finish(0)
	}
	slices.SortFunc(c.seconds, func(a, b Second) int { return int(a.At - b.At) })
	return c.seconds
}

// A meter measures what the generator itself has used, from the end of the
// warm-up on.
type meter struct {
	begun    bool
	from     int64 // instants
	to       int64
	cpu      int64 // of the thread: at first the reading at the start
	spun     int64 // of it, polling for nothing
	queued   int64 // waiting for a processor; at first the reading at the start
	requests int64
}

// check starts the meter when the warm-up is over.
func (m *meter) check(l *loop) {
	if !m.begun && l.now >= l.warmUntil {
		m.begun, m.from, m.spun, m.cpu, m.queued = true, l.now, 0, threadCPU(), threadQueued()
		m.requests = -l.answered
	}
}

func (m *meter) stop(l *loop) {
	m.to = l.clock()
	if !m.begun {
		return
	}
	m.cpu = threadCPU() - m.cpu
	m.queued = threadQueued() - m.queued
	m.requests += l.answered
}
