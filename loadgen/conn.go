package loadgen

import (
	"fmt"
	"time"

	"golang.org/x/sys/unix"
)

const (
	connectMax = 5 * time.Second        // for a connection to come up
	backoff    = 100 * time.Millisecond // before a connection that failed is tried again
)

// The states of a connection.
const (
	down = iota
	connecting
	up
)

// A flight is one request that has been given to a connection. Its instants
// are nanoseconds of the run's clock.
type flight struct {
	n        int64
	intended int64 // when the schedule wanted it sent
	eligible int64 // when it could have been: later if nothing was free
	sent     int64 // when write was called for it; 0 until then
	first    int64 // when its answer's first byte was there; 0 until then
	headless bool
	counted  bool // due within the measured time
}

// A reply is an answer whose body is still coming.
type reply struct {
	status    int
	length    int64
	close     bool
	source    [24]byte
	sourceLen int
}

// A conn is one connection. It belongs to its loop.
type conn struct {
	slot  int32 // index in the loop
	mark  int32 // counts sockets, to tell stale events
	fd    int
	state int
	since int64 // when it entered its state; for down: when to try again

	flights []flight // a ring of the pipeline's depth
	head    int
	count   int
	asked   int // requests since it came up
	unsent  int // of flights, at the end of the ring

	queued bool // in the loop's ready ring
	dirty  bool // in the loop's list of those to write
	wantsW bool // epoll was asked for writability

	out  []byte // bytes not written yet, from off
	off  int
	part []byte // the beginning of a head that is not whole yet

	inBody bool
	left   int64 // of the body, when inBody
	reply  reply
}

func (c *conn) front() *flight { return &c.flights[c.head] }

func (c *conn) nth(i int) *flight { return &c.flights[(c.head+i)%len(c.flights)] }

func (c *conn) push(f flight) *flight {
	at := c.nth(c.count)
	*at = f
	c.count++
	c.unsent++
	c.asked++
	return at
}

func (c *conn) pop() flight {
	f := *c.front()
	c.head = (c.head + 1) % len(c.flights)
	c.count--
	return f
}

// free reports whether c can take a request now. One that is to be replaced
// after churn requests takes no more than those.
func (c *conn) free(churn int) bool {
	return c.state == up && c.count < len(c.flights) && (churn == 0 || c.asked < churn)
}

// reset makes c as good as new, but for its buffers.
func (c *conn) reset() {
	c.head, c.count, c.asked, c.unsent = 0, 0, 0, 0
	c.out, c.off, c.part = c.out[:0], 0, c.part[:0]
	c.inBody, c.wantsW = false, false
}

// open makes a socket for an address and begins to connect it.
func open(addr unix.Sockaddr) (fd int, err error) {
	family := unix.AF_INET
	switch addr.(type) {
	case *unix.SockaddrInet6:
		family = unix.AF_INET6
	case *unix.SockaddrUnix:
		family = unix.AF_UNIX
	}
	fd, err = unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("socket: %w", err)
	}
	if family != unix.AF_UNIX {
		// Without it the kernel would hold a request back to send it with the next.
		_ = unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1)
	}
	err = unix.Connect(fd, addr)
	if err != nil && err != unix.EINPROGRESS {
		_ = unix.Close(fd)
		return -1, fmt.Errorf("connect: %w", err)
	}
	return fd, nil
}

// connected says how an attempt to connect ended.
func connected(fd int) error {
	errno, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ERROR)
	if err == nil && errno != 0 {
		err = unix.Errno(errno)
	}
	if err != nil {
		return fmt.Errorf("connect: %w", err)
	}
	return nil
}
