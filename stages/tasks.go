package stages

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/oklog/ulid/v2"

	"svcindex/index"
)

const (
	tasksAtOnce = 4
	tasksKept   = 1024   // finished and running; the oldest finished is forgotten first
	reindexMax  = 10_000 // keys of one task
	idemFor     = 24 * time.Hour
	idemMax     = 256 // bytes of an Idempotency-Key
	beginWithin = 60  // seconds from the decoding to the commit, and far more than a write may take
)

// TaskState is what GET /admin/tasks/{id} shows.
type TaskState struct {
	TaskID   string `json:"task_id"`
	State    string `json:"state"` // accepted, running, done, cancelled
	Priority string `json:"priority"`
	Total    int    `json:"total"`
	Done     int    `json:"done"`
	Found    int    `json:"found"`
	Missing  int    `json:"missing"`
	Failed   int    `json:"failed"`
	Created  int64  `json:"created_at"`
	Finished int64  `json:"finished_at,omitempty"`
}

// Tasks are the background re-lookups. They live in memory: a restart empties
// the cache, which is all that a reindex is for.
type Tasks struct {
	gens   *index.Generations
	cache  index.Cache
	lookup func(*index.Job)
	ctx    context.Context
	cancel context.CancelFunc
	busy   sync.WaitGroup
	turns  chan struct{} // one for each task under way

	mu sync.Mutex
	// Fields below are protected by mu.
	byID  map[string]*task
	order []*task
}

type task struct {
	state TaskState
	keys  []index.Key
}

// NewTasks returns an empty list. Attach gives it a pipeline; Close ends what
// runs.
func NewTasks(gens *index.Generations, cache index.Cache) *Tasks {
	t := &Tasks{gens: gens, cache: cache, byID: make(map[string]*task), turns: make(chan struct{}, tasksAtOnce)}
	t.ctx, t.cancel = context.WithCancel(context.Background())
	return t
}

// Attach says how a look-up is sent past the cache. Call it before the first
// task.
func (t *Tasks) Attach(p *Pipeline) { t.lookup = p.Lookup }

// Close stops running tasks and waits for them.
func (t *Tasks) Close() {
	t.mu.Lock()
	t.cancel() // under mu, so that begin cannot start what Wait would miss
	t.mu.Unlock()
	t.busy.Wait()
}

// State returns how a task stands.
func (t *Tasks) State(id string) (TaskState, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if k := t.byID[id]; k != nil {
		return k.state, true
	}
	return TaskState{}, false
}

// decode reads a reindex request and keeps its task for begin.
func (t *Tasks) decode(d *decoder, j *index.Job) error {
	body, err := d.body(j)
	if err != nil {
		return err
	}
	if err := mustBeJSON(j); err != nil {
		return err
	}
	var in struct {
		Keys     []string `json:"keys"`
		Priority string   `json:"priority"`
	}
	if err := strict(body, &in); err != nil {
		return err
	}
	if in.Priority == "" {
		in.Priority = "normal"
	}
	switch {
	case len(in.Keys) == 0 || len(in.Keys) > reindexMax:
		return invalid("keys has to be a list of 1 to 10000")
	case in.Priority != "low" && in.Priority != "normal" && in.Priority != "high":
		return invalid("priority has to be low, normal or high")
	case len(j.Idempotency) > idemMax:
		return invalid("an Idempotency-Key is at most 256 bytes")
	}
	keys := make([]index.Key, 0, len(in.Keys))
	for _, s := range in.Keys {
		k, err := index.ParseKey(s)
		if err != nil {
			return invalid("one of the keys is malformed")
		}
		keys = append(keys, k)
	}
	id := ulid.Make().String()
	if err := t.keep(&task{keys: keys, state: TaskState{
		TaskID: id, State: "accepted", Priority: in.Priority, Total: len(keys), Created: d.now,
	}}); err != nil {
		return err
	}
	j.Write = &index.Mutation{Op: index.Reindex, Who: j.Who, Idem: index.Idempotency{
		Key: j.Idempotency, Body: index.Sum(body), TaskID: id, Expires: d.now + int64(idemFor/time.Second),
	}}
	return nil
}

// keep lists a task that is about to be begun. A full list forgets the oldest
// that is over; when all are under way it refuses, for a task that was
// answered with 202 must not be forgotten before it ran.
func (t *Tasks) keep(k *task) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.order = slices.DeleteFunc(t.order, func(old *task) bool { // decoded, and never committed
		lost := old.state.State == "accepted" && old.over(k.state.Created)
		if lost {
			delete(t.byID, old.state.TaskID)
		}
		return lost
	})
	if len(t.order) >= tasksKept {
		i := slices.IndexFunc(t.order, func(old *task) bool { return old.over(k.state.Created) })
		if i < 0 {
			return &Refusal{index.Busy, "as many tasks as there may be are under way"}
		}
		delete(t.byID, t.order[i].state.TaskID)
		t.order = slices.Delete(t.order, i, i+1)
	}
	t.byID[k.state.TaskID] = k
	t.order = append(t.order, k)
	return nil
}

