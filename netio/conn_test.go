package netio

import (
	"testing"

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
