package stages

import (
	"time"

	"svcindex/index"
)

// The usher's rounds.
const (
	usherRound  = 5 * time.Millisecond   // how late a 504 may be
	goneRound   = 100 * time.Millisecond // how long work goes on for clients that have left
	sampleRound = 250 * time.Millisecond // drain rates, widths
)

// ushers is the one goroutine that watches the clock: it answers askers whose
// time is up, wherever their errand hangs; tells fuses of steps that hang; and
// narrows idle rooms. It sleeps while nobody waits.
func (p *Pipeline) ushers() {
	t := time.NewTimer(0)
	defer t.Stop()
	var lastGone, lastSample time.Time
	for {
		select {
		case <-p.stop:
			p.round(time.Now().Add(24*time.Hour), false) // nobody is left behind
			return
		case <-p.desk.wake:
		case <-t.C:
		}
		now := time.Now()
		gone := now.Sub(lastGone) >= goneRound
		if gone {
			lastGone = now
		}
		p.round(now, gone)
		if now.Sub(lastSample) >= sampleRound {
			lastSample = now
			p.sample(now)
		}
		if p.desk.doze() && !p.hanging() {
			t.Reset(sampleRound)
		} else {
			t.Reset(usherRound)
		}
	}
}

// round answers those whose time is up and looks after hanging steps.
func (p *Pipeline) round(now time.Time, gone bool) {
	for _, a := range p.desk.leave(now, gone) {
		p.expire(a)
	}
	p.cache.nudge()
	for _, r := range p.all() {
		r.watch(now)
		if r.queue.Len() > 0 {
			r.summon()
		}
	}
}

// expire answers one asker whose time is up. It is the usher's one contact with
// code of others, and a panic there must not end the clock.
func (p *Pipeline) expire(a *asker) {
	defer func() {
		if recover() != nil {
			p.cache.counts.Panics.Add(1)
		}
	}()
	a.job.Stage = ""
	if at := a.errand.at.Load(); at != nil {
		a.job.Stage = at.name
	}
	if kept, ok := p.desk.stale(a.errand); ok && !a.job.Fresh && a.job.Ask != index.AskWrite {
		a.job.Answer = kept
		a.job.Finish(index.OK)
		return
	}
	p.refuse(a.job, index.Late)
}

func (p *Pipeline) sample(now time.Time) {
	for _, r := range p.all() {
		r.rate.sample(now)
		r.relax()
	}
}

// hanging reports whether any room has work in hand.
func (p *Pipeline) hanging() bool {
	for _, r := range p.all() {
		if r.busy.Load() > 0 || r.queue.Len() > 0 {
			return true
		}
	}
	return false
}
