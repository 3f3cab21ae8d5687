package stages

import (
	"context"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"svcindex/index"
)

// An errand is one piece of work for everybody who asked for it: a look-up
// past the cache, or a write. Its own Job is what travels through the rooms;
// its askers wait as data in a list, not as blocked workers.
//
// What an errand found is shared by its askers and immutable.
type errand struct {
	index.Job
	line  *Pipeline
	rooms []*room              // still to be asked, in order
	at    atomic.Pointer[room] // where it is now; the usher looks
	ctx   context.Context      // nil until it leaves the process
	ours  bool                 // a find on its way into the store: nobody waits for it
	asked bool                 // the network looked
	begun time.Time
	trail trail
	page  []byte         // what its answer was rendered into, or an earlier one's: nobody reads that any more
	wish  index.Mutation // what the body of a write says

	// Protected by the desk's mutex.
	cancel context.CancelFunc // of ctx
	kept   *index.Answer      // what the store has, past its time; immutable
	askers []*asker
	open   bool // askers may still join
	ended  bool
	left   bool // somebody went before it ended: the usher may still look at it

	// Most errands have one asker; he needs no memory of his own.
	only asker
	seat [1]*asker
}

// errands are those that are over, to be begun again. One is as large as all
// that a look-up in the database allocates otherwise. Only those come back that
// nobody else can know of: no context was derived from it, and no asker left.
var errands = sync.Pool{New: func() any { return new(errand) }}

// pageKept is the largest page whose memory is used again. That of a resolve
// has some 700 bytes.
const pageKept = 2 << 10

// forget makes an errand new.
func (e *errand) forget() {
	e.Job = index.Job{}
	e.line, e.rooms, e.begun, e.trail = nil, nil, time.Time{}, trail{}
	if e.wish.Op != 0 {
		e.wish = index.Mutation{}
	}
	e.at.Store(nil)
	e.asked, e.open, e.ended = false, false, false
	e.only, e.seat = asker{}, [1]*asker{}
	if cap(e.page) > pageKept {
		e.page = nil
	}
}

// An asker is one waiting job.
type asker struct {
	job        *index.Job
	errand     *errand
	at         int    // its place in the errand's list
	prev, next *asker // in the order of deadlines
}

// about is where the desk keeps what is asked. Two questions that share a place
// do not share an errand: the later one has the place.
func about(j *index.Job) uint64 { return j.Hash + uint64(j.Ask) }

// A desk knows who waits for what. It is the one lock of the pipeline, and is
// never held while another room is called.
type desk struct {
	mu       sync.Mutex
	about    map[uint64]*errand // by hash: a key is long, and to hash it again costs as much as to find it
	inflight int                // errands that have not ended
	joined   int                // askers beyond the first of an errand
	waiting  int
	// first and last are the ends of the list of askers, soonest deadline
	// first. Budgets are alike, so a newcomer nearly always goes to the end.
	first, last *asker
	dozing      bool // the usher looks at nothing until he is woken

	wake chan struct{} // tells the usher that somebody waits
}

func newDesk() *desk {
	return &desk{about: make(map[uint64]*errand), dozing: true, wake: make(chan struct{}, 1)}
}

// join seats j at the errand about its key, a new one if need be. isNew: the
// caller has to send it on its way. nil: over a limit; j is still the
// caller's, with the limit in its Answer.Reason.
//
// An asker joins only an errand that began in the generation he arrived in: an
// errand overtaken by a write answers nobody who came after the write. One who
// wants it fresh joins none that began before him. What is rendered for all is
// ordered by the rules that the errand began under, so they have to be his, too.
func (d *desk) join(j *index.Job, begin func() *errand) (e *errand, isNew bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	merge := j.Ask.IsLookup()
	if merge {
		if e := d.joinable(j); e != nil {
			if most := j.Tuning.Joined; most > 0 && d.joined >= most {
				j.Answer.Reason = "limits.joined"
				return nil, false
			}
			d.joined++
			d.seat(j, e)
			return e, false
		}
	}
	if most := j.Tuning.Inflight; most > 0 && d.inflight >= most {
		j.Answer.Reason = "limits.inflight"
		return nil, false
	}
	e = begin()
	e.open = true
	d.inflight++
	if merge {
		d.about[about(j)] = e
	}
	d.seat(j, e)
	return e, true
}

// equip gives e a context before it leaves the process. Most errands never do,
// and a context with a deadline costs as much as a look in the cache.
func (d *desk) equip(e *errand) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if e.ctx != nil {
		return
	}
	e.ctx, e.cancel = context.WithDeadline(context.Background(), e.Deadline)
	if len(e.askers) == 0 { // the last one has left on the way here
		e.cancel()
	}
}

// joinable returns the errand that j may join, nil for none.
func (d *desk) joinable(j *index.Job) *errand {
	e := d.about[about(j)]
	if e == nil || j.Fresh || !e.open || e.Noted != j.Noted || e.Ask != j.Ask || e.Key != j.Key || !sameRules(e.Tuning, j.Tuning) {
		return nil
	}
	return e
}

