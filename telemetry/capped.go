package telemetry

import (
	"net"
	"sync"
)

// A capped listener has at most so many connections open; one more is closed
// at once. Descriptors are shared with the public listener, which fails badly
// when they run out.
type capped struct {
	net.Listener
	slots chan struct{}
}

func newCapped(l net.Listener, most int) *capped {
	return &capped{l, make(chan struct{}, most)}
}

// Accept implements net.Listener.
func (l *capped) Accept() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		select {
		case l.slots <- struct{}{}:
			return &cappedConn{Conn: c, free: sync.OnceFunc(func() { <-l.slots })}, nil
		default:
			c.Close()
		}
	}
}

type cappedConn struct {
	net.Conn
	free func()
}

// Close implements net.Conn.
func (c *cappedConn) Close() error {
	defer c.free()
	return c.Conn.Close()
}
