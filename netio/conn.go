package netio

import (
	"math"
	"time"

	"github.com/panjf2000/gnet/v2"
	"golang.org/x/sys/unix"

	"svcindex/index"
)

// A conn is one client connection. All of it belongs to its event loop.
type conn struct {
	loop *loop
	gc   gnet.Conn // nil once gnet has let go of it
	peer *peer     // whose it is

	flight *flight       // the one that is out, nil if none
	tuning *index.Tuning // of the request in hand, or else of the last
	known  knownHead     // of the last usual request
	late   bool          // opened after the drain had begun

	// The request whose head has come and whose body has not.
	body     bodyKind
	need     int64 // bytes of a counted body still to come
	chunk    chunked
	buf      []byte // what has come of a body that is kept
	sunk     int64  // bytes of a body that is thrown away
	waiting  *slot  // answered or sent on when the body is whole; nil: answered already
	budgeted int64  // bytes of ours in the global budget
	want100  bool   // the client waits for leave to send the body

	scanned  int       // bytes at the front of the input known to hold no whole head
	began    time.Time // first byte of the request that is not whole; zero: none
	idle     time.Time // when something was asked last
	full     time.Time // since when something waits for the client to read it; zero: nothing
	stuck    time.Time // since when it has read nothing of that
	unsent   int       // how much waits
	inKernel int       // how much more of it the kernel had when stuck was noted; 0: not looked at
	queued   int64     // bytes ever written to it
	fullAt   int64     // queued at full
	ahead    int       // bytes it has sent that are not parsed yet
	paused   bool      // parsing waits for it to read
	ending   bool      // close when all is written
	watched  bool      // the next sweep looks at it
	linger   time.Time // our side is shut; wait for the client's until then
	halfGone bool      // the client has shut its side: rest and half take the place of gc
	rest     []byte
	half     *halfConn
}

type bodyKind uint8

const (
	noBody bodyKind = iota
	keptBody
	sunkBody
)

const (
	lingerFor = 2 * time.Second // for a client to notice that we are through with it
	sinkMax   = 64 << 10        // bytes of an unwanted body that are read to keep the connection
	unsentMax = 256 << 10       // bytes waiting for a client above which nothing more is parsed for it
	aheadBody = 4 << 20         // bytes of a body that may come ahead where limits.body is off
)

// aheadMax is how many bytes a client may send ahead of its answers: a whole
// head and body, and a little. gnet cannot stop reading, so beyond it the
// connection is closed.
func (c *conn) aheadMax() int {
	body := c.tuning.BodyBytes
	if body == 0 {
		body = aheadBody
	}
	return c.tuning.HeadBytes + int(body) + 64<<10
}

// advance goes on with whatever has arrived, until a flight is out or nothing
// more can be done. It is called when something came and when a flight landed.
func (c *conn) advance() {
	for c.ready() {
		in := c.input()
		if len(in) == 0 && c.body == noBody {
			break
		}
		n := c.consume(in)
		c.discard(n)
		if n == 0 {
			break
		}
	}
	c.settle()
}

// ready reports whether another request may be parsed. While a client does not
// read, its next requests wait: what waits for it in both directions is bounded.
func (c *conn) ready() bool {
	if c.flight != nil || c.ending || c.gc == nil && !c.halfGone {
		return false
	}
	if c.halfGone {
		return !c.holdsEnough(len(c.half.buf)) && time.Now().Before(c.half.until)
	}
	c.paused = c.holdsEnough(c.gc.OutboundBuffered())
	return !c.paused
}

// holdsEnough reports whether a client that has left so many bytes unread is
// answered nothing more for now: a little is enough while all together hold too
// much, or many could each hold a little.
func (c *conn) holdsEnough(unread int) bool {
	return unread >= unsentMax || unread > 0 && c.overBudget()
}

// overBudget reports whether all clients together hold more than they may.
func (c *conn) overBudget() bool {
	most := c.tuning.BufferedBytes
	return most > 0 && c.loop.server.counts.BufferedBytes.Load() > most
}

