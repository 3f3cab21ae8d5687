package telemetry

import (
	"time"

	"svcindex/index"
)

// The label values that no type of package index names.
var (
	stageNames = []string{"cache", "db", "dht", "write"}
)

func zero() float64             { return 0 }
func seconds() scale            { return newScale(index.LatencyBounds[:], 1) }
func milliseconds() scale       { return newScale(index.LatencyBounds[:], 1e3) }
func known[T any](v T) func() T { return func() T { return v } }

func flag(held bool) float64 {
	if held {
		return 1
	}
	return 0
}

// enter writes every family into b. What v sees is as of the latest look.
func enter(b *book, s Sources, v *view) {
	enterNet(b, s.Net)
	enterLookups(b, s)
	enterStages(b, v)
	enterDHT(b, s.DHT)
	enterHouse(b, s)
	enterRuntime(b, v)
	enterProcess(b, v)
}

func enterNet(b *book, n *index.NetCounts) {
	latency := b.histograms("request_latency_seconds", "Time from the last byte of a request to its answer.", "route", "method")
	requests := b.counters("http_requests_total", "Requests answered; throttled is 429 and 503, error any other 5xx.", "route", "method", "status")
	inflight := b.gauges("inflight_requests", "Requests begun and not answered.", "route")
	rejected := b.counters("rejected_total", "Requests refused, by reason.", "reason")
	for r := range index.Routes {
		inflight.gauge(func() float64 { return float64(n.Inflight[r].Load()) }, r.String())
		for m := range index.Methods {
			latency.histogram(seconds(), known(&n.Latency[r][m]), r.String(), m.String())
			for o := range index.Outcomes {
				requests.count(&n.Requests[r][m][o], r.String(), m.String(), o.String())
			}
		}
	}
	for r := range index.Rejects {
		rejected.count(&n.Rejected[r], r.String())
	}
	enterConns(b, n)
}

func enterConns(b *book, n *index.NetCounts) {
	b.gauges("http_connections_open", "Connections open now.").gauge(func() float64 { return float64(n.Conns.Load()) })
	b.counters("http_connections_accepted_total", "Connections accepted.").count(&n.Accepted)
	b.counters("http_connections_refused_total", "Connections over a cap, closed with a 503.").count(&n.ConnsRefused)
	b.counters("http_peers_refused_total", "Peers on the Unix socket that uds.allow_uids does not name.").count(&n.PeersRefused)
	b.counters("http_accept_errors_total", "Failures to accept a connection.").count(&n.AcceptErrors)
	b.counters("http_client_aborts_total", "Connections that left with a request in flight.").count(&n.ClientAborts)
	b.counters("http_slow_closed_total", "Connections closed for being too slow to send or to read.").count(&n.SlowClosed)
	b.counters("http_idle_closed_total", "Connections closed because nothing was asked on them for limits.idle_timeout.").count(&n.IdleClosed)
	b.counters("http_loop_panics_total", "Panics caught in an event loop.").count(&n.Panics)
	b.gauges("http_buffered_bytes", "Request bodies and unsent answers held now.").gauge(func() float64 { return float64(n.BufferedBytes.Load()) })
}

func enterLookups(b *book, s Sources) {
	l := s.Lookups
	latency := b.histograms("index_resolve_latency_seconds", "Time of a look-up as its askers met it.", "type")
	latency.histogram(seconds(), known(&l.ResolveName), "name")
	latency.histogram(seconds(), known(&l.ResolveCID), "cid")
	latency.histogram(seconds(), known(&l.ResolveFacet), "facet")
	b.counters("index_lookups_joined_total", "Askers who joined a look-up already under way.").count(&l.Joined)
	b.counters("index_negative_served_after_write_total", "Absences served after the key was written; must stay 0.").count(&l.NegativeAfterWrite)
	b.counters("index_provider_set_changes_total", "Provider sets that changed.").count(&l.ProviderSetChanges)

	b.counters("index_dht_kept_total", "Finds of the DHT that entered the database.").count(&l.Kept)
	b.counters("index_dht_kept_dropped_total", "Finds of the DHT that found no room on their way into the database.").count(&l.KeptDropped)

	b.counters("index_cache_renewed_total", "Answers looked up again in the background, near the end of their time (cache.refresh_ahead).").count(&l.Renewed)
	b.counters("index_cache_renew_dropped_total", "Answers near their end that were not renewed, for the stages had enough to do.").count(&l.RenewDropped)
	b.counters("index_cache_warmed_total", "Answers put into the cache at the start (cache.warmup_keys).").count(&l.Warmed)

	c := s.Cache
	b.counters("index_cache_hits_total", "Answers from memory: fresh, negative or stale.").count(&c.Hits)
	b.counters("index_cache_misses_total", "Look-ups memory could not answer.").count(&c.Misses)
	b.gauges("index_cache_size", "Entries in the cache.").gauge(func() float64 { return float64(s.CacheSize()) })
	b.counters("index_cache_stored_total", "Answers kept.").count(&c.Stored)
	b.counters("index_cache_too_large_total", "Answers not kept, being too large.").count(&c.TooLarge)
	b.counters("index_cache_overtaken_total", "Answers not kept, since a newer write won.").count(&c.Overtaken)

	fails := b.counters("index_integrity_fail_total", "Bytes that did not match their digest and were not served.", "stage")
	fails.count(&s.Integrity.DB, "db")
	fails.count(&s.Integrity.DHT, "dht")
	fails.count(&s.Integrity.Write, "write")
}

