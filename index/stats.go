package index

import (
	"sync/atomic"
	"time"
)

// The core counts, telemetry reads. What is here are the shapes they share.

// LatencyBounds are the upper bounds of every latency histogram, in seconds.
var LatencyBounds = [...]float64{
	.0001, .00025, .0005, .001, .0025, .005, .01, .025, .05, .08, .1, .2, .25, .5, 1, 2.5, 5,
}

// A Hist counts durations in the buckets of LatencyBounds, the last one open.
// The zero Hist is ready. Observe never allocates and never waits.
type Hist struct {
	Counts [len(LatencyBounds) + 1]atomic.Uint64
	Nanos  atomic.Uint64
}

// Observe counts d.
func (h *Hist) Observe(d time.Duration) { h.ObserveN(d, 1) }

// ObserveN counts d n times, for things that waited together.
func (h *Hist) ObserveN(d time.Duration, n uint64) {
	h.Counts[bucket(d)].Add(n)
	h.Nanos.Add(uint64(max(d, 0)) * n)
}

// bucket returns the bucket that d counts in.
func bucket(d time.Duration) (i int) {
	for i < len(latencyNanos) && d > latencyNanos[i] {
		i++
	}
	return i
}

// A Sheet is what one owner has observed and not yet told: plain numbers, for
// an atomic costs twenty times as much, and whoever observes thousands of times
// a millisecond adds them up first. The zero Sheet is ready.
type Sheet struct {
	counts [len(LatencyBounds) + 1]uint64
	nanos  uint64
	used   bool
}

// Observe notes d.
func (s *Sheet) Observe(d time.Duration) { s.ObserveN(d, 1) }

// ObserveN notes d n times.
func (s *Sheet) ObserveN(d time.Duration, n uint64) {
	s.counts[bucket(d)] += n
	s.nanos += uint64(max(d, 0)) * n
	s.used = true
}

// AddTo tells each of hs and forgets.
func (s *Sheet) AddTo(hs ...*Hist) {
	if !s.used {
		return
	}
	for _, h := range hs {
		for i, n := range s.counts {
			if n > 0 {
				h.Counts[i].Add(n)
			}
		}
		h.Nanos.Add(s.nanos)
	}
	*s = Sheet{}
}

var latencyNanos = func() (b [len(LatencyBounds)]time.Duration) {
	for i, s := range LatencyBounds {
		b[i] = time.Duration(s*1e9 + .5)
	}
	return b
}()

// RoomStats is what one stage shows of itself. The pointers are live; the rest
// is as of the call.
type RoomStats struct {
	Name       string
	Depth      int           // jobs waiting
	Capacity   int           // jobs that may wait
	OldestWait time.Duration // of the job at the head of the queue
	Busy       int           // workers with a job in hand
	Workers    int           // workers it may use
	Batch      int           // most jobs a worker takes at once
	LastBatch  int           // jobs in the batch taken last
	Slice      time.Duration
	Breaker    int           // 0 closed, 1 half-open, 2 open
	Done       uint64        // jobs it is through with, since start: its heartbeat
	Step       time.Duration // how long the longest step under way has been
	Counts     *RoomCounts
}

// RoomCounts are a stage's counters since start.
type RoomCounts struct {
	Found, Missed, Failed atomic.Uint64 // how attempts ended
	Expired               atomic.Uint64 // overstayed, not attempted
	Skipped               atomic.Uint64 // walked past: breaker open
	Panics                atomic.Uint64
	RejectedFull          atomic.Uint64 // the queue was full
	RejectedWait          atomic.Uint64 // the head of the queue had waited too long
	RejectedInflight      atomic.Uint64 // over limits.inflight or the cap on joined askers
	Wait                  Hist          // time in the queue
}

// Route names a family of paths; its names are the only values of the label.
type Route uint8

const (
	RouteOther Route = iota
	RouteResolve
	RouteProviders
	RouteManifests
	RouteNames
	RouteAdmin
	RouteSearch
	RouteGraph
	RouteHealth
	RouteVersion
	Routes // how many there are
)

var routeNames = [Routes]string{
	"other", "resolve", "providers", "manifests", "names", "admin", "search", "graph", "health", "version",
}

func (r Route) String() string { return routeNames[r] }

// Method is a request method; its names are the only values of the label.
type Method uint8

const (
	MethodOther Method = iota
	MethodGet
	MethodHead
	MethodPut
	MethodPost
	MethodDelete
	MethodOptions
	Methods
)

var methodNames = [Methods]string{"other", "GET", "HEAD", "PUT", "POST", "DELETE", "OPTIONS"}

func (m Method) String() string { return methodNames[m] }

// Outcome is the {status} label: throttled is 429 and 503, error every other
// 5xx, ok the rest.
type Outcome uint8

const (
	OutcomeOK Outcome = iota
	OutcomeThrottled
	OutcomeError
	Outcomes
)

var outcomeNames = [Outcomes]string{"ok", "throttled", "error"}

func (o Outcome) String() string { return outcomeNames[o] }

// OutcomeOf returns the outcome of an HTTP status.
func OutcomeOf(status int) Outcome {
	switch {
	case status == 429, status == 503:
		return OutcomeThrottled
	case status >= 500:
		return OutcomeError
	}
	return OutcomeOK
}

// Reject is the {reason} label of rejected_total.
type Reject uint8

