package faults

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// Two configurations that differ in every kind of thing that changes under way.
// An answer shows two values of each: the rate in a field of the head, which
// netio writes, and the weight of a region in its body, which a worker ranks.
var twoConfigs = [2]string{
	`limits = {rps = 1000001, inflight = 900, body = "64KiB", write_timeout = "10s"}
budget.resolve = "10s"
rank.region_bias = 0.2
rank.freshness_half_life = "8000h"
cache.ttl = "30s"
[stages]
db = {depth = 256, workers_min = 1, workers_max = 8, batch = 8, slice = "5s", max_wait = "4s", breaker = {cooldown = "2s"}}
dht = {slice = "2s"}
write = {depth = 512, batch = 64, workers_max = 4, slice = "8s", max_wait = "4s"}
cache = {depth = 16384, batch = 256}
`,
	`limits = {rps = 2000002, inflight = 700, body = "32KiB", write_timeout = "12s"}
budget.resolve = "12s"
rank.region_bias = 0.8
rank.freshness_half_life = "8000h"
cache.ttl = "2s"
[stages]
db = {depth = 200, workers_min = 2, workers_max = 4, batch = 2, slice = "6s", max_wait = "5s", breaker = {cooldown = "3s"}}
dht = {slice = "1s"}
write = {depth = 300, batch = 16, workers_max = 2, slice = "9s", max_wait = "5s"}
cache = {depth = 12000, batch = 32}
`,
}

// badConfigs are refused as a whole, whatever good is in them.
var badConfigs = []string{
	"limits.rps = 3000003\nno_such_key = 1\n",
	"limits.rps = 3000003\nbudget.resolve = \"1ms\"\n",
	"limits.rps = 3000003\n[stages.db\n",
	"limits.rps = \"many\"\n",
}

// TestFaultReload changes the configuration once a second, to a good one and a
// bad one in turn, while clients read and write. Nothing may be lost, and no
// answer may show half of one configuration and half of the other.
func TestFaultReload(t *testing.T) {
	turns := size(8, 300)
	path := filepath.Join(t.TempDir(), "svc-index.toml")
	replace := func(text string) {
		t.Helper()
		if err := os.WriteFile(path+".new", []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(path+".new", path); err != nil {
			t.Fatal(err)
		}
	}
	replace(twoConfigs[0])
	s := start(t, options{args: []string{"--config", path}, set: []string{"watch.stall=20s", "dht.enabled=false"}})
	warm := s.publish("reload/warm/", 20)
	s.warm(warm)
	cid := cidOf("some content")
	l := s.dial(dialing{})
	l.want(t, request("PUT", "/providers/"+cid, `{"providers":[{"id":"p","addr":"/ip4/192.0.2.1/tcp/1","region":"here"}]}`,
		s.bearer(), "Content-Type: application/json"), 200)
	_ = l.Close()

	quit := make(chan struct{})
	var clients sync.WaitGroup
	var asked, mixed atomic.Int64
	var seen [2]atomic.Int64
	client := func(pause time.Duration, do func(l *line, i int) error) {
		l := s.dial(dialing{})
		clients.Go(func() {
			defer l.Close()
			tick := time.NewTicker(pause)
			defer tick.Stop()
			for i := 1; ; i++ {
				select {
				case <-quit:
					return
				case <-tick.C:
				}
				if err := do(l, i); err != nil {
					t.Errorf("request %d: %v", i, err)
					return
				}
				asked.Add(1)
			}
		})
	}
	expect := func(a answer, err error, status int) error {
		if err == nil && a.status != status {
			err = fmt.Errorf("%v, want %d", a, status)
		}
		return err
	}
	for range 2 {
		client(2*time.Millisecond, func(l *line, i int) error { // hits, mostly
			a, err := l.ask(resolve(warm[i%len(warm)]))
			return expect(a, err, 200)
		})
		client(3*time.Millisecond, func(l *line, i int) error { // what the two halves say
			a, err := l.ask(get("/providers/" + cid + "?region=elsewhere"))
			if err := expect(a, err, 200); err != nil {
				return err
			}
			switch which, whole := configOf(a); {
			case !whole:
				mixed.Add(1)
				return fmt.Errorf("an answer of two configurations: RateLimit-Limit %s, %s", a.head["ratelimit-limit"], a.body)
			default:
				seen[which].Add(1)
			}
			return nil
		})
	}
	client(5*time.Millisecond, func(l *line, i int) error { // past the cache
		a, err := l.ask(get("/resolve/name:" + warm[i%len(warm)] + "?fresh=true"))
		return expect(a, err, 200)
	})
	var written atomic.Int64
	client(5*time.Millisecond, func(l *line, i int) error {
		a, err := l.ask(s.putName("reload/written", cid, uint64(i)))
		if err := expect(a, err, 200); err != nil {
			return err
		}
		written.Store(int64(i))
		return nil
	})

	for i := range turns {
		if i%2 == 0 {
			replace(twoConfigs[(i/2+1)%2])
		} else {
			replace(badConfigs[i/2%len(badConfigs)])
		}
		if i%3 == 0 {
			s.signal(syscall.SIGHUP) // on top of what the watching finds
		}
		time.Sleep(time.Second)
		if !s.running() {
			t.Fatalf("the server ended: %s", s.said())
		}
	}
	close(quit)
	clients.Wait()

	m := s.scrape()
	ok, failed := m[`config_reloads_total{result="ok"}`], m[`config_reloads_total{result="failed"}`]
	t.Logf("%d requests answered under %v reloads and %v refused ones; %d under the one, %d under the other, %d mixed",
		asked.Load(), ok, failed, seen[0].Load(), seen[1].Load(), mixed.Load())
	if ok < float64(turns)/3 || failed < float64(turns)/3 {
		t.Errorf("%v reloads and %v refused ones in %d turns: most were not noticed", ok, failed, turns)
	}
	if seen[0].Load() == 0 || seen[1].Load() == 0 {
		t.Error("only one of the two was ever seen in an answer")
	}
	l = s.dial(dialing{})
	if a := l.want(t, resolve("reload/written"), 200); a.field("seq") != fmt.Sprint(written.Load()) {
		t.Errorf("the last acknowledged write was %d; %v is read", written.Load(), a)
	}
	_ = l.Close()
	s.stop()
}

// configOf says under which of the two configurations an answer was given, and
// whether all of it was.
func configOf(a answer) (which int, whole bool) {
	var doc struct {
		Providers []struct {
			Score float64 `json:"score"`
		} `json:"providers"`
	}
	if json.Unmarshal(a.body, &doc) != nil || len(doc.Providers) != 1 {
		return 0, false
	}
	switch limit, score := a.head["ratelimit-limit"], doc.Providers[0].Score; {
	case limit == "1000001" && score == 0.8:
		return 0, true
	case limit == "2000002" && score == 0.2:
		return 1, true
	}
	return 0, false
}
