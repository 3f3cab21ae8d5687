package netio

import (
	"net"
	"os"
	"time"
)

// A halfConn writes to a client that has shut its side and still reads. gnet
// closes its descriptor when it reads the end of the stream, so answers that
// are on their way leave over a copy of it.
type halfConn struct {
	net   net.Conn
	buf   []byte    // answers; counted in the global budget
	held  int64     // bytes counted there
	until time.Time // when no more requests of it are begun
}

// halve keeps a connection whose client has shut its side as long as requests
// of it are unanswered. It runs in OnClose, while gnet still has the
// descriptor. It returns false when there is nothing to answer, or when gnet
// holds answers that did not fit into the socket: those are lost with its
// close, and what came behind them would not be what it seems.
func (c *conn) halve() bool {
	rest, _ := c.gc.Peek(-1)
	if c.ending || c.late || c.gc.OutboundBuffered() > 0 || c.flight == nil && len(rest) == 0 {
		return false
	}
	fd, err := c.gc.Dup()
	if err != nil {
		return false
	}
	file := os.NewFile(uintptr(fd), "half-closed")
	nc, err := net.FileConn(file)
	_ = file.Close()
	if err != nil {
		return false
	}
	c.rest = append([]byte(nil), rest...)
	c.half, c.halfGone, c.gc = &halfConn{net: nc, held: int64(len(rest)), until: time.Now().Add(c.tuning.RequestTimeout)}, true, nil
	c.loop.server.counts.BufferedBytes.Add(c.half.held)
	c.loop.halved[c] = struct{}{}
	c.loop.server.halves.Add(1)
	return true
}

func (h *halfConn) write(c *conn, b []byte) {
	if h.net != nil {
		h.buf = append(h.buf, b...)
		h.held += int64(len(b))
		c.loop.server.counts.BufferedBytes.Add(int64(len(b)))
	}
}

// finish sends what was answered and closes. It may take as long as the client
// does, so it has a goroutine of its own, which the server waits for. The
// connection counts against the caps until then.
func (h *halfConn) finish(c *conn) {
	if h.net == nil {
		return
	}
	delete(c.loop.halved, c)
	c.freeBudget()
	s, nc, buf, held, who, most := c.loop.server, h.net, h.buf, h.held, c.peer, c.tuning.RequestTimeout
	h.net, h.buf, c.rest = nil, nil, nil
	go func() {
		defer s.halves.Done()
		defer s.doors.leave(who)
		defer s.counts.BufferedBytes.Add(-held)
		defer nc.Close()
		_ = nc.SetWriteDeadline(time.Now().Add(most))
		if _, err := nc.Write(buf); err != nil {
			s.counts.ClientAborts.Add(1)
		}
	}()
}
