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
	net net.Conn
	buf []byte
}

// halve keeps a connection whose client has shut its side as long as requests
// of it are unanswered. It runs in OnClose, while gnet still has the
// descriptor. It returns false when there is nothing to answer.
func (c *conn) halve() bool {
	rest, _ := c.gc.Peek(-1)
	if c.ending || c.late || c.flight == nil && len(rest) == 0 {
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
	c.half, c.halfGone, c.gc = &halfConn{net: nc}, true, nil
	c.loop.server.halves.Add(1)
	return true
}

func (h *halfConn) write(b []byte) {
	if h.net != nil {
		h.buf = append(h.buf, b...)
	}
}

// finish sends what was answered and closes. It may take as long as the client
// does, so it has a goroutine of its own, which the server waits for.
func (h *halfConn) finish(c *conn) {
	if h.net == nil {
		return
	}
	s, nc, buf := c.loop.server, h.net, h.buf
	h.net, h.buf = nil, nil
	c.leave()
	go func() {
		defer s.halves.Done()
		defer nc.Close()
		_ = nc.SetWriteDeadline(time.Now().Add(s.opt.RequestTimeout))
		if _, err := nc.Write(buf); err != nil {
			s.counts.ClientAborts.Add(1)
		}
	}()
}
