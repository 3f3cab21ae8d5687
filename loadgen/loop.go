package loadgen

import (
	"fmt"
	"math"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

const (
	issueMax  = 64                   // requests sent before answers are looked at again
	tickEvery = 5 * time.Millisecond // housekeeping
	rounds    = 20                   // of housekeeping, to see each connection once
	dialing   = 128                  // connections a thread opens at once: a listen queue is short
	readSize  = 64 << 10

	never = math.MaxInt64
)

// A loop is one generator thread: its connections, its part of the schedule,
// and what it has seen. All of it belongs to that thread but for the section
// that says so.
//
// Its round is: send what is due, tend to connections, wait for whichever
// comes first of the next due instant and an answer, take in answers.
type loop struct {
	// Immutable.
	cfg   *Config
	addr  unix.Sockaddr
	asker Asker
	epoch time.Time // of the clock
	limit int       // of requests in flight
	index int
	step  int64 // threads: the distance of this thread's requests

	// The schedule, in nanoseconds of the clock.
	arrivals  arrivals
	t0        int64
	warmUntil int64
	end       int64 // nothing is due from here on
	n         int64 // number of the next request
	due       int64 // its instant; never when there is none

	// Connections.
	poll     *poller
	conns    []conn
	ready    ring
	dirty    []int32
	inflight int
	blocked  bool  // a request is due and nothing is free
	freed    int64 // when that was last over
	dialed   int   // connections being made
	retry    int64 // when the last that failed is tried again
	ups      int
	cursor   int // of the housekeeping
	buf      []byte

	// The clock as last read, and when to do the housekeeping.
	now, tick int64

	*tally
	collector *collector
	meter     meter
	second    int64 // of the window being filled

	// For everyone.
	stop *atomic.Bool
	live struct{ done, due, inflight atomic.Int64 }
}

func (l *loop) clock() int64 { return int64(time.Since(l.epoch)) }

// run sends and receives until the schedule is done and every answer is in, or
// given up.
func (l *loop) run() {
	for !l.over() {
		l.issue()
		l.tend()
		l.take(l.wait())
	}
	l.meter.stop(l)
	l.giveUp()
	l.rotate(never)
}

// over reports whether there is nothing left to send, or no time left to send
// it, and nothing left to hear.
func (l *loop) over() bool {
	switch {
	case l.stop.Load():
		return true
	case l.cfg.Pacer == nil && l.now >= l.end:
		l.due = never // a closed loop has no backlog
	}
	if l.due == never {
		return l.inflight == 0
	}
	if l.now > l.end+int64(l.cfg.Drain) {
		l.abandon()
	}
	return false
}

// abandon counts the requests that were due and never sent, and charges each
// the time that it has waited in vain.
func (l *loop) abandon() {
	for l.due != never {
		n := l.n
		if l.pass() {
			l.fail(Unsent, func() string {
				return fmt.Sprintf("request %d was still waiting, with %d requests of at most %d in flight, and %d connections of %d up",
					n, l.inflight, l.limit, l.ups, len(l.conns))
			})
		}
	}
}

// pass goes by a request that was due and will not be sent, and charges it. It
// reports whether the request was due within the measured time.
func (l *loop) pass() (counted bool) {
	if counted = l.due >= l.warmUntil; counted {
		l.tally.due++
		l.late++
		l.charge(l.now - l.due)
	}
	l.report(&flight{n: l.n, intended: l.due, counted: counted}, 0)
	l.advance()
	return counted
}

// giveUp ends what is still open when the run ends, which is something only if
// it was interrupted. That is nobody's failure, but the wait until then is
// charged: whoever interrupts a run does so because the server stands still.
func (l *loop) giveUp() {
	for l.cfg.Pacer != nil && l.due <= l.now {
		if l.pass() {
			l.cut++
		}
	}
	for i := range l.conns {
		c := &l.conns[i]
		for c.count > 0 {
			if f := c.pop(); f.counted {
				l.cut++
				l.charge(l.now - f.intended)
			}
		}
		if c.state != down {
			_ = unix.Close(c.fd)
		}
	}
}

// advance goes to the next request of this thread.
func (l *loop) advance() {
	l.n += l.step
	l.plan()
}

// plan finds out when request n is due.
func (l *loop) plan() {
	switch {
	case l.n >= l.cfg.Requests:
		l.due = never
	case l.cfg.Pacer == nil:
		l.due = l.t0 // at once, whenever that is
		if l.now >= l.end {
			l.due = never
		}
	default:
		l.due = l.t0 + int64(l.arrivals.next())
		if l.due >= l.end || l.due < 0 {
			l.due = never
		}
	}
}

// issue sends what is due. One call sends no more than a bounded number, so
// that answers are not left lying while a backlog is worked off.
func (l *loop) issue() {
	for range issueMax {
		if l.due > l.now {
			break
		}
		c := l.idle()
		if c == nil {
			l.blocked = true
			break
		}
		l.assign(c)
	}
	for _, slot := range l.dirty {
		c := &l.conns[slot]
		c.dirty = false
		if c.state == up {
			l.write(c)
		}
	}
	l.dirty = l.dirty[:0]
}

// idle returns the connection whose turn it is, or nil.
func (l *loop) idle() *conn {
	if l.inflight >= l.limit {
		return nil
	}
	for l.ready.n > 0 {
		c := &l.conns[l.ready.pop()]
		c.queued = false
		if c.free(l.cfg.Churn) {
			return c
		}
	}
	return nil
}

// assign gives the next request to c.
func (l *loop) assign(c *conn) {
	f := flight{n: l.n, intended: l.due, eligible: max(l.due, l.freed)}
	if l.cfg.Pacer == nil {
		if l.now >= l.end {
			l.due = never
			l.offer(c)
			return
		}
		f.intended, f.eligible = l.now, l.now
	}
	f.counted = f.intended >= l.warmUntil
	if !f.counted {
		l.warm++
	} else {
		l.tally.due++
		if f.eligible > f.intended {
			l.late++
		}
	}
	at := c.push(f)
	c.out, at.headless = l.asker.Ask(c.out, l.n)
	l.inflight++
	if !c.dirty {
		c.dirty = true
		l.dirty = append(l.dirty, c.slot)
	}
	l.offer(c)
	l.advance()
}

// offer puts c where idle will find it, if it can take a request.
func (l *loop) offer(c *conn) {
	if !c.queued && c.free(l.cfg.Churn) {
		c.queued = true
		l.ready.push(c.slot)
	}
}

// unblock notes that something became free.
func (l *loop) unblock() {
	if l.blocked {
		l.blocked, l.freed = false, l.now
	}
}

// write hands c's bytes to the kernel. The clock is read before the call: over
// loopback the call itself carries them to the server.
func (l *loop) write(c *conn) {
	if c.unsent > 0 {
		l.now = l.clock()
		for i := c.count - c.unsent; i < c.count; i++ {
			f := c.nth(i)
			f.sent = l.now
			if f.counted {
				l.sent++
				l.lag.record(f.sent - f.eligible)
			}
		}
		c.unsent = 0
	}
	n, errno := rawWrite(c.fd, c.out[c.off:])
	switch {
	case errno == unix.EAGAIN:
		n = 0
	case errno != 0:
		l.drop(c, Closed, "write: "+errno.Error())
		return
	}
	if c.off += n; c.off == len(c.out) {
		c.out, c.off = c.out[:0], 0
	} else if !c.wantsW {
		c.wantsW = true
		_ = l.poll.watch(unix.EPOLL_CTL_MOD, c.fd, unix.EPOLLIN|unix.EPOLLOUT, c.slot, c.mark)
	}
}

// report tells whoever wants to know how a request ended; 0 is not at all.
func (l *loop) report(f *flight, status int) {
	if l.cfg.Done == nil {
		return
	}
	at := func(ns int64) time.Time {
		if ns == 0 {
			return time.Time{}
		}
		return l.epoch.Add(time.Duration(ns))
	}
	l.cfg.Done(End{N: f.n, Status: status, Warm: !f.counted,
		Due: at(f.intended), Sent: at(f.sent), First: at(f.first), Done: at(l.now)})
}

// A ring is a queue of connections. It never holds one twice, so it needs no
// more room than there are.
type ring struct {
	slots []int32
	head  int
	n     int
}

func (r *ring) push(slot int32) {
	r.slots[(r.head+r.n)%len(r.slots)] = slot
	r.n++
}

func (r *ring) pop() int32 {
	slot := r.slots[r.head]
	r.head = (r.head + 1) % len(r.slots)
	r.n--
	return slot
}
