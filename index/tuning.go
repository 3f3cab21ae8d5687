package index

import (
	"sync/atomic"
	"time"
)

// A Tuning is what operators may change of a running server and a request can
// feel, as one value. Whoever begins a request takes the one in force, and the
// request keeps it to its end, through every room: none is held to half of one
// configuration and half of another. It is immutable. A limit of 0 is off.
type Tuning struct {
	Serial uint64 // how many were in force before it

	RequestTimeout time.Duration // from a request's first byte to its last; the same without progress in reading an answer
	IdleTimeout    time.Duration // without a request; also the longest for reading an answer
	Budget         time.Duration // from the last byte of a look-up to its answer
	WriteTimeout   time.Duration // the same for a write
	Slices         []Slice       // of the rooms; one that is not in it has its row's

	HeadBytes     int   // longest request head
	TargetBytes   int   // longest request target
	BodyBytes     int64 // longest body, as sent and decoded
	Gzip          bool  // bodies may come compressed
	Ratio         int64 // most a body may be over what came on the wire
	BufferedBytes int64 // bodies and unsent answers held for all clients together
	MaxConns      int   // connections open at once
	ConnsPerIP    int   // of these, from one address
	Inflight      int   // distinct look-ups and writes past the cache
	Joined        int   // askers that share somebody else's look-up

	Rate            int // requests a second, of all clients
	RatePerIP       int // of these, from one address
	ResolvesPerMin  int // resolves a minute, from one address
	ProvidersPerMin int // provider look-ups a minute, from one address

	Lives Lives
	Rank  Rank
}

// A Slice is the longest stay in a room, waiting included.
type Slice struct {
	Room string
	For  time.Duration
}

// Lives says how long what is kept in memory counts.
type Lives struct {
	TTL      time.Duration // an answer
	NegTTL   time.Duration // a proven absence
	StaleFor time.Duration // how long past that an answer may be served as stale

	RefreshAhead float64 // share of an answer's life, at its end, in which a hit renews it; 0: none
}

// Slice returns the room's slice, or else what its row says.
func (t *Tuning) Slice(room string, row time.Duration) time.Duration {
	if t != nil {
		for i := range t.Slices {
			if t.Slices[i].Room == room {
				return t.Slices[i].For
			}
		}
	}
	return row
}

// A Dial holds the Tuning in force.
type Dial struct{ at atomic.Pointer[Tuning] }

// NewDial returns a dial that says t.
func NewDial(t Tuning) *Dial {
	d := new(Dial)
	d.at.Store(&t)
	return d
}

// Now returns the Tuning in force. It must not be written to.
func (d *Dial) Now() *Tuning { return d.at.Load() }

// Turn puts t in force for all that begins from here on. One goroutine turns.
func (d *Dial) Turn(t Tuning) {
	t.Serial = d.Now().Serial + 1
	d.at.Store(&t)
}
