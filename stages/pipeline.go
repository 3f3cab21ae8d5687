package stages

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"svcindex/index"
)

// Config is what a pipeline is built of.
type Config struct {
	Cache CacheRow
	Rooms []Row // where look-ups go after the cache, in order
	Write Row
	Loops int         // event loops: each has a cache lane of its own
	Dial  *index.Dial // what work begins under that brings no Tuning of its own

	RefreshAfter time.Duration // how long the network's word is good

	Gens   *index.Generations
	Render index.Renderer
	Counts *index.LookupCounts
}

// A Pipeline is the rooms in order. It implements index.Resolver.
type Pipeline struct {
	cfg     Config
	cache   *cacheRoom
	rooms   []*room
	write   *room
	desk    *desk
	lookups *index.LookupCounts
	closing atomic.Bool
	memory  memory
	// absorbing are finds on their way into the store.
	absorbing atomic.Int32
	renewing  atomic.Int32 // look-ups of answers near their end
	stop      chan struct{}
	usher     sync.WaitGroup
}

var _ index.Resolver = (*Pipeline)(nil)

// Build makes the rooms and starts the usher. Close ends them.
func Build(cfg Config) (*Pipeline, error) {
	p := &Pipeline{cfg: cfg, lookups: cfg.Counts, desk: newDesk(), stop: make(chan struct{})}
	var err error
	if p.cache, err = newCacheRoom(cfg.Cache, cfg.Loops, p); err != nil {
		return nil, err
	}
	for _, row := range append(cfg.Rooms[:len(cfg.Rooms):len(cfg.Rooms)], cfg.Write) {
		r, err := newRoom(row, p.done, p.desk.wanted)
		if err != nil {
			return nil, err
		}
		p.rooms = append(p.rooms, r)
	}
	last := len(p.rooms) - 1
	p.rooms, p.write = p.rooms[:last], p.rooms[last]
	p.usher.Go(p.ushers)
	return p, nil
}

// Tune changes what may be changed of the rooms at work: each of rows replaces
// the numbers of the room of its name, of the cache too. It returns what could
// not be changed without a restart.
func (p *Pipeline) Tune(rows ...Row) (errs []error) {
	for _, row := range rows {
		if row.Name == p.cache.name {
			errs = append(errs, p.cache.tune(row)...)
		}
		for _, r := range p.all() {
			if r.name == row.Name {
				r.tune(row)
			}
		}
	}
	return errs
}

// Push implements index.Resolver.
func (p *Pipeline) Push(lane int, fs []*index.Flight) int {
	return p.cache.push(lane, fs)
}

// Await implements index.Resolver.
func (p *Pipeline) Await(lane int) { p.cache.lanes[lane].await() }

// Refused implements index.Resolver.
func (p *Pipeline) Refused(jobs int) { p.cache.counts.RejectedFull.Add(uint64(jobs)) }

// Write implements index.Resolver.
func (p *Pipeline) Write(j *index.Job) bool {
	p.date(j)
	now := time.Now()
	e, _ := p.desk.join(j, func() *errand {
		e := p.begin(j, nil, now)
		e.Write = &e.wish
		return e
	})
	if e == nil {
		p.write.counts.RejectedInflight.Add(1)
		return p.refuseWrite(j, j.Answer.Reason)
	}
	if p.closing.Load() || !p.write.enter(&e.Job, now) {
		if len(p.desk.end(e)) == 0 {
			return true // the usher has answered it meanwhile
		}
		return p.refuseWrite(j, e.Answer.Reason)
	}
	return true
}

func (p *Pipeline) refuseWrite(j *index.Job, why string) bool {
	j.Stage, j.Answer.Reason = p.write.name, why
	j.Answer.RetryAfter = p.write.retryAfter()
	return false
}

// Lookup sends one job past the cache: the background's way in. The job goes
// home as any other does.
func (p *Pipeline) Lookup(j *index.Job) {
	j.Noted = p.cfg.Gens.Note(j.Hash)
	p.miss(j, time.Now())
}

