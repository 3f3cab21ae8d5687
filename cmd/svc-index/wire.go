package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"svcindex/audit"
	"svcindex/auth"
	"svcindex/bus"
	"svcindex/config"
	"svcindex/index"
	"svcindex/netio"
	"svcindex/stages"
	"svcindex/stages/leveldb"
	"svcindex/stages/ram"
	"svcindex/telemetry"
	"svcindex/watch"
)

// A house is a running server, plugged together:
//
//	socket ─▶ netio ─▶ cache ─▶ db ─▶ (dht) ─▶ network
//	   ▲         │       │       │       │
//	   └─────────┴───────┴───────┴───────┘   answers go straight home
//	             └─▶ write ─▶ db             one commit for many
//
// build opens it bottom-up; close, read downwards, is the shutdown plan.
type house struct {
	cfg   config.Config
	log   *slog.Logger
	ready *telemetry.Readiness
	loops int // event loops; read once, for Go may change its mind
	dial  *index.Dial

	reloads  index.ReloadCounts
	reloader atomic.Pointer[reloader] // nil: nobody reloads
	bus      *bus.Bus
	ring     *auth.Keyring
	guard    *auth.Guard
	trust    *auth.Trust
	gens     *index.Generations
	net      index.Discoverer // nil: there is no network
	keeper   *audit.Keeper    // nil: no audit
	store    *leveldb.DB
	cache    *ram.Cache
	shelf    stages.Shelf // the store, and what of it is an answer
	purge    *purge       // nil: nothing is forgotten before the end
	tasks    *stages.Tasks
	line     *stages.Pipeline
	front    index.Resolver // of the event loops: line
	server   *netio.Server
	watch    *watch.Watch
	admin    *telemetry.Server
	dht      dhtPart // the network

	listener sync.WaitGroup // to the bus
	addr     net.Addr
}

// seams are where tests and rigs put something else in place of the real
// thing. All nil in a release.
type seams struct {
	store   func(index.Store) index.Store
	writer  func(index.Writer) index.Writer
	network index.Discoverer
	now     func() time.Time                      // the DHT node's clock
	front   func(*stages.Pipeline) index.Resolver // what the event loops push to
}

// build opens the house. On an error everything opened before is closed.
func build(cfg config.Config, log *slog.Logger, s seams) (h *house, err error) {
	h = &house{cfg: cfg, log: log, loops: runtime.GOMAXPROCS(0), ready: telemetry.NewReadiness(log), bus: bus.New(busDepth)}
	defer func() {
		if err != nil {
			err = errors.Join(err, h.close(context.Background()))
		}
	}()
	h.dial = index.NewDial(tuning(&cfg))
	h.ready.Notify(h.publishReadiness)
	h.ready.Set(telemetry.ConfigLoaded, nil)
	h.attachBus()

	if err := os.MkdirAll(cfg.DataDir, 0o700); err != nil {
		return h, fmt.Errorf("data_dir: %w; choose one with --data", err)
	}
	integrity := new(index.IntegrityCounts)
	key, nodeID, err := auth.Identity(cfg.DataDir)
	if err != nil {
		return h, err
	}
	if h.trust, err = auth.NewTrust(cfg.Trust.Publishers); err != nil {
		return h, err
	}
	if h.ring, err = auth.OpenKeyring(cfg.KeysPath(), true); err != nil {
		return h, err
	}
	h.ring.OnChange(func() { h.bus.Publish(bus.Event{Kind: "admin", Key: "root_keys", At: time.Now()}) })
	h.ring.Watch(log)
	h.guard = auth.NewGuard(h.ring, nodeID)
	h.store, err = leveldb.Open(leveldb.Options{
		Path: cfg.DBPath(), Sync: cfg.DB.Sync, MinFree: int64(cfg.DB.MinFree), Log: log, Integrity: integrity,
		Audit: cfg.Audit.Enabled, Memory: memory(&cfg),
	})
	if err != nil {
		return h, err
	}
	if cfg.Audit.Enabled {
		if h.keeper, err = audit.Start(audit.Options{Dir: cfg.AuditDir(), Log: log}, h.store); err != nil {
			return h, err
		}
	}
	h.ready.Watch(telemetry.DBOpen, h.dbReady)

	gens := index.NewGenerations()
	h.cache = ram.New(ram.Options{
		Bytes: int(cfg.Cache.Bytes), TTL: time.Duration(cfg.Cache.TTL),
		NegTTL: time.Duration(cfg.Cache.NegTTL), StaleFor: time.Duration(cfg.Cache.StaleFor),
	}, gens)
	pages := &netio.Pages{Now: time.Now, Rank: rank(cfg.Rank)}
	h.tasks = stages.NewTasks(gens, h.cache)
	if err := h.joinDHT(key, integrity, s.now); err != nil {
		return h, err
	}
	if err := h.buildLine(gens, pages, integrity, s); err != nil {
		return h, err
	}
	h.warmUp(pages)
	if err := h.open(gens, pages, integrity, nodeID); err != nil {
		return h, err
	}
	return h, h.announce(key)
}

