package telemetry

import (
	"encoding/json"
	"errors"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// A Key is a condition of readiness.
type Key uint8

// The conditions. All must hold, all the time.
const (
	ConfigLoaded Key = iota
	DBOpen
	DHTClientReady // also while the DHT is switched off
	BusAttached
	ListenersBound
	MetricsLive
	keyCount
)

var keyNames = [keyCount]string{
	"config_loaded", "db_open", "dht_client_ready", "bus_attached", "listeners_bound", "metrics_live",
}

func (k Key) String() string { return keyNames[k] }

const (
	pollEvery = 200 * time.Millisecond // well within the second in which a fault must show
	hangAfter = 600 * time.Millisecond // a check that takes this long is an answer too

	// Retry-After, in seconds.
	retryStarting = 1  // most faults are a start in progress
	retryDegraded = 5  // disks and networks heal more slowly
	retryDraining = 10 // this process will not come back; another may
)

var (
	errNotYet   = errors.New("not reported yet")
	errHangs    = errors.New("its check does not return")
	errDraining = errors.New("draining")
)

// A Readiness knows whether the server can keep all its promises. Nothing holds
// until it was said to.
type Readiness struct {
	log  *slog.Logger
	told func(State) // Notify; nil: nobody
	page atomic.Pointer[page]
	stop chan struct{}
	wg   sync.WaitGroup

	mu       sync.Mutex // protects the fields below
	faults   [keyCount]error
	draining bool
	closed   bool
}

// A State is readiness at a moment.
type State struct {
	Ready      bool
	Held       []string
	Missing    []string
	Degraded   bool // not ready, but reads are served
	Draining   bool
	RetryAfter int // seconds; 0 when ready
}

// A page is a State and how HTTP shows it, made once for all who ask.
type page struct {
	State
	body []byte
}

// NewReadiness returns a Readiness that tells log, which may be nil, of every
// change. It does not start anything.
func NewReadiness(log *slog.Logger) *Readiness {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	r := &Readiness{log: log, stop: make(chan struct{})}
	for k := range r.faults {
		r.faults[k] = errNotYet
	}
	r.page.Store(newPage(r.faults, false))
	return r
}

// Degraded marks a fault that reads survive, such as a store that can only be
// read.
func Degraded(err error) error { return degraded{err} }

type degraded struct{ error }

func (d degraded) Unwrap() error { return d.error }

// Notify has f told of every change. It is for once, before anything is Set.
func (r *Readiness) Notify(f func(State)) { r.told = f }

// Set says that k holds, or why it does not. For a key that is watched the next
// check overrules it.
func (r *Readiness) Set(k Key, err error) {
	r.change(func() { r.faults[k] = err })
}

// Drain says that no more work is taken: listeners_bound no longer holds,
// whatever is Set after.
func (r *Readiness) Drain() {
	r.change(func() { r.draining = true })
}

// Watch asks check now and every 200 ms whether k holds, until Close. A check
// that hangs means that it does not.
func (r *Readiness) Watch(k Key, check func() error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.closed {
		r.wg.Go(func() { r.watch(k, check) })
	}
}

func (r *Readiness) watch(k Key, check func() error) {
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	for {
		r.ask(k, check)
		select {
		case <-r.stop:
			return
		case <-tick.C:
		}
	}
}

// ask runs one check. The timer speaks for a check that cannot: a frozen disk
// is found out by the silence.
func (r *Readiness) ask(k Key, check func() error) {
	asking := true // protected by r.mu
	hang := time.AfterFunc(hangAfter, func() {
		r.change(func() {
			if asking {
				r.faults[k] = errHangs
			}
		})
	})
	err := check()
	hang.Stop()
	r.change(func() {
		asking = false
		r.faults[k] = err
	})
}

// Close ends all watching and waits for checks that are running.
func (r *Readiness) Close() {
	r.mu.Lock()
	if !r.closed {
		r.closed = true
		close(r.stop)
	}
	r.mu.Unlock()
	r.wg.Wait()
}

// Snapshot returns the current state. Its slices are shared: read them only.
func (r *Readiness) Snapshot() State { return r.page.Load().State }

// Body returns the answer to /readyz: its body, to be read only, and the value
// of Retry-After when not ready. It costs an atomic load.
func (r *Readiness) Body() (ready bool, body []byte, retryAfter int) {
	p := r.page.Load()
	return p.Ready, p.body, p.RetryAfter
}

// change applies f and publishes what came of it.
func (r *Readiness) change(f func()) {
	r.mu.Lock()
	f()
	was, now := r.page.Load(), newPage(r.faults, r.draining)
	if string(was.body) == string(now.body) && was.Draining == now.Draining {
		r.mu.Unlock()
		return
	}
	r.page.Store(now)
	faults := r.faults
	r.mu.Unlock()
	r.tell(now.State, faults) // a log may be slow; nobody waits for it with the lock held
	if r.told != nil {
		r.told(now.State)
	}
}

// tell logs the change. Only here are the reasons said: a body must not show
// paths or peers.
func (r *Readiness) tell(s State, faults [keyCount]error) {
	if s.Ready {
		r.log.Info("ready")
		return
	}
	for _, err := range faults {
		if err == errNotYet && !s.Draining {
			return // still starting: no news yet
		}
	}
	args := []any{"degraded", s.Degraded, "draining", s.Draining}
	for k, err := range faults {
		if err != nil {
			args = append(args, Key(k).String(), err.Error())
		}
	}
	r.log.Info("not ready", args...)
}

// newPage decides what faults amount to.
func newPage(faults [keyCount]error, draining bool) *page {
	if draining {
		faults[ListenersBound] = errDraining
	}
	s := State{Draining: draining, Degraded: !draining}
	for k, err := range faults {
		name := Key(k).String()
		if err == nil {
			s.Held = append(s.Held, name)
			continue
		}
		s.Missing = append(s.Missing, name)
		s.Degraded = s.Degraded && survivable(Key(k), err)
	}
	s.Ready = len(s.Missing) == 0
	s.Degraded = s.Degraded && !s.Ready
	s.RetryAfter = s.retryAfter()
	return &page{s, s.body()}
}

// survivable reports whether reads are served despite the fault of k. The
// database holds what was found before, so the network can be missed.
func survivable(k Key, err error) bool {
	_, marked := errors.AsType[degraded](err)
	return marked || k == DHTClientReady
}

func (s State) retryAfter() int {
	switch {
	case s.Ready:
		return 0
	case s.Draining:
		return retryDraining
	case s.Degraded:
		return retryDegraded
	}
	return retryStarting
}

func (s State) holds(k Key) bool { return slices.Contains(s.Held, k.String()) }

// body renders s. Marshalling strings, bools and ints cannot fail.
func (s State) body() []byte {
	var out []byte
	if s.Ready {
		out, _ = json.Marshal(struct {
			Ready bool     `json:"ready"`
			Keys  []string `json:"keys"`
		}{true, s.Held})
		return out
	}
	out, _ = json.Marshal(struct {
		Ready      bool     `json:"ready"`
		Missing    []string `json:"missing"`
		Degraded   bool     `json:"degraded"`
		RetryAfter int      `json:"retry_after"`
	}{false, s.Missing, s.Degraded, s.RetryAfter})
	return out
}
