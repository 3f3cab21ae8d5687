package telemetry

import (
	"sync"
	"time"

	"svcindex/index"
)

// stagesPage is the body of /debug/stages.
type stagesPage struct {
	Stages []stagePage `json:"stages"`
	Watch  any         `json:"watch,omitempty"`
	Extra  any         `json:"extra,omitempty"`
}

// A stagePage is one stage, for people and for rigs.
type stagePage struct {
	Name       string  `json:"name"`
	Depth      int     `json:"depth"`
	Capacity   int     `json:"capacity"`
	OldestWait float64 `json:"oldest_wait_s"`
	Busy       int     `json:"busy"`
	Workers    int     `json:"workers"`
	Batch      int     `json:"batch"`
	LastBatch  int     `json:"last_batch"`
	Slice      float64 `json:"slice_s"`
	Breaker    string  `json:"breaker"`
	Rates      tally   `json:"rates_per_s"`
	Window     float64 `json:"rates_window_s"`
}

var breakerNames = []string{"closed", "half-open", "open"}

func breakerName(state int) string {
	if state < 0 || state >= len(breakerNames) {
		return "unknown"
	}
	return breakerNames[state]
}

// A tally is a stage's counters, or their change in a second.
type tally struct {
	Found    float64 `json:"found"`
	Missed   float64 `json:"missed"`
	Failed   float64 `json:"failed"`
	Expired  float64 `json:"expired"`
	Skipped  float64 `json:"skipped"`
	Rejected float64 `json:"rejected"`
}

func tallyOf(c *index.RoomCounts) tally {
	if c == nil {
		return tally{}
	}
	return tally{
		Found:    float64(c.Found.Load()),
		Missed:   float64(c.Missed.Load()),
		Failed:   float64(c.Failed.Load()),
		Expired:  float64(c.Expired.Load()),
		Skipped:  float64(c.Skipped.Load()),
		Rejected: float64(c.RejectedFull.Load() + c.RejectedWait.Load() + c.RejectedInflight.Load()),
	}
}

// since returns the change from t to now, in each of so many seconds.
func (t tally) since(now tally, seconds float64) tally {
	if seconds <= 0 {
		return tally{}
	}
	return tally{
		Found:    (now.Found - t.Found) / seconds,
		Missed:   (now.Missed - t.Missed) / seconds,
		Failed:   (now.Failed - t.Failed) / seconds,
		Expired:  (now.Expired - t.Expired) / seconds,
		Skipped:  (now.Skipped - t.Skipped) / seconds,
		Rejected: (now.Rejected - t.Rejected) / seconds,
	}
}

// ratesKept are the seconds that rates look back.
const ratesKept = 10

// rates remembers the counters of the last seconds. It is our meter: a
// go-metrics meter averages over minutes and starts a goroutine that never
// ends.
type rates struct {
	mu   sync.Mutex
	past []moment // oldest first, at most ratesKept
}

type moment struct {
	at    time.Time
	rooms map[string]tally
}

// note remembers the counters as they are.
func (r *rates) note(now time.Time, rooms []index.RoomStats) {
	m := moment{now, make(map[string]tally, len(rooms))}
	for _, room := range rooms {
		m.rooms[room.Name] = tallyOf(room.Counts)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.past) == ratesKept {
		r.past = append(r.past[:0], r.past[1:]...)
	}
	r.past = append(r.past, m)
}

// dress returns rooms as they are shown, with rates since the oldest moment.
func (r *rates) dress(rooms []index.RoomStats) []stagePage {
	return r.dressAt(time.Now(), rooms)
}

func (r *rates) dressAt(now time.Time, rooms []index.RoomStats) []stagePage {
	from, window := r.oldest(now)
	pages := make([]stagePage, len(rooms))
	for i, s := range rooms {
		pages[i] = stageOf(s)
		pages[i].Rates, pages[i].Window = from.rooms[s.Name].since(tallyOf(s.Counts), window), window
	}
	return pages
}

// stageOf returns a stage as it is shown, without rates.
func stageOf(s index.RoomStats) stagePage {
	return stagePage{
		Name: s.Name, Depth: s.Depth, Capacity: s.Capacity, OldestWait: s.OldestWait.Seconds(),
		Busy: s.Busy, Workers: s.Workers, Batch: s.Batch, LastBatch: s.LastBatch,
		Slice: s.Slice.Seconds(), Breaker: breakerName(s.Breaker),
	}
}

// oldest returns the moment that rates are taken from, and the seconds since.
func (r *rates) oldest(now time.Time) (moment, float64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.past) == 0 {
		return moment{}, 0
	}
	return r.past[0], now.Sub(r.past[0].at).Seconds()
}
