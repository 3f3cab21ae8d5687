// Package stages is the pipeline: rooms in a row, each a bounded queue, a pool
// of workers, a slice of the deadline and a breaker.
//
// A job that one room cannot answer goes on to the next. Nobody waits for
// another room: a full queue refuses, and "not found" is said only when every
// room has looked.
package stages

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/panjf2000/ants/v2"

	"svcindex/index"
	"svcindex/queue"
)

// A Row is a stage's whole character. Change a row, change the machine.
type Row struct {
	Name    string
	Step    Step
	Depth   int           // jobs that may wait; one more is refused
	Workers Range         // jobs worked on at once; the width moves between
	Batch   int           // most jobs a worker takes at once
	Slice   time.Duration // longest stay, waiting included
	MaxWait time.Duration // wait of the oldest job above which new work is refused
	Breaker Breaker

	// Holds reports whether the place could hold the answer at all. One that by
	// rule cannot is not asked, and counts as asked. nil: it always could.
	Holds func(*index.Job) bool

	// LateIsNeutral: running out of time says nothing about the place, as with
	// a network that is asked for what nobody has.
	LateIsNeutral bool
}

// A Range is a least and a most.
type Range struct{ Min, Max int }

// A Step is what is done in a room. Do returns nil when it filled j.Answer,
// Missing when it looked and it is not there, and anything else when it could
// not look.
type Step interface{ Do(j *index.Job) error }

// A Settler is a Step whose work on a batch becomes true all at once: Do only
// prepares, and Settle, given the jobs Do returned nil for, makes it so. It
// returns what became of each.
type Settler interface {
	Step
	Settle(js []*index.Job, kinds []index.Kind)
}

// A room is one stage at work.
type room struct {
	name string
	now  atomic.Pointer[Row] // the row in force
	// What a client is told that finds no place: the knob.
	whyFull, whyWait string
	fuses            atomic.Pointer[fuse] // the fuse in force
	queue            *queue.Queue[*index.Job]
	pool             *ants.Pool
	labels           labels
	// outbound: its step asks the network; an errand needs a context there.
	outbound bool
	drain    func()
	done     func(*index.Job, index.Kind, time.Time) // where a job goes when the room is done with it, now
	wanted   func(*index.Job) bool                   // whether anybody still waits for it
	counts   index.RoomCounts
	rate     drainRate

	cost    atomic.Int64 // ns a turn keeps a worker
	width   atomic.Int32 // workers it may use now
	working atomic.Int32 // workers out of the pool
	busy    atomic.Int32 // of these, with a job in hand
	last    atomic.Int32 // size of the last batch

	mu sync.Mutex
	// Fields below are protected by mu.
	hands   []*hand // every worker there ever was, free or not
	free    []*hand
	jamTold time.Time // until when the fuse knows that every worker hangs
}

// A hand is what one worker holds while it works. The watch reads it to see a
// step that hangs.
type hand struct {
	batch []*index.Job
	kinds []index.Kind
	ready []*index.Job
	ask   index.Ask // the profile label it wears

	mu sync.Mutex
	// Fields below are protected by mu.
	out    bool        // a call is under way
	since  time.Time   // when it began
	due    time.Time   // when it becomes a failure
	report func(error) // tells the fuse how it ended; nil once told
}

// spare is how much larger a pool is than the width: a worker that is through
// leaves our count a moment before ants has it back.
const spare = 2

func newRoom(row Row, done func(*index.Job, index.Kind, time.Time), wanted func(*index.Job) bool) (*room, error) {
	r := &room{name: row.Name, queue: queue.New[*index.Job](row.Depth), labels: newLabels(row.Name), done: done, wanted: wanted}
	r.whyFull, r.whyWait = "stages."+row.Name+".depth", "stages."+row.Name+".max_wait"
	_, r.outbound = row.Step.(Scout)
	r.now.Store(&row)
	r.fuses.Store(newFuse(row.Name, row.Breaker))
	pool, err := ants.NewPool(spare*row.Workers.Max, ants.WithNonblocking(true), ants.WithDisablePurge(true))
	if err != nil {
		return nil, fmt.Errorf("stage %s: %w", row.Name, err)
	}
	r.pool = pool
	r.drain = r.work
	r.width.Store(int32(max(row.Workers.Min, 1)))
	return r, nil
}

// row is what the room is like now. Whoever needs two things of it takes it
// once.
func (r *room) row() *Row { return r.now.Load() }

// fuse is the fuse in force. A report goes to the one that allowed the call.
func (r *room) fuse() *fuse { return r.fuses.Load() }