// enterStages gives every stage its series, also one that is not built: its
// figures are 0.
func enterStages(b *book, v *view) {
	enterStageGauges(b, v)
	wait := b.histograms("stage_queue_wait_seconds", "Time jobs spent in the queue.", "stage")
	attempts := b.counters("stage_attempts_total", "Jobs worked on, by how it ended.", "stage", "result")
	rejected := b.counters("stage_rejected_total", "Jobs refused at the door, by reason.", "stage", "reason")
	expired := b.counters("stage_expired_total", "Jobs that overstayed and were not attempted.", "stage")
	skipped := b.counters("stage_skipped_total", "Jobs that walked past, the breaker being open.", "stage")
	panics := b.counters("stage_panics_total", "Panics caught in a step.", "stage")
	for _, name := range stageNames {
		count := func(of func(*index.RoomCounts) uint64) func() uint64 {
			return func() uint64 { return of(v.room(name).Counts) }
		}
		wait.histogram(seconds(), func() *index.Hist { return &v.room(name).Counts.Wait }, name)
		attempts.counter(count(func(c *index.RoomCounts) uint64 { return c.Found.Load() }), name, "found")
		attempts.counter(count(func(c *index.RoomCounts) uint64 { return c.Missed.Load() }), name, "missed")
		attempts.counter(count(func(c *index.RoomCounts) uint64 { return c.Failed.Load() }), name, "failed")
		rejected.counter(count(func(c *index.RoomCounts) uint64 { return c.RejectedFull.Load() }), name, "full")
		rejected.counter(count(func(c *index.RoomCounts) uint64 { return c.RejectedWait.Load() }), name, "wait")
		rejected.counter(count(func(c *index.RoomCounts) uint64 { return c.RejectedInflight.Load() }), name, "inflight")
		expired.counter(count(func(c *index.RoomCounts) uint64 { return c.Expired.Load() }), name)
		skipped.counter(count(func(c *index.RoomCounts) uint64 { return c.Skipped.Load() }), name)
		panics.counter(count(func(c *index.RoomCounts) uint64 { return c.Panics.Load() }), name)
	}
}

func enterStageGauges(b *book, v *view) {
	for _, g := range []struct {
		name, help string
		of         func(index.RoomStats) float64
	}{
		{"stage_queue_depth", "Jobs waiting.", func(r index.RoomStats) float64 { return float64(r.Depth) }},
		{"stage_queue_capacity", "Jobs that may wait.", func(r index.RoomStats) float64 { return float64(r.Capacity) }},
		{"stage_oldest_wait_seconds", "How long the job at the head of the queue has waited.", func(r index.RoomStats) float64 { return r.OldestWait.Seconds() }},
		{"stage_batch_size", "Jobs in the batch taken last.", func(r index.RoomStats) float64 { return float64(r.LastBatch) }},
		{"stage_batch_max", "Most jobs a worker takes at once.", func(r index.RoomStats) float64 { return float64(r.Batch) }},
		{"stage_slice_seconds", "Longest stay of a job, waiting included.", func(r index.RoomStats) float64 { return r.Slice.Seconds() }},
		{"breaker_state", "0 closed, 1 half-open, 2 open.", func(r index.RoomStats) float64 { return float64(r.Breaker) }},
	} {
		f := b.gauges(g.name, g.help, "stage")
		for _, name := range stageNames {
			f.gauge(func() float64 { return g.of(v.room(name)) }, name)
		}
	}
	workers := b.gauges("stage_workers", "Workers with a job in hand, and workers it may use.", "stage", "state")
	for _, name := range stageNames {
		workers.gauge(func() float64 { return float64(v.room(name).Busy) }, name, "busy")
		workers.gauge(func() float64 { return float64(v.room(name).Workers) }, name, "total")
	}
}

