package telemetry

import (
	"context"
	_ "embed"
	"encoding/json"
	"net/http"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"

	"svcindex/index"
)

// The live page is one file that needs nothing from elsewhere. It is drawn
// from a stream of moments, /debug/live.
//
//go:embed live/index.html
var livePage []byte

// livePolicy lets the page run what stands in it and ask this listener, and
// nothing else.
const livePolicy = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"

const (
	historyKept = 300              // seconds a page shows at once when it is opened
	watchersMax = 8                // pages at once: each holds one of connsMax
	watchGrace  = 10 * time.Second // for a watcher to take a moment before it is given up
)

// A live remembers the last minutes, second by second, and tells those who
// watch of each new one. It reads what a scrape would read, in the book.
type live struct {
	src Sources

	// Immutable: the series a second is made of.
	requests     [index.Outcomes][]series
	latency      []series
	hits, misses []series
	dht          dhtSeries

	// Belong to the goroutine that calls tick.
	last    reading
	runtime runtimeView
	process processView

	mu       sync.Mutex // protects the fields below
	past     []second   // oldest first, at most historyKept
	watchers map[chan []byte]struct{}
}

// dhtSeries are what the page shows of the DHT.
type dhtSeries struct{ lookup, hops, win, lose, tie, errors []series }

func newLive(src Sources, b *book) *live {
	l := &live{src: src, runtime: newRuntimeView(), process: newProcessView(time.Now()), watchers: map[chan []byte]struct{}{}}
	for o := range index.Outcomes {
		l.requests[o] = b.find("http_requests_total", `status="`+o.String()+`"`)
	}
	for _, r := range []index.Route{index.RouteResolve, index.RouteProviders, index.RouteManifests} {
		l.latency = append(l.latency, b.find("request_latency_seconds", `route="`+r.String()+`",method="GET"`)...)
	}
	l.hits, l.misses = b.find("index_cache_hits_total"), b.find("index_cache_misses_total")
	hedged := func(result string) []series { return b.find("dht_hedged_requests_total", `result="`+result+`"`) }
	l.dht = dhtSeries{
		lookup: b.find("index_dht_lookup_ms"), hops: b.find("index_dht_hops"),
		win: hedged("win"), lose: hedged("lose"), tie: hedged("tie"), errors: b.find("dht_errors_total"),
	}
	return l
}

// A second is what happened in one: counts, not rates.
type second struct {
	At       int64         `json:"at"`   // its end, Unix milliseconds
	Took     float64       `json:"took"` // how long it really was, in seconds
	Requests []uint64      `json:"requests"`
	Latency  []uint64      `json:"latency"` // requests in each bucket of the bounds
	Hits     uint64        `json:"hits"`
	Misses   uint64        `json:"misses"`
	Stages   []stageSecond `json:"stages"`
	DHT      dhtSecond     `json:"dht"`
}

// A stageSecond is what happened in a stage in one second, and how it stood at
// the end.
type stageSecond struct {
	Name  string   `json:"name"`
	Depth int      `json:"depth"`
	Busy  int      `json:"busy"`
	Done  tally    `json:"done"`
	Wait  []uint64 `json:"wait"` // jobs in each bucket of the bounds
}

type dhtSecond struct {
	Lookup []uint64 `json:"lookup"` // look-ups in each bucket of the bounds
	Hops   []uint64 `json:"hops"`   // look-ups in each bucket of the hop bounds
	Hedges []uint64 `json:"hedges"` // win, lose, tie
	Errors uint64   `json:"errors"`
}

// A reading is every counter as it stood at a moment.
type reading struct {
	at                        time.Time
	requests                  []uint64
	latency, lookup, hops     []uint64
	hits, misses              uint64
	win, lose, tie, dhtErrors uint64
	rooms                     map[string]tally
	waits                     map[string][]uint64
	cpu                       float64
}