// buildLine makes the pipeline from the table of rooms.
func (h *house) buildLine(gens *index.Generations, pages *netio.Pages, integrity *index.IntegrityCounts, s seams) (err error) {
	cfg, st := &h.cfg, &h.cfg.Stages
	var store index.Store = h.store
	var writer index.Writer = h.store
	if s.store != nil {
		store = s.store(store)
	}
	if s.writer != nil {
		writer = s.writer(writer)
	}
	counts := new(index.LookupCounts)
	scribe := &stages.Scribe{
		Writer: writer, Verify: h.trust.Verify, Gens: gens, Cache: h.cache, Tasks: h.tasks, Counts: counts, Changed: h.publish,
		Announces: h.announces,
	}
	fresh := &stages.Freshness{After: time.Duration(cfg.DB.RefreshAfter), Believe: h.trust.Believes}
	h.shelf = stages.Shelf{Store: store, Rule: fresh}
	rooms := []stages.Row{
		row("db", &st.DB, h.shelf),
	}
	network := s.network
	if network == nil && h.dht.node != nil {
		network = h.dht.node
	}
	h.net, h.gens = network, gens
	if network != nil {
		dht := row("dht", &st.DHT, stages.Scout{Network: network, Intake: &stages.Intake{
			Verify: h.trust.Proven, Stored: h.store, Integrity: integrity,
			Keep: func(m *index.Mutation) { h.line.Absorb(m) },
		}})
		dht.LateIsNeutral = true
		dht.Holds, fresh.Holds = h.networkHolds, h.networkHolds
		rooms = append(rooms, dht)
	}
	h.line, err = stages.Build(stages.Config{
		Cache: stages.CacheRow{
			Name: "cache", Cache: h.cache, Gens: gens, Depth: st.Cache.Depth, Batch: st.Cache.Batch,
			Slice: time.Duration(st.Cache.Slice), Breaker: breaker(st.Cache.Breaker),
		},
		Rooms: rooms, Write: row("write", &st.Write, scribe),
		Loops: h.loops, Dial: h.dial, RefreshAfter: time.Duration(cfg.DB.RefreshAfter),
		Gens: gens, Render: pages, Counts: counts,
	})
	if err != nil {
		return err
	}
	h.tasks.Attach(h.line)
	h.dht.line.Store(h.line)
	h.front = h.line
	if s.front != nil {
		h.front = s.front(h.line)
	}
	return nil
}

// networkHolds reports whether the network could hold what j asks for: every
// content id, and names that somebody is trusted to sign.
func (h *house) networkHolds(j *index.Job) bool { return !j.Key.IsName() || h.trust.Covers(&j.Key) }

func rank(r config.Rank) index.Rank {
	return index.NewRank(r.RegionBias, time.Duration(r.FreshnessHalfLife).Seconds(), r.AllowedRegions, r.Deny)
}

func row(name string, s *config.Stage, step stages.Step) stages.Row {
	return stages.Row{
		Name: name, Step: step, Depth: s.Depth, Workers: stages.Range{Min: s.WorkersMin, Max: s.WorkersMax},
		Batch: s.Batch, Slice: time.Duration(s.Slice), MaxWait: time.Duration(s.MaxWait), Breaker: breaker(s.Breaker),
	}
}

func breaker(b config.Breaker) stages.Breaker {
	return stages.Breaker{
		Window: time.Duration(b.Window), TripRatio: b.TripRatio, MinRequests: uint32(b.MinRequests),
		Cooldown: time.Duration(b.Cooldown), Probes: uint32(b.Probes),
	}
}