// enterDHT enters what the network stage counts, also where it is switched off.
func enterDHT(b *book, c *index.DHTCounts) {
	b.histograms("index_dht_lookup_ms", "Time of a DHT look-up, in milliseconds.").histogram(milliseconds(), known(&c.Lookup))
	b.histograms("index_dht_hops", "Hops of a DHT look-up.").histogram(newScale(index.HopBounds[:], 1), known(&c.Hops))
	errs := b.counters("dht_errors_total", "DHT look-ups and answers that failed, by kind.", "kind")
	errs.count(&c.Timeout, "timeout")
	errs.count(&c.Unreachable, "unreachable")
	errs.count(&c.Invalid, "invalid")
	errs.count(&c.Internal, "internal")
	hedged := b.counters("dht_hedged_requests_total", "Hedged DHT look-ups, by how the hedge fared.", "result")
	hedged.count(&c.HedgeWin, "win")
	hedged.count(&c.HedgeLose, "lose")
	hedged.count(&c.HedgeTie, "tie")
}

// enterHouse enters what belongs to no room.
func enterHouse(b *book, s Sources) {
	mode := b.gauges("amnesia_mode", "1 for the mode in force.", "status")
	mode.gauge(known(flag(s.Amnesia)), "enabled")
	mode.gauge(known(flag(!s.Amnesia)), "disabled")
	b.gauges("pq_enabled", "1 when post-quantum key exchange is asked for; this version has no key for it, and takes what Go agrees on.").gauge(zero)
	over := b.counters("quota_exhaustions_total", "Requests refused by a rate or a quota, by dimension.", "dimension")
	for d := range index.Dimensions {
		over.count(&s.Net.Quota[d], d.String())
	}
	reloads := b.counters("config_reloads_total", "Reloads of the configuration, by result.", "result")
	reloads.count(&s.Reloads.OK, "ok")
	reloads.count(&s.Reloads.Failed, "failed")
	b.counters("bus_lagged_total", "Events that a slow subscriber missed.").counter(s.Bus)

	b.counters("audit_entries_total", "Mutations that left an entry, since the store was made.").counter(func() uint64 { n, _, _ := s.Audit(); return n })
	b.gauges("audit_pending", "Entries that are in no file yet.").gauge(func() float64 { n, kept, _ := s.Audit(); return float64(n - kept) })
	b.counters("audit_faults_total", "Failures to write entries to the audit's files.").counter(func() uint64 { _, _, n := s.Audit(); return n })

	stalls := b.counters("stalls_total", "Times that something stood still, by what.", "kind")
	for k := range index.StallKinds {
		stalls.count(&s.Stalls.Stalls[k], k.String())
	}
	b.counters("flight_dumps_total", "Dumps of goroutines and a trace written after a stall.").count(&s.Stalls.Dumps)
	b.counters("flight_dumps_skipped_total", "Dumps not written: too soon after another, or the disk would not.").count(&s.Stalls.Skipped)

	b.gauges("ready", "1 when /readyz says 200.").gauge(func() float64 { return flag(s.Ready.Snapshot().Ready) })
	held := b.gauges("readiness_key_held", "1 for each condition of readiness that holds.", "key")
	for k := range keyCount {
		held.gauge(func() float64 { return flag(s.Ready.Snapshot().holds(k)) }, k.String())
	}
}

// A view is the rooms, the runtime and the process as of the latest look. A
// scrape looks once and then reads: its figures belong together, and a room is
// not asked forty times. Whoever uses it holds Server.scrape.
type view struct {
	rooms   map[string]index.RoomStats
	runtime runtimeView
	process processView
}

func newView() *view {
	return &view{runtime: newRuntimeView(), process: newProcessView(time.Now())}
}

func (v *view) look(rooms []index.RoomStats) {
	v.rooms = make(map[string]index.RoomStats, len(rooms))
	for _, r := range rooms {
		v.rooms[r.Name] = r
	}
	v.runtime.look()
	v.process.look()
}

// room returns the stage called name, or an empty one with counters at 0.
func (v *view) room(name string) index.RoomStats {
	r := v.rooms[name]
	if r.Counts == nil {
		r.Counts = new(index.RoomCounts)
	}
	return r
}