const (
	RejectUnauth Reject = iota
	RejectOverCapacity
	RejectTimeout
	RejectBodyCap
	RejectDecompressCap
	RejectBadRequest
	RejectUpstreamUnready
	RejectInternal
	Rejects
)

var rejectNames = [Rejects]string{
	"unauth", "over_capacity", "timeout", "body_cap", "decompress_cap", "bad_request", "upstream_unready", "internal",
}

func (r Reject) String() string { return rejectNames[r] }

// Dimension is the {dimension} label of quota_exhaustions_total: the limit on
// how often something may be asked for that a request was over.
type Dimension uint8

const (
	DimensionResolves Dimension = iota
	DimensionProviders
	DimensionRatePerIP
	DimensionRate
	Dimensions
)

var dimensionNames = [Dimensions]string{"resolves", "providers", "rps_per_ip", "rps"}

func (d Dimension) String() string { return dimensionNames[d] }

// NetCounts are what the listener counts. Event loops add, telemetry reads.
type NetCounts struct {
	Requests [Routes][Methods][Outcomes]atomic.Uint64
	Latency  [Routes][Methods]Hist
	Inflight [Routes]atomic.Int64
	Rejected [Rejects]atomic.Uint64
	Quota    [Dimensions]atomic.Uint64 // requests over a rate or a quota

	Conns         atomic.Int64  // open now
	Accepted      atomic.Uint64 // since start
	ConnsRefused  atomic.Uint64 // over a connection cap
	PeersRefused  atomic.Uint64 // on the Unix socket, of another user
	AcceptErrors  atomic.Uint64 // EMFILE and its like
	ClientAborts  atomic.Uint64 // gone with a request in flight
	SlowClosed    atomic.Uint64 // too slow to read or to send
	IdleClosed    atomic.Uint64 // without a request for limits.idle_timeout
	Panics        atomic.Uint64 // in an event loop
	BufferedBytes atomic.Int64  // bodies and unsent answers held now
}

// CacheCounts are what the RAM cache counts.
type CacheCounts struct {
	Hits, Misses, Stored, TooLarge, Overtaken atomic.Uint64
}

// IntegrityCounts count bytes that did not match their digest, by the stage
// that found out. They were not served.
type IntegrityCounts struct{ DB, DHT, Write atomic.Uint64 }

// ReloadCounts count reloads of the configuration by result.
type ReloadCounts struct{ OK, Failed atomic.Uint64 }

// LookupCounts count look-ups as their askers met them.
type LookupCounts struct {
	ResolveName, ResolveCID, ResolveFacet Hist // index_resolve_latency_seconds by type
	Joined                                atomic.Uint64
	NegativeAfterWrite                    atomic.Uint64 // must stay 0
	ProviderSetChanges                    atomic.Uint64
	Renewed, RenewDropped                 atomic.Uint64 // answers looked up again before their end, or not for want of room
	Warmed                                atomic.Uint64 // answers put into the cache before the first client
	Kept, KeptDropped                     atomic.Uint64 // finds of the network that entered the store, or found no room on the way
}

// Resolve returns the histogram for a look-up of k.
func (c *LookupCounts) Resolve(k *Key) *Hist {
	if k.IsName() {
		return &c.ResolveName
	}
	return &c.ResolveCID
}

// Above counts what took longer than d, to the next bound: what shares a bucket
// with d is left out.
func (h *Hist) Above(d time.Duration) (n uint64) {
	i := 0
	for i < len(latencyNanos) && latencyNanos[i] < d {
		i++
	}
	for i++; i < len(h.Counts); i++ {
		n += h.Counts[i].Load()
	}
	return n
}

// StallKind names a way in which the server stands still; its names are the
// only values of the label.
type StallKind uint8

const (
	StallStage StallKind = iota // work waits or is in hand, and the stage gets none done
	StallStep                   // one step is out too long, while others end
	StallQueue                  // the head of a queue has waited too long, while others move
	StallLoop                   // an event loop does not come round
	StallSched                  // goroutines that could run wait for a processor
	StallSlow                   // requests took too long
	StallKinds
)

var stallNames = [StallKinds]string{"stage", "step", "queue", "loop", "scheduler", "slow"}

func (k StallKind) String() string { return stallNames[k] }

// WatchCounts are what the watch counts.
type WatchCounts struct {
	Stalls  [StallKinds]atomic.Uint64
	Dumps   atomic.Uint64 // written
	Skipped atomic.Uint64 // not written: one too many, or the disk would not
}

// HopBounds are the upper bounds of the histogram of hops.
var HopBounds = [...]float64{1, 2, 3, 4, 5, 6, 8, 10, 15, 20}

// DHTCounts count what the network was asked and how it went.
type DHTCounts struct {
	Lookup Hist // look-ups in the network, each of which may be a part of an answer
	Hops   Hist // in the buckets of HopBounds; a hop counts as a second

	Timeout, Unreachable, Invalid, Internal atomic.Uint64 // dht_errors_total by kind
	HedgeWin, HedgeLose, HedgeTie           atomic.Uint64 // dht_hedged_requests_total by result
}

// ObserveHops counts a look-up of so many hops.
func (c *DHTCounts) ObserveHops(hops int) {
	i := 0
	for i < len(HopBounds) && float64(hops) > HopBounds[i] {
		i++
	}
	c.Hops.Counts[i].Add(1)
	c.Hops.Nanos.Add(uint64(max(hops, 0)) * 1e9)
}