func (c *conn) input() []byte {
	if c.halfGone {
		return c.rest
	}
	in, _ := c.gc.Peek(-1)
	return in
}

func (c *conn) discard(n int) {
	switch {
	case n == 0:
	case c.halfGone:
		c.rest = c.rest[n:]
	case c.gc != nil:
		_, _ = c.gc.Discard(n)
	}
	if n > 0 {
		c.scanned = 0
	}
}

// settle notes what the connection now waits for.
func (c *conn) settle() {
	defer c.watch()
	switch {
	case c.halfGone:
		if c.flight == nil {
			c.half.finish(c)
		}
		return
	case c.gc == nil:
		return
	}
	c.noteAhead()
	switch {
	case c.gc == nil: // it was too far ahead
		return
	case c.ending:
		c.tryEnd()
		return
	case c.flight != nil, c.paused:
		c.began = time.Time{} // it is we who keep the client waiting
		return
	}
	waitsForMore := c.gc.InboundBuffered() > 0 || c.body != noBody
	switch {
	case waitsForMore && c.began.IsZero():
		c.began = c.loop.clock()
	case !waitsForMore:
		c.began = time.Time{}
		c.idle = c.loop.clock()
	}
}

// consume takes what it can from in and returns how many bytes that was.
func (c *conn) consume(in []byte) (n int) {
	c.retune()
	f := c.loop.newFlight(c)
	now := c.loop.clock()
	c.loop.due = now.Add(c.tuning.Budget)
	for c.flight == nil && !c.ending && f.n < flightMax {
		if c.body != noBody {
			k, s := c.readBody(in[n:])
			n += k
			if c.body != noBody {
				break
			}
			if s != nil {
				c.launch(f, s, now)
				return n
			}
			continue
		}
		k, more := c.readHead(f, in[n:], now)
		n += k
		if !more {
			break
		}
	}
	c.depart(f)
	return n
}

// retune takes up the configuration in force, unless a request is in hand: that
// goes on under the one it began under.
func (c *conn) retune() {
	if c.flight == nil && c.body == noBody && c.began.IsZero() {
		c.tuning = c.loop.server.opt.Dial.Now()
	}
}

// depart sends a flight on its way, or writes it at once if all of it was
// answered here.
func (c *conn) depart(f *flight) {
	if f.n == 0 {
		c.loop.release(f)
		return
	}
	abroad := int32(0)
	for _, s := range f.slots[:f.n] {
		if s.local {
			f.Jobs = append(f.Jobs, nil)
			continue
		}
		f.Jobs = append(f.Jobs, &s.job)
		abroad++
	}
	if abroad > 0 {
		f.left.Store(abroad)
		c.flight = f
		c.loop.takeOff(f)
		return
	}
	c.loop.countAll(f, time.Now())
	c.loop.publish()
	c.write(f.assemble(), f.slots[f.n-1].close)
	c.loop.release(f)
}

// launch moves a request whose body is now whole into the flight and sends it:
// a write to its room, a look-up down the lane; or answers it here.
func (c *conn) launch(f *flight, s *slot, now time.Time) {
	f.append(s)
	if s.verdict != nil {
		s.refuse(s.verdict)
		c.depart(f)
		return
	}
	if s.job.Ask == 0 {
		s.local = true
		s.answerLocally(s.what)
		c.depart(f)
		return
	}
	s.began = now
	s.job.Deadline = now.Add(timeout(&s.job))
	c.loop.tally.inflight[s.route]++
	if s.job.Ask.IsLookup() {
		c.depart(f)
		return
	}
	s.job.Body, c.buf = c.buf, nil
	f.left.Store(1)
	c.flight = f
	c.loop.out++
	c.loop.schedule()
	if !c.loop.server.resolver.Write(&s.job) {
		s.out = s.failure(s.out[:0], index.Busy)
		f.left.Store(0)
		c.loop.home(f)
	}
}

