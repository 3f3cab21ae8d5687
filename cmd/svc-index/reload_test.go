package main

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"svcindex/config"
	"svcindex/index"
)

// A reloading is a house and the file it reads again.
type reloading struct {
	*testHouse
	r    *reloader
	path string
}

func openReloading(t *testing.T, s seams, set ...string) *reloading {
	t.Helper()
	dir := t.TempDir()
	h := &reloading{path: filepath.Join(dir, "svc-index.toml")}
	h.write("")
	in := config.Input{File: h.path, Set: append([]string{
		"listen=127.0.0.1:0", "admin=127.0.0.1:0", "data_dir=" + filepath.Join(dir, "data"), "cache.bytes=4MiB",
	}, set...)}
	cfg, err := config.Load(in)
	if err != nil {
		t.Fatal(err)
	}
	level := new(slog.LevelVar)
	setLevel(level, cfg.Log.Level)
	h.r = newReloader(in, cfg, level)
	h.testHouse = openConfig(t, cfg, s)
	h.r.attach(h.house)
	h.awaitReady()
	return h
}

func (h *reloading) write(text string) {
	if err := os.WriteFile(h.path, []byte(text), 0o600); err != nil {
		panic(err)
	}
}

// reload writes the file and reloads it.
func (h *reloading) reload(text string) error {
	h.t.Helper()
	h.write(text)
	return h.r.safely("a test")
}

func (h *reloading) must(text string) {
	h.t.Helper()
	if err := h.reload(text); err != nil {
		h.t.Fatal(err)
	}
}

// room returns what a stage shows of itself.
func (h *reloading) room(name string) index.RoomStats {
	rooms := h.line.Stats()
	return rooms[slices.IndexFunc(rooms, func(r index.RoomStats) bool { return r.Name == name })]
}

func TestAReloadChangesUnderWay(t *testing.T) {
	h := openReloading(t, seams{}, "log.level=info")
	events, cancel := h.bus.Subscribe()
	defer cancel()
	h.want(h.do("PUT", "/manifests", strings.Repeat("a", 3000)), 201, "")
	h.must("[limits]\nbody = \"2KiB\"\n[stages.db]\ndepth = 7\nworkers_min = 3\nworkers_max = 3\nbatch = 2\nslice = \"90ms\"\nmax_wait = \"80ms\"\n" +
		"[stages.cache]\ndepth = 1000\nbatch = 9\nslice = \"9ms\"\n[stages.write]\nslice = \"900ms\"\nmax_wait = \"300ms\"\n")
	h.want(h.do("PUT", "/manifests", strings.Repeat("b", 3000)), 413, "body_cap")
	if db := h.room("db"); db.Capacity != 7 || db.Workers != 3 || db.Batch != 2 || db.Slice != 90*time.Millisecond {
		t.Errorf("db is %+v", db)
	}
	if c := h.room("cache"); c.Capacity != 1000*h.loops || c.Batch != 9 || c.Slice != 9*time.Millisecond {
		t.Errorf("cache is %+v", c)
	}
	for range 20 { // the rooms as they are now answer
		h.want(h.get("/resolve/name:a?fresh=true"), 404, "not_found")
	}
	if e := <-events; e.Kind != "manifest" {
		t.Errorf("first on the bus is %+v", e)
	}
	told := map[string]bool{}
	for range 12 {
		e := <-events
		told[e.Kind+" "+e.Key] = true
	}
	if !told["config limits.body"] || !told["config stages.db.depth"] || !told["config stages.write.max_wait"] {
		t.Errorf("on the bus: %v", told)
	}
	h.must("")
	h.want(h.do("PUT", "/manifests", strings.Repeat("b", 3000)), 201, "")
	if db := h.room("db"); db.Capacity != 256 || db.Slice != 180*time.Millisecond {
		t.Errorf("back again, db is %+v", db)
	}
}

// A page that is kept was made under the configuration of before: who is denied
// now must not be in the next answer, whoever asked before.
func TestWhoIsDeniedIsInNoAnswerAfterTheReload(t *testing.T) {
	h := openReloading(t, seams{}, "cache.ttl=1h")
	c := index.Sum([]byte("c"))
	where := "/providers/" + c.String()
	h.want(h.do("PUT", where, `{"providers":[{"id":"bad","addr":"/ip4/192.0.2.1"},{"id":"fine","addr":"/ip4/192.0.2.2"}]}`), 200, "")
	for range 2 { // the second from the cache
		if a := h.get(where); !strings.Contains(string(a.body), `"bad"`) {
			t.Fatalf("%s", a.body)
		}
	}
	h.must("[rank]\ndeny = [\"bad\"]\n")
	if a := h.get(where); a.status != 200 || strings.Contains(string(a.body), `"bad"`) || !strings.Contains(string(a.body), `"fine"`) {
		t.Errorf("after the reload: %d %s", a.status, a.body)
	}
}

