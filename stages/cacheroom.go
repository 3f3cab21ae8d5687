package stages

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/panjf2000/ants/v2"
	"github.com/sony/gobreaker/v2"

	"svcindex/index"
	"svcindex/queue"
)

// A CacheRow is the character of the first room. It differs from the others in
// what it takes, whole flights, and in having one lane for each event loop.
type CacheRow struct {
	Name    string
	Cache   index.Cache
	Gens    *index.Generations
	Depth   int // jobs that may wait in a lane
	Batch   int // most flights a worker takes at once
	Slice   time.Duration
	Breaker Breaker
}

// cacheRoom answers hits on the spot and sends the rest on, job by job.
type cacheRoom struct {
	name   string
	cache  index.Cache
	gens   *index.Generations
	now    atomic.Pointer[CacheRow]                           // the row in force
	fuse   atomic.Pointer[gobreaker.CircuitBreaker[struct{}]] // the fuse in force
	line   *Pipeline
	lanes  []*lane
	pool   *ants.Pool
	labels labels
	counts index.RoomCounts
}

// A lane is one event loop's way in, with one worker at a time.
type lane struct {
	room  *cacheRoom
	queue *queue.Lane[*index.Flight]
	jobs  atomic.Int64 // waiting
	out   atomic.Bool  // the worker is out
	head  atomic.Int64 // when the batch in hand had entered, unix ns; 0: none
	last  atomic.Int32

	awaited atomic.Bool   // the loop is parked until the worker is through
	through chan struct{} // one seat: whoever takes awaited back sends

	drain func()
	run   func() (struct{}, error) // works off a batch; made once, because a closure a batch would be garbage

	// Belong to the worker.
	batch   []*index.Flight
	n       int
	found   uint64
	waits   index.Sheet
	blown   bool // the fuse is: walk past the cache
	renewed [renewMarks]renewMark
	held    *index.Job // the job in hand, until it is given away
}

// laneRoom is how many times its depth a lane could hold: so much deeper it can
// be made without a restart. A pointer each is what that costs.
const laneRoom = 4

func newCacheRoom(row CacheRow, loops int, line *Pipeline) (*cacheRoom, error) {
	c := &cacheRoom{name: row.Name, cache: row.Cache, gens: row.Gens, line: line, labels: newLabels(row.Name)}
	c.now.Store(&row)
	c.fuse.Store(gobreaker.NewCircuitBreaker[struct{}](settings(row.Name, row.Breaker)))
	pool, err := ants.NewPool(2*loops, ants.WithNonblocking(true), ants.WithDisablePurge(true))
	if err != nil {
		return nil, fmt.Errorf("stage %s: %w", row.Name, err)
	}
	c.pool = pool
	for range loops {
		l := &lane{room: c, queue: queue.NewLane[*index.Flight](laneRoom * row.Depth), batch: make([]*index.Flight, row.Batch), through: make(chan struct{}, 1)}
		l.drain, l.run = l.work, l.flights
		c.lanes = append(c.lanes, l)
	}
	return c, nil
}

// tune changes what may be changed of the room at work.
func (c *cacheRoom) tune(next Row) (errs []error) {
	was := c.now.Load()
	row := *was
	row.Depth, row.Batch, row.Slice, row.Breaker = next.Depth, next.Batch, next.Slice, next.Breaker
	if most := c.lanes[0].queue.Cap(); row.Depth > most {
		errs = append(errs, fmt.Errorf("stages.%s.depth = %d: the lanes were made for at most %d; that many may wait until a restart",
			c.name, row.Depth, most))
		row.Depth = most
	}
	c.now.Store(&row)
	if row.Breaker != was.Breaker {
		c.fuse.Store(gobreaker.NewCircuitBreaker[struct{}](settings(c.name, row.Breaker)))
	}
	return errs
}

// push takes flights in order while the lane has room for all the jobs of one.
func (c *cacheRoom) push(lane int, fs []*index.Flight) int {
	l := c.lanes[lane]
	if len(fs) == 0 || c.line.closing.Load() {
		return 0
	}
	now := time.Now()
	room := int64(c.now.Load().Depth) - l.jobs.Load()
	took := 0
	for _, f := range fs {
		if room -= int64(len(f.Jobs)); room < 0 {
			break
		}
		f.Entered = now
		took++
	}
	for _, f := range fs[:took] {
		l.jobs.Add(int64(len(f.Jobs))) // before the push: the worker subtracts
	}
	// The lane holds at least as many flights as jobs may wait, so it takes all.
	l.queue.PushAll(fs[:took])
	l.summon()
	return took
}

func (l *lane) summon() {
	if l.queue.Len() == 0 || !l.out.CompareAndSwap(false, true) {
		return
	}
	if l.room.pool.Submit(l.drain) != nil {
		l.out.Store(false)
	}
}

// await parks the event loop until the worker is through. To park is to hand
// the worker the processor, and to be handed it back: a loop that yields
// instead goes to the end of a queue that all processors share, and may find
// itself behind another loop's wait in epoll.
func (l *lane) await() {
	if !l.out.Load() {
		return
	}
	l.awaited.Store(true)
	// A worker that left before the line above tells nobody.
	if !l.out.Load() && l.awaited.CompareAndSwap(true, false) {
		return
	}
	<-l.through
}