// tune changes what may be changed of a room at work. A breaker that is not
// told anything new keeps its memory; a new one begins closed.
func (r *room) tune(next Row) {
	was := r.row()
	next.Name, next.Step, next.Holds, next.LateIsNeutral = was.Name, was.Step, was.Holds, was.LateIsNeutral
	r.now.Store(&next)
	if next.Depth != was.Depth {
		r.queue.Resize(next.Depth)
	}
	if next.Breaker != was.Breaker {
		r.fuses.Store(newFuse(next.Name, next.Breaker))
	}
	if next.Workers != was.Workers {
		r.pool.Tune(spare * next.Workers.Max)
		for {
			w := r.width.Load()
			if r.width.CompareAndSwap(w, min(max(w, int32(max(next.Workers.Min, 1))), int32(next.Workers.Max))) {
				break
			}
		}
	}
}

// enter takes a job into the queue and starts its slice. False: the job is
// still the caller's.
func (r *room) enter(j *index.Job, now time.Time) bool {
	if r.jammed(now) {
		r.counts.RejectedWait.Add(1)
		j.Answer.Reason = r.whyWait
		return false
	}
	j.Entered = now
	j.Due = now.Add(j.Tuning.Slice(r.name, r.row().Slice))
	if j.Deadline.Before(j.Due) {
		j.Due = j.Deadline
	}
	if !r.queue.Push(j) {
		r.counts.RejectedFull.Add(1)
		j.Answer.Reason = r.whyFull
		return false
	}
	r.summon()
	return true
}

// full reports whether nothing more may wait.
func (r *room) full() bool { return r.queue.Len() >= r.queue.Cap() }

// jammed reports whether what comes now would wait too long: the head of the
// queue has, or what is queued is more work than the workers can do in time.
func (r *room) jammed(now time.Time) bool {
	depth, row := r.queue.Len(), r.row()
	if row.MaxWait <= 0 || depth == 0 {
		return false
	}
	turns := depth
	if _, together := row.Step.(Settler); together {
		turns = (depth + row.Batch - 1) / row.Batch
	}
	work := time.Duration(turns) * time.Duration(r.cost.Load()) / time.Duration(row.Workers.Max)
	return work > row.MaxWait || r.oldest(now) > row.MaxWait
}

// charge notes what a turn cost a worker: one job, or one batch of those that
// settle together. What hung says nothing of what comes next and is left out.
// It is a moving average of the last eight or so; workers may overwrite each
// other's, which costs nothing but a sample.
func (r *room) charge(d time.Duration) {
	if d < r.row().Slice {
		was := r.cost.Load()
		r.cost.Store(was + (int64(d)-was)/8)
	}
}

// oldest returns how long the head of the queue has waited.
func (r *room) oldest(now time.Time) (d time.Duration) {
	r.queue.Oldest(func(j *index.Job) { d = now.Sub(j.Entered) })
	return max(d, 0)
}

// summon sends a worker for what waits. When as many as the width allows are
// out, something waits behind them: the width grows, as far as it may.
func (r *room) summon() {
	for {
		n, w := r.working.Load(), r.width.Load()
		if n >= w {
			if int(w) >= r.row().Workers.Max || r.queue.Len() == 0 {
				return
			}
			r.width.CompareAndSwap(w, w+1)
			continue
		}
		if r.working.CompareAndSwap(n, n+1) {
			break
		}
	}
	if r.pool.Submit(r.drain) != nil {
		r.working.Add(-1) // closing, or every spare is between two tasks: those look again
	}
}

// work is a worker's turn: it takes batches until nothing waits.
func (r *room) work() {
	r.labels.wear(0)
	h := r.takeHand()
	h.ask = 0
	defer func() {
		r.giveHand(h)
		r.working.Add(-1)
		if r.queue.Len() > 0 { // it came between the last look and the line above
			r.summon()
		}
	}()
	for int(r.working.Load()) <= r.row().Workers.Max { // more are out than may be, since the room was made narrower
		n := r.queue.PopUpTo(h.batch[:r.share(len(h.batch))])
		if n == 0 {
			return
		}
		r.batch(h, h.batch[:n])
		clear(h.batch[:n])
	}
}

// share is how much of the backlog one worker takes: a full batch from a long
// queue, but not what another worker could begin at once. What settles together
// is not shared out: each part would wait for a commit of its own.
func (r *room) share(most int) int {
	if _, together := r.row().Step.(Settler); together {
		return most
	}
	return min(max(r.queue.Len()/r.row().Workers.Max, 1), most)
}

