package netio

import (
	"strconv"
	"sync/atomic"
	"time"

	"svcindex/index"
)

// A meter holds who asks to so many requests in a time. It is one number: when
// all that was asked for will have been paid off at the allowed pace. A burst
// of a whole time's worth may come at once. Taking costs one atomic exchange,
// however many ask, and a limit that is changed under way holds at once.
type meter struct{ paid atomic.Int64 } // ns since the server began

// A reading is what a meter said.
type reading struct {
	most int           // requests in the time
	left int           // of these, now
	wait time.Duration // until the next is allowed; 0: this one was
	full time.Duration // until all of them are
}

// take asks for one of most requests in a time, at now.
func (m *meter) take(now int64, most int, in time.Duration) reading {
	each := max(int64(in)/int64(most), 1)
	for {
		was := m.paid.Load()
		paid := max(was, now) + each
		if over := paid - now - int64(in); over > 0 {
			return reading{most: most, wait: time.Duration(over), full: time.Duration(paid - each - now)}
		}
		if m.paid.CompareAndSwap(was, paid) {
			return reading{most: most, left: int((int64(in) - (paid - now)) / each), full: time.Duration(paid - now)}
		}
	}
}

// A peer is one address: all of its connections together.
type peer struct {
	ip                        string // empty: a Unix socket, whose clients are no strangers
	rate, resolves, providers meter

	// Protected by the mutex of the doors.
	conns int
	gone  bool // in the list of those that left with a debt
}

// owes reports whether the peer has asked for more than is paid off by now.
func (p *peer) owes(now int64) bool {
	return p.rate.paid.Load() > now || p.resolves.paid.Load() > now || p.providers.paid.Load() > now
}

// goneMost is how many addresses that left with a debt are remembered. Beyond
// it the oldest debt is forgiven: who has so many addresses to come from is not
// stopped by one of them.
const goneMost = 16384

// clock is what meters count in.
func (s *Server) clock(now time.Time) int64 { return int64(now.Sub(s.born)) }

// measure holds a request to the rates and quotas, its address's first: who is
// over his own takes nothing from the others'. What is left is noted in the
// slot, for the answer to say.
func (c *conn) measure(s *slot, r *request, now time.Time) *refusal {
	t, srv := c.tuning, c.loop.server
	if t.Rate|t.RatePerIP|t.ResolvesPerMin|t.ProvidersPerMin == 0 || c.late {
		return nil
	}
	at, p := srv.clock(now), c.peer
	for d, l := range [index.Dimensions]struct {
		meter *meter
		most  int
		in    time.Duration
		on    bool
	}{
		index.DimensionResolves:  {&p.resolves, t.ResolvesPerMin, time.Minute, r.ask == index.AskResolve && p.ip != ""},
		index.DimensionProviders: {&p.providers, t.ProvidersPerMin, time.Minute, r.ask == index.AskProviders && p.ip != ""},
		index.DimensionRatePerIP: {&p.rate, t.RatePerIP, time.Second, p.ip != ""},
		index.DimensionRate:      {&srv.rate, t.Rate, time.Second, true},
	} {
		if !l.on || l.most == 0 {
			continue
		}
		said := l.meter.take(at, l.most, l.in)
		if s.limit.most == 0 || said.left < s.limit.left {
			s.limit = said
		}
		if said.wait > 0 {
			srv.counts.Quota[d].Add(1)
			return errOver[d]
		}
	}
	return nil
}

// appendLimit appends the state of the limit that is nearest to its end, if
// any is on.
func (s *slot) appendLimit(b []byte) []byte {
	if s.limit.most == 0 {
		return b
	}
	b = strconv.AppendInt(append(b, "RateLimit-Limit: "...), int64(s.limit.most), 10)
	b = strconv.AppendInt(append(b, "\r\nRateLimit-Remaining: "...), int64(s.limit.left), 10)
	b = strconv.AppendInt(append(b, "\r\nRateLimit-Reset: "...), int64((s.limit.full+time.Second-1)/time.Second), 10)
	return append(b, "\r\n"...)
}
