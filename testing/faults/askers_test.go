package faults

import (
	"fmt"
	"io"
	"strings"
	"sync"
	"testing"
	"time"

	"svcindex/index"
)

// TestFaultManyAskers has thousands ask at once for one key that is nowhere.
// The database and the network each are asked once.
func TestFaultManyAskers(t *testing.T) {
	const rounds = 5
	dir := t.TempDir()
	env := []string{"RIG_DB_DELAY=200ms", "RIG_NET=1"}
	keys := unknown(t, dir, env, rounds)
	s := start(t, options{dir: dir, env: env, set: []string{"limits.conns_per_ip=0", "cache.neg_ttl=1m", "stages.cache.depth=16384"}})
	const ahead = 16 // requests of one connection that travel together
	lines := make([]*line, size(2000, 10_000)/ahead)
	for i := range lines {
		lines[i] = s.dial(dialing{from: byte(2 + i%100)})
		lines[i].want(t, get("/healthz"), 200)
	}
	for _, key := range keys {
		before := s.scrape()
		var got tally
		var wg sync.WaitGroup
		for _, l := range lines {
			wg.Go(func() {
				_ = l.SetDeadline(time.Now().Add(patience))
				_, err := io.WriteString(l, strings.Repeat(get("/resolve/"+key), ahead))
				for n := 0; n < ahead && err == nil; n++ {
					var a answer
					if a, err = l.answer(); err == nil {
						got.add(a.status)
					}
				}
				if err != nil {
					got.add(0)
				}
			})
		}
		wg.Wait()
		if !s.running() {
			t.Fatalf("the server ended; %v answered (0: connections that broke)", &got)
		}
		after := s.scrape()
		joined := after["index_lookups_joined_total"] - before["index_lookups_joined_total"]
		t.Logf("%d askers of %s: %v; %v joined", len(lines)*ahead, key, &got, joined)
		if got.of(404) != len(lines)*ahead {
			t.Errorf("%d askers were answered %v, want 404 each", len(lines)*ahead, &got)
		}
		for _, stage := range []string{"db", "dht"} {
			n := 0
			for _, result := range []string{"found", "missed", "failed"} {
				n += after.attempts(stage, result) - before.attempts(stage, result)
			}
			if n != 1 {
				t.Errorf("%s was asked %d times, want once", stage, n)
			}
		}
	}
	s.stop()
}

// unknown returns content ids that neither the database nor the fake network knows.
// It asks a server of its own: what was asked for once is remembered.
func unknown(t *testing.T, dir string, env []string, n int) (cids []string) {
	t.Helper()
	s := start(t, options{dir: dir, env: env})
	l := s.dial(dialing{})
	for i := 0; len(cids) < n; i++ {
		cid := index.Sum(fmt.Append(nil, "nowhere/", i)).String()
		if l.want(t, get("/resolve/"+cid), 200, 404, 504).status == 404 {
			cids = append(cids, cid)
		}
	}
	s.stop()
	return cids
}