// readHead reads one request head into the flight. more: another request may
// follow in the same flight.
func (c *conn) readHead(f *flight, in []byte, now time.Time) (n int, more bool) {
	if len(in) == 0 || !c.worthParsing(in) {
		return 0, false
	}
	h := &c.known.head
	if n = c.known.again(in, c.tuning.HeadBytes, c.tuning.TargetBytes); n == 0 {
		var fresh head
		h = &fresh
		var err *refusal
		n, err = parseHead(in, h, c.tuning.HeadBytes, c.tuning.TargetBytes)
		if err != nil {
			c.refuse(f, err, now)
			return len(in), false
		}
		if n == 0 {
			c.scanned = len(in)
			return 0, false
		}
		c.known.remember(in[:n], h)
	}
	c.scanned, c.began = 0, c.firstByte(now)
	more = c.accept(f, h, now, n == len(in))
	c.known.head.target = nil // it goes with the input
	if c.body == noBody {
		c.began = time.Time{}
	}
	return n, more
}

// worthParsing keeps a head that comes in drops from being read from its start
// for every drop: only a new line can change the verdict, or coming near the
// cap, or an early byte that no request begins with.
func (c *conn) worthParsing(in []byte) bool {
	most := c.tuning.TargetBytes
	if c.scanned == 0 || c.scanned > len(in) || len(in) >= c.tuning.HeadBytes || len(in) > most && c.scanned <= most+methodMax+16 {
		return true
	}
	for _, b := range in[c.scanned:] {
		if b == '\n' {
			return true
		}
	}
	c.scanned = len(in)
	return false
}

// expectBody says how the body of the request just read is delimited. It
// returns a refusal when it can already be seen to be too large.
func (c *conn) expectBody(h *head, keep bool) *refusal {
	most := c.tuning.BodyBytes
	switch {
	case h.length > most && most > 0:
		return errBodyLong
	case !keep && h.length > sinkMax:
		return errBodyCap
	}
	c.body = sunkBody
	if keep {
		c.body = keptBody
	}
	c.need, c.chunk, c.buf, c.sunk = max(h.length, 0), chunked{}, nil, 0
	if h.chunked {
		c.need = -1
	}
	return nil
}

// readBody takes what there is of the body. When it is whole it returns the
// request that waited for it.
func (c *conn) readBody(in []byte) (n int, s *slot) {
	done, err := false, (*refusal)(nil)
	if c.want100 && len(in) == 0 && c.gc != nil {
		_, _ = c.gc.Write([]byte("HTTP/1.1 100 Continue\r\n\r\n"))
	}
	c.want100 = false
	if c.need >= 0 {
		n = int(min(c.need, int64(len(in))))
		if c.body == keptBody {
			if !c.budget(n) {
				return c.failBody(in, errBuffered)
			}
			c.buf = append(grow(c.buf, c.need), in[:n]...)
		}
		c.need -= int64(n)
		done = c.need == 0
	} else {
		most := c.tuning.BodyBytes
		switch {
		case c.body == sunkBody:
			most = sinkMax
		case most == 0:
			most = math.MaxInt64
		}
		had := len(c.buf)
		var out []byte
		out, n, done, err = c.chunk.decode(c.buf, in, most)
		if err == errBodyCap && c.body == keptBody {
			err = errBodyLong
		}
		if err != nil {
			return c.failBody(in, err)
		}
		if c.body == keptBody {
			c.buf = out
			if !c.budget(len(out) - had) {
				return c.failBody(in, errBuffered)
			}
		} else {
			c.buf = out[:0]
		}
	}
	c.sunk += int64(n)
	if c.body == sunkBody && c.sunk > sinkMax && !done {
		return c.failBody(in, errBodyCap)
	}
	if !done {
		return n, nil
	}
	c.body = noBody
	c.began = time.Time{}
	s, c.waiting = c.waiting, nil
	return n, s
}

