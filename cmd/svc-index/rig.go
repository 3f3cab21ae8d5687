//go:build rig

package main

import (
	"bytes"
	"log/slog"
	"os"
	"os/signal"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"svcindex/index"
	"svcindex/stages"
	"svcindex/stages/fakenet"
)

// rigSeams reads what a rig wants from its environment:
//
//	RIG_DB_DELAY=5ms     every read of the database takes so long
//	RIG_DB_FREEZE=30s    SIGUSR1 makes it hang for so long
//	RIG_DB_LEAK=1024     every read of the database keeps so many bytes for ever
//	RIG_HIT_BURN=120us   every flight costs its event loop so much more
//	RIG_NET=SEED         a fake network is the dht stage
//	RIG_NET_SLOWER=1.3   which takes so many times as long
//	RIG_BOOM=name:x      a look-up of this key panics in the database stage
//	RIG_LINGER=1         a server that has forgotten everything says so, and waits for SIGUSR2
//	RIG_INLINE=1         the cache has no queue: hits are looked up on the event loops
func rigSeams(log *slog.Logger) seams {
	s := seams{store: func(inner index.Store) index.Store { return newRigStore(inner, log) }}
	if seed, err := strconv.ParseUint(os.Getenv("RIG_NET"), 10, 32); err == nil {
		slower, err := strconv.ParseFloat(os.Getenv("RIG_NET_SLOWER"), 64)
		if err != nil {
			slower = 1
		}
		after := func(d time.Duration) time.Duration { return time.Duration(slower * float64(d)) }
		s.network = fakenet.Net{Seed: seed, Known: .5, Median: after(40 * time.Millisecond), P99: after(400 * time.Millisecond)}
	}
	if burn, err := time.ParseDuration(os.Getenv("RIG_HIT_BURN")); err == nil {
		s.front = func(p *stages.Pipeline) index.Resolver { return burning{p, burn} }
	}
	if os.Getenv("RIG_INLINE") == "1" {
		s.front = func(p *stages.Pipeline) index.Resolver { return stages.Inline{Pipeline: p} }
		log.Info("rig: hits are looked up on the event loops")
	}
	return s
}

// A burning pipeline has become dearer for the event loops.
type burning struct {
	*stages.Pipeline
	burn time.Duration
}

// Push implements index.Resolver.
func (b burning) Push(lane int, fs []*index.Flight) int {
	for until := time.Now().Add(time.Duration(len(fs)) * b.burn); time.Now().Before(until); {
	}
	return b.Pipeline.Push(lane, fs)
}

// atEnd waits to be looked at.
func atEnd(log *slog.Logger) {
	if os.Getenv("RIG_LINGER") == "" {
		return
	}
	c := make(chan os.Signal, 1)
	signal.Notify(c, syscall.SIGUSR2)
	log.Info("rig: all is forgotten")
	<-c
}

// A rigStore is a slow disk, or one that hangs.
type rigStore struct {
	inner  index.Store
	delay  time.Duration
	frozen *atomic.Int64 // until when, unix ns; apart, or the one who hears signals would hold the store for ever
	boom   string
	leak   int
	mu     sync.Mutex
	leaked [][]byte // protected by mu
}

func newRigStore(inner index.Store, log *slog.Logger) *rigStore {
	r := &rigStore{inner: inner, frozen: new(atomic.Int64), boom: os.Getenv("RIG_BOOM")}
	r.delay, _ = time.ParseDuration(os.Getenv("RIG_DB_DELAY"))
	r.leak, _ = strconv.Atoi(os.Getenv("RIG_DB_LEAK"))
	hang, _ := time.ParseDuration(os.Getenv("RIG_DB_FREEZE"))
	c := make(chan os.Signal, 1)
	signal.Notify(c, syscall.SIGUSR1)
	frozen := r.frozen
	go func() {
		for range c {
			log.Info("rig: the database hangs", "for", hang.String())
			frozen.Store(time.Now().Add(hang).UnixNano())
		}
	}()
	return r
}

// Get implements index.Store.
func (r *rigStore) Get(j *index.Job) error {
	if r.boom != "" && j.Key.String() == r.boom {
		panic("rig: boom")
	}
	if until := time.Unix(0, r.frozen.Load()); time.Now().Before(until) {
		time.Sleep(time.Until(until))
	}
	if r.leak > 0 {
		r.mu.Lock()
		r.leaked = append(r.leaked, bytes.Repeat([]byte{1}, r.leak)) // written to, so that it is memory and not a promise
		r.mu.Unlock()
	}
	time.Sleep(r.delay)
	return r.inner.Get(j)
}