// miss sends a job that the cache could not answer to the rooms behind it,
// with whoever asks the same.
func (p *Pipeline) miss(j *index.Job, now time.Time) {
	p.date(j)
	if p.turnAway(j, now) {
		return
	}
	e, isNew := p.desk.join(j, func() *errand { return p.begin(j, p.rooms, now) })
	switch {
	case e == nil:
		j.Stage = p.cache.name
		p.cache.counts.RejectedInflight.Add(1)
		j.Answer.RetryAfter = jitter(time.Second)
		p.refuse(j, index.Busy)
	case isNew:
		p.onward(e, now)
	default:
		p.lookups.Joined.Add(1)
	}
}

// date gives a job that began under no Tuning the one in force.
func (p *Pipeline) date(j *index.Job) {
	if j.Tuning == nil {
		j.Tuning = p.cfg.Dial.Now()
	}
}

// turnAway refuses a look-up that the first room has no place for, unless it is
// under way for somebody else. It does before an errand is made what would be
// done to the errand: under ten times the load nine of ten end here, and each
// takes time from the hits.
func (p *Pipeline) turnAway(j *index.Job, now time.Time) bool {
	if len(p.rooms) == 0 {
		return false
	}
	r := p.rooms[0]
	full := r.full()
	if !full && !r.jammed(now) || r.fuse().blown() || now.After(j.Deadline) || p.desk.knows(j) {
		return false
	}
	why := r.whyFull
	if full {
		r.counts.RejectedFull.Add(1)
	} else {
		why = r.whyWait
		r.counts.RejectedWait.Add(1)
	}
	j.Stage, j.Doubt, j.Answer.RetryAfter, j.Answer.Reason = r.name, index.Busy, r.retryAfter(), why
	p.refuse(j, index.Busy)
	return true
}

// begin makes the errand that will answer j.
func (p *Pipeline) begin(j *index.Job, rooms []*room, now time.Time) *errand {
	e := errands.Get().(*errand)
	e.line, e.rooms, e.begun = p, rooms, now
	e.Job = *j
	e.Job.Answer = index.Answer{}
	e.Home, e.InOrder, e.CorrID = e, false, nil              // the flight's bytes may be gone before the errand is
	e.Query = index.ProviderQuery{Limit: index.DefaultLimit} // the whole set; each asker narrows it for himself
	if rooms != nil {
		e.Deadline = now.Add(j.Tuning.Budget)
	}
	return e
}

// Context returns the context of the errand that j is, for a step that leaves
// the process: it ends with the errand's time or when its last asker leaves.
func Context(j *index.Job) context.Context {
	if e, ok := j.Home.(*errand); ok && e.ctx != nil {
		return e.ctx
	}
	return context.Background()
}

// done is where a room leaves a job it is through with. A bug on the way from
// here costs the errand its answer, not its askers theirs.
func (p *Pipeline) done(j *index.Job, k index.Kind, now time.Time) {
	e := j.Home.(*errand)
	defer func() {
		if recover() == nil {
			return
		}
		p.cache.counts.Panics.Add(1)
		if e.ours {
			p.absorbing.Add(-1)
			return
		}
		e.Result = index.Broken
		for _, a := range p.desk.end(e) {
			p.hand(e, a.job, nil)
		}
		e.finish()
	}()
	e.trail.leg(e, k, now)
	p.route(e, k, now)
}

// route decides what becomes of an errand that a room is done with. It is the
// only place that decides.
func (p *Pipeline) route(e *errand, k index.Kind, now time.Time) {
	if at := e.at.Load(); at != nil && at.outbound && (k == index.OK || k == index.Missing) {
		e.asked = true
	}
	switch {
	case k == index.OK && e.Answer.Past && len(e.rooms) > 0:
		p.desk.put(e)
		e.Answer = index.Answer{}
	case k == index.OK:
		e.Finish(k)
		return
	case !e.Ask.IsLookup():
		e.Stage = p.write.name
		e.Finish(k)
		return
	case k == index.Broken:
		// A bug or damage: another place may still have it, but absence is
		// no longer something we can swear to.
		e.doubt(k)
	case k != index.Missing:
		e.doubt(k) // it could not look, so we cannot promise "not found"
	}
	p.onward(e, now)
}

