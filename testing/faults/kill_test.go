package faults

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"
)

// A writer writes to things of its own and remembers what it was promised.
type writer struct {
	r      *rand.Rand
	id     int
	things []*thing // names and sets, written again and again
	kept   []*thing // manifests
	fresh  int      // of these, index of the first of this cycle
	acked  int
	other  tally // answers that were neither 2xx nor in the way of a crash
}

func newWriter(id int) *writer {
	w := &writer{id: id, r: rand.New(rand.NewPCG(uint64(id), 2))}
	for i := range 6 {
		w.things = append(w.things,
			&thing{kind: aName, key: fmt.Sprintf("kill/w%d/n%d", id, i), seq: 10},
			&thing{kind: aSet, key: cidOf(fmt.Sprint("set", id, i))})
	}
	return w
}

// run writes until the server is gone.
func (w *writer) run(s *server) {
	l, err := dialing{}.dial(s.addr)
	if err != nil {
		return
	}
	defer l.Close()
	for {
		th := w.things[w.r.IntN(len(w.things))]
		if w.r.IntN(3) == 0 {
			seed := w.r.Uint64()
			th = &thing{kind: aManifest, key: cidOf(bytesOf(seed)), seed: seed}
			w.kept = append(w.kept, th)
		}
		if th.open {
			continue
		}
		c := th.next(s, w.r)
		th.maybe, th.open = c.becomes, true
		a, err := l.ask(c.request)
		if err != nil {
			return
		}
		if a.status/100 != 2 {
			w.other.add(a.status)
			if a.status == 429 { // refused at the door: not done, for certain
				th.open = false
			}
			continue
		}
		th.acked, th.open = c.becomes, false
		w.acked++
	}
}

// verify looks at everything that is still written to, at what was kept in
// this cycle, and at a sample of what was kept before.
func (w *writer) verify(t *testing.T, s *server, all bool) {
	l, err := dialing{}.dial(s.addr)
	if err != nil {
		t.Error(err)
		return
	}
	defer l.Close()
	for _, th := range w.things {
		th.verify(t, s, l)
	}
	for i, th := range w.kept {
		if all || i >= w.fresh || w.r.IntN(len(w.kept)) < 50 {
			th.verify(t, s, l)
		}
	}
	w.fresh = len(w.kept)
}

// TestFaultKill9 kills the server under write load, again and again on the
// same data, and misses nothing that was acknowledged.
func TestFaultKill9(t *testing.T) {
	cycles := size(3, 100)
	dir := t.TempDir()
	r := rand.New(rand.NewPCG(9, 9))
	var writers []*writer
	for i := range 8 {
		writers = append(writers, newWriter(i))
	}
	each := func(f func(*writer)) {
		var wg sync.WaitGroup
		for _, w := range writers {
			wg.Go(func() { f(w) })
		}
		wg.Wait()
	}
	var restarts []time.Duration
	s := start(t, options{dir: dir})
	for range cycles {
		victim := s.cmd.Process
		kill := time.AfterFunc(100*time.Millisecond+time.Duration(r.IntN(900))*time.Millisecond, func() {
			_ = victim.Kill()
		})
		each(func(w *writer) { w.run(s) })
		kill.Stop()
		s.kill()
		s = start(t, options{dir: dir})
		restarts = append(restarts, s.ready)
		each(func(w *writer) { w.verify(t, s, false) })
		if t.Failed() {
			return
		}
	}
	each(func(w *writer) { w.verify(t, s, true) })
	s.kill()
	verifySound(t, dir) // as the crash has left it
	s = start(t, options{dir: dir})
	s.stop()
	verifySound(t, dir)

	acked, manifests := 0, 0
	for _, w := range writers {
		acked, manifests = acked+w.acked, manifests+len(w.kept)
		if w.other.all() > 0 {
			t.Logf("writer %d was also answered %v", w.id, &w.other)
		}
	}
	t.Logf("%d kills, %d acknowledged writes, %d manifests; restart to ready: median %v, longest %v",
		cycles, acked, manifests, quantile(restarts, .5), quantile(restarts, 1))
	if acked < 10*cycles {
		t.Errorf("only %d writes were acknowledged: nothing was put to the test", acked)
	}
	if bound := size(10*time.Second, 2*time.Second); quantile(restarts, .5) > bound {
		t.Errorf("restart to ready takes %v, want less than %v", quantile(restarts, .5), bound)
	}
}

// verifySound runs db verify on the data of a server that does not run.
func verifySound(t *testing.T, dir string) {
	t.Helper()
	out, err := command("db", "verify", "--data", dir)
	if err != nil || !strings.Contains(out, "sound") {
		t.Errorf("db verify: %v\n%s", err, out)
	}
}
