package netio

import (
	"context"
	"crypto/rand"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/oklog/ulid/v2"
	"github.com/panjf2000/gnet/v2"

	"svcindex/index"
)

// A loop is what belongs to one gnet event loop. Everything but the section
// named otherwise is touched on that loop only, and so needs no lock.
type loop struct {
	server *Server
	lane   int
	el     gnet.EventLoop
	conns  map[*conn]struct{}
	halved map[*conn]struct{} // whose clients have shut their side

	pending   []*index.Flight // parsed in this tick, not yet pushed
	flights   []*flight       // the same, as ours
	at        time.Time       // of this round; zero: not read yet
	out       int             // flights pushed and not yet home
	ticking   bool            // a tick is scheduled
	arrived   int             // flights parsed since the last tick
	lone      bool            // there was one of them
	direct    bool            // the flight being parsed is ticked at once
	directs   int
	free      []*flight
	kept      int // bytes of free
	apart     []*slot
	tally     tally
	landedAt  time.Time     // when flights came home last
	yielded   time.Time     // when the processor was last let go
	landed    []*flight     // scratch of drain
	asked     request       // scratch of accept
	due       time.Time     // when the look-ups that are parsed now have to be answered
	claim     index.Claim   // scratch of authorize
	watched   []*conn       // looked at in every sweep
	calmSeen  time.Time     // when all connections were looked at last
	calmDue   time.Time     // when the first of those not watched may be due
	calmUnder *index.Tuning // what that was reckoned under
	ids       corrIDs
	runTick   gnet.Runnable
	runSweep  gnet.Runnable
	restless  atomic.Bool  // somebody is watched: every sweep counts
	sweepWait atomic.Bool  // a sweep is scheduled
	sweepFrom atomic.Int64 // since when, unix ns

	// Belong to nobody: workers bring flights home here.
	mu     sync.Mutex
	atHome []*flight
	asleep atomic.Bool // the loop waits to be told of the next one
}

func newLoop(s *Server, lane int) *loop {
	l := &loop{server: s, lane: lane, conns: make(map[*conn]struct{}), halved: make(map[*conn]struct{})}
	l.ids.init()
	l.runTick = gnet.RunnableFunc(func(context.Context) error { l.guard(l.tick); return nil })
	l.runSweep = gnet.RunnableFunc(func(context.Context) error {
		l.sweepWait.Store(false)
		l.guard(func() { l.sweep(time.Now()) })
		return nil
	})
	return l
}

// guard keeps a panic on the loop from ending the process.
func (l *loop) guard(f func()) {
	defer func() {
		if p := recover(); p != nil {
			l.server.panicked(p)
		}
	}()
	f()
}

// Numbers of the prototype: below 32 jobs a push of its own buys nothing, and
// a lane that is filled in one go looks like overload when there is none.
const flushAt = 32

// takeOff hands a flight over with the others of this tick.
func (l *loop) takeOff(f *flight) {
	l.pending = append(l.pending, &f.Flight)
	l.flights = append(l.flights, f)
	l.out++
	l.arrived++
	if len(l.pending) >= flushAt {
		l.flush()
	}
	if !l.direct {
		l.schedule()
	}
}

// lookAgain is after how many requests that came alone a loop looks again
// whether they still do. It is odd, or of requests that come in pairs it might
// only ever see the second.
const lookAgain = 7

// straight reports whether what comes next is ticked at once, and not at the end
// of the round: to ask for that costs a system call and another round of epoll,
// a tenth of a hit that has a round to itself. What has company waits for it,
// because a tick for each would cost more.
func (l *loop) straight() bool {
	if l.ticking || !l.lone {
		return false
	}
	l.directs++
	return l.directs%lookAgain != 0
}

// goStraight ticks for what came directly.
func (l *loop) goStraight() {
	if !l.direct {
		return
	}
	l.direct = false
	if l.arrived > 0 && !l.ticking {
		l.guard(l.tick)
	}
}

// clock returns the time of this round: what comes in one round was here when it
// began, and to read the time for each costs 1 % of a hit.
func (l *loop) clock() time.Time {
	if l.at.IsZero() {
		now := time.Now()
		if !l.ticking {
			return now // nobody would forget it again
		}
		l.at = now
	}
	return l.at
}

// schedule asks for a tick at the end of this round of events.
func (l *loop) schedule() {
	if !l.ticking {
		l.ticking = true
		if l.el.Execute(context.Background(), l.runTick) != nil {
			l.ticking = false
		}
	}
}

