// Package ram is the shelf in memory: answers already rendered, so that a hit
// is one copy. It is the only door to freecache.
//
// It never serves an answer past its time (but GetStale, which says so), never
// one of another key, and never one that a write has overtaken: an entry
// counts only while the generation of its key is the one it was filled under.
package ram

import (
	"encoding/binary"
	"sync"
	"sync/atomic"
	"time"

	"github.com/coocood/freecache"

	"svcindex/index"
)

// Options are the cache's knobs. The times are those of a job without a Tuning.
type Options struct {
	Bytes    int           // memory for entries, taken at once; the front has up to 1.3 MiB more
	TTL      time.Duration // how long an answer is fresh
	NegTTL   time.Duration // how long a proven absence is
	StaleFor time.Duration // how long past that an answer may be served as stale
}

// Cache implements index.Cache.
type Cache struct {
	opt    Options
	gens   *index.Generations
	kept   atomic.Pointer[kept]
	start  time.Time
	clock  secondsClock
	counts index.CacheCounts
	once   sync.Once
	done   chan struct{}
	ended  chan struct{}
}

var _ index.Cache = (*Cache)(nil)

// kept is all that a cache holds.
type kept struct {
	front
	free *freecache.Cache
}

// secondsClock is freecache's timer: monotonic, because a wall clock that
// steps back would serve expired entries and spoil its statistics for ever;
// and ticked, because reading the time costs as much as a look-up.
type secondsClock struct{ at atomic.Uint32 }

func (c *secondsClock) Now() uint32 { return c.at.Load() }

// New returns a cache whose entries live as long as gens does not move. Close
// it to end its clock.
func New(opt Options, gens *index.Generations) *Cache {
	c := &Cache{
		opt: opt, gens: gens, start: time.Now(),
		done: make(chan struct{}), ended: make(chan struct{}),
	}
	c.clock.at.Store(1)
	c.Purge()
	go c.tick()
	return c
}

func (c *Cache) tick() {
	defer close(c.ended)
	t := time.NewTicker(time.Second)
	defer t.Stop()
	for {
		select {
		case <-t.C:
			c.clock.at.Store(1 + uint32(time.Since(c.start)/time.Second))
		case <-c.done:
			return
		}
	}
}

// Close ends the clock. The cache must not be used afterwards.
func (c *Cache) Close() {
	c.once.Do(func() { close(c.done) })
	<-c.ended
}

// Purge forgets everything: what was kept lies in memory that nobody holds any
// more. freecache's own Clear would leave every octet where it is.
func (c *Cache) Purge() {
	c.kept.Store(&kept{free: freecache.NewCacheCustomTimer(c.opt.Bytes, &c.clock)})
}

// Counts returns the live counters.
func (c *Cache) Counts() *index.CacheCounts { return &c.counts }

// Len returns how many entries are kept, expired ones included.
func (c *Cache) Len() int64 { return c.kept.Load().free.EntryCount() }

// Get implements index.Store. A page is appended to j.Answer.Page; an asker
// with parameters of his own gets the whole provider set instead. A known
// absence is an answer too: Answer.Negative.
func (c *Cache) Get(j *index.Job) error {
	err := c.get(j, false)
	if err == nil {
		c.counts.Hits.Add(1)
	} else {
		c.counts.Misses.Add(1)
	}
	return err
}

// GetStale implements index.Cache.
func (c *Cache) GetStale(j *index.Job) error {
	err := c.get(j, true)
	if err == nil {
		c.counts.Hits.Add(1)
	}
	return err
}

func (c *Cache) get(j *index.Job, stale bool) error {
	var r read // field by field: a literal is made elsewhere first, and copied
	r.cache, r.kept, r.job, r.stale, r.now = c, c.kept.Load(), j, stale, c.now(j, stale)
	if h := r.kept.at(idOf(j.Hash, j.Ask, j.Format), c.clock.Now()); h != nil && r.answer(&h.entry) {
		return nil
	}
	var kb [keySize]byte
	_ = r.kept.free.GetFn(appendKey(kb[:0], j.Hash, j.Ask, j.Format), r.take)
	if !r.found {
		return index.Missing
	}
	return nil
}

// now is when j is answered, on the cache's clock. Reading the time costs as
// much as half a look-up, so a hit makes do with when its batch began.
func (c *Cache) now(j *index.Job, stale bool) time.Duration {
	if stale || j.Entered.IsZero() {
		return time.Since(c.start)
	}
	return j.Entered.Sub(c.start)
}

// A read is one look-up.
type read struct {
	cache *Cache
	kept  *kept
	job   *index.Job
	stale bool
	now   time.Duration
	found bool
}

// take copies an entry into the job. It runs under freecache's segment lock,
// which is not released if it panics: it only compares and copies.
func (r *read) take(b []byte) error {
	e, ok := parse(b)
	if r.found = ok && r.answer(&e); r.found {
		r.kept.keep(idOf(r.job.Hash, r.job.Ask, r.job.Format), r.cache.clock.Now(), b)
	}
	return nil
}