func TestABadFileChangesNothing(t *testing.T) {
	h := openReloading(t, seams{})
	h.must("[limits]\nbody = \"2KiB\"\n")
	for _, bad := range []string{
		"[limits]\nbody = \"9KiB\"\nno_such = 1\n",
		"[limits]\nbody = \"9KiB\"\n[stages.dht]\nslice = \"5s\"\n",
		"[limits]\nbody = \"9KiB\"\n[trust.publishers]\n\"name:x\" = [\"no key\"]\n", // the next start would fail
		// Sound as a whole, but a stall is looked for as it was, until a restart.
		"[limits]\nbody = \"9KiB\"\n[watch]\nstall = \"20s\"\n[budget]\nresolve = \"7s\"\n[stages.dht]\nslice = \"5s\"\n",
		"limits.body = \"9KiB\"\nthis is not TOML",
	} {
		if err := h.reload(bad); err == nil {
			t.Errorf("accepted: %s", bad)
		}
	}
	h.want(h.do("PUT", "/manifests", strings.Repeat("b", 3000)), 413, "body_cap")
	m := h.scrape()
	if ok, failed := m[`config_reloads_total{result="ok"}`], m[`config_reloads_total{result="failed"}`]; ok != 1 || failed != 5 {
		t.Errorf("%v reloads ok, %v failed; want 1 and 5", ok, failed)
	}
	if f := h.shown().Failed; !strings.Contains(f, "not TOML") {
		t.Errorf("the last failure is shown as %q", f)
	}
}

func TestWhatNeedsARestartSaysSo(t *testing.T) {
	h := openReloading(t, seams{})
	h.must("[db]\nsync = false\n[limits]\nbody = \"2KiB\"\n[stages.cache]\ndepth = 1000000\n")
	if h.r.now().DB.Sync != true {
		t.Error("what needs a restart is taken for in force")
	}
	w := h.shown().Waiting
	if len(w) != 2 || w[0] != "db.sync" || !strings.HasPrefix(w[1], "stages.cache.depth = 1000000") {
		t.Errorf("waiting for a restart: %q", w)
	}
	h.want(h.do("PUT", "/manifests", strings.Repeat("b", 3000)), 413, "body_cap")
	h.must("")
	if w := h.shown().Waiting; len(w) != 0 {
		t.Errorf("taken back, and still waiting: %q", w)
	}
}

// shown is what /debug/stages says of the configuration.
func (h *reloading) shown() (s reloadState) {
	h.t.Helper()
	resp, err := http.Get("http://" + h.admin.Addr() + "/debug/stages")
	if err != nil {
		h.t.Fatal(err)
	}
	defer resp.Body.Close()
	var doc struct {
		Extra struct {
			Config reloadState `json:"config"`
		} `json:"extra"`
	}
	if err := json.NewDecoder(resp.Body).Decode(&doc); err != nil {
		h.t.Fatal(err)
	}
	return doc.Extra.Config
}

// A request is answered under the configuration it began under.
func TestARequestUnderWayKeepsItsConfiguration(t *testing.T) {
	release, reads := make(chan struct{}), make(chan struct{}, 10)
	h := openReloading(t, seams{store: before(func(*index.Job) error {
		reads <- struct{}{}
		<-release
		return nil
	})}, "stages.db.workers_min=2", "watch.stall=30s")
	h.must("[budget]\nresolve = \"20s\"\n[stages.db]\nslice = \"10s\"\nmax_wait = \"0s\"\n")
	old := make(chan answered)
	go func() { a, _ := h.try("GET", "/resolve/name:old", ""); old <- a }()
	<-reads
	h.must("[budget]\nresolve = \"200ms\"\n[stages.db]\nslice = \"50ms\"\nmax_wait = \"40ms\"\n[stages.dht]\nslice = \"100ms\"\nmax_wait = \"50ms\"\n")
	h.want(h.get("/resolve/name:new"), 504, "timeout")
	select {
	case a := <-old:
		t.Errorf("what began under 20 s was held to 200 ms: %v", a)
	default:
	}
	close(release)
	h.want(<-old, 404, "not_found")
}

// A file that changes between its reading and the server's being up has
// changed: nobody would look again.
func TestAChangeDuringTheStartIsNotLost(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "svc-index.toml")
	write := func(text string) {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("")
	file := watchFile(path)
	defer file.Close()
	in := config.Input{File: path, Set: []string{
		"listen=127.0.0.1:0", "admin=127.0.0.1:0", "data_dir=" + filepath.Join(dir, "data"), "cache.bytes=4MiB", "dht.enabled=false",
	}}
	cfg, err := config.Load(in)
	if err != nil {
		t.Fatal(err)
	}
	write("limits.body = \"2KiB\"\n")
	r := newReloader(in, cfg, new(slog.LevelVar))
	sig, ended := make(chan os.Signal, 1), make(chan error, 1)
	go func() {
		ended <- serve(r, file.Watcher, slog.New(slog.NewTextHandler(t.Output(), nil)), sig, io.Discard)
	}()
	eventually(t, "the change is in force", func() bool { return r.now().Limits.Body == 2<<10 })
	sig <- syscall.SIGTERM
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

// A close of the disk that never ends is not waited for, and said; what has
// time gets all of it.
func TestAHangingCloseIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hang := make(chan struct{})
		for _, left := range []time.Duration{-time.Second, time.Minute} {
			ctx, cancel := context.WithTimeout(t.Context(), left)
			disk, done := grace(ctx)
			began := time.Now()
			err := bounded(disk, "database", func() error { <-hang; return nil })
			if took, want := time.Since(began), max(left, closeGrace); !errors.Is(err, errHangs) || took != want {
				t.Errorf("with %v left: %v after %v, want it to be given up after %v", left, err, took, want)
			}
			if err := bounded(t.Context(), "database", func() error { return os.ErrClosed }); !errors.Is(err, os.ErrClosed) {
				t.Errorf("one that fails: %v", err)
			}
			done()
			cancel()
		}
		close(hang)
	})
}