// flush pushes what is pending. A lane that is full gets its worker's turn
// before anybody is refused: a worker who has not been let run is no overload.
func (l *loop) flush() {
	took, awaited := 0, false
	for took < len(l.pending) {
		n := l.server.resolver.Push(l.lane, l.pending[took:])
		took += n
		if n == 0 && awaited {
			break
		}
		if awaited = n == 0; awaited {
			l.server.resolver.Await(l.lane)
		}
	}
	for _, f := range l.flights[took:] {
		l.refuse(f)
	}
	clear(l.pending)
	clear(l.flights)
	l.pending, l.flights = l.pending[:0], l.flights[:0]
}

// refuse answers a flight that found the lane full.
func (l *loop) refuse(f *flight) {
	for _, s := range f.slots[:f.n] {
		if !s.local {
			l.server.resolver.Refused(1)
			s.job.InOrder = false
			s.job.Stage = "cache"
			s.out = s.error(s.out[:0], errLaneFull, &s.job)
		}
	}
	f.left.Store(0)
	l.home(f)
}

// home brings a flight back to its loop, from any goroutine.
func (l *loop) home(f *flight) {
	l.mu.Lock()
	l.atHome = append(l.atHome, f)
	l.mu.Unlock()
	if l.asleep.Load() && l.asleep.CompareAndSwap(true, false) {
		_ = l.el.Execute(context.Background(), l.runTick)
	}
}

// roundsMost is how long a tick goes on while what it writes brings new work:
// other connections have sent something, too.
const roundsMost = 64

// tick ends a round of events: what was parsed is pushed, the lane's worker
// gets the processor, and what it finishes is written.
func (l *loop) tick() {
	if l.ticking {
		l.ticking, l.lone = false, l.arrived <= 1
	}
	l.arrived, l.at = 0, time.Time{}
	l.asleep.Store(false)
	for round := 0; len(l.pending) > 0 && round < roundsMost; round++ {
		l.turn()
	}
	l.turn()
	l.yield()
	if l.out == 0 {
		return
	}
	l.flush()
	l.publish() // who is in flight now will be for a while
	l.asleep.Store(true)
	// What came home before the line above told nobody.
	if l.someHome() && l.asleep.CompareAndSwap(true, false) {
		l.schedule()
	}
}

// yieldEvery is how long a loop and its worker may hand each other the
// processor. To the scheduler they are one goroutine that goes on and on: the
// workers of other rooms would wait until it is preempted, and from 10 ms on
// each system call of ours would cost us the processor.
const yieldEvery = time.Millisecond

// yield lets others have the processor: whoever works for us in another room
// at once, the rest now and then.
func (l *loop) yield() {
	if l.out == 0 && l.landedAt.Sub(l.yielded) < yieldEvery {
		return
	}
	l.yielded = l.landedAt
	runtime.Gosched()
	if l.out > 0 {
		l.drain()
	}
}

// turn lets the lane's worker work off what is pending.
func (l *loop) turn() {
	if len(l.pending) > 0 {
		l.flush()
	}
	if l.out > 0 {
		l.server.resolver.Await(l.lane)
		l.drain()
	}
}

func (l *loop) someHome() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.atHome) > 0
}

// drain writes the flights that are home and returns how many.
func (l *loop) drain() int {
	l.mu.Lock()
	l.landed, l.atHome = l.atHome, l.landed[:0]
	l.mu.Unlock()
	if len(l.landed) == 0 {
		return 0
	}
	l.guard(l.countLanded)
	for i, f := range l.landed {
		l.landed[i] = nil
		l.out--
		l.touchDown(f)
	}
	l.at = time.Time{}
	return len(l.landed)
}

// countLanded counts what is home.
func (l *loop) countLanded() {
	l.landedAt = time.Now()
	l.at = l.landedAt
	for _, f := range l.landed {
		l.countAll(f, l.landedAt)
	}
	l.publish()
}

// touchDown lands a flight. A bug there costs its connection, and no other
// flight.
func (l *loop) touchDown(f *flight) {
	c := f.conn
	defer func() {
		if p := recover(); p != nil {
			l.server.panicked(p)
			c.flight = nil
			c.shut()
		}
	}()
	l.land(f)
}

// land writes a flight's answers and lets its connection go on.
func (l *loop) land(f *flight) {
	c := f.conn
	c.flight = nil
	out, last := f.assemble(), f.slots[f.n-1]
	if l.server.draining.Load() && !last.close && c.allRead() {
		out = last.sayClose(out)
	}
	c.write(out, last.close)
	l.release(f)
	c.advance()
}