// answer copies an entry into the job if it is its answer.
func (r *read) answer(e *entry) bool {
	j := r.job
	if !e.isOf(&j.Key) || e.gen != r.cache.gens.Note(j.Hash) || e.gen != j.Noted {
		return false
	}
	past := r.now >= e.freshUntil
	if past && (!r.stale || r.now >= e.staleUntil || e.negative()) {
		return false
	}
	a := &j.Answer
	if j.Ask == index.AskProviders && !j.Query.IsDefault() && !e.negative() {
		set, err := decodeSet(a.Providers[:0], e.set)
		if err != nil {
			return false
		}
		a.Providers = set
	} else if len(e.page) == 0 && !e.negative() {
		return false // a set of which nothing may be given out: only the whole way knows what to say
	} else {
		a.Page = append(a.Page, e.page...)
	}
	a.From, a.Negative, a.Stale = index.FromCache, e.negative(), past
	a.Age = max(r.now-e.filledAt, 0) // it may be younger than the batch
	a.Aging = !past && j.Tuning != nil && j.Tuning.Lives.RefreshAhead > 0 && e.aging(r.now, j.Tuning.Lives.RefreshAhead)
	return true
}

// lives says how long what j found is kept.
func (c *Cache) lives(j *index.Job) index.Lives {
	if j.Tuning == nil {
		return index.Lives{TTL: c.opt.TTL, NegTTL: c.opt.NegTTL, StaleFor: c.opt.StaleFor}
	}
	return j.Tuning.Lives
}

// PutIf implements index.Cache.
func (c *Cache) PutIf(j *index.Job) bool {
	if c.gens.Note(j.Hash) != j.Noted {
		c.counts.Overtaken.Add(1)
		return false
	}
	lives := c.lives(j)
	ttl := lives.TTL
	negative := j.Result == index.Missing
	if negative {
		ttl = lives.NegTTL
	}
	now := time.Since(c.start)
	if at := j.Answer.FreshUntil; !at.IsZero() {
		ttl = min(ttl, time.Until(at))
	}
	stale := ttl + lives.StaleFor
	if !j.Answer.Until.IsZero() {
		// What has an end of its own is neither fresh nor stale past it.
		left := time.Until(j.Answer.Until)
		ttl, stale = min(ttl, left), min(stale, left)
	}
	if negative {
		stale = ttl
	}
	if ttl <= 0 {
		return false
	}
	e := entry{
		gen: j.Noted, filledAt: now - j.Answer.Age, freshUntil: now + ttl, staleUntil: now + stale, flags: flagsOf(&j.Key, negative),
		key: j.Key.Bytes(), page: j.Answer.Page,
	}
	if negative {
		e.page = nil
	} else if j.Ask == index.AskProviders {
		e.set = encodeSet(nil, j.Answer.Providers)
	}
	var kb [keySize]byte
	key := appendKey(kb[:0], j.Hash, j.Ask, j.Format)
	// freecache counts whole seconds from a clock ticked once a second; the
	// entry's own times are the ones that count.
	var room [entryRoom]byte // Set copies
	kept := c.kept.Load()
	err := kept.free.Set(key, e.append(room[:0]), int(stale/time.Second)+2)
	if err != nil {
		kept.free.Del(key) // a refused Set leaves the old value standing
	}
	kept.drop(idOf(j.Hash, j.Ask, j.Format))
	if err != nil {
		c.counts.TooLarge.Add(1)
		return false
	}
	c.counts.Stored.Add(1)
	return true
}

// Forget implements index.Cache.
func (c *Cache) Forget(hash uint64, k *index.Key) {
	kept, last := c.kept.Load(), index.AskManifest
	if k.IsName() {
		last = index.AskResolve // nothing else is asked of a name
	}
	for ask := index.AskResolve; ask <= last; ask++ {
		kept.forget(hash, ask, index.JSON)
		if ask != index.AskManifest {
			kept.forget(hash, ask, index.CBOR)
		}
	}
}

func (k *kept) forget(hash uint64, ask index.Ask, f index.Format) {
	var kb [keySize]byte
	k.free.Del(appendKey(kb[:0], hash, ask, f))
	k.drop(idOf(hash, ask, f))
}

// keySize is the size of a freecache key: the keyed hash, the question and the
// format. Two keys with one hash would share a place, not an answer: an entry
// carries its whole key.
const keySize = 10

func appendKey(dst []byte, hash uint64, ask index.Ask, f index.Format) []byte {
	if ask == index.AskManifest {
		f = index.JSON // the bytes are the bytes
	}
	dst = binary.LittleEndian.AppendUint64(dst, hash)
	return append(dst, byte(ask), byte(f))
}