// grow makes room for a counted body at once, unless it is large: then memory
// follows the bytes that have come, not those that were promised.
func grow(b []byte, need int64) []byte {
	if b == nil {
		return make([]byte, 0, min(need, 64<<10))
	}
	return b
}

// budget takes n bytes from what all bodies together may hold.
func (c *conn) budget(n int) bool {
	s := c.loop.server
	c.budgeted += int64(n)
	total := s.counts.BufferedBytes.Add(int64(n))
	return c.tuning.BufferedBytes == 0 || total <= c.tuning.BufferedBytes
}

// freeBudget gives the bytes back.
func (c *conn) freeBudget() {
	if c.budgeted == 0 {
		return
	}
	c.loop.server.counts.BufferedBytes.Add(-c.budgeted)
	c.budgeted = 0
}

// failBody refuses a request because of its body.
func (c *conn) failBody(in []byte, r *refusal) (n int, s *slot) {
	s, c.waiting = c.waiting, nil
	c.body, c.buf = noBody, nil
	f := c.loop.newFlight(c)
	f.append(s)
	s.close = true // the rest of the body cannot be told from a request
	s.refuse(r)
	c.depart(f)
	return len(in), nil
}

// write sends the answers of a flight. last: the connection ends with them.
func (c *conn) write(b []byte, last bool) {
	c.freeBudget()
	if last {
		c.ending = true
	}
	switch {
	case c.halfGone:
		c.half.write(c, b)
	case c.gc == nil:
		c.loop.server.counts.ClientAborts.Add(1)
	default:
		c.queued += int64(len(b))
		_, _ = c.gc.Write(b) // an error closes the connection: OnClose hears of it
		c.noteUnsent(time.Time{})
	}
}

// noteAhead keeps the books on what the client has sent ahead of its answers.
// gnet cannot stop reading, so who is too far ahead, alone or when all together
// hold too much, is closed.
func (c *conn) noteAhead() {
	ahead := c.gc.InboundBuffered()
	if ahead == c.ahead || c.late && ahead < c.tuning.HeadBytes {
		return // who comes during a drain must not prolong it
	}
	s := c.loop.server
	total := s.counts.BufferedBytes.Add(int64(ahead - c.ahead))
	c.ahead = ahead
	if ahead > c.aheadMax() || ahead > c.tuning.HeadBytes && c.tuning.BufferedBytes > 0 && total > c.tuning.BufferedBytes {
		s.counts.SlowClosed.Add(1)
		c.shut()
	}
}

// noteUnsent keeps the books on what the client has not read yet.
func (c *conn) noteUnsent(now time.Time) {
	if c.gc == nil {
		return
	}
	unsent := c.gc.OutboundBuffered()
	if unsent == c.unsent && (unsent == 0 || !c.full.IsZero()) {
		return
	}
	if now.IsZero() {
		now = time.Now()
	}
	switch sent := c.queued - int64(unsent); {
	case unsent == 0:
		c.full = time.Time{}
	case c.full.IsZero():
		c.full, c.stuck, c.fullAt, c.inKernel = now, now, c.queued, 0
	case sent >= c.fullAt: // what waited then has been read
		c.full, c.fullAt = now, c.queued
	}
	if unsent < c.unsent {
		c.stuck, c.inKernel = now, 0
	}
	c.loop.server.counts.BufferedBytes.Add(int64(unsent - c.unsent))
	c.unsent = unsent
}

// allRead reports whether nothing the client has sent is left to be answered.
func (c *conn) allRead() bool {
	return c.gc != nil && c.gc.InboundBuffered() == 0 && c.body == noBody && !c.moreCame()
}

// moreCame reports whether the kernel holds bytes that the loop has not read
// yet. A loop that comes late must not take them for bytes that came late.
func (c *conn) moreCame() bool {
	if c.gc == nil {
		return false // its client has shut its side, and all that came is ours
	}
	var peek [1]byte
	n, _, err := unix.Recvfrom(c.gc.Fd(), peek[:], unix.MSG_PEEK|unix.MSG_DONTWAIT)
	return err == nil && n > 0
}

