package netio

import (
	"context"
	"crypto/rand"
	"encoding/binary"
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
	out       int             // flights pushed and not yet home
	ticking   bool            // a tick is scheduled
	free      []*flight
	landed    []*flight   // scratch of drain
	asked     request     // scratch of accept
	claim     index.Claim // scratch of authorize
	watched   []*conn     // looked at in every sweep
	sweeps    int
	ids       corrIDs
	runTick   gnet.Runnable
	runSweep  gnet.Runnable
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
	if len(l.pending) >= flushAt {
		l.flush()
	}
	l.schedule()
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

// flush pushes what is pending. A lane may look full because its worker had no
// chance to run yet: it gets one before anybody is refused.
func (l *loop) flush() {
	took := l.server.resolver.Push(l.lane, l.pending)
	if took < len(l.pending) {
		runtime.Gosched()
		took += l.server.resolver.Push(l.lane, l.pending[took:])
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

// rounds is how often a tick yields to the workers before it goes back to
// waiting for events. Twice at least: Go's scheduler now and then hands the
// yielding goroutine straight back, and a loop that then blocks in epoll keeps
// the processor from the very workers it waits for, for 10 ms and more.
const (
	rounds     = 2
	roundsMost = 64 // and no longer, while there is: other connections have sent something, too
)

// tick ends a round of events: what was parsed is pushed, the workers get the
// processor, and what they finish meanwhile is written. It stays while that
// brings new work to do.
func (l *loop) tick() {
	l.ticking = false
	l.asleep.Store(false)
	for idle, busy := 0, 0; idle < rounds && busy < roundsMost; {
		l.flush()
		if l.out == 0 {
			return
		}
		runtime.Gosched()
		if l.drain() == 0 {
			idle++
		} else {
			busy++
		}
	}
	l.flush()
	l.asleep.Store(true)
	// What came home before the line above told nobody.
	if l.someHome() && l.asleep.CompareAndSwap(true, false) {
		l.schedule()
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
	now := time.Now()
	for i, f := range l.landed {
		l.landed[i] = nil
		l.out--
		l.touchDown(f, now)
	}
	return len(l.landed)
}

// touchDown lands a flight. A bug there costs its connection, and no other
// flight.
func (l *loop) touchDown(f *flight, now time.Time) {
	c := f.conn
	defer func() {
		if p := recover(); p != nil {
			l.server.panicked(p)
			c.flight = nil
			c.shut()
		}
	}()
	l.land(f, now)
}

// land writes a flight's answers and lets its connection go on.
func (l *loop) land(f *flight, now time.Time) {
	c := f.conn
	for _, s := range f.slots[:f.n] {
		s.count(now)
	}
	c.flight = nil
	out, last := f.assemble(), f.slots[f.n-1]
	if l.server.draining.Load() && !last.close && c.allRead() {
		out = last.sayClose(out)
	}
	c.write(out, last.close)
	l.release(f)
	c.advance()
}

// count counts a finished request. It runs on the event loop.
func (s *slot) count(now time.Time) {
	n, took := s.server.counts, now.Sub(s.began)
	n.Requests[s.route][s.method][index.OutcomeOf(s.status)].Add(1)
	n.Latency[s.route][s.method].Observe(took)
	if s.route == index.RouteResolve && !s.local {
		s.server.opt.Lookups.Resolve(&s.job.Key).Observe(took)
	}
	if s.refused {
		n.Rejected[s.rejected].Add(1)
	}
	if !s.local {
		n.Inflight[s.route].Add(-1)
	}
	if s.status == 500 || s.status == 507 {
		s.server.log.Error("request failed", "status", s.status, "route", s.route.String(),
			"stage", s.job.Stage, "corr_id", string(s.corr[:s.corrLen]))
	}
}

// corrIDs makes correlation ids: ULIDs whose random part is drawn once and then
// counts up, which is as unique and cheaper.
type corrIDs struct{ entropy [10]byte }

func (c *corrIDs) init() { _, _ = rand.Read(c.entropy[:]) }

// give gives the request its correlation id: the client's, if it is harmless
// to echo, or a fresh one.
func (c *corrIDs) give(s *slot, given []byte, now time.Time) {
	if harmless(given) && len(given) <= len(s.corr) {
		s.corrLen = copy(s.corr[:], given)
		return
	}
	binary.BigEndian.PutUint64(c.entropy[2:], binary.BigEndian.Uint64(c.entropy[2:])+1)
	var id ulid.ULID
	_ = id.SetTime(uint64(now.UnixMilli()))
	copy(id[6:], c.entropy[:])
	_ = id.MarshalTextTo(s.corr[:26])
	s.corrLen = 26
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

// sweep closes what is past its deadline. The server calls for it every
// sweepRound; connections that wait for nothing but their next request are
// looked at every calmRounds of these.
func (l *loop) sweep(now time.Time) {
	watched := l.watched
	l.watched = l.watched[:0]
	for i, c := range watched {
		watched[i] = nil
		c.watched = false
		c.check(now)
	}
	if l.sweeps++; l.sweeps%calmRounds == 0 || l.server.draining.Load() {
		for c := range l.conns {
			if !c.watched {
				c.check(now)
			}
		}
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
}
