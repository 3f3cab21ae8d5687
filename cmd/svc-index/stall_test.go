package main

import (
	"encoding/json"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"svcindex/index"
)

// A gate is a lock that a test can break open: a deadlock planted with it can
// be ended.
type gate struct {
	held chan struct{}
	open chan struct{}
}

func newGate(open chan struct{}) gate { return gate{make(chan struct{}, 1), open} }

func (g gate) lock() {
	select {
	case g.held <- struct{}{}:
	case <-g.open:
	}
}

// A tangled store and its writer take two locks, each the other's first.
type tangled struct {
	index.Store
	index.Writer
	a, b         gate
	reads, write *sync.Once
	read, wrote  chan struct{} // closed when either has its first lock
}

func (s *tangled) Get(*index.Job) error {
	s.a.lock()
	s.reads.Do(func() { close(s.read) })
	<-s.wrote
	s.b.lock()
	return index.Down
}

func (s *tangled) Commit([]*index.Mutation) error {
	s.b.lock()
	s.write.Do(func() { close(s.wrote) })
	<-s.read
	s.a.lock()
	return index.Down
}

// hangs is a store whose reads wait until it is let go.
type hangs struct {
	index.Store
	until chan struct{}
}

func (s hangs) Get(j *index.Job) error {
	<-s.until
	return s.Store.Get(j)
}

// watchPage is what the tests read of /debug/stages.
type watchPage struct {
	Watch struct {
		Stalled []struct{ Kind, Stage, Found string }
		Totals  map[string]uint64 `json:"stalls_total"`
		Flight  struct {
			Dir   string
			Dumps uint64 `json:"dumps_total"`
		}
	}
}

func (h *testHouse) watchPage() (p watchPage) {
	h.t.Helper()
	resp, err := http.Get("http://" + h.admin.Addr() + "/debug/stages")
	if err != nil {
		h.t.Fatal(err)
	}
	defer resp.Body.Close()
	if err := json.NewDecoder(resp.Body).Decode(&p); err != nil {
		h.t.Fatal(err)
	}
	return p
}

// stalls waits until /debug/stages names these as standing still, and a dump
// is written; it returns the dump's goroutines.
func (h *testHouse) stalls(want ...string) string {
	h.t.Helper()
	var p watchPage
	for range 600 {
		time.Sleep(20 * time.Millisecond)
		p = h.watchPage()
		found := ""
		for _, s := range p.Watch.Stalled {
			found += s.Kind + ":" + s.Stage + " "
		}
		all := p.Watch.Flight.Dumps > 0
		for _, w := range want {
			all = all && strings.Contains(found, w)
		}
		if !all {
			continue
		}
		names, err := filepath.Glob(filepath.Join(p.Watch.Flight.Dir, "*.goroutines.txt"))
		if err != nil || len(names) == 0 {
			h.t.Fatalf("a dump was counted, and there is none in %s: %v", p.Watch.Flight.Dir, err)
		}
		text, err := os.ReadFile(names[0])
		if err != nil {
			h.t.Fatal(err)
		}
		return string(text)
	}
	h.t.Fatalf("%v were never found: %+v", want, p)
	return ""
}

// brisk has the watch find in a second what it finds in three.
var brisk = []string{"watch.stall=600ms", "stages.db.slice=100ms", "stages.db.max_wait=90ms", "stages.dht.slice=300ms",
	"stages.dht.max_wait=200ms", "stages.write.slice=500ms", "stages.write.max_wait=400ms"}

func TestABlockedStoreIsFound(t *testing.T) {
	until := make(chan struct{})
	h := openHouse(t, seams{store: func(s index.Store) index.Store { return hangs{s, until} }}, brisk...)
	var asking sync.WaitGroup
	defer asking.Wait()
	defer close(until)
	asking.Go(func() { _, _ = h.try("GET", "/resolve/name:x", "") })
	text := h.stalls(":db")
	if !strings.Contains(text, "hangs.Get") || !strings.Contains(text, `"stage":"db"`) || !strings.Contains(text, `"route":"resolve"`) {
		t.Errorf("the dump does not show the read that hangs, under its stage and route:\n%.3000s", text)
	}
	_, _, samples := h.exposition()
	for _, s := range samples {
		if s.name == "stalls_total" && s.labels["kind"] == "stage" && s.value > 0 {
			return
		}
	}
	t.Error("stalls_total was not counted")
}

func TestADeadlockOfTwoStagesIsFound(t *testing.T) {
	open := make(chan struct{})
	var reads, write sync.Once
	s := &tangled{a: newGate(open), b: newGate(open), reads: &reads, write: &write,
		read: make(chan struct{}), wrote: make(chan struct{})}
	h := openHouse(t, seams{
		store:  func(index.Store) index.Store { return s },
		writer: func(index.Writer) index.Writer { return s },
	}, brisk...)
	var asking sync.WaitGroup
	defer asking.Wait()
	defer close(open)
	asking.Go(func() { _, _ = h.try("GET", "/resolve/name:x", "") })
	asking.Go(func() {
		_, _ = h.try("PUT", "/names/name:x", `{"manifest_cid":"b3:`+strings.Repeat("1", 64)+`","seq":1}`)
	})
	text := h.stalls(":db", ":write")
	for _, part := range []string{"tangled).Get", "tangled).Commit", `"stage":"write"`} {
		if !strings.Contains(text, part) {
			t.Errorf("the dump does not show %s:\n%.3000s", part, text)
		}
	}
}

func TestAHouseAtRestDoesNotStandStill(t *testing.T) {
	h := openHouse(t, seams{}, "watch.stall=2100ms", "watch.sched=0s")
	h.do("PUT", "/names/name:x", `{"manifest_cid":"b3:`+strings.Repeat("1", 64)+`","seq":1}`)
	for range 20 {
		h.do("GET", "/resolve/name:x", "")
		h.do("GET", "/resolve/name:x?fresh=true", "")
	}
	for kind, n := range h.watchPage().Watch.Totals {
		if n != 0 {
			t.Errorf("%d stalls of kind %s were found", n, kind)
		}
	}
}
