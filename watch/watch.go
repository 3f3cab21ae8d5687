package watch

import (
	"context"
	"log/slog"
	"runtime/pprof"
	"sync"
	"time"

	"svcindex/index"
)

// Options are what a Watch looks at and what it may do. What is nil is not
// looked at.
type Options struct {
	Limits
	Rooms  func() []index.RoomStats
	Loops  func(time.Time) []time.Duration
	Net    *index.NetCounts
	Counts *index.WatchCounts
	Log    *slog.Logger
	Files
}

// Round is how often the watch looks.
const Round = 250 * time.Millisecond

// recentKept is how many breaches that have ended are still shown.
const recentKept = 16

// A Watch looks after the server until it is closed.
type Watch struct {
	opt       Options
	scheduler *scheduler
	recorder  *recorder
	stop      chan struct{}
	work      sync.WaitGroup

	// Belong to the watch's goroutine.
	beats    map[string]beat
	slowSeen uint64

	mu sync.Mutex
	// Fields below are protected by mu.
	last   look
	active []Breach
	recent []Breach // oldest first
	shown  map[string]beat
}

// Start begins to watch. Close ends it.
func Start(opt Options) (*Watch, error) {
	if opt.Log == nil {
		opt.Log = slog.New(slog.DiscardHandler)
	}
	if opt.Counts == nil {
		opt.Counts = new(index.WatchCounts)
	}
	w := &Watch{opt: opt, scheduler: newScheduler(), stop: make(chan struct{}), beats: map[string]beat{}}
	var err error
	if w.recorder, err = newRecorder(opt.Files, opt.Counts, opt.Log); err != nil {
		return nil, err
	}
	w.slowSeen = w.slow()
	w.scheduler.look()
	w.work.Go(w.run)
	return w, nil
}

func (w *Watch) run() {
	pprof.SetGoroutineLabels(pprof.WithLabels(context.Background(), pprof.Labels("stage", "watch")))
	t := time.NewTicker(Round)
	defer t.Stop()
	for meant := time.Now().Add(Round); ; {
		select {
		case <-w.stop:
			return
		case <-t.C:
		}
		now := time.Now()
		w.round(w.look(now, max(now.Sub(meant), 0)))
		meant = time.Now().Add(Round)
	}
}

// look sees how things are.
func (w *Watch) look(now time.Time, late time.Duration) *look {
	l := &look{at: now, late: late}
	l.sched, l.goroutines = w.scheduler.look()
	if w.opt.Rooms != nil {
		l.rooms = w.opt.Rooms()
	}
	if w.opt.Loops != nil {
		l.loops = w.opt.Loops(now)
	}
	seen := w.slow()
	l.slow, w.slowSeen = seen-w.slowSeen, seen
	return l
}

// slow counts the requests that took too long, since start.
func (w *Watch) slow() (n uint64) {
	if w.opt.Net == nil || w.opt.Slow <= 0 {
		return 0
	}
	for r := range w.opt.Net.Latency {
		for m := range w.opt.Net.Latency[r] {
			n += w.opt.Net.Latency[r][m].Above(w.opt.Slow)
		}
	}
	return n
}

// round acts on one look: what is new is counted, logged and dumped.
func (w *Watch) round(l *look) {
	found := judge(l, w.opt.Limits, w.beats)
	w.mu.Lock()
	begun, ended := news(w.active, found)
	w.last, w.active = *l, found
	w.recent = append(w.recent, ended...)
	w.recent = w.recent[max(len(w.recent)-recentKept, 0):]
	w.shown = make(map[string]beat, len(w.beats))
	for name, b := range w.beats {
		w.shown[name] = b
	}
	w.mu.Unlock()
	for _, b := range begun {
		w.opt.Counts.Stalls[b.Kind].Add(1)
		w.opt.Log.Warn("something stands still", "kind", b.Name, "stage", b.Where, "found", b.Found)
	}
	for _, b := range ended {
		w.opt.Log.Info("it moves again", "kind", b.Name, "stage", b.Where, "after", l.at.Sub(b.Since).String())
	}
	if len(begun) > 0 {
		w.recorder.dump(begun[0], l.at)
	}
}

// A Status is what the watch shows, as JSON.
type Status struct {
	Stalled    []Breach          `json:"stalled"` // now
	Recent     []Breach          `json:"recent"`  // over, oldest first
	Totals     map[string]uint64 `json:"stalls_total"`
	Pulses     map[string]Pulse  `json:"pulses"`
	SchedP99   float64           `json:"sched_wait_p99_s"`
	Late       float64           `json:"watch_late_s"`
	Loops      []float64         `json:"loops_behind_s"`
	Goroutines States            `json:"goroutines"`
	Flight     Flight            `json:"flight"`
}

// A Pulse is a stage's heartbeat: what it has done, and for how long nothing,
// though there was something to do.
type Pulse struct {
	Done   uint64  `json:"done"`
	Quiet  float64 `json:"quiet_s"`
	Oldest float64 `json:"oldest_wait_s"`
	Step   float64 `json:"longest_step_s"`
}

// Status returns how things were at the last look.
func (w *Watch) Status() Status {
	w.mu.Lock()
	defer w.mu.Unlock()
	s := Status{
		Stalled: append([]Breach{}, w.active...), Recent: append([]Breach{}, w.recent...),
		Totals: map[string]uint64{}, Pulses: map[string]Pulse{}, Loops: []float64{},
		SchedP99: w.last.sched.p99.Seconds(), Late: w.last.late.Seconds(),
		Goroutines: w.last.goroutines, Flight: w.recorder.status(),
	}
	for k := range w.opt.Counts.Stalls {
		s.Totals[index.StallKind(k).String()] = w.opt.Counts.Stalls[k].Load()
	}
	for _, d := range w.last.loops {
		s.Loops = append(s.Loops, d.Seconds())
	}
	for _, r := range w.last.rooms {
		s.Pulses[r.Name] = Pulse{r.Done, w.last.at.Sub(w.shown[r.Name].at).Seconds(), r.OldestWait.Seconds(), r.Step.Seconds()}
	}
	return s
}

// Close ends the watch and waits for a dump that is being written, until ctx
// is done: on a disk that hangs it would never end.
func (w *Watch) Close(ctx context.Context) error {
	close(w.stop)
	w.work.Wait()
	return w.recorder.close(ctx)
}
