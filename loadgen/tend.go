package loadgen

import (
	"errors"
	"time"

	"golang.org/x/sys/unix"
)

// pollMax is longer than polling takes, unless the thread lost its processor.
const pollMax = 20 * time.Microsecond

// tend does the housekeeping when it is time: a twentieth of the connections
// at once, so that thousands of them do not make a request late.
func (l *loop) tend() {
	if l.now < l.tick {
		return
	}
	l.tick = l.now + int64(tickEvery)
	for range len(l.conns)/rounds + 1 {
		c := &l.conns[l.cursor]
		l.cursor = (l.cursor + 1) % len(l.conns)
		l.check(c)
	}
	l.meter.check(l)
	l.rotate(l.now)
	l.live.done.Store(l.answered)
	l.live.due.Store(l.tally.due)
	l.live.inflight.Store(int64(l.inflight))
}

// check looks for what has taken too long.
func (l *loop) check(c *conn) {
	switch {
	case c.state == down && c.since <= l.now && l.due != never:
		l.dial(c)
	case c.state == connecting && l.now-c.since > int64(connectMax):
		l.drop(c, NotConnected, "connect: no answer in "+connectMax.String())
	case c.state == up && c.count > 0 && c.front().sent > 0 && l.now-c.front().sent > int64(l.cfg.Timeout):
		l.drop(c, TimedOut, "no answer in "+l.cfg.Timeout.String())
	}
}

// dial begins to connect c, unless so many are being made already that the
// server's queue of them might overflow.
func (l *loop) dial(c *conn) {
	if l.dialed >= dialing {
		return // the housekeeping comes by again
	}
	fd, err := open(l.addr)
	if err == nil {
		c.fd = fd
		err = l.poll.watch(unix.EPOLL_CTL_ADD, fd, unix.EPOLLIN|unix.EPOLLOUT, c.slot, c.mark)
		if err != nil {
			_ = unix.Close(fd)
		}
	}
	switch {
	case errors.Is(err, unix.EAGAIN): // a Unix socket's way to say that its queue is full
		c.since = l.now + int64(tickEvery)
		return
	case err != nil:
		l.blame(err)
		l.fail(NotConnected, err.Error)
		c.since = l.later()
		return
	}
	c.state, c.since = connecting, l.now
	l.dialed++
}

// later is when a connection that failed is tried again: after a pause, and no
// more of them in one than a listen queue holds. Thousands that a server has no
// room for would keep both sides busy with nothing else.
func (l *loop) later() int64 {
	l.retry = max(l.retry+int64(backoff)/dialing, l.now+int64(backoff))
	return l.retry
}

// blame notes a connection that this machine could not make, which is not the
// server's doing.
func (l *loop) blame(err error) {
	for _, own := range []error{unix.EMFILE, unix.ENFILE, unix.EADDRNOTAVAIL, unix.ENOBUFS, unix.ENOMEM} {
		if errors.Is(err, own) {
			l.unmade++
			l.unmadeWhy = clip(err.Error())
		}
	}
}

// settle finishes a connection that epoll has news of.
func (l *loop) settle(c *conn) {
	if err := connected(c.fd); err != nil {
		l.blame(err)
		l.drop(c, NotConnected, err.Error())
		return
	}
	// Writability was what said that it is up; from now on it would be noise.
	if err := l.poll.watch(unix.EPOLL_CTL_MOD, c.fd, unix.EPOLLIN, c.slot, c.mark); err != nil {
		l.drop(c, NotConnected, err.Error())
		return
	}
	l.now = l.clock()
	c.state, c.since = up, l.now
	l.dialed--
	l.ups++
	if l.opened++; l.opened > int64(len(l.conns)) {
		l.reopened++
	}
	l.unblock()
	l.offer(c)
}

// connect brings the connections up before the clock starts. Those that do not
// come are tried again during the run.
func (l *loop) connect() {
	until := l.clock() + int64(connectMax)
	for l.now = l.clock(); l.ups < len(l.conns) && l.now < until && !l.stop.Load(); l.now = l.clock() {
		for i := range l.conns {
			if c := &l.conns[i]; c.state == down && c.since <= l.now {
				l.dial(c)
			}
		}
		n := l.poll.wait(time.Millisecond)
		l.now = l.clock()
		l.take(n)
	}
}

// wait waits for events until the next request is due or housekeeping is. The
// last moments before a request is due are spun: being woken takes the kernel
// some tens of microseconds, and they would be charged to the server. At a low
// rate that costs next to nothing; at a high one the thread never sleeps, and
// answers are seen when they come.
func (l *loop) wait() int {
	until, spin := l.tick, int64(0)
	if !l.blocked && l.due < until {
		until, spin = l.due, int64(l.cfg.Spin)
	}
	n := 0
	switch left := until - l.clock(); {
	case left <= 0:
		n = l.poll.peek()
	case left > spin:
		n = l.poll.wait(time.Duration(left - spin))
	default:
		return l.spin(until)
	}
	l.now = l.clock()
	return n
}

// spin polls until there is an event or the instant has come. What it burns is
// told apart from what the work cost; a poll that took long did not burn, it
// was kept from running.
func (l *loop) spin(until int64) int {
	for last := l.clock(); ; last = l.now {
		n := l.poll.peek()
		l.now = l.clock()
		if n == 0 && l.now-last < int64(pollMax) {
			l.meter.spun += l.now - last
		}
		if n > 0 || l.now >= until {
			return n
		}
	}
}

// rotate hands over the window of a second that has ended.
func (l *loop) rotate(now int64) {
	second := (now - l.warmUntil) / int64(time.Second)
	if now < l.warmUntil {
		second = 0
	}
	if second == l.second {
		return
	}
	l.collector.put(l.second, l.target(l.second), &l.window)
	l.window.reset()
	l.second = second
}

// target is the rate that was meant in the middle of a second: none when the
// last answers come in, after the end.
func (l *loop) target(second int64) float64 {
	at := time.Duration(second) * time.Second
	if l.cfg.Pacer == nil || at >= l.cfg.Duration {
		return 0
	}
	return l.cfg.Pacer.Rate(l.cfg.Warmup + at + time.Second/2)
}