// open lets clients in: the admin listener first, so that somebody can see why
// the public one does not come up.
func (h *house) open(gens *index.Generations, pages *netio.Pages, integrity *index.IntegrityCounts, nodeID string) (err error) {
	cfg := &h.cfg
	h.server, err = netio.New(netio.Options{
		Loops: h.loops, Dial: h.dial,
		Gens: gens, Lookups: h.line.Counts(), Guard: h.guard, AuthReads: cfg.Auth.Required, Ready: h.ready.Body,
		Version: versionBody(nodeID), ReasonRatio: stages.ReasonRatio, Log: h.log,
	}, pages, h.front)
	if err != nil {
		return err
	}
	stalls := new(index.WatchCounts)
	if err := h.watchOver(stalls); err != nil {
		return err
	}
	h.admin = telemetry.New(telemetry.Sources{
		Rooms: h.line.Stats, Net: h.server.Counts(), Cache: h.cache.Counts(), CacheSize: h.cache.Len,
		Lookups: h.line.Counts(), Integrity: integrity, Bus: h.bus.Lagged, Reloads: &h.reloads, Amnesia: cfg.Amnesia.Enabled, Ready: h.ready,
		Version: versionDoc{"svc-index", version, commit, runtime.Version(), nodeID},
		Stages:  h.extra, Audit: h.audited, Guard: h.guard, AuthReads: cfg.Auth.Required, Events: h.bus.Subscribe, Backup: h.backup,
		Stalls: stalls, Watch: func() any { return h.watch.Status() }, Recording: h.watch.Recording,
		Config: h.printConfig,
		DHT:    &h.dht.counts, Network: h.network(), Explain: h.explain,
	}, h.log)
	if err := h.admin.Listen(cfg.Admin); err != nil {
		return err
	}
	if h.addr, err = h.server.Listen(cfg.Listen); err != nil {
		return err
	}
	if cfg.UDS.Path != "" {
		path, err := filepath.Abs(cfg.UDS.Path)
		if err != nil {
			return fmt.Errorf("uds.path: %w", err)
		}
		if err := h.server.ListenUnix(path, cfg.UDS.UIDs()); err != nil {
			return err
		}
	}
	h.purge = startPurge(func() { h.cache.Purge(); h.server.Forget() }, cfg, h.log)
	h.ready.Set(telemetry.ListenersBound, nil)
	return nil
}

// watchOver has the watch look after rooms, loops and the scheduler.
func (h *house) watchOver(stalls *index.WatchCounts) (err error) {
	w := h.cfg.Watch
	h.watch, err = watch.Start(watch.Options{
		Limits: watch.Limits{Stall: time.Duration(w.Stall), Sched: time.Duration(w.Sched), Slow: time.Duration(w.Slow)},
		Files: watch.Files{
			Dir: h.cfg.WatchDir(), Keep: int64(w.Keep), Gap: time.Duration(w.Gap),
			Flight: w.Flight, Window: time.Duration(w.Window), Buffer: int64(w.Buffer),
		},
		Rooms: h.line.Stats, Loops: h.server.Behind, Net: h.server.Counts(), Counts: stalls, Log: h.log,
	})
	return err
}

// audited says how far the audit is: entries made, kept in files, and rounds of
// keeping that failed.
func (h *house) audited() (made, kept, faults uint64) {
	m := h.store.AuditMark()
	if h.keeper != nil {
		faults = h.keeper.Faults.Load()
	}
	return m.Last, m.Kept, faults
}

// dbReady says whether the store can be trusted now. A store that only refuses
// writes still serves reads.
func (h *house) dbReady() error {
	err := h.store.Ready()
	if err != nil && (h.store.ReadOnly() || index.KindOf(err) == index.Full) {
		return telemetry.Degraded(err)
	}
	return err
}

// extra is what /debug/stages shows beside the rooms.
func (h *house) extra() any {
	errands, waiting := h.line.Inflight()
	return map[string]any{
		"config": h.reloader.Load().state(), "event_loops": h.loops, "errands": errands, "askers_waiting": waiting, "cache_entries": h.cache.Len(),
		"connections": h.server.Counts().Conns.Load(), "buffered_bytes": h.server.Counts().BufferedBytes.Load(),
	}
}

// busDepth is how many changes may wait for one listener before it lags.
const busDepth = 1024