// firstByte returns since when the request in hand has been coming, for the
// time that its body still has: none if it came whole.
func (c *conn) firstByte(now time.Time) time.Time {
	if c.began.IsZero() {
		return now
	}
	return c.began
}

// tryEnd ends the connection once everything is written: our side is shut
// first, and what the client still sends is read and thrown away for a while.
// Closing with unread bytes would reset the connection, and the reset can
// overtake the answer.
func (c *conn) tryEnd() {
	if c.gc == nil || c.gc.OutboundBuffered() > 0 || !c.linger.IsZero() {
		return
	}
	c.linger = time.Now().Add(lingerFor)
	_, _ = c.gc.Discard(-1)
	c.noteAhead()
	_ = unix.Shutdown(c.gc.Fd(), unix.SHUT_WR) // on the loop, and open: the descriptor is ours
}

// checkDeadline closes what has taken too long. It runs at every sweep.
func (c *conn) checkDeadline(now time.Time) {
	if c.gc == nil {
		return
	}
	c.retune()
	o := c.tuning
	c.noteUnsent(now)
	unsent := c.unsent
	switch {
	case !c.linger.IsZero():
		if now.After(c.linger) {
			c.shut()
		}
	case unsent > 0 && (c.isStuck(now) || now.Sub(c.full) > o.IdleTimeout):
		c.loop.server.counts.SlowClosed.Add(1)
		c.shut()
	case c.ending:
		c.tryEnd()
	case c.flight != nil:
		if now.After(c.due()) {
			c.loop.server.panicked("a flight never came home")
			c.shut()
		}
	case c.paused:
		if unsent < unsentMax/2 {
			c.advance()
		}
	case !c.began.IsZero():
		if now.Sub(c.began) > o.RequestTimeout {
			c.tooSlow(now)
		}
	case unsent == 0 && (now.Sub(c.idle) > o.IdleTimeout || c.loop.server.draining.Load() && now.Sub(c.idle) > drainQuiet) && c.allRead():
		if now.Sub(c.idle) > o.IdleTimeout {
			c.loop.server.counts.IdleClosed.Add(1)
		}
		c.ending = true
		c.tryEnd()
	}
}

// isStuck reports whether the client has read nothing for too long. The kernel
// takes more only when a third of what it has is gone, which may be a megabyte:
// before somebody who reads slowly is taken for one who does not, it is asked.
func (c *conn) isStuck(now time.Time) bool {
	late := now.Sub(c.stuck) > c.tuning.RequestTimeout
	if !late && c.inKernel > 0 {
		return false
	}
	left, err := unix.IoctlGetInt(c.gc.Fd(), unix.SIOCOUTQ)
	read := err == nil && left < c.inKernel
	c.inKernel = left
	if late && read {
		c.stuck = now
		return false
	}
	return late
}

// due is when a connection of which nothing is owed has to be looked at.
func (c *conn) due() time.Time {
	o := c.tuning
	if c.flight != nil {
		return c.flight.slots[0].began.Add(o.WriteTimeout + o.Budget + o.IdleTimeout)
	}
	return c.idle.Add(o.IdleTimeout)
}

// tooSlow answers a request that did not arrive in time.
func (c *conn) tooSlow(now time.Time) {
	c.loop.server.counts.SlowClosed.Add(1)
	f := c.loop.newFlight(c)
	if s := c.waiting; s != nil {
		f.append(s)
		s.refuse(errSlow)
	} else {
		c.refuse(f, errSlow, now)
	}
	c.body, c.waiting, c.buf = noBody, nil, nil
	c.depart(f)
	c.tryEnd()
}

// shut closes the connection without further ado.
func (c *conn) shut() {
	switch {
	case c.halfGone:
		c.half.finish(c)
	case c.gc != nil:
		_ = c.loop.el.Close(c.gc)
	}
}