// corrIDs makes correlation ids: ULIDs whose random part is drawn once and then
// counts up, which is as unique and cheaper. It counts in the text itself:
// encoding one costs as much as a look-up.
type corrIDs struct {
	text [ulid.EncodedSize]byte
	ms   int64 // what the first ten digits say
}

const (
	ulidTime   = 10 // digits of a ULID that are its time
	ulidDigits = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
)

// ulidNext is the digit that follows each; the first follows the last.
var ulidNext = func() (t [256]byte) {
	for i := range ulidDigits {
		t[ulidDigits[i]] = ulidDigits[(i+1)%len(ulidDigits)]
	}
	return t
}()

func (c *corrIDs) init() {
	var id ulid.ULID
	_, _ = rand.Read(id[6:])
	_ = id.MarshalTextTo(c.text[:])
}

// give gives the request its correlation id: the client's, if it is harmless
// to echo, or a fresh one.
func (c *corrIDs) give(s *slot, given []byte, now time.Time) {
	if harmless(given) && len(given) <= len(s.corr) {
		s.corrLen = uint8(copy(s.corr[:], given))
		return
	}
	if ms := now.UnixMilli(); ms != c.ms {
		c.ms = ms
		for i := range ulidTime {
			c.text[ulidTime-1-i] = ulidDigits[ms&31]
			ms >>= 5
		}
	}
	s.corrLen = uint8(copy(s.corr[:], c.text[:]))
	c.next() // after the copy, which would have to wait for the octet this writes
}

// next counts the random part up by one.
func (c *corrIDs) next() {
	for i := len(c.text) - 1; i >= ulidTime; i-- {
		c.text[i] = ulidNext[c.text[i]]
		if c.text[i] != ulidDigits[0] {
			return
		}
	}
}

// harmless reports whether a client's correlation id may be echoed.
func harmless(id []byte) bool {
	for _, b := range id {
		if !(b >= '0' && b <= '9' || b >= 'A' && b <= 'Z' || b >= 'a' && b <= 'z' || b == '_' || b == '-') {
			return false
		}
	}
	return len(id) > 0
}

// callFor schedules a sweep. Only the clock calls it.
func (l *loop) callFor(now time.Time) {
	l.sweepFrom.Store(now.UnixNano()) // before the flag: who sees that reads this
	l.sweepWait.Store(true)
	if l.el.Execute(context.Background(), l.runSweep) != nil {
		l.sweepWait.Store(false)
	}
}

// sweep closes what is past its deadline. Connections that wait for nothing
// but their next request are looked at when the first of them may be due, once
// in calmRounds sweeps at most: idle ones by the thousand cost nothing.
func (l *loop) sweep(now time.Time) {
	watched := l.watched
	l.watched = l.watched[:0]
	for i, c := range watched {
		watched[i] = nil
		c.watched = false
		c.check(now)
		l.expect(c)
	}
	due := now.After(l.calmDue) && now.Sub(l.calmSeen) >= calmRounds*sweepRound
	if t := l.server.opt.Dial.Now(); due || t != l.calmUnder || l.server.draining.Load() {
		// No newcomer is due before that.
		l.calmUnder, l.calmSeen, l.calmDue = t, now, now.Add(t.IdleTimeout)
		for c := range l.conns {
			if !c.watched {
				c.check(now)
				l.expect(c)
			}
		}
	}
	l.restless.Store(len(l.watched) > 0)
}

// expect has the calm connections looked at when this one is due.
func (l *loop) expect(c *conn) {
	if c.gc == nil || c.watched {
		return
	}
	if due := c.due(); due.Before(l.calmDue) {
		l.calmDue = due
	}
}

const calmRounds = 10

// check holds one connection to its deadlines. A bug there costs it, and no
// other.
func (c *conn) check(now time.Time) {
	defer func() {
		if p := recover(); p != nil {
			c.loop.server.panicked(p)
			c.shut()
		}
	}()
	c.checkDeadline(now)
	c.watch()
}

// watch has the next sweep look at the connection, if its client owes it
// something: the rest of a request, or the reading of an answer.
func (c *conn) watch() {
	if c.watched || c.gc == nil || c.began.IsZero() && !c.ending && c.unsent == 0 && !c.paused {
		return
	}
	c.watched = true
	c.loop.watched = append(c.loop.watched, c)
	if len(c.loop.watched) == 1 {
		c.loop.restless.Store(true)
	}
}
