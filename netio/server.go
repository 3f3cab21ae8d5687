// Package netio speaks HTTP/1.0 and 1.1 on gnet's event loops: it turns bytes
// into jobs and finished jobs into bytes. It is the only door to gnet.
//
// Nothing on an event loop waits, hashes, inflates or decodes a body. Any
// doubt about where a request ends is answered with 400 and the end of the
// connection.
package netio

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"runtime/debug"
	"runtime/pprof"
	"sync"
	"sync/atomic"
	"time"

	"github.com/panjf2000/gnet/v2"
	"github.com/panjf2000/gnet/v2/pkg/logging"

	"svcindex/index"
)

// Options are what the listener is made of.
type Options struct {
	Loops int         // event loops
	Dial  *index.Dial // its limits

	Gens        *index.Generations
	Lookups     *index.LookupCounts
	Guard       index.Guard // judges writes and /admin
	AuthReads   bool        // and look-ups
	Ready       func() (ready bool, body []byte, retryAfter int)
	Version     []byte // body of /version
	ReasonRatio string // the reason that counts as decompress_cap
	Log         *slog.Logger
}

// timeout is how long j may take.
func timeout(j *index.Job) time.Duration {
	if !j.Ask.IsLookup() {
		return j.Tuning.WriteTimeout
	}
	return j.Tuning.Budget
}

// timeoutKey names the knob of that.
func timeoutKey(j *index.Job) string {
	if !j.Ask.IsLookup() {
		return "limits.write_timeout"
	}
	return "budget.resolve"
}

// A Server is the public listener.
type Server struct {
	gnet.BuiltinEventEngine
	opt         Options
	resolver    index.Resolver
	pages       *Pages
	counts      *index.NetCounts
	log         *slog.Logger
	filtered    refusal
	reasonRatio string

	engine   *gnet.Client
	date     atomic.Pointer[[dateLen]byte]
	draining atomic.Bool
	born     time.Time
	rate     meter         // of all clients
	ended    chan struct{} // ends the clock
	ticking  sync.WaitGroup
	halves   sync.WaitGroup
	doors    doors

	mu sync.Mutex
	// Fields below are protected by mu.
	loops map[gnet.EventLoop]*loop
}

// New returns a server that is not listening yet. Its event loops run from
// here on, until Stop.
func New(opt Options, pages *Pages, resolver index.Resolver) (*Server, error) {
	s := &Server{
		opt: opt, resolver: resolver, pages: pages, counts: new(index.NetCounts), log: opt.Log,
		reasonRatio: opt.ReasonRatio,
		filtered: refusal{status: 404, code: "not_found", reason: "filtered",
			message: "there are providers, but none that the parameters admit"},
		born: time.Now(), ended: make(chan struct{}), loops: make(map[gnet.EventLoop]*loop),
	}
	s.doors.init(s)
	s.setDate(time.Now())
	engine, err := gnet.NewClient(s,
		gnet.WithNumEventLoop(opt.Loops), gnet.WithReadBufferCap(64<<10), gnet.WithWriteBufferCap(64<<10),
		gnet.WithLogger(quiet{opt.Log}), gnet.WithLogLevel(logging.ErrorLevel))
	if err != nil {
		return nil, fmt.Errorf("event loops: %w", err)
	}
	s.engine = engine
	if err := engine.Start(); err != nil {
		return nil, fmt.Errorf("event loops: %w", err)
	}
	s.ticking.Go(s.tick)
	return s, nil
}

// Forget has every loop let go of the buffers it keeps for later: they hold
// answers of before.
func (s *Server) Forget() {
	s.eachLoop(func(l *loop) {
		_ = l.el.Execute(context.Background(), gnet.RunnableFunc(func(context.Context) error {
			clear(l.free)
			l.free, l.kept = nil, 0
			return nil
		}))
	})
}

// Counts returns the live counters.
func (s *Server) Counts() *index.NetCounts { return s.counts }

// sweepRound is how late a deadline may be found out.
const sweepRound = 100 * time.Millisecond

// tick keeps the date, and sends every loop round its connections.
func (s *Server) tick() {
	t := time.NewTicker(sweepRound)
	defer t.Stop()
	for round := 0; ; round++ {
		select {
		case <-s.ended:
			return
		case now := <-t.C:
			s.setDate(now)
			s.eachLoop(func(l *loop) {
				// Now and then it is called for nothing: whether it comes shows whether it turns.
				wanted := l.restless.Load() || s.draining.Load() || round%calmRounds == 0
				if wanted && s.counts.Conns.Load() > 0 && !l.sweepWait.Load() {
					l.callFor(now)
				}
			})
		}
	}
}

func (s *Server) setDate(now time.Time) {
	var d [dateLen]byte
	now.UTC().AppendFormat(d[:0], "Mon, 02 Jan 2006 15:04:05 GMT")
	if old := s.date.Load(); old == nil || *old != d {
		s.date.Store(&d)
	}
}

func (s *Server) eachLoop(f func(*loop)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, l := range s.loops {
		f(l)
	}
}

// Behind returns for each event loop that has met a connection how long it has
// been called for and not come round.
func (s *Server) Behind(now time.Time) (d []time.Duration) {
	s.eachLoop(func(l *loop) {
		behind := time.Duration(0)
		if l.sweepWait.Load() {
			behind = max(now.Sub(time.Unix(0, l.sweepFrom.Load())), 0)
		}
		d = append(d, behind)
	})
	return d
}