// batch works off the jobs of one batch and sends each on.
func (r *room) batch(h *hand, js []*index.Job) {
	r.busy.Add(1)
	defer r.busy.Add(-1)
	r.last.Store(int32(len(js)))
	settler, _ := r.row().Step.(Settler)
	h.ready = h.ready[:0]
	now := time.Now()
	for _, j := range js {
		if j.Ask != h.ask {
			h.ask = j.Ask
			r.labels.wear(j.Ask)
		}
		k := index.OK
		k, now = r.attempt(h, j, settler != nil, now)
		if settler != nil && k == index.OK {
			h.ready = append(h.ready, j)
			continue
		}
		r.rate.add(1)
		r.leave(j, k, now)
	}
	if len(h.ready) == 0 {
		return
	}
	h.kinds = append(h.kinds[:0], make([]index.Kind, len(h.ready))...)
	r.settle(h, settler)
	r.rate.add(len(h.ready))
	now = time.Now()
	for i, j := range h.ready {
		r.count(h.kinds[i])
		r.leave(j, h.kinds[i], now)
	}
	clear(h.ready)
}

// leave sends a job on. Whatever goes wrong on its way does not reach the
// other jobs of the batch.
func (r *room) leave(j *index.Job, k index.Kind, now time.Time) {
	defer func() {
		if p := recover(); p != nil {
			r.counts.Panics.Add(1)
		}
	}()
	r.done(j, k, now)
}

// attempt runs the step, unless the slice ran out in the queue: work that
// nobody waits for any more is the most expensive work there is. It takes the
// time and returns what it is then: the clock is read once a job.
func (r *room) attempt(h *hand, j *index.Job, prepare bool, now time.Time) (index.Kind, time.Time) {
	r.counts.Wait.Observe(now.Sub(j.Entered))
	if now.After(j.Due) || !r.wanted(j) {
		r.counts.Expired.Add(1)
		if now.Before(j.Deadline) && r.wanted(j) {
			return index.Busy, now // it waited too long, but its time is not up
		}
		return index.Late, now
	}
	if prepare { // the fuse watches the settling
		k := r.guard(j)
		if k != index.OK {
			r.count(k)
		}
		return k, time.Now()
	}
	report, err := r.fuse().allow()
	if err != nil {
		r.counts.Skipped.Add(1)
		return index.Down, now
	}
	h.take(now, r.row().Slice, report)
	k := r.guard(j)
	after := time.Now()
	r.charge(after.Sub(now))
	h.drop(r.verdict(j, k))
	r.count(k)
	return k, after
}

// verdict is what the fuse is told of a step: nothing, when it ended because
// nobody waited any more.
func (r *room) verdict(j *index.Job, k index.Kind) error {
	if failure(k) && (k == index.Late && r.row().LateIsNeutral || !r.wanted(j)) {
		return errNeutral
	}
	return k
}

// guard runs the step for one job; a panic costs that job and no other.
func (r *room) guard(j *index.Job) (k index.Kind) {
	defer func() {
		if p := recover(); p != nil {
			r.counts.Panics.Add(1)
			k = index.Broken
		}
	}()
	return index.KindOf(r.row().Step.Do(j))
}

// settle makes the prepared jobs of a batch true.
func (r *room) settle(h *hand, s Settler) {
	for i := range h.kinds {
		h.kinds[i] = index.Down
	}
	report, err := r.fuse().allow()
	if err != nil {
		r.counts.Skipped.Add(uint64(len(h.ready)))
		return
	}
	began := time.Now()
	h.take(began, r.row().Slice, report)
	defer func() {
		r.charge(time.Since(began))
		if p := recover(); p != nil {
			r.counts.Panics.Add(1)
			for i := range h.kinds {
				h.kinds[i] = index.Broken
			}
		}
		worst := index.OK
		for _, k := range h.kinds {
			if failure(k) {
				worst = k
			}
		}
		h.drop(worst)
	}()
	s.Settle(h.ready, h.kinds)
}

func (r *room) count(k index.Kind) {
	switch {
	case k == index.OK:
		r.counts.Found.Add(1)
	case !failure(k):
		r.counts.Missed.Add(1)
	default:
		r.counts.Failed.Add(1)
	}
}

func (r *room) takeHand() *hand {
	r.mu.Lock()
	defer r.mu.Unlock()
	h, batch := new(hand), max(r.row().Batch, 1)
	if n := len(r.free); n > 0 {
		h, r.free = r.free[n-1], r.free[:n-1]
	} else {
		r.hands = append(r.hands, h)
	}
	if len(h.batch) != batch {
		h.batch = make([]*index.Job, batch)
	}
	return h
}

func (r *room) giveHand(h *hand) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.free = append(r.free, h)
}

func (h *hand) take(now time.Time, slice time.Duration, report func(error)) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.out, h.since, h.due, h.report = true, now, now.Add(slice+overdueGrace), report
}