// doubt notes that the room the errand is in could not look.
func (e *errand) doubt(k index.Kind) {
	if s := index.Stronger(e.Doubt, k); s != e.Doubt {
		e.Doubt = s
		if at := e.at.Load(); at != nil {
			e.Stage = at.name
		}
	}
}

// onward puts an errand into the next room that can be asked, or ends it.
func (p *Pipeline) onward(e *errand, now time.Time) {
	for len(e.rooms) > 0 {
		if now.After(e.Deadline) {
			e.Finish(index.Late)
			return
		}
		r := e.rooms[0]
		e.rooms = e.rooms[1:]
		if holds := r.row().Holds; holds != nil && !holds(&e.Job) {
			continue
		}
		e.at.Store(r)
		if r.fuse().blown() {
			r.counts.Skipped.Add(1)
			e.trail.skip(r, "breaker open")
			e.doubt(index.Down)
			continue
		}
		if r.outbound {
			p.desk.equip(e)
		}
		if !r.enter(&e.Job, now) {
			e.trail.skip(r, "no room in its queue")
			e.doubt(index.Busy)
			e.Answer.RetryAfter = r.retryAfter()
			e.Finish(index.Busy)
		}
		return
	}
	if e.Doubt != index.OK {
		e.Finish(e.Doubt)
		return
	}
	e.Finish(index.Missing)
}

// deliver gives everybody who waited for e what it found, rendered once, and
// keeps a copy in the cache unless a write has been faster.
func (p *Pipeline) deliver(e *errand) {
	if e.ours {
		p.absorbed(e)
		return
	}
	isLookup := e.Ask.IsLookup()
	stale := (*errand)(nil) // e as it is served when the network could not be asked
	if isLookup {
		stale = p.settle(e)
		e.Answer.Partial = e.Result == index.OK && e.Doubt != index.OK
		if e.Result == index.OK {
			p.render(e)
		}
		if e.Result == index.OK && !e.Answer.Partial || e.Result == index.Missing {
			p.keep(&e.Job)
		}
		p.memory.note(e, stale != nil)
	}
	var other []byte // the page in the format that e's own is not in
	for _, a := range p.desk.end(e) {
		if stale != nil && !a.job.Fresh {
			p.hand(stale, a.job, nil)
			continue
		}
		if a.job.Format != e.Format && e.Result == index.OK && isLookup && other == nil {
			other = p.renderOther(e, a.job.Format)
		}
		p.hand(e, a.job, other)
	}
	e.finish()
}

// settle holds what the store had against how the look-up in the network ended.
// If it could not be asked, it returns e as it may be served all the same.
func (p *Pipeline) settle(e *errand) (stale *errand) {
	kept, has := p.desk.stale(e)
	switch {
	case e.Result == index.Missing && has && e.Answer.Name.Seq > kept.Name.Seq: // deleted since
	case e.Result == index.Missing && has: // the network has nothing: what is stored stands
		e.Answer, e.Result = *e.kept, index.OK
	case e.Result != index.OK && e.Result != index.Missing && has:
		stale = &errand{Job: e.Job, line: p}
		stale.Answer, stale.Result = kept, index.OK
		p.render(stale)
		if stale.Result != index.OK {
			return nil
		}
	}
	if e.asked && e.Result == index.OK && (e.Key.IsName() || e.Ask == index.AskProviders) {
		e.Answer.FreshUntil = time.Now().Add(p.cfg.RefreshAfter)
	}
	return stale
}

// render renders what e found. A bug there costs the errand its answer, not
// its askers their reply.
func (p *Pipeline) render(e *errand) {
	defer func() {
		if recover() != nil {
			p.cache.counts.Panics.Add(1)
			e.Result = index.Broken
		}
	}()
	e.Answer.Page = e.page[:0]
	p.cfg.Render.Render(&e.Job)
	e.page = e.Answer.Page
}