// over reports whether nothing more will come of k. One that was not begun
// within beginWithin never will be: the store could not be asked.
func (k *task) over(now int64) bool {
	switch k.state.State {
	case "accepted":
		return now-k.state.Created > beginWithin
	case "running":
		return false
	}
	return true
}

// drop forgets a task that was never begun.
func (t *Tasks) drop(id string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.byID, id)
	t.order = slices.DeleteFunc(t.order, func(k *task) bool { return k.state.TaskID == id })
}

// adopt gives a task the id that its first request was answered with, if this
// one repeats it: it stands in for a task that a restart forgot, or is dropped.
func (t *Tasks) adopt(id, first string) {
	if id == first {
		return
	}
	t.mu.Lock()
	k := t.byID[id]
	if t.byID[first] == nil && k != nil {
		delete(t.byID, id)
		k.state.TaskID = first
		t.byID[first] = k
	}
	t.mu.Unlock()
	t.drop(id)
}

// begin runs the task unless it runs or ran: a repeated request names an
// earlier one.
func (t *Tasks) begin(id string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	k := t.byID[id]
	if k == nil || k.state.State != "accepted" || t.ctx.Err() != nil {
		return
	}
	k.state.State = "running"
	t.busy.Go(func() { t.run(k) })
}

// width is how many look-ups of a task are under way at once.
var width = map[string]int{"low": 1, "normal": 4, "high": 16}

func (t *Tasks) run(k *task) {
	// A few tasks at once: together they must not take the house from clients.
	select {
	case t.turns <- struct{}{}:
		defer func() { <-t.turns }()
	case <-t.ctx.Done():
	}
	keys := make(chan index.Key)
	var workers sync.WaitGroup
	for range width[k.state.Priority] {
		workers.Go(func() {
			for key := range keys {
				t.note(k, t.refresh(key))
			}
		})
	}
	for _, key := range k.keys {
		select {
		case keys <- key:
			continue
		case <-t.ctx.Done():
		}
		break
	}
	close(keys)
	workers.Wait()
	t.mu.Lock()
	defer t.mu.Unlock()
	k.keys = nil
	k.state.State, k.state.Finished = "done", time.Now().Unix()
	if t.ctx.Err() != nil {
		k.state.State = "cancelled"
	}
}

func (t *Tasks) note(k *task, r index.Kind) {
	t.mu.Lock()
	defer t.mu.Unlock()
	k.state.Done++
	switch r {
	case index.OK:
		k.state.Found++
	case index.Missing:
		k.state.Missing++
	default:
		k.state.Failed++
	}
}

// tries is how often a look-up that found the house full is tried again; the
// background gives way to clients, but not for ever.
const tries = 20

// refresh evicts a key and looks it up afresh.
func (t *Tasks) refresh(key index.Key) (k index.Kind) {
	hash := t.gens.Hash(&key)
	t.cache.Forget(hash, &key)
	asks := []index.Ask{index.AskResolve}
	if !key.IsName() {
		asks = append(asks, index.AskProviders)
	}
	k = index.Missing
	for _, ask := range asks {
		switch r := t.ask(ask, key, hash); r {
		case index.OK:
			k = index.OK
		case index.Missing:
		default:
			return r
		}
	}
	return k
}

func (t *Tasks) ask(ask index.Ask, key index.Key, hash uint64) index.Kind {
	for try := 1; ; try++ {
		h := homecoming{t.ctx, make(chan index.Kind, 1)}
		now := time.Now()
		t.lookup(&index.Job{
			Ask: ask, Key: key, Hash: hash, Fresh: true, Deadline: now.Add(5 * time.Second),
			Query: index.ProviderQuery{Limit: index.DefaultLimit}, Home: h,
		})
		k := <-h.done
		if k != index.Busy || try == tries {
			return k
		}
		select {
		case <-time.After(50 * time.Millisecond):
		case <-t.ctx.Done():
			return k
		}
	}
}

// A homecoming is the home of a job of our own.
type homecoming struct {
	ctx  context.Context
	done chan index.Kind
}

func (h homecoming) Open(*index.Job)    {}
func (h homecoming) Reply(j *index.Job) { h.done <- j.Result }
func (h homecoming) Gone() bool         { return h.ctx.Err() != nil }
