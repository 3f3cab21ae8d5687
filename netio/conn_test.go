package netio

import (
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"svcindex/index"
)

// TestWhoDoesNotReadIsAnsweredNoMore: the answers that wait for all clients
// together are bounded, however little each of them has left unread.
func TestWhoDoesNotReadIsAnsweredNoMore(t *testing.T) {
	for _, tt := range []struct {
		why          string
		unread       int
		held, budget int64
		ready        bool
	}{
		{"all is read", 0, 0, 100, true},
		{"some waits, and there is room", 10, 10, 100, true},
		{"who has read all does not pay for others", 0, 101, 100, true},
		{"some waits, and there is no room", 10, 101, 100, false},
		{"some waits, and the limit is off", 10, 101, 0, true},
		{"too much waits for one", unsentMax, unsentMax, 0, false},
	} {
		s := newBareServer(&fakeResolver{})
		c, gc := newBareConn(s)
		c.tuning = &index.Tuning{BufferedBytes: tt.budget}
		s.counts.BufferedBytes.Store(tt.held)
		gc.unsent = tt.unread
		if got := c.ready(); got != tt.ready || c.paused == got {
			t.Errorf("%s: ready %v, paused %v, want ready %v", tt.why, got, c.paused, tt.ready)
		}
	}
}

// TestWhatMayComeAhead: a limit that is off holds nobody shorter than one that
// is on.
func TestWhatMayComeAhead(t *testing.T) {
	for _, tt := range []struct {
		why  string
		body int64
		want int
	}{
		{"the longest head and body, and a little", 1 << 20, headCap + 1<<20 + 64<<10},
		{"without a limit on bodies, longer ones, and still not any", 0, headCap + aheadBody + 64<<10},
	} {
		c := conn{tuning: &index.Tuning{HeadBytes: headCap, BodyBytes: tt.body}}
		if got := c.aheadMax(); got != tt.want {
			t.Errorf("%s: %d bytes, want %d", tt.why, got, tt.want)
		}
	}
}

// TestWhoReadsSlowlyIsNotStuck: what the kernel has taken for a client says
// whether it reads, long before there is room for more.
func TestWhoReadsSlowlyIsNotStuck(t *testing.T) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fds[0])
	defer unix.Close(fds[1])
	piece := make([]byte, 4<<10)
	for {
		if _, err := unix.Write(fds[0], piece); err != nil {
			break // it is full
		}
	}
	s := newBareServer(&fakeResolver{})
	c, gc := newBareConn(s)
	gc.fd, gc.unsent = fds[0]+1, 1000
	closed := func() bool { return c.loop.el.(*fakeLoop).closed > 0 }
	now := time.Now()
	wait := func(d time.Duration, reads bool) {
		if reads {
			if n, err := unix.Read(fds[1], piece); n != len(piece) {
				t.Fatal(n, err)
			}
		}
		for until := now.Add(d); now.Before(until); now = now.Add(sweepRound) {
			c.checkDeadline(now)
		}
	}
	most := s.opt.Dial.Now().RequestTimeout
	wait(most/2, false)
	for range 6 {
		wait(most, true)
	}
	if closed() {
		t.Fatal("who reads a little in each limits.request_timeout was closed")
	}
	wait(2*most+2*sweepRound, false)
	if !closed() {
		t.Error("who reads nothing was not closed")
	}
}
