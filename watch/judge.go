package watch

import (
	"fmt"
	"slices"
	"time"

	"svcindex/index"
)

// Limits say when something stands still. 0 switches one off.
type Limits struct {
	Stall time.Duration // a stage that gets nothing done, a step, a wait in a queue, an event loop
	Sched time.Duration // p99 of how long goroutines wait for a processor
	Slow  time.Duration // a request; rounded up to a bound of the latency histogram
}

// A look is what was seen at one moment.
type look struct {
	at         time.Time
	late       time.Duration // how much later than meant the watch itself woke
	rooms      []index.RoomStats
	loops      []time.Duration // how far each event loop is behind
	sched      sched
	goroutines States
	slow       uint64 // requests over Limits.Slow since the look before
}

// A sched is how long goroutines waited for a processor since the look before.
type sched struct {
	waits uint64
	p99   time.Duration
}

// A Breach is one thing that stands still.
type Breach struct {
	Kind  index.StallKind `json:"-"`
	Name  string          `json:"kind"`
	Where string          `json:"stage,omitempty"`
	Found string          `json:"found"`
	Since time.Time       `json:"since"`
}

// is tells whether both are about the same thing.
func (b Breach) is(o Breach) bool { return b.Kind == o.Kind && b.Where == o.Where }

// A beat is the pulse of one stage: when it last got something done, or had
// nothing to do.
type beat struct {
	done uint64
	at   time.Time
}

// judge returns what stands still, the worst of each stage, and notes the
// pulses in beats. It decides, and does nothing else.
func judge(l *look, lim Limits, beats map[string]beat) (found []Breach) {
	for _, r := range l.rooms {
		quiet := pulse(l.at, r, beats)
		if k, bad := stuck(r, quiet, lim.Stall); bad {
			found = append(found, Breach{Kind: k, Where: r.Name, Found: fmt.Sprintf(
				"%d of %d workers have a job in hand, the longest for %v; %d jobs wait, the oldest for %v; nothing done for %v",
				r.Busy, r.Workers, round(r.Step), r.Depth, round(r.OldestWait), round(quiet))})
		}
	}
	if worst := slices.Max(append(l.loops, 0)); lim.Stall > 0 && worst >= lim.Stall {
		found = append(found, Breach{Kind: index.StallLoop, Found: fmt.Sprintf("an event loop has not come round for %v", round(worst))})
	}
	if lim.Sched > 0 && max(l.late, l.sched.p99) >= lim.Sched {
		found = append(found, Breach{Kind: index.StallSched, Found: fmt.Sprintf(
			"goroutines that could run waited up to %v (p99 of %d), the watch itself %v; %d run, %d could",
			round(l.sched.p99), l.sched.waits, round(l.late), l.goroutines.Running, l.goroutines.Runnable)})
	}
	if lim.Slow > 0 && l.slow > 0 {
		found = append(found, Breach{Kind: index.StallSlow, Found: fmt.Sprintf("%d requests took more than %v", l.slow, lim.Slow)})
	}
	for i := range found {
		found[i].Name, found[i].Since = found[i].Kind.String(), l.at
	}
	return found
}

// pulse returns for how long a stage that has work got none of it done.
func pulse(now time.Time, r index.RoomStats, beats map[string]beat) time.Duration {
	b, known := beats[r.Name]
	if !known || r.Done != b.done || r.Busy == 0 && r.Depth == 0 {
		b = beat{r.Done, now}
		beats[r.Name] = b
	}
	return now.Sub(b.at)
}

// stuck says how a room stands still, if it does. A stage without a pulse is
// worse than a step that hangs beside others, and that is worse than a wait.
func stuck(r index.RoomStats, quiet, limit time.Duration) (index.StallKind, bool) {
	switch {
	case limit <= 0:
		return 0, false
	case quiet >= limit:
		return index.StallStage, true
	case r.Step >= limit:
		return index.StallStep, true
	case r.OldestWait >= limit:
		return index.StallQueue, true
	}
	return 0, false
}

// round leaves out digits that nobody reads.
func round(d time.Duration) time.Duration {
	if d < time.Second {
		return d.Round(time.Millisecond)
	}
	return d.Round(10 * time.Millisecond)
}

// news splits what is found into what was not there before, which keeps its
// beginning from then on, and names what has ended.
func news(before, found []Breach) (begun, ended []Breach) {
	for i, f := range found {
		if at := slices.IndexFunc(before, f.is); at >= 0 {
			found[i].Since = before[at].Since
			continue
		}
		begun = append(begun, f)
	}
	for _, b := range before {
		if !slices.ContainsFunc(found, b.is) {
			ended = append(ended, b)
		}
	}
	return begun, ended
}