// work is the worker's turn: it takes batches until the lane is empty.
func (l *lane) work() {
	l.room.labels.wear(0)
	defer func() {
		l.out.Store(false)
		l.summon() // something may have come between the last look and the line above
		// Unless another worker is out by now, who will come by here.
		if !l.out.Load() && l.awaited.Load() && l.awaited.CompareAndSwap(true, false) {
			l.through <- struct{}{}
		}
	}()
	for {
		if most := l.room.now.Load().Batch; most != len(l.batch) {
			l.batch = make([]*index.Flight, most)
		}
		l.n = l.queue.PopUpTo(l.batch)
		if l.n == 0 {
			return
		}
		l.turn()
	}
}

// turn takes the batch in hand through the fuse.
func (l *lane) turn() {
	l.last.Store(int32(l.n))
	l.head.Store(l.batch[0].Entered.UnixNano())
	// The fuse wraps the batch: at a look-up of 100 ns, one call a request
	// would cost more than the request.
	if _, err := l.room.fuse.Load().Execute(l.run); err == gobreaker.ErrOpenState || err == gobreaker.ErrTooManyRequests {
		l.blown = true
		_, _ = l.flights()
		l.blown = false
	}
	l.head.Store(0)
	clear(l.batch[:l.n])
}

// flights works off the batch in hand.
func (l *lane) flights() (none struct{}, err error) {
	defer l.publish()
	now := time.Now()
	for _, f := range l.batch[:l.n] {
		if e := l.flight(f, now); e != nil {
			err = e
		}
	}
	return none, err
}

// publish adds what a batch has counted to what everybody sees: an atomic a
// batch, not one a request.
func (l *lane) publish() {
	if l.found > 0 {
		l.room.counts.Found.Add(l.found)
		l.found = 0
	}
	l.waits.AddTo(&l.room.counts.Wait)
}

// flight looks up the jobs of one flight in order. A panic costs the job in
// hand; the others go on.
func (l *lane) flight(f *index.Flight, now time.Time) (err error) {
	jobs, left := f.Jobs, 0
	for _, j := range jobs {
		if j != nil {
			left++
		}
	}
	n := int64(len(jobs))
	wait := now.Sub(f.Entered)
	l.jobs.Add(-n)
	l.waits.ObserveN(wait, uint64(n))
	if wait > l.room.now.Load().Slice {
		// Counted, and looked for all the same: a look costs less than sending
		// the job on would, and an overload must not turn hits into misses.
		l.room.counts.Expired.Add(uint64(n))
	}
	inOrder := true
	// The last job given away may send the flight home and on its next way:
	// nothing of it is touched after that.
	for i := 0; left > 0; i++ {
		j := jobs[i]
		if j == nil {
			inOrder = false // this slot was answered before take-off
			continue
		}
		left--
		j.Entered = now
		hit, e := l.look(j, inOrder, l.blown)
		inOrder = inOrder && hit
		if e != nil {
			err = e
		}
	}
	return err
}

// look looks for one job and gives it away. hit: it was answered here.
func (l *lane) look(j *index.Job, inOrder, past bool) (hit bool, err error) {
	l.held = j
	defer func() {
		if p := recover(); p != nil {
			l.room.counts.Panics.Add(1)
			hit, err = false, index.Broken
			if j := l.held; j != nil {
				l.held = nil
				j.InOrder = false
				j.Answer.Page = nil
				j.Finish(index.Broken)
			}
		}
	}()
	// Noted before anything is read: what is found later counts only if no
	// write has come in between.
	j.Noted = l.room.gens.Note(j.Hash)
	j.InOrder = inOrder
	if !past && !j.Fresh {
		j.Home.Open(j)
		if l.room.cache.Get(j) == nil {
			if j.Answer.Aging {
				l.renew(j)
			}
			l.answer(j)
			return true, nil
		}
		j.Answer.Page = nil
	}
	j.InOrder = false
	l.room.counts.Missed.Add(1)
	l.held = nil
	l.room.line.miss(j, j.Entered)
	return false, nil
}

// answer sends a hit home.
func (l *lane) answer(j *index.Job) {
	l.found++
	k := index.OK
	if j.Answer.Negative {
		k = index.Missing
	}
	l.held = nil
	j.Hit = k == index.OK
	j.Finish(k)
}

// nudge sends workers for lanes that wait for one. A worker that could not be
// sent at the push, because the pool was between two tasks, is sent here.
func (c *cacheRoom) nudge() {
	for _, l := range c.lanes {
		l.summon()
	}
}

func (c *cacheRoom) stats(now time.Time) index.RoomStats {
	row := c.now.Load()
	s := index.RoomStats{
		Name: c.name, Capacity: row.Depth * len(c.lanes), Workers: len(c.lanes), Batch: row.Batch,
		Slice: row.Slice, Breaker: breakerState(c.fuse.Load().State()), Counts: &c.counts,
	}
	for _, l := range c.lanes {
		s.Depth += int(l.jobs.Load())
		s.LastBatch = max(s.LastBatch, int(l.last.Load()))
		if head := l.head.Load(); head != 0 {
			s.Busy++
			s.OldestWait = max(s.OldestWait, now.Sub(time.Unix(0, head)))
		}
	}
	s.Step = s.OldestWait
	s.Done = c.counts.Found.Load() + c.counts.Missed.Load()
	return s
}

func (c *cacheRoom) close(ctx context.Context) bool {
	defer c.pool.Release()
	for _, l := range c.lanes {
		for l.queue.Len() > 0 || l.out.Load() {
			if ctx.Err() != nil {
				return false
			}
			l.summon()
			time.Sleep(time.Millisecond)
		}
	}
	return true
}
