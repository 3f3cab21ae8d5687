package telemetry

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"os"
	"runtime"
	"runtime/pprof"
	"runtime/trace"
	"strconv"
	"strings"
	"sync/atomic"
	"time"
)

// We do not import net/http/pprof: it hangs its handlers on
// http.DefaultServeMux, where whoever serves that mux one day would show them
// to the world. What it does is a few calls of runtime/pprof.

const (
	profileSeconds    = 30 // what `go tool pprof` expects when it does not ask
	profileSecondsMax = 300
)

func profileRoutes(mux *http.ServeMux, c *contention) {
	mux.HandleFunc("GET /debug/pprof/{$}", profileList)
	mux.HandleFunc("GET /debug/pprof/cmdline", cmdline)
	mux.HandleFunc("GET /debug/pprof/profile", cpuProfile)
	mux.HandleFunc("GET /debug/pprof/trace", traceProfile)
	mux.HandleFunc("GET /debug/pprof/contention", c.record)
	mux.HandleFunc("GET /debug/pprof/{name}", namedProfile)
}

func profileList(w http.ResponseWriter, _ *http.Request) {
	var b bytes.Buffer
	b.WriteString("/debug/pprof/profile?seconds=30\n/debug/pprof/trace?seconds=1\n/debug/pprof/cmdline\n" +
		"/debug/pprof/contention?seconds=10 (fills mutex and block)\n")
	for _, p := range pprof.Profiles() {
		fmt.Fprintf(&b, "/debug/pprof/%s?debug=1 (%d)\n", p.Name(), p.Count())
	}
	send(w, http.StatusOK, "text/plain; charset=utf-8", b.Bytes())
}

func cmdline(w http.ResponseWriter, _ *http.Request) {
	send(w, http.StatusOK, "text/plain; charset=utf-8", []byte(strings.Join(os.Args, "\x00")))
}

// namedProfile sends a profile the runtime keeps anyway.
func namedProfile(w http.ResponseWriter, r *http.Request) {
	p := pprof.Lookup(r.PathValue("name"))
	if p == nil {
		http.Error(w, "no such profile; /debug/pprof/ lists them", http.StatusNotFound)
		return
	}
	if r.FormValue("seconds") != "" {
		http.Error(w, "seconds is for profile and trace; take two and compare them with pprof -base", http.StatusBadRequest)
		return
	}
	if r.FormValue("gc") == "1" && (p.Name() == "heap" || p.Name() == "allocs") {
		runtime.GC()
	}
	debug, _ := strconv.Atoi(r.FormValue("debug"))
	var b bytes.Buffer
	if err := p.WriteTo(&b, debug); err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	mediaType := "application/octet-stream"
	if debug != 0 {
		mediaType = "text/plain; charset=utf-8"
	}
	send(w, http.StatusOK, mediaType, b.Bytes())
}

func cpuProfile(w http.ResponseWriter, r *http.Request) {
	d, ok := duration(w, r, profileSeconds)
	if !ok {
		return
	}
	var b bytes.Buffer
	if err := pprof.StartCPUProfile(&b); err != nil {
		http.Error(w, err.Error()+"; wait for the other to end", http.StatusConflict)
		return
	}
	sleep(r.Context(), d)
	pprof.StopCPUProfile()
	send(w, http.StatusOK, "application/octet-stream", b.Bytes())
}

// What contention costs while it is recorded: one in so many waits for a mutex
// is noted, and one block in so many nanoseconds blocked. Both off: nothing.
const (
	mutexFraction = 10
	blockRate     = 10_000
)

// A contention switches the recording of waits on, for one caller at a time.
// The profiles mutex and block hold what was recorded since start; who wants
// one span takes them before and after and subtracts.
type contention struct{ busy atomic.Bool }

func (c *contention) record(w http.ResponseWriter, r *http.Request) {
	d, ok := duration(w, r, profileSeconds)
	if !ok {
		return
	}
	if !c.busy.CompareAndSwap(false, true) {
		http.Error(w, "waits are being recorded for somebody else; wait for him to end", http.StatusConflict)
		return
	}
	defer c.busy.Store(false)
	before := runtime.SetMutexProfileFraction(mutexFraction)
	defer runtime.SetMutexProfileFraction(before)
	runtime.SetBlockProfileRate(blockRate)
	defer runtime.SetBlockProfileRate(0)
	sleep(r.Context(), d)
	send(w, http.StatusOK, "text/plain; charset=utf-8", []byte("now take /debug/pprof/mutex and /debug/pprof/block\n"))
}

// traceProfile streams: a trace of a busy server does not fit into memory we
// would like to give it.
func traceProfile(w http.ResponseWriter, r *http.Request) {
	d, ok := duration(w, r, 1)
	if !ok {
		return
	}
	w.Header().Set("Content-Type", "application/octet-stream")
	if err := trace.Start(w); err != nil {
		http.Error(w, err.Error()+"; wait for the other to end", http.StatusConflict)
		return
	}
	sleep(r.Context(), d)
	trace.Stop()
}

// duration returns ?seconds= and gives the answer that much more time. If it
// reports false, it has answered.
func duration(w http.ResponseWriter, r *http.Request, otherwise int) (time.Duration, bool) {
	n := otherwise
	if s := r.FormValue("seconds"); s != "" {
		var err error
		if n, err = strconv.Atoi(s); err != nil || n < 1 || n > profileSecondsMax {
			http.Error(w, fmt.Sprintf("seconds: expected 1..%d", profileSecondsMax), http.StatusBadRequest)
			return 0, false
		}
	}
	d := time.Duration(n) * time.Second
	if err := http.NewResponseController(w).SetWriteDeadline(time.Now().Add(d + writeTimeout)); err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return 0, false
	}
	return d, true
}

// sleep waits for d, or until nobody waits for the answer any more.
func sleep(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}
