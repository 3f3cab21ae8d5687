package stages

import (
	"time"

	"svcindex/index"
)

// What is asked for near the end of its time is looked up again before clients
// have to wait for it: in the lowest class, as what the network found is kept.
const (
	renewMost  = 64          // under way at once
	renewShare = 4           // of the first room's queue, one part may be taken before nothing is renewed
	renewAgain = time.Second // between two tries for one answer
	renewMarks = 64
)

// A renewMark is an answer that a lane has had renewed, and when.
type renewMark struct {
	id uint64
	at time.Time
}

// renew has an answer looked up again, unless the lane has done so just now:
// an answer that everybody asks for is near its end for thousands of hits.
func (l *lane) renew(j *index.Job) {
	id := j.Hash ^ uint64(j.Ask)<<8 ^ uint64(j.Format)
	m := &l.renewed[id%renewMarks]
	if m.id == id && j.Entered.Sub(m.at) < renewAgain {
		return
	}
	*m = renewMark{id, j.Entered}
	l.room.line.renew(j)
}

// renew sends a look-up of what j asks past the cache, if there is little to
// do for clients. Whoever asks the same meanwhile shares it.
func (p *Pipeline) renew(j *index.Job) {
	if len(p.rooms) == 0 || p.closing.Load() {
		return
	}
	r := p.rooms[0]
	if r.queue.Len() > r.row().Depth/renewShare || r.fuse().blown() {
		p.lookups.RenewDropped.Add(1)
		return
	}
	if p.renewing.Add(1) > renewMost {
		p.renewing.Add(-1)
		p.lookups.RenewDropped.Add(1)
		return
	}
	p.lookups.Renewed.Add(1)
	t, now := p.cfg.Dial.Now(), time.Now()
	p.Lookup(&index.Job{
		Ask: j.Ask, Format: j.Format, Key: j.Key, Hash: j.Hash, Query: index.ProviderQuery{Limit: index.DefaultLimit},
		Deadline: now.Add(t.Budget), Tuning: t, Home: (*renewal)(p),
	})
}

// A renewal is the home of a look-up that nobody waits for: what it finds is in
// the cache by then.
type renewal Pipeline

// Open implements index.Replier.
func (r *renewal) Open(*index.Job) {}

// Reply implements index.Replier.
func (r *renewal) Reply(*index.Job) { r.renewing.Add(-1) }

// Gone implements index.Replier.
func (r *renewal) Gone() bool { return false }
