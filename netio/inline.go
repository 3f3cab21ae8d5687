//go:build rig

package netio

import "github.com/panjf2000/gnet/v2"

// events returns who hears of gnet's events. A resolver without a queue has
// nothing to wait for: its answers are written where its questions were read.
func (s *Server) events() gnet.EventHandler {
	if _, ok := s.resolver.(interface{ Inline() }); ok {
		return inlineServer{s}
	}
	return s
}

type inlineServer struct{ *Server }

// OnTraffic implements gnet.EventHandler.
func (s inlineServer) OnTraffic(gc gnet.Conn) gnet.Action {
	c, ok := gc.Context().(*conn)
	if !ok {
		return gnet.Close
	}
	l := c.loop
	was := l.ticking
	l.ticking = true // it is about to; nobody need ask for a round of its own
	action := s.Server.OnTraffic(gc)
	l.ticking = was
	l.guard(l.turnRound)
	return action
}

// turnRound writes what is home. Misses come home through a tick, as ever.
func (l *loop) turnRound() {
	for l.flush(); l.drain() > 0; l.flush() {
	}
	if l.out == 0 || l.asleep.Load() {
		return
	}
	l.asleep.Store(true)
	if l.someHome() && l.asleep.CompareAndSwap(true, false) {
		l.schedule()
	}
}