// outFor returns how long the call in hand has been out; 0 if there is none.
func (h *hand) outFor(now time.Time) time.Duration {
	h.mu.Lock()
	defer h.mu.Unlock()
	if !h.out {
		return 0
	}
	return now.Sub(h.since)
}

// drop reports how the call in hand ended, unless the watch has already
// reported it as hanging.
func (h *hand) drop(verdict error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.report != nil {
		h.report(verdict)
	}
	h.out, h.report = false, nil
}

// overdueGrace is what a step may take to notice that its time is up.
const overdueGrace = 4 * usherRound

// watch tells the fuse of steps that are past their slice and still out. Store
// calls take no context: without this a store that hangs would keep every
// worker and never trip the fuse. Once nobody is left to work, each slice that
// passes is another failure.
func (r *room) watch(now time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	hanging := 0
	for _, h := range r.hands {
		if h.overdue(now) {
			hanging++
		}
	}
	if hanging < r.row().Workers.Max || now.Before(r.jamTold) {
		return
	}
	r.jamTold = now.Add(r.row().Slice)
	for range hanging {
		if report, err := r.fuse().allow(); err == nil {
			report(index.Late)
		}
	}
}

// overdue reports whether the call in hand hangs, and tells the fuse, once.
func (h *hand) overdue(now time.Time) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if !h.out || !now.After(h.due) {
		return false
	}
	if h.report != nil {
		h.report(index.Late)
		h.report = nil
	}
	return true
}

// relax narrows an idle room by one worker, and lets it forget what work cost.
func (r *room) relax() {
	if r.queue.Len() == 0 && r.busy.Load() == 0 {
		r.cost.Store(r.cost.Load() * 7 / 8)
	}
	if w := r.width.Load(); int(w) > max(r.row().Workers.Min, 1) && r.queue.Len() == 0 {
		r.width.CompareAndSwap(w, w-1)
	}
}

// retryAfter is how long the queue will take to drain at its present rate, and
// up to as long again, so that those refused together do not return together.
func (r *room) retryAfter() time.Duration {
	return jitter(r.rate.toDrain(r.queue.Len()))
}

// jitter returns whole seconds between d and twice d, as Retry-After counts.
func jitter(d time.Duration) time.Duration {
	s := int64((d + time.Second - 1) / time.Second)
	return time.Duration(s+rand.Int64N(s+1)) * time.Second
}

func (r *room) stats(now time.Time) index.RoomStats {
	row := r.row()
	return index.RoomStats{
		Name: row.Name, Depth: r.queue.Len(), Capacity: r.queue.Cap(), OldestWait: r.oldest(now),
		Busy: int(r.busy.Load()), Workers: int(r.width.Load()), Batch: row.Batch, LastBatch: int(r.last.Load()),
		Slice: row.Slice, Breaker: r.fuse().state(), Done: r.rate.done.Load(), Step: r.longest(now), Counts: &r.counts,
	}
}

// longest returns how long the longest step under way has been.
func (r *room) longest(now time.Time) (d time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, h := range r.hands {
		d = max(d, h.outFor(now))
	}
	return d
}

// close lets the workers finish what waits, then ends the pool. It returns
// false when ctx ended first: then a step is still out.
func (r *room) close(ctx context.Context) bool {
	r.queue.Close()
	defer r.pool.Release()
	for r.queue.Len() > 0 || r.working.Load() > 0 {
		if ctx.Err() != nil {
			return false
		}
		if r.queue.Len() > 0 {
			r.summon()
		}
		time.Sleep(time.Millisecond)
	}
	return true
}

// A drainRate says how fast a room works, from what it did in the last second
// or so.
type drainRate struct {
	done atomic.Uint64

	mu sync.Mutex
	// Fields below are protected by mu.
	at      time.Time
	seen    uint64
	perUnit float64 // jobs a second
}

func (d *drainRate) add(n int) { d.done.Add(uint64(n)) }

// sample is called by the usher every now and then.
func (d *drainRate) sample(now time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	n := d.done.Load()
	if !d.at.IsZero() {
		if s := now.Sub(d.at).Seconds(); s > 0 {
			d.perUnit = d.perUnit/2 + float64(n-d.seen)/s/2
		}
	}
	d.at, d.seen = now, n
}

// toDrain returns how long depth jobs will take, a second to half a minute.
func (d *drainRate) toDrain(depth int) time.Duration {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.perUnit < 1 {
		return time.Second
	}
	return min(max(time.Duration(float64(depth)/d.perUnit*float64(time.Second)), time.Second), 30*time.Second)
}
