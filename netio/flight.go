package netio

import (
	"bytes"
	"sync/atomic"
	"time"

	"svcindex/index"
)

// flightMax is how many requests of one connection travel together. Enough
// that a pipelining client pays one write and one wake-up for all of them; few
// enough that live jobs are bounded by connections x flightMax.
const flightMax = 16

// A flight is a connection's requests on their way. A connection has at most
// one out, which is why answers need no sequence numbers: its jobs finish in
// any order into their slots, and the last one home sends the lot.
type flight struct {
	index.Flight
	loop  *loop
	conn  *conn // used on the event loop only
	slots []*slot
	n     int // slots in use
	size  int // bytes of it, while it is kept for later

	left atomic.Int32 // jobs not yet home
	out  []byte       // the answers that came in order; then all of them
}

// A slot is one request of a flight and its answer. What a hit touches stands
// together and first, as in the job.
type slot struct {
	flight *flight
	server *Server

	// Set on the event loop before take-off.
	route       index.Route
	method      index.Method
	head        bool  // HEAD: no body
	old         bool  // HTTP/1.0 that keeps the connection
	close       bool  // the connection ends with this answer
	local       bool  // answered on the loop
	what        local // which local answer, if it is one
	corrLen     uint8
	limit       reading // of the limit nearest to its end
	began       time.Time
	ifNoneMatch []byte

	// Belong to whoever holds the job.
	refused   bool // counts in rejected_total
	rejected  index.Reject
	uncounted bool
	status    int
	start     int    // where the answer begins in flight.out, if it is in order
	mark      int    // where the page begins in what Open lent; 0: nothing lent
	out       []byte // the answer, if it could not go into flight.out

	corr    [64]byte
	job     index.Job
	verdict *refusal // of a request that only waits for the end of its body
}

var _ index.Replier = (*slot)(nil)

// newFlight returns an empty flight of the loop's, for the event loop only.
func (l *loop) newFlight(c *conn) *flight {
	var f *flight
	if n := len(l.free); n > 0 {
		f = l.free[n-1]
		l.free = l.free[:n-1]
		l.kept -= f.size
	} else {
		f = &flight{loop: l}
	}
	f.conn = c
	f.Gone.Store(false)
	return f
}

// keptMost is how many bytes a loop keeps in flights for later: those of 5,000
// connections that ask for one thing at a time, or of 400 that pipeline.
const keptMost = 16 << 20

// What a flight and a slot are in bytes, as Go allocates them.
const (
	flightBytes = 144
	slotBytes   = 1152
)

// release takes back a flight that is home. It keeps small buffers and nothing
// else of what went by.
func (l *loop) release(f *flight) {
	for _, s := range f.slots[:f.n] {
		s.wipe()
	}
	f.conn, f.n = nil, 0
	f.Jobs = f.Jobs[:0]
	f.out = reusable(f.out)
	f.size = flightBytes + cap(f.out) + len(f.slots)*slotBytes
	for _, s := range f.slots {
		f.size += cap(s.out)
	}
	if l.kept+f.size <= keptMost {
		l.kept += f.size
		l.free = append(l.free, f)
	}
}

// wipe makes a slot ready for its next request. To clear all of it takes 4 % of
// a pipelined hit, which leaves few traces: what the next request does not write
// in any case is undone here.
func (s *slot) wipe() {
	j := &s.job
	if !j.Hit || j.Ask != index.AskResolve {
		s.clear()
		return
	}
	s.ifNoneMatch, s.limit, s.out = nil, reading{}, reusable(s.out)
	s.start, s.mark, s.status = 0, 0, 0
	j.Format, j.Who, j.Result, j.Hit, j.InOrder = index.JSON, "", index.OK, false, false
	j.Hash, j.Deadline = 0, time.Time{}
	a := &j.Answer
	a.Page, a.From, a.Age, a.Aging = nil, index.FromNowhere, 0, false
}

// clear makes a slot new, but for its memory.
func (s *slot) clear() { *s = slot{flight: s.flight, server: s.server, out: reusable(s.out)} }

// bufferKept is the largest answer buffer that is used again.
const bufferKept = 64 << 10

func reusable(b []byte) []byte {
	if cap(b) > bufferKept {
		return nil
	}
	return b[:0]
}