// renderOther renders what e found in another format, and keeps that, too.
func (p *Pipeline) renderOther(e *errand, f index.Format) []byte {
	o := &errand{Job: e.Job}
	o.Format = f
	p.render(o)
	if o.Result == index.OK && !o.Answer.Partial {
		p.keep(&o.Job)
	}
	return o.Answer.Page
}

// keep puts what j found into the cache, unless the rules it was rendered under
// are no longer in force. Whoever changes them bumps the generations afterwards:
// of what began under the old ones, that leaves only what noted its generation
// after that, and this does not let it in.
func (p *Pipeline) keep(j *index.Job) {
	if j.Tuning == nil || j.Tuning.Serial == p.cfg.Dial.Now().Serial {
		p.cfg.Cache.Cache.PutIf(j)
	}
}

// hand gives one asker the errand's answer.
func (p *Pipeline) hand(e *errand, j *index.Job, other []byte) {
	j.Answer, j.Doubt, j.Stage = e.Answer, e.Doubt, e.Stage
	if j.Format != e.Format {
		j.Answer.Page = other
	}
	if !j.Query.IsDefault() {
		j.Answer.Page = nil // rendered for somebody else's wishes
	}
	if e.Result == index.Missing && j.Noted != e.Noted {
		p.lookups.NegativeAfterWrite.Add(1)
	}
	if e.Result == index.OK || e.Result == index.Missing || !j.Ask.IsLookup() {
		j.Finish(e.Result)
		return
	}
	p.refuse(j, e.Result)
}

// finish lets go of an errand that is over, and of what it held.
func (e *errand) finish() {
	if e.cancel != nil {
		e.cancel()
		return
	}
	if e.kept == nil && !e.left {
		e.forget()
		errands.Put(e)
	}
}

// refuse ends a look-up that could not be answered: with what the cache knew
// before, marked as stale, or else with the reason.
func (p *Pipeline) refuse(j *index.Job, k index.Kind) {
	if !j.Fresh && j.Ask.IsLookup() {
		retry, why := j.Answer.RetryAfter, j.Answer.Reason
		j.Answer = index.Answer{}
		if p.cfg.Cache.Cache.GetStale(j) == nil {
			if j.Answer.Negative { // proven by somebody else meanwhile
				k = index.Missing
			} else {
				k = index.OK
			}
			j.Finish(k)
			return
		}
		j.Answer.RetryAfter, j.Answer.Reason = retry, why
	}
	if j.Answer.RetryAfter == 0 {
		j.Answer.RetryAfter = jitter(time.Second)
	}
	j.Finish(k)
}

// Counts returns the live counters of look-ups.
func (p *Pipeline) Counts() *index.LookupCounts { return p.lookups }

// Stats returns what each stage shows of itself.
func (p *Pipeline) Stats() []index.RoomStats {
	now := time.Now()
	s := []index.RoomStats{p.cache.stats(now)}
	for _, r := range p.all() {
		s = append(s, r.stats(now))
	}
	return s
}

// Inflight returns how many errands are under way and how many askers wait.
func (p *Pipeline) Inflight() (errands, waiting int) { return p.desk.counts() }

func (p *Pipeline) all() []*room { return append(p.rooms[:len(p.rooms):len(p.rooms)], p.write) }

// ErrStuck says that a step was still out when the pipeline had to close.
var ErrStuck = errors.New("stages: a step is still under way; the store or the network hangs (see /debug/pprof/goroutine)")

// Close drains the rooms front to back. What is inside is answered; what comes
// later is refused. It returns ErrStuck when ctx ended first.
func (p *Pipeline) Close(ctx context.Context) error {
	p.closing.Store(true)
	ok := p.cache.close(ctx)
	for _, r := range p.all() {
		ok = r.close(ctx) && ok
	}
	close(p.stop)
	p.usher.Wait()
	if !ok {
		return ErrStuck
	}
	return nil
}