// loopOf returns what belongs to an event loop, making it for the first
// connection there. It is called on the loop, which gets its profile label.
func (s *Server) loopOf(el gnet.EventLoop) *loop {
	s.mu.Lock()
	defer s.mu.Unlock()
	l := s.loops[el]
	if l == nil {
		l = newLoop(s, len(s.loops))
		l.el = el
		s.loops[el] = l
		pprof.SetGoroutineLabels(pprof.WithLabels(context.Background(), pprof.Labels("stage", "loop")))
	}
	return l
}

// OnOpen implements gnet.EventHandler.
func (s *Server) OnOpen(gc gnet.Conn) (out []byte, action gnet.Action) {
	c, ok := gc.Context().(*conn)
	if !ok {
		return nil, gnet.Close
	}
	l := s.loopOf(gc.EventLoop())
	c.loop, c.gc, c.idle = l, gc, time.Now()
	l.conns[c] = struct{}{}
	return nil, gnet.None
}

// OnTraffic implements gnet.EventHandler.
func (s *Server) OnTraffic(gc gnet.Conn) (action gnet.Action) {
	c, ok := gc.Context().(*conn)
	if !ok {
		return gnet.Close
	}
	defer func() {
		if p := recover(); p != nil {
			s.panicked(p)
			action = gnet.Close
		}
		c.loop.goStraight()
	}()
	switch {
	case !c.linger.IsZero():
		_, _ = gc.Discard(-1)
	case c.flight != nil || c.ending:
		c.noteAhead()
	default:
		c.loop.direct = c.loop.straight()
		c.advance()
	}
	return gnet.None
}

// OnClose implements gnet.EventHandler.
func (s *Server) OnClose(gc gnet.Conn, err error) gnet.Action {
	c, ok := gc.Context().(*conn)
	if !ok || c.loop == nil {
		return gnet.None
	}
	defer func() {
		if p := recover(); p != nil {
			s.panicked(p)
		}
	}()
	delete(c.loop.conns, c)
	s.counts.BufferedBytes.Add(-int64(c.unsent + c.ahead))
	c.unsent, c.ahead = 0, 0
	if errors.Is(err, io.EOF) && c.halve() {
		c.advance()
		return gnet.None
	}
	c.gc = nil
	if c.flight != nil {
		c.flight.Gone.Store(true)
	}
	c.freeBudget()
	c.leave()
	return gnet.None
}

// leave gives the connection's place to another.
func (c *conn) leave() { c.loop.server.doors.leave(c.peer) }

// OnShutdown implements gnet.EventHandler.
func (s *Server) OnShutdown(gnet.Engine) {}

// panicked counts a panic on an event loop and logs where it came from.
func (s *Server) panicked(p any) {
	s.counts.Panics.Add(1)
	s.log.Error("panic on an event loop", "panic", fmt.Sprint(p), "stack", string(debug.Stack()))
}

// Drain takes no more work: new connections are turned away, requests that
// have arrived are answered with Connection: close, idle connections end. It
// returns when all is quiet or ctx ends.
func (s *Server) Drain(ctx context.Context) error {
	s.draining.Store(true)
	quiet := time.Now()
	for {
		if s.working() {
			quiet = time.Now()
		}
		if d := time.Since(quiet); d > 2*drainQuiet && s.counts.Conns.Load() == 0 || d > 10*drainQuiet {
			s.doors.close() // who is left has nothing of ours and owes us nothing
			return nil
		}
		select {
		case <-ctx.Done():
			s.doors.close()
			return fmt.Errorf("drain: %d connections still had work after limits.drain: %w", s.counts.Conns.Load(), ctx.Err())
		case <-time.After(drainQuiet / 10):
		}
	}
}

// drainQuiet is how long a connection must have been silent before a drain
// closes it: what its client sent before it could know has arrived by then.
const drainQuiet = 100 * time.Millisecond

// working reports whether any request is being worked on, or arriving, or its
// answer not yet read.
func (s *Server) working() bool {
	if s.counts.BufferedBytes.Load() > 0 {
		return true
	}
	for i := range s.counts.Inflight {
		if s.counts.Inflight[i].Load() > 0 {
			return true
		}
	}
	return false
}

// Stop closes the listeners and every connection and ends the event loops.
func (s *Server) Stop() error {
	s.doors.close()
	close(s.ended)
	s.ticking.Wait()
	err := s.engine.Stop()
	// The loops have ended: what is theirs is ours now. A half-closed client
	// whose last flight found its loop gone gets what was answered before.
	s.eachLoop(func(l *loop) {
		for c := range l.halved {
			c.half.finish(c)
		}
	})
	s.halves.Wait()
	return err
}

// quiet is gnet's logger: its errors are ours, the rest is not news.
type quiet struct{ log *slog.Logger }

func (q quiet) Debugf(string, ...any) {}
func (q quiet) Infof(string, ...any)  {}
func (q quiet) Warnf(string, ...any)  {}
func (q quiet) Errorf(format string, args ...any) {
	q.log.Error("event loop", "err", fmt.Sprintf(format, args...))
}
func (q quiet) Fatalf(format string, args ...any) { q.Errorf(format, args...) }

var errSocketInTheWay = errors.New("something that is not a socket is in the way")

// addressOf returns what of a connection's address counts against the per-address
// cap: all of an IPv4 address, the network half of an IPv6 one, since the other
// half is its owner's to choose. All clients of a Unix socket are one.
func addressOf(nc net.Conn) string {
	a, ok := nc.RemoteAddr().(*net.TCPAddr)
	switch {
	case !ok:
		return ""
	case a.IP.To4() == nil:
		return a.IP.Mask(net.CIDRMask(64, 128)).String()
	}
	return a.IP.String()
}