// slot adds a request to the flight.
func (f *flight) slot() *slot {
	if f.n == len(f.slots) {
		f.slots = append(f.slots, &slot{flight: f, server: f.loop.server})
	}
	s := f.slots[f.n]
	f.n++
	return s
}

// newSlot returns a slot for a request that waits for its body, apart from any
// flight.
func (l *loop) newSlot() *slot {
	n := len(l.apart)
	if n == 0 {
		return &slot{server: l.server}
	}
	s := l.apart[n-1]
	l.apart = l.apart[:n-1]
	return s
}

// apartMost is how many slots are kept for requests that wait for their bodies.
// Nearly all come with theirs, and need one between them.
const apartMost = 64

// append adds a request that was made apart from any flight. The slot whose
// place it takes is the next one's.
func (f *flight) append(s *slot) {
	switch l := f.loop; {
	case f.n == len(f.slots):
		f.slots = append(f.slots, s)
	case len(l.apart) < apartMost:
		l.apart = append(l.apart, f.slots[f.n])
	}
	f.slots[f.n], s.flight = s, f
	f.n++
}

// refuse answers the request here and now.
func (s *slot) refuse(r *refusal) {
	s.local = true
	s.out = s.error(s.out[:0], r, nil)
}

// Open implements index.Replier: it lends the cache the buffer the answer is
// to stand in, with its first lines, so that a hit is copied once.
func (s *slot) Open(j *index.Job) {
	s.mark = 0
	if s.head || s.ifNoneMatch != nil {
		return
	}
	buf := s.appendHead(s.begin(j), 200)
	s.mark = len(buf)
	j.Answer.Page = buf
}

// Gone implements index.Replier.
func (s *slot) Gone() bool { return s.flight.Gone.Load() }

// Reply implements index.Replier: the answer is rendered by whoever finished
// the job, and the last one home sends the flight back to its loop.
func (s *slot) Reply(j *index.Job) {
	f := s.flight
	s.answer(j)
	if f.left.Add(-1) == 0 {
		f.loop.home(f)
	}
}

// answer renders. A bug there costs this request a 500, and nobody the flight.
func (s *slot) answer(j *index.Job) {
	defer func() {
		if p := recover(); p != nil {
			s.server.panicked(p)
			s.into(j, s.error(s.begin(j), errPanic, nil))
		}
	}()
	if !s.hit(j) {
		s.into(j, s.respond(s.begin(j)))
	}
}

// begin returns what the answer is appended to, and into puts the result back.
func (s *slot) begin(j *index.Job) []byte {
	if j.InOrder {
		s.start = len(s.flight.out)
		return s.flight.out
	}
	return s.out[:0]
}

func (s *slot) into(j *index.Job, b []byte) {
	if j.InOrder {
		s.flight.out = b
	} else {
		s.out = b
	}
}

// hit completes an answer that the cache copied into what Open lent.
func (s *slot) hit(j *index.Job) bool {
	mark, a := s.mark, &j.Answer
	if mark == 0 || !j.Hit {
		return false
	}
	buf := a.Page
	if len(buf) == mark { // the whole set, for an asker with parameters
		a.Page = nil
		return false
	}
	patch(buf[mark:], s.server.date.Load(), index.FromCache, a.Age)
	s.into(j, buf)
	return true
}

// assemble appends the answers that did not come in order. It runs on the
// event loop, once all are home.
func (f *flight) assemble() []byte {
	one := f.n == 1 && len(f.out) == 0
	for _, s := range f.slots[:f.n] {
		if !s.local && s.job.InOrder {
			continue
		}
		if one {
			return s.out
		}
		f.out = append(f.out, s.out...)
	}
	return f.out
}

// sayClose adds Connection: close to the last answer of a flight, which was
// rendered before anybody knew.
func (s *slot) sayClose(out []byte) []byte {
	const line = "Connection: close\r\n"
	at := s.start
	if s.local || !s.job.InOrder {
		at = len(out) - len(s.out)
	}
	at += bytes.IndexByte(out[at:], '\n') + 1
	s.close = true
	if s.old {
		return out // it has a Connection field already; the end says enough
	}
	out = append(out, line...)
	copy(out[at+len(line):], out[at:])
	copy(out[at:], line)
	return out
}