// publish puts a durable change on the bus.
func (h *house) publish(kind string, k *index.Key) {
	h.bus.Publish(bus.Event{Kind: kind, Key: k.String(), At: time.Now()})
	if a := h.dht.herald.Load(); a != nil && !k.IsZero() {
		a.Changed(k)
	}
}

// publishReadiness puts a change of readiness on the bus.
func (h *house) publishReadiness(s telemetry.State) {
	key := "ready"
	if !s.Ready {
		key = "not ready: " + strings.Join(s.Missing, ",")
	}
	h.bus.Publish(bus.Event{Kind: "readiness", Key: key, At: time.Now()})
}

// backup writes the database as it is now.
func (h *house) backup(ctx context.Context, w io.Writer) error {
	_, err := h.store.Backup(ctx, w)
	return err
}

// listenEvery is how long the log lets changes gather. To be woken by each costs
// the writers of thousands a second more than the lines are worth.
const listenEvery = 5 * time.Millisecond

// attachBus gives the bus its first listener: the log, at its finest level.
func (h *house) attachBus() {
	events, _ := h.bus.Subscribe()
	h.listener.Go(func() {
		for e := range events {
			if h.log.Enabled(context.Background(), slog.LevelDebug) { // or what is said of each is made for nobody
				h.log.Debug("change", "kind", e.Kind, "key", e.Key, "at", e.At)
			}
			if len(events) == 0 {
				time.Sleep(listenEvery)
			}
		}
	})
	h.ready.Watch(telemetry.BusAttached, func() error {
		if h.bus.Subscribers() == 0 {
			return errors.New("nobody listens to the change bus")
		}
		return nil
	})
}

// closeGrace is for the rooms to finish what they have in hand, and then again
// for the disk to take what it was given.
const closeGrace = 3 * time.Second

// grace returns a context that has closeGrace left, however little a drain has
// left of ctx.
func grace(ctx context.Context) (context.Context, context.CancelFunc) {
	if until, ok := ctx.Deadline(); ok && time.Until(until) > closeGrace {
		return context.WithCancel(ctx)
	}
	return context.WithTimeout(context.WithoutCancel(ctx), closeGrace)
}

// bounded does what nobody can call back, and waits for it no longer than ctx
// lasts. What hangs is left to hang: the process is about to end.
func bounded(ctx context.Context, what string, do func() error) error {
	done := make(chan error, 1)
	go func() { done <- do() }()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return fmt.Errorf("%s: the disk did not answer in time: %w", what, errHangs)
	}
}

var errHangs = errors.New("it hangs; nothing acknowledged is lost, the next start goes on from the journal")

// close takes the house down, front to back: readiness off, no more work,
// rooms drained, replies out, disk closed last. What ctx does not give time
// for is cut short, and said.
func (h *house) close(ctx context.Context) error {
	var errs []error
	h.ready.Drain()
	if h.server != nil {
		errs = append(errs, h.server.Drain(ctx))
	}
	if h.tasks != nil {
		h.tasks.Close()
	}
	stuck := false
	if h.line != nil {
		hand, cancel := grace(ctx)
		err := h.line.Close(hand)
		cancel()
		stuck = err != nil
		errs = append(errs, err)
	}
	errs = append(errs, h.leaveDHT())
	if h.server != nil {
		errs = append(errs, h.server.Stop())
	}
	h.bus.Close() // before the admin listener, whose listeners are told goodbye
	h.listener.Wait()
	if h.admin != nil {
		errs = append(errs, h.admin.Close(ctx))
	}
	if h.ring != nil {
		h.ring.Close()
	}
	if h.watch != nil {
		errs = append(errs, h.watch.Close(ctx))
	}
	h.purge.close()
	disk, cancel := grace(ctx)
	defer cancel()
	if h.cache != nil {
		h.keepWarm(disk)
		h.cache.Close()
	}
	if h.keeper != nil && !stuck {
		err := bounded(disk, "audit", h.keeper.Close)
		if stuck = errors.Is(err, errHangs); stuck {
			errs = append(errs, err)
		} else if err != nil {
			h.log.Warn("audit: entries wait in the store for the next start", "err", err)
		}
	}
	if h.store != nil && !stuck { // a store that hangs in a call hangs in Close, too
		errs = append(errs, bounded(disk, "database", h.store.Close))
		h.ready.Close()
	}
	return errors.Join(errs...)
}
