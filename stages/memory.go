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
}

// A Leg is one room on the way of a look-up.
type Leg struct {
	Stage   string        `json:"stage"`
	Took    time.Duration `json:"took_ns"`
	Outcome string        `json:"outcome"` // how the room was left
}

// leg notes that the errand left the room it was in.
func (t *trail) leg(e *errand, k index.Kind, now time.Time) {
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

// remembered is how many questions the memory holds.
const remembered = 512

// A memory is how the last look-ups past the cache ended. The hit path does not
// know of it.
type memory struct {
	mu sync.Mutex
	// Fields below are protected by mu.
	at   map[subject]int
	ring [remembered]struct {
		what subject
		past Past
	}
	next int
}

func (m *memory) note(e *errand, stale bool) {
	now := time.Now()
	p := Past{
		Asked: routes[e.Ask], At: now, Took: now.Sub(e.begun), Result: e.Result.String(), Stage: e.Stage,
		Source: e.Answer.From.String(), Stale: stale, Partial: e.Answer.Partial || stale, Fresh: e.Fresh,
	}
	if e.Doubt != index.OK {
		p.Doubt = e.Doubt.String()
	}
	legs := e.trail
	s := subject{e.Ask, e.Key}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.at == nil {
		m.at = make(map[subject]int, remembered)
	}
	i, ok := m.at[s]
	if !ok {
		i = m.next
		m.next = (m.next + 1) % remembered
		delete(m.at, m.ring[i].what)
		m.at[s], m.ring[i].what = i, s
	}
	p.Legs = append(m.ring[i].past.Legs[:0], legs.legs[:legs.n]...)
	m.ring[i].past = p
}

// Recall returns how the last look-ups of k past the cache ended.
func (p *Pipeline) Recall(k index.Key) (ps []Past) {
	m := &p.memory
	m.mu.Lock()
	defer m.mu.Unlock()
	for ask := index.AskResolve; ask <= index.AskManifest; ask++ {
		if i, ok := m.at[subject{ask, k}]; ok {
			past := m.ring[i].past
			past.Legs = append([]Leg(nil), past.Legs...)
			ps = append(ps, past)
		}
	}
	return ps
}
