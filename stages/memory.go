package stages

import (
	"fmt"
	"strings"
	"sync"
	"time"

	"svcindex/index"
)

// A trail is where an errand has been.
type trail struct {
	legs [4]Leg
	n    int
	last time.Time // when it left the last of them
}

// A Leg is one room on the way of a look-up.
type Leg struct {
	Stage   string        `json:"stage"`
	Took    time.Duration `json:"took_ns"`
	Outcome string        `json:"outcome"` // how the room was left
}

// leg notes that the errand left the room it was in.
func (t *trail) leg(e *errand, k index.Kind, now time.Time) {
	t.last = now
	at := e.at.Load()
	if at == nil || t.n == len(t.legs) {
		return
	}
	how := k.String()
	if k == index.OK && e.Answer.Past {
		how = "past its time"
	}
	t.legs[t.n] = Leg{at.name, now.Sub(e.Entered), how}
	t.n++
}

// skip notes that a room was walked past.
func (t *trail) skip(r *room, why string) {
	if t.n < len(t.legs) {
		t.legs[t.n] = Leg{Stage: r.name, Outcome: why}
		t.n++
	}
}

// A Past is how the last look-up of one question past the cache ended.
type Past struct {
	Asked   string        `json:"asked"` // resolve, providers or manifests
	At      time.Time     `json:"at"`
	Took    time.Duration `json:"took_ns"`
	Result  string        `json:"result"`
	Doubt   string        `json:"doubt,omitempty"`
	Stage   string        `json:"stage,omitempty"`  // that refused or doubted
	Source  string        `json:"source,omitempty"` // where the answer came from
	Stale   bool          `json:"stale"`            // it was served as stale
	Partial bool          `json:"partial"`
	Fresh   bool          `json:"fresh"` // it was asked for with fresh=true
	Legs    []Leg         `json:"legs"`
}

// Story says it in words, as of now.
func (p *Past) Story(now time.Time) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s, %v ago, took %v: %s", p.Asked, now.Sub(p.At).Round(time.Second), p.Took.Round(time.Microsecond), p.Result)
	if p.Source != "" {
		fmt.Fprintf(&b, " from %s", p.Source)
	}
	for _, l := range p.Legs {
		fmt.Fprintf(&b, "; %s %s", l.Stage, l.Outcome)
		if l.Took > 0 {
			fmt.Fprintf(&b, " after %v", l.Took.Round(time.Microsecond))
		}
	}
	if p.Doubt != "" {
		fmt.Fprintf(&b, "; doubt of %s: %s", p.Stage, p.Doubt)
	}
	if p.Stale {
		b.WriteString("; what is stored was served in its place")
	}
	return b.String()
}

// The memory is in rows of a few places each: which row is decided by the hash
// of the key, and in it the oldest makes way. A map would hash every key again,
// and hold a copy of it that is garbage soon after.
const (
	rowsKept = 64
	placesOf = 8 // of a row
)

// A memory is how the last look-ups past the cache ended. The hit path does not
// know of it.
type memory struct {
	mu sync.Mutex
	// Fields below are protected by mu.
	rows [rowsKept]struct {
		next   uint8
		places [placesOf]place
	}
}

// A place holds one question.
type place struct {
	about uint64
	ask   index.Ask // 0: nothing yet
	key   index.Key
	past  Past
}

// find returns where a question is kept, or is to be.
func (m *memory) find(about uint64, ask index.Ask, k *index.Key) (p *place, known bool) {
	row := &m.rows[about%rowsKept]
	for i := range row.places {
		if p := &row.places[i]; p.about == about && p.ask == ask && p.key == *k {
			return p, true
		}
	}
	return &row.places[row.next%placesOf], false
}

func (m *memory) note(e *errand, stale bool) {
	now := e.trail.last
	if now.IsZero() {
		now = time.Now() // it was in no room
	}
	doubt := ""
	if e.Doubt != index.OK {
		doubt = e.Doubt.String()
	}
	at := about(&e.Job)
	m.mu.Lock()
	defer m.mu.Unlock()
	p, known := m.find(at, e.Ask, &e.Key)
	if !known {
		m.rows[at%rowsKept].next++
		p.about, p.ask, p.key = at, e.Ask, e.Key
	}
	p.past = Past{
		Asked: routes[e.Ask], At: now, Took: now.Sub(e.begun), Result: e.Result.String(), Doubt: doubt, Stage: e.Stage,
		Source: e.Answer.From.String(), Stale: stale, Partial: e.Answer.Partial || stale, Fresh: e.Fresh,
		Legs: append(p.past.Legs[:0], e.trail.legs[:e.trail.n]...),
	}
}

// Recall returns how the last look-ups of k past the cache ended.
func (p *Pipeline) Recall(k index.Key) (ps []Past) {
	hash := p.cfg.Gens.Hash(&k)
	m := &p.memory
	m.mu.Lock()
	defer m.mu.Unlock()
	for ask := index.AskResolve; ask <= index.AskManifest; ask++ {
		if at, ok := m.find(hash+uint64(ask), ask, &k); ok {
			past := at.past
			past.Legs = append([]Leg(nil), past.Legs...)
			ps = append(ps, past)
		}
	}
	return ps
}
