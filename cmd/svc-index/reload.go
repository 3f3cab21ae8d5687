package main

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"time"

	"svcindex/bus"
	"svcindex/config"
	"svcindex/index"
	"svcindex/stages"
)

// tuning is what requests feel of a configuration.
func tuning(c *config.Config) index.Tuning {
	l, st := &c.Limits, &c.Stages
	return index.Tuning{
		RequestTimeout: time.Duration(l.RequestTimeout), IdleTimeout: time.Duration(l.IdleTimeout),
		Budget: time.Duration(c.Budget.Resolve), WriteTimeout: time.Duration(l.WriteTimeout),
		Slices: []index.Slice{
			{Room: "db", For: time.Duration(st.DB.Slice)}, {Room: "dht", For: time.Duration(st.DHT.Slice)},
			{Room: "write", For: time.Duration(st.Write.Slice)},
		},
		HeadBytes: int(l.HeadBytes), TargetBytes: int(l.TargetBytes), BodyBytes: int64(l.Body), Gzip: c.Compression.Enabled, Ratio: int64(l.DecompressRatio),
		BufferedBytes: int64(l.BufferedBytes), MaxConns: l.Conns(), ConnsPerIP: l.ConnsPerIP,
		Inflight: l.Inflight, Joined: l.Joined,
		Rate: l.RPS, RatePerIP: l.RPSPerIP,
		ResolvesPerMin: c.Quota.ResolvesPerMin, ProvidersPerMin: c.Quota.ProvidersPerMin,
		Lives: index.Lives{
			TTL: time.Duration(c.Cache.TTL), NegTTL: time.Duration(c.Cache.NegTTL), StaleFor: time.Duration(c.Cache.StaleFor),
			RefreshAhead: c.Cache.RefreshAhead,
		},
		Rank: rank(c.Rank),
	}
}

// rows is what the rooms are like under a configuration, without their steps.
func rows(st *config.Stages) []stages.Row {
	return []stages.Row{
		row("cache", &st.Cache, nil), row("db", &st.DB, nil), row("dht", &st.DHT, nil), row("write", &st.Write, nil),
	}
}

// tune puts a configuration in force, under way. It returns what only a
// restart can do.
func (h *house) tune(c *config.Config) []error {
	h.dial.Turn(tuning(c))
	h.purge.tune(c)
	h.tuneDHT(&c.DHT)
	return h.line.Tune(rows(&c.Stages)...)
}

// A reloader brings a running house the configuration as it is now.
type reloader struct {
	in    config.Input
	house *house
	log   *slog.Logger
	level *slog.LevelVar

	mu sync.Mutex
	// Fields below are protected by mu.
	cfg     config.Config // in force
	at      time.Time     // since when
	waiting []string      // keys that wait for a restart
	failed  string        // why the last reload changed nothing; "": it did
}

func newReloader(in config.Input, cfg config.Config, level *slog.LevelVar) *reloader {
	return &reloader{in: in, cfg: cfg, level: level, at: time.Now()}
}

// attach gives it the house, before the first reload.
func (r *reloader) attach(h *house) {
	r.house, r.log = h, h.log
	h.reloader.Store(r)
}

// now returns the configuration in force.
func (r *reloader) now() config.Config {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.cfg
}

// reload reads the layers again. What is not sound as a whole changes nothing.
func (r *reloader) reload(why string) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if err := r.house.ring.Reload(); err != nil {
		r.log.Error("root keys not reloaded", "why", why, "err", err)
	}
	next, from, err := config.LoadOrigins(r.in)
	if err == nil {
		err = config.Explain(sound(&next), from)
	}
	merged, changes := r.cfg.Reload(next)
	if err == nil {
		if err = merged.Check(); err != nil { // each may be sound, and half of the one on half of the other not
			err = fmt.Errorf("what changes under way does not go with what only a restart changes; restart: %w", err)
		}
	}
	if err != nil {
		r.failed = err.Error()
		r.house.reloads.Failed.Add(1)
		r.log.Error("the new configuration is not sound; the old one stays in force", "why", why, "err", err)
		return err
	}
	r.cfg, r.failed, r.at = merged, "", time.Now()
	r.put(changes)
	r.house.reloads.OK.Add(1)
	r.log.Info("configuration reloaded", "why", why, "changes", len(changes), "waiting_for_restart", len(r.waiting))
	return nil
}

// put puts changes in force, and says of each what became of it.
func (r *reloader) put(changes []config.Change) {
	r.waiting = r.waiting[:0:0]
	for _, c := range changes {
		r.log.Info("configuration changed", "key", c.Key, "from", c.From, "to", c.To, "in_force", c.Live)
		if !c.Live {
			r.waiting = append(r.waiting, c.Key)
		}
		r.house.bus.Publish(bus.Event{Kind: "config", Key: c.Key, At: time.Now()})
	}
	setLevel(r.level, r.cfg.Log.Level)
	for _, err := range r.house.tune(&r.cfg) {
		r.log.Warn("configuration changed, but not all of it is in force", "err", err)
		r.waiting = append(r.waiting, err.Error())
	}
	if slices.ContainsFunc(changes, func(c config.Change) bool { return c.Live && strings.HasPrefix(c.Key, "rank.") }) {
		r.house.gens.BumpAll() // or pages that are kept would go on naming who may not be
	}
}

// printConfig writes the configuration in force.
func (h *house) printConfig(w io.Writer) error {
	if r := h.reloader.Load(); r != nil {
		return r.now().Print(w)
	}
	return h.cfg.Print(w)
}

// A reloadState is what /debug/stages shows of the configuration.
type reloadState struct {
	Since   time.Time `json:"since"`
	Waiting []string  `json:"waiting_for_restart"`
	Failed  string    `json:"last_failure,omitempty"`
}

// state says how the configuration stands.
func (r *reloader) state() *reloadState {
	if r == nil {
		return nil
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	return &reloadState{r.at, append([]string{}, r.waiting...), r.failed}
}

// safely keeps a bug in a reload from ending the server.
func (r *reloader) safely(why string) (err error) {
	defer func() {
		if p := recover(); p != nil {
			r.house.reloads.Failed.Add(1)
			r.log.Error("a reload broke", "panic", fmt.Sprint(p), "stack", string(debug.Stack()))
			err = errors.New("a reload broke; see the log")
		}
	}()
	return r.reload(why)
}

func setLevel(v *slog.LevelVar, name string) {
	var level slog.Level
	if level.UnmarshalText([]byte(name)) == nil { // config.Check has refused anything else
		v.Set(level)
	}
}