func (l *live) read(now time.Time, rooms []index.RoomStats) reading {
	r := reading{
		at: now, latency: buckets(l.latency), hits: total(l.hits), misses: total(l.misses),
		lookup: buckets(l.dht.lookup), hops: buckets(l.dht.hops),
		win: total(l.dht.win), lose: total(l.dht.lose), tie: total(l.dht.tie), dhtErrors: total(l.dht.errors),
		rooms: make(map[string]tally, len(rooms)), waits: make(map[string][]uint64, len(rooms)),
	}
	for _, s := range l.requests {
		r.requests = append(r.requests, total(s))
	}
	for _, room := range rooms {
		r.rooms[room.Name] = tallyOf(room.Counts)
		if room.Counts != nil {
			r.waits[room.Name] = histCounts(&room.Counts.Wait)
		}
	}
	return r
}

// since returns what happened from was to r.
func (r *reading) since(was *reading, rooms []index.RoomStats) second {
	s := second{
		At: r.at.UnixMilli(), Took: r.at.Sub(was.at).Seconds(),
		Requests: grown(was.requests, r.requests), Latency: grown(was.latency, r.latency),
		Hits: r.hits - was.hits, Misses: r.misses - was.misses,
		DHT: dhtSecond{
			Lookup: grown(was.lookup, r.lookup), Hops: grown(was.hops, r.hops),
			Hedges: []uint64{r.win - was.win, r.lose - was.lose, r.tie - was.tie}, Errors: r.dhtErrors - was.dhtErrors,
		},
	}
	for _, room := range rooms {
		s.Stages = append(s.Stages, stageSecond{
			Name: room.Name, Depth: room.Depth, Busy: room.Busy,
			Done: was.rooms[room.Name].since(r.rooms[room.Name], 1),
			Wait: grown(was.waits[room.Name], r.waits[room.Name]),
		})
	}
	return s
}

// grown returns now - was, element by element.
func grown(was, now []uint64) []uint64 {
	d := slices.Clone(now)
	for i := range min(len(was), len(d)) {
		d[i] -= was[i]
	}
	return d
}

// tick ends a second: it is kept, and told to those who watch. Unwatched it
// costs the reading of some hundred counters.
func (l *live) tick(now time.Time, rooms []index.RoomStats) {
	r := l.read(now, rooms)
	was := l.last
	l.last = r
	if was.at.IsZero() {
		return
	}
	s := r.since(&was, rooms)
	l.mu.Lock()
	if len(l.past) == historyKept {
		l.past = append(l.past[:0], l.past[1:]...)
	}
	l.past = append(l.past, s)
	watched := len(l.watchers) > 0
	l.mu.Unlock()
	if !watched {
		return
	}
	l.tell(l.moment(s, rooms, &was))
}

// A liveMoment is what a page is told each second.
type liveMoment struct {
	Second  second      `json:"second"`
	Stages  []stagePage `json:"stages"`
	Ready   readyPage   `json:"ready"`
	Process processPage `json:"process"`
	Extra   any         `json:"extra,omitempty"`
}

type readyPage struct {
	Ready    bool     `json:"ready"`
	Degraded bool     `json:"degraded"`
	Draining bool     `json:"draining"`
	Held     []string `json:"held"`
	Missing  []string `json:"missing"`
}

type processPage struct {
	CPU        float64 `json:"cpu"` // cores
	Resident   float64 `json:"resident"`
	OpenFDs    float64 `json:"open_fds"`
	MaxFDs     float64 `json:"max_fds"`
	Goroutines float64 `json:"goroutines"`
	Heap       float64 `json:"heap"`
	Started    float64 `json:"started"` // Unix seconds
}

// moment describes the server as it is, with the second that just ended.
func (l *live) moment(s second, rooms []index.RoomStats, was *reading) liveMoment {
	m := liveMoment{Second: s, Stages: make([]stagePage, 0, len(rooms))}
	for _, room := range rooms {
		m.Stages = append(m.Stages, stageOf(room))
	}
	state := l.src.Ready.Snapshot()
	m.Ready = readyPage{state.Ready, state.Degraded, state.Draining, state.Held, state.Missing}
	l.process.look()
	l.runtime.look()
	p := &l.process
	l.last.cpu = p.cpu
	m.Process = processPage{
		Resident: p.resident, OpenFDs: p.openFDs, MaxFDs: p.maxFDs, Started: p.started,
		Goroutines: l.runtime.sum([]string{"/sched/goroutines:goroutines"}),
		Heap:       l.runtime.sum([]string{"/memory/classes/heap/objects:bytes"}),
	}
	if was.cpu > 0 && s.Took > 0 {
		m.Process.CPU = (p.cpu - was.cpu) / s.Took
	}
	if l.src.Stages != nil {
		m.Extra = l.src.Stages()
	}
	return m
}

