package netio

import (
	"time"

	"svcindex/index"
)

// A tally is what a loop has counted and not yet told. A hit moves seven
// counters: as atomics they would be a tenth of a pipelined hit, added up here
// they are nothing.
type tally struct {
	series   [index.Routes][index.Methods]series
	dirty    []*series // what has something to tell
	inflight [index.Routes]int64
}

// A series is what is counted of one route and method.
type series struct {
	outcomes [index.Outcomes]uint64
	latency  [kinds]index.Sheet
	route    index.Route
	method   index.Method
	dirty    bool
}

// What was looked up, so that a time is observed once and told twice.
const (
	noLookup = iota
	ofName
	ofCID
	kinds
)

// kind says what s was a look-up of.
func (s *slot) kind() int {
	switch {
	case s.route != index.RouteResolve || s.local:
		return noLookup
	case s.job.Key.IsName():
		return ofName
	}
	return ofCID
}

// countAll counts the requests of a flight, which began as one: they were parsed
// in one go, or there is one.
func (l *loop) countAll(f *flight, now time.Time) {
	took := now.Sub(f.slots[0].began)
	for _, s := range f.slots[:f.n] {
		l.count(s, took)
	}
}

// count counts a finished request. It runs on the event loop, before the
// answer leaves: who has it and then looks at the counters finds them moved.
func (l *loop) count(s *slot, took time.Duration) {
	t := &l.tally
	m := &t.series[s.route][s.method]
	if !m.dirty {
		m.route, m.method, m.dirty = s.route, s.method, true
		t.dirty = append(t.dirty, m)
	}
	m.outcomes[index.OutcomeOf(s.status)]++
	m.latency[s.kind()].Observe(took)
	if s.refused {
		s.server.counts.Rejected[s.rejected].Add(1)
	}
	if !s.local {
		t.inflight[s.route]--
	}
	if s.status == 500 || s.status == 507 {
		s.server.log.Error("request failed", "status", s.status, "route", s.route.String(),
			"stage", s.job.Stage, "corr_id", string(s.corr[:s.corrLen]))
	}
}

// publish tells what has been counted to all who look.
func (l *loop) publish() {
	t, n := &l.tally, l.server.counts
	for _, m := range t.dirty {
		for o, k := range m.outcomes {
			if k > 0 {
				n.Requests[m.route][m.method][o].Add(k)
			}
		}
		m.outcomes = [index.Outcomes]uint64{}
		all, lookups := &n.Latency[m.route][m.method], l.server.opt.Lookups
		m.latency[noLookup].AddTo(all)
		m.latency[ofName].AddTo(all, &lookups.ResolveName)
		m.latency[ofCID].AddTo(all, &lookups.ResolveCID)
		m.dirty = false
	}
	t.dirty = t.dirty[:0]
	for r, k := range t.inflight {
		if k != 0 {
			n.Inflight[r].Add(k)
			t.inflight[r] = 0
		}
	}
}
