package loadgen

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// take handles n events. Whatever falls due meanwhile is sent in between: a
// burst of answers must not make the next request late.
func (l *loop) take(n int) {
	arrived := l.now
	for i := range n {
		e := &l.poll.events[i]
		c := &l.conns[e.Fd]
		if c.mark != e.Pad || c.state == down {
			continue // of a socket that is closed by now
		}
		if c.state == connecting {
			l.settle(c)
		} else {
			l.serve(c, e.Events, arrived)
		}
		if l.due <= l.now && !l.blocked {
			l.issue()
		}
	}
}

func (l *loop) serve(c *conn, events uint32, arrived int64) {
	if events&unix.EPOLLOUT != 0 && c.off < len(c.out) {
		l.write(c)
	}
	if events&^unix.EPOLLOUT != 0 && c.state == up {
		l.read(c, arrived, events&(unix.EPOLLRDHUP|unix.EPOLLHUP|unix.EPOLLERR) != 0)
	}
}

// read takes all that c has. The bytes of a head that was cut come first in the
// buffer, so that a head is always whole when it is read. ending says that the
// server has closed already: no edge will tell of the end that stands behind
// the last bytes.
func (l *loop) read(c *conn, arrived int64, ending bool) {
	for c.state == up {
		kept := copy(l.buf, c.part)
		n, errno := rawRead(c.fd, l.buf[kept:])
		l.now = l.clock()
		switch {
		case errno == unix.EAGAIN:
			return
		case errno == unix.EINTR:
			continue
		case errno != 0:
			l.drop(c, Closed, "read: "+errno.Error())
			return
		case n == 0:
			l.drop(c, Closed, "the server closed the connection")
			return
		}
		c.part = c.part[:0]
		l.digest(c, l.buf[:kept+n], arrived)
		if kept+n < len(l.buf) && !ending {
			return // that was all; the next edge will tell of more
		}
	}
}

// digest takes answers out of b.
func (l *loop) digest(c *conn, b []byte, arrived int64) {
	mark := c.mark // changes if c is closed on the way
	for len(b) > 0 && c.mark == mark && c.state == up {
		if c.inBody {
			n := min(c.left, int64(len(b)))
			c.left -= n
			b = b[n:]
			if c.left == 0 {
				l.complete(c)
			}
			continue
		}
		if c.count == 0 || c.count == c.unsent {
			l.drop(c, Unasked, string(b[:min(len(b), sampleMax)]))
			return
		}
		f := c.front()
		if f.first == 0 {
			f.first = max(arrived, f.sent)
		}
		a, n, err := readAnswer(b, f.headless, l.cfg.SourceField)
		switch {
		case err != nil:
			l.drop(c, Malformed, fmt.Sprintf("%v: %s", err, b[:min(len(b), sampleMax)]))
			return
		case n == 0:
			c.part = append(c.part, b...)
			return
		}
		b = b[n:]
		if !a.interim() {
			l.begin(c, &a, b)
			arrived = l.now // what follows may have come since the event
		}
	}
}

// begin notes what an answer's head has said.
func (l *loop) begin(c *conn, a *answer, body []byte) {
	r := &c.reply
	r.status, r.length, r.close = a.status, a.length, a.close
	r.sourceLen = copy(r.source[:], a.source)
	if a.status >= 400 && l.samples[a.status] == "" && c.front().counted {
		l.samples[a.status] = l.sample(c.front(), body[:min(int64(len(body)), a.length)])
	}
	c.inBody, c.left = true, a.length
	if a.length == 0 {
		l.complete(c)
	}
}

// sample describes a refusal: what was asked, and what the server said.
func (l *loop) sample(f *flight, body []byte) string {
	asked, _ := l.asker.Ask(nil, f.n)
	line, _ := cutLine(asked)
	return clip(fmt.Sprintf("%s: %s", line, body))
}

// complete counts the answer to the oldest request of c.
func (l *loop) complete(c *conn) {
	c.inBody = false
	f := c.pop()
	l.inflight--
	if f.counted {
		l.answer(&f, &c.reply, l.now)
	}
	l.report(&f, c.reply.status)
	l.unblock()
	switch {
	case c.reply.close:
		l.drop(c, Closed, "the server said close and did not answer what was sent after it")
	case l.cfg.Churn > 0 && c.asked >= l.cfg.Churn && c.count == 0:
		l.drop(c, Closed, "")
	default:
		l.offer(c)
	}
}

// drop closes c, for why if it still had requests. A connection that has
// served is replaced at once; one that has not, after a pause, or a server
// that is gone would be hammered.
func (l *loop) drop(c *conn, why Failure, example string) {
	served := c.asked > c.count
	if why.ofConnection() {
		l.fail(why, func() string { return example })
	}
	for c.count > 0 {
		f := c.pop()
		l.inflight--
		l.lose(&f, why, example)
	}
	if c.state == up {
		l.ups--
	} else {
		l.dialed--
	}
	_ = unix.Close(c.fd) // which takes it out of epoll, too
	c.reset()
	c.mark++
	c.state, c.since = down, l.now
	if !served {
		c.since = l.later()
	}
	l.unblock()
	if served && !l.stop.Load() && l.due != never {
		l.dial(c)
	}
}

// lose counts a request that will have no answer.
func (l *loop) lose(f *flight, why Failure, example string) {
	l.report(f, 0)
	if !f.counted {
		return
	}
	if why.ofConnection() {
		why = Closed // what happened to the request
	}
	l.fail(why, func() string { return example })
	l.charge(l.now - f.intended)
}