// tell hands a moment to every watcher that has taken the one before.
func (l *live) tell(m liveMoment) {
	data, err := json.Marshal(m)
	if err != nil {
		return // what cannot be shown is missed by the eye, not by the server
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for w := range l.watchers {
		select {
		case w <- data:
		default:
		}
	}
}

// watch adds a watcher, and returns the seconds so far. nil: there are too many.
func (l *live) watch() (chan []byte, []second) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.watchers) == watchersMax {
		return nil, nil
	}
	w := make(chan []byte, 1)
	l.watchers[w] = struct{}{}
	return w, slices.Clone(l.past)
}

func (l *live) leave(w chan []byte) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.watchers, w)
}

// hello is the first event: what does not change, and the past.
type hello struct {
	Version   any       `json:"version"`
	Go        string    `json:"go"`
	Bounds    []float64 `json:"bounds"` // seconds
	HopBounds []float64 `json:"hop_bounds"`
	Kept      int       `json:"kept"` // seconds
	Past      []second  `json:"past"`
}

// live streams moments as server-sent events until the watcher leaves or the
// server closes.
func (s *Server) watchLive(w http.ResponseWriter, r *http.Request) {
	moments, past := s.live.watch()
	if moments == nil {
		http.Error(w, "8 live pages are open, and there are no more; close one", http.StatusServiceUnavailable)
		return
	}
	defer s.live.leave(moments)
	first, err := json.Marshal(hello{s.src.Version, runtime.Version(), index.LatencyBounds[:], index.HopBounds[:], historyKept, past})
	if err != nil {
		http.Error(w, "cannot be shown as JSON: "+err.Error(), http.StatusInternalServerError)
		return
	}
	out := newEvents(w)
	if out.send("hello", first) != nil {
		return
	}
	for {
		select {
		case m := <-moments:
			if out.send("moment", m) != nil {
				return
			}
		case <-r.Context().Done():
			return
		}
	}
}

// events is an answer of server-sent events (HTML, section 9.2).
type events struct {
	w  http.ResponseWriter
	rc *http.ResponseController
}

// newEvents lifts the limits that are meant for answers that end.
func newEvents(w http.ResponseWriter) events {
	e := events{w, http.NewResponseController(w)}
	_ = e.rc.SetReadDeadline(time.Time{})
	w.Header().Set("Content-Type", "text/event-stream")
	w.WriteHeader(http.StatusOK)
	return e
}

// send writes one event, whose data is one line. An error: nobody reads.
func (e events) send(name string, data []byte) error {
	if err := e.rc.SetWriteDeadline(time.Now().Add(watchGrace)); err != nil {
		return err
	}
	buf := make([]byte, 0, len(name)+len(data)+len("event: \ndata: \n\n"))
	buf = append(append(append(buf, "event: "...), name...), "\ndata: "...)
	buf = append(append(buf, data...), "\n\n"...)
	if _, err := e.w.Write(buf); err != nil {
		return err
	}
	return e.rc.Flush()
}

// index is the live page for a browser, and links for everybody else.
func (s *Server) index(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Vary", "Accept")
	if !strings.Contains(r.Header.Get("Accept"), "text/html") {
		send(w, http.StatusOK, "text/plain; charset=utf-8", []byte(links))
		return
	}
	w.Header().Set("Content-Security-Policy", livePolicy)
	send(w, http.StatusOK, "text/html; charset=utf-8", livePage)
}

// observe ends each second until ctx is done.
func (s *Server) observe(ctx context.Context) {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		now, rooms := time.Now(), s.src.Rooms()
		s.rates.note(now, rooms)
		s.live.tick(now, rooms)
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}