func sameRules(a, b *index.Tuning) bool {
	return a == b || a != nil && b != nil && a.Serial == b.Serial
}

// knows reports whether j could join somebody else's errand.
func (d *desk) knows(j *index.Job) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.joinable(j) != nil
}

// seat adds j to e's askers and to the list of deadlines.
func (d *desk) seat(j *index.Job, e *errand) {
	a := &e.only
	if e.askers == nil {
		e.askers = e.seat[:0]
	} else {
		a = new(asker)
	}
	*a = asker{job: j, errand: e, at: len(e.askers)}
	e.askers = append(e.askers, a)
	after := d.last
	for after != nil && after.job.Deadline.After(j.Deadline) {
		after = after.prev
	}
	a.prev = after
	if after == nil {
		a.next, d.first = d.first, a
	} else {
		a.next, after.next = after.next, a
	}
	if a.next == nil {
		d.last = a
	} else {
		a.next.prev = a
	}
	d.waiting++
	if d.dozing {
		d.dozing = false
		select {
		case d.wake <- struct{}{}:
		default:
		}
	}
}

// doze reports whether nobody waits; the next who does wakes the usher. He
// dozes off at the end of a round only: woken by everyone who comes alone he
// cost each of them 4 % of a look-up in the database.
func (d *desk) doze() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.dozing = d.waiting == 0
	return d.dozing
}

// unseat takes a out of the list of deadlines.
func (d *desk) unseat(a *asker) {
	if a.prev == nil {
		d.first = a.next
	} else {
		a.prev.next = a.next
	}
	if a.next == nil {
		d.last = a.prev
	} else {
		a.next.prev = a.prev
	}
	a.prev, a.next = nil, nil
	d.waiting--
}

// end closes e and returns those who waited for it.
func (d *desk) end(e *errand) []*asker {
	d.mu.Lock()
	defer d.mu.Unlock()
	if e.ended {
		return nil
	}
	e.ended = true
	as := e.askers
	e.askers = nil
	for _, a := range as {
		d.unseat(a)
	}
	d.joined -= max(len(as)-1, 0)
	d.inflight--
	d.shut(e)
	return as
}

// shut lets nobody join e any more. A write has no place that others could find
// it at, and its hash may be changing: only its body tells the key of some.
func (d *desk) shut(e *errand) {
	e.open = false
	if !e.Ask.IsLookup() {
		return
	}
	if s := about(&e.Job); d.about[s] == e {
		delete(d.about, s)
	}
}

// leave takes out every asker whose deadline has come, or whose client has
// gone when gone is set. They are the caller's to answer.
func (d *desk) leave(now time.Time, gone bool) (late []*asker) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for a := d.first; a != nil; {
		next := a.next
		due := !a.job.Deadline.After(now)
		if due || gone && a.job.Home.Gone() {
			d.drop(a)
			late = append(late, a)
		} else if !gone {
			break // the list is in order: nobody behind is due
		}
		a = next
	}
	return late
}

// drop takes a away from its errand; the last one to leave cancels it.
func (d *desk) drop(a *asker) {
	d.unseat(a)
	e := a.errand
	e.left = true
	last := len(e.askers) - 1
	e.askers[a.at] = e.askers[last]
	e.askers[a.at].at = a.at
	e.askers[last] = nil
	e.askers = e.askers[:last]
	if len(e.askers) > 0 {
		d.joined--
		return
	}
	d.shut(e)
	if e.cancel != nil {
		e.cancel()
	}
}

// wanted reports whether anybody still waits for the errand of j.
func (d *desk) wanted(j *index.Job) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	e := j.Home.(*errand)
	return e.ours || len(e.askers) > 0
}

// put keeps what the store had for e, in case the network cannot be asked.
func (d *desk) put(e *errand) {
	kept := e.Answer
	kept.Past = false
	d.mu.Lock()
	defer d.mu.Unlock()
	e.kept = &kept
}

// stale returns what may be served of e's key while the network cannot be
// asked: what the store had. It is stale where it is of a kind that ages.
func (d *desk) stale(e *errand) (a index.Answer, ok bool) {
	d.mu.Lock()
	kept := e.kept
	d.mu.Unlock()
	if kept == nil || !kept.Until.IsZero() && !time.Now().Before(kept.Until) { // it has ended meanwhile
		return a, false
	}
	a = *kept
	a.Partial = true
	a.Stale = e.Key.IsName() || slices.ContainsFunc(a.Providers, func(p index.Provider) bool { return p.Found })
	if checked := a.Name.Checked; a.Stale && checked != 0 {
		a.Age = max(time.Since(time.Unix(checked, 0)), 0)
	}
	return a, true
}

// counts returns how many errands are under way and how many askers wait.
func (d *desk) counts() (inflight, waiting int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.inflight, d.waiting
}

// Open implements index.Replier. No cache looks at an errand.
func (e *errand) Open(*index.Job) {}

// Gone implements index.Replier.
func (e *errand) Gone() bool { return false }

// Reply implements index.Replier: the errand is over, and everybody who waited
// gets what it found.
func (e *errand) Reply(*index.Job) { e.line.deliver(e) }
