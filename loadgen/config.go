package loadgen

import (
	"errors"
	"fmt"
	"runtime"
	"strings"
	"time"
)

// Limits of a run: whatever is asked for, it ends, and its report fits.
const (
	DurationMax = 24 * time.Hour // of the measured time
	RequestsMax = 1_000_000_000

	threadsMax = 64
	connsMax   = 60_000 // the local ports of one address
	depthMax   = 1024
	placesMax  = 1 << 20 // connections x pipeline: there is memory for each
)

// What a Config means when it does not say.
const (
	DefaultTimeout = 5 * time.Second
	DefaultDrain   = time.Second
	DefaultSpin    = 50 * time.Microsecond
)

// An Asker writes requests. Each thread has its own, so it may keep a buffer;
// what it writes for a number must depend on nothing but that number.
type Asker interface {
	// Ask appends the bytes of request n to dst. headless says that its answer
	// will have no body, as for a HEAD.
	Ask(dst []byte, n int64) (out []byte, headless bool)
}

// A Config says what to do to whom.
type Config struct {
	Network, Address string       // tcp and host:port, or unix and a path
	NewAsker         func() Asker // called once a thread
	SourceField      string       // the answers' header by which results are split; may be empty

	Pacer    Pacer         // nil: a closed loop, the next request as soon as a connection is free
	Random   bool          // Poisson arrivals at the pacer's rate instead of even ones
	Warmup   time.Duration // before the measured time, at the pacer's first rate
	Duration time.Duration // of the measured time
	Requests int64         // at most so many, warm-up included; 0 means RequestsMax
	Seed     uint64

	Connections int
	Threads     int
	Pipeline    int           // requests on one connection at once
	Inflight    int           // requests at once in all; 0 means as many as fit
	Churn       int           // a connection is replaced after so many requests; 0 means never
	Timeout     time.Duration // for an answer, from when its request was sent
	Drain       time.Duration // for sending what was due but found no free connection
	Spin        time.Duration // polled for before a due instant; 0: DefaultSpin if there is a processor for it; negative: not at all

	Live func(Live) // called once a second; may be nil
	Done func(End)  // called by the threads at each request's end; may be nil
}

// An End is what became of a request. Its instants carry the monotonic clock;
// those that never came are zero.
type End struct {
	N      int64
	Status int  // 0: no answer
	Warm   bool // due before the measured time

	Due, Sent, First, Done time.Time
}

// A Live is how a run is going.
type Live struct {
	At, Of   time.Duration // negative while warming up
	Inflight int64
	Due      int64 // so far, like Answered
	Answered int64
	Last     Second // the last whole one
}

func (c Config) withDefaults() Config {
	set := func(p *int, v int) {
		if *p == 0 {
			*p = v
		}
	}
	set(&c.Connections, 64)
	set(&c.Threads, 1)
	set(&c.Pipeline, 1)
	set(&c.Inflight, c.Connections*c.Pipeline)
	if c.Requests <= 0 || c.Requests > RequestsMax {
		c.Requests = RequestsMax
	}
	if c.Timeout == 0 {
		c.Timeout = DefaultTimeout
	}
	if c.Drain == 0 {
		c.Drain = DefaultDrain
	}
	switch {
	case c.Spin < 0, c.Spin == 0 && runtime.NumCPU() <= c.Threads:
		c.Spin = 0 // spinning might take the processor away from the server
	case c.Spin == 0:
		c.Spin = DefaultSpin
	}
	if c.Pacer != nil && c.Warmup > 0 {
		c.Pacer = after{c.Pacer, c.Warmup}
	}
	c.SourceField = strings.ToLower(c.SourceField)
	return c
}

// Check says what of c cannot be done. Run does, too, but not before a server
// has been filled.
func (c Config) Check() error {
	c = c.withDefaults()
	return c.check()
}

// check refuses what cannot be done.
func (c *Config) check() error {
	for _, v := range []struct {
		what      string
		n, lo, hi int
	}{
		{"connections", c.Connections, 1, connsMax},
		{"pipeline", c.Pipeline, 1, depthMax},
		{"inflight", c.Inflight, 1, c.Connections * c.Pipeline},
		{"threads", c.Threads, 1, min(threadsMax, c.Connections, c.Inflight)},
	} {
		if v.n < v.lo || v.n > v.hi {
			return fmt.Errorf("%s is %d, it must be %d to %d (threads and requests in flight need connections to be on)", v.what, v.n, v.lo, v.hi)
		}
	}
	switch {
	case c.Duration <= 0 || c.Duration > DurationMax:
		return fmt.Errorf("a run lasts more than nothing and at most %v, not %v", DurationMax, c.Duration)
	case c.Warmup < 0 || c.Warmup > DurationMax || c.Timeout < 0 || c.Drain < 0 || c.Churn < 0:
		return errors.New("warm-up, timeout, drain and churn cannot be negative")
	case c.Connections*c.Pipeline > placesMax:
		return fmt.Errorf("%d connections x %d are %d places for requests, there are at most %d: lower one of them",
			c.Connections, c.Pipeline, c.Connections*c.Pipeline, placesMax)
	}
	return nil
}
