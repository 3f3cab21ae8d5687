package main

import (
	"fmt"
	"log/slog"
	"os"
	"runtime"
	"runtime/debug"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"svcindex/config"
)

// How a process forgets. Go gives no way to overwrite what is on its heap: a
// slice is copied when it grows, a string cannot be written to, and libraries
// keep buffers of their own. But its collector can be told to overwrite each
// object as it frees it. So whoever wants something forgotten lets go of it and
// collects: what nobody holds is overwritten, whoever held it before.

// clobber has the collector overwrite what it frees.
const clobber = "clobberfree=1"

// forgetful makes this process one that can forget and that leaves no core:
// the collector reads its setting only when a process begins, so it begins
// again, as the same process with the same arguments.
func forgetful() error {
	set := os.Getenv("GODEBUG")
	if !strings.Contains(set, clobber) {
		env := append(os.Environ(), "GODEBUG="+strings.Trim(set+","+clobber, ","))
		err := syscall.Exec("/proc/self/exe", os.Args, env)
		return fmt.Errorf("amnesia: beginning anew with GODEBUG=%s: %w; start it so, or set amnesia.enabled = false", clobber, err)
	}
	if err := unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{}); err != nil {
		return fmt.Errorf("amnesia: no core files: %w", err)
	}
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return fmt.Errorf("amnesia: no dumps: %w", err)
	}
	return nil
}

// collect frees what nobody holds. Twice: what pools keep for a while they let
// go of at the second time. Free pages go back to the system.
func collect() {
	runtime.GC()
	runtime.GC()
	debug.FreeOSMemory()
}

// forgetWithin is how long a library may go on holding what it was told to
// close. goleveldb takes a second.
const forgetWithin = 5 * time.Second

// forget lets go of all that a closed house was made of. gone is closed once
// the store is out of memory.
func (r *reloader) forget(gone <-chan struct{}) {
	log := r.house.log
	*r.house = house{log: log} // all of it, whatever it comes to be made of
	*r = reloader{log: log, level: r.level}
	late := time.After(forgetWithin)
	for {
		collect()
		select {
		case <-gone:
			collect() // what the store held, too
			return
		case <-late:
			log.Warn("amnesia: records may be left in memory: the store was not let go of", "within", forgetWithin.String())
			return
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// memory is how much a store that is never on disk may hold; 0: it is on disk.
func memory(c *config.Config) int64 {
	if !c.Amnesia.Enabled {
		return 0
	}
	return int64(c.Amnesia.Bytes)
}

// A purge forgets, every now and then, what can be had again.
type purge struct {
	what  func() // lets go of it
	log   *slog.Logger
	every chan time.Duration
	quit  chan struct{}
	busy  sync.WaitGroup
}

// startPurge starts one where amnesia is on; else it returns nil, which is one
// that never does anything.
func startPurge(what func(), c *config.Config, log *slog.Logger) *purge {
	if !c.Amnesia.Enabled {
		return nil
	}
	p := &purge{what: what, log: log, every: make(chan time.Duration, 1), quit: make(chan struct{})}
	p.every <- time.Duration(c.Amnesia.PurgeInterval)
	p.busy.Go(p.run)
	return p
}

// tune changes how often.
func (p *purge) tune(c *config.Config) {
	if p == nil {
		return
	}
	select {
	case <-p.every:
	default:
	}
	p.every <- time.Duration(c.Amnesia.PurgeInterval)
}

func (p *purge) close() {
	if p == nil {
		return
	}
	close(p.quit)
	p.busy.Wait()
}

func (p *purge) run() {
	t := time.NewTicker(time.Hour)
	t.Stop()
	defer t.Stop()
	for {
		select {
		case <-p.quit:
			return
		case every := <-p.every:
			t.Stop()
			if every > 0 {
				t.Reset(every)
			}
		case <-t.C:
			p.what()
			collect()
			p.log.Debug("amnesia: what can be had again is forgotten")
		}
	}
}
