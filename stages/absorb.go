package stages

import (
	"time"

	"svcindex/index"
)

// What the network found enters the write room in the lowest class: a few at a
// time, and only while the room has little to do for clients.
const (
	absorbMost  = 64 // under way at once
	absorbShare = 4  // of the room's queue, one part may be taken before finds are dropped
)

// Absorb gives the write room what the network found, and reports whether there
// was room. It never waits. What is dropped the next look-up finds again.
func (p *Pipeline) Absorb(m *index.Mutation) bool {
	r, now := p.write, time.Now()
	if p.closing.Load() || r.queue.Len() > r.row().Depth/absorbShare {
		p.lookups.KeptDropped.Add(1)
		return false
	}
	if p.absorbing.Add(1) > absorbMost {
		return p.spill()
	}
	e := &errand{line: p, ours: true}
	e.Job = index.Job{
		Ask: index.AskWrite, Op: m.Op, Key: m.Key, Hash: p.cfg.Gens.Hash(&m.Key), Write: m, Tuning: p.cfg.Dial.Now(),
		Deadline: now.Add(r.row().Slice), Home: e,
	}
	e.at.Store(r)
	return r.enter(&e.Job, now) || p.spill()
}

// spill takes back a find that is not kept.
func (p *Pipeline) spill() bool {
	p.absorbing.Add(-1)
	p.lookups.KeptDropped.Add(1)
	return false
}

// absorbed ends an errand of our own.
func (p *Pipeline) absorbed(e *errand) {
	p.absorbing.Add(-1)
	if e.Result == index.OK && e.Write.News {
		p.lookups.Kept.Add(1)
	}
}
