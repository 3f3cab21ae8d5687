package main

import (
	"os"
	"runtime/debug"
	"runtime/metrics"
	"sync"
	"time"
)

// Go collects when garbage has grown to what is alive, and the cache's memory
// is always alive: beside 256 MiB of it, 10 MiB of anything else would drag
// 266 MiB of garbage behind them. So garbage is held to what is alive beside
// the cache, to what is made in a second (a collection a second costs little)
// and to leastGarbage, whichever is most.

const (
	leastGarbage = 16 << 20
	garbageEvery = time.Second
	percentOfGo  = 100 // GOGC, unless somebody sets it
)

// garbagePercent is the GOGC that does so. live is what was alive after the
// last collection, made what was allocated in garbageEvery.
func garbagePercent(live, cache, made uint64) int {
	live = max(live, cache, 1) // before the first collection nothing is known to be alive
	may := max(live-cache, made, leastGarbage)
	return int(min(max(may*percentOfGo/live, 1), percentOfGo))
}

// A garbageMan holds garbage to that until he is closed.
type garbageMan struct {
	cache uint64
	was   int
	quit  chan struct{}
	busy  sync.WaitGroup
}

// startGarbageMan starts one, or returns nil, which is one that does nothing,
// where the environment says how it wants it.
func startGarbageMan(cache uint64) *garbageMan {
	if os.Getenv("GOGC") != "" {
		return nil
	}
	g := &garbageMan{cache: cache, quit: make(chan struct{})}
	g.was = debug.SetGCPercent(garbagePercent(0, cache, 0))
	g.busy.Go(g.run)
	return g
}

func (g *garbageMan) close() {
	if g == nil {
		return
	}
	close(g.quit)
	g.busy.Wait()
	debug.SetGCPercent(g.was)
}

func (g *garbageMan) run() {
	look := []metrics.Sample{{Name: "/gc/heap/live:bytes"}, {Name: "/gc/heap/allocs:bytes"}}
	t := time.NewTicker(garbageEvery)
	defer t.Stop()
	metrics.Read(look)
	made, now := look[1].Value.Uint64(), garbagePercent(0, g.cache, 0)
	for {
		select {
		case <-g.quit:
			return
		case <-t.C:
		}
		metrics.Read(look)
		before := made
		made = look[1].Value.Uint64()
		// Each change stops the world: none is made for a little.
		if p := garbagePercent(look[0].Value.Uint64(), g.cache, made-before); p > now+now/4 || p < now-now/4 {
			now = p
			debug.SetGCPercent(p)
		}
	}
}
