package faults

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
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
	entries := auditSound(t, dir)
	each(func(w *writer) { w.audited(t, entries) })

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

// audited wants one entry for each thing in the state it was left in, and for
// no state two.
func (w *writer) audited(t *testing.T, entries map[string]int) {
	t.Helper()
	for _, th := range append(w.things[:len(w.things):len(w.things)], w.kept...) {
		if th.acked == "" || th.kind == aSet { // audit verify holds each row of a set to its entry
			continue
		}
		if n := entries[th.entry()]; n != 1 {
			t.Errorf("%s: %d entries in the audit say %q, want 1", th.key, n, th.entry())
		}
	}
}

// auditSound runs audit verify on the data of a server that does not run, and
// returns how often each entry is there.
func auditSound(t *testing.T, dir string) map[string]int {
	t.Helper()
	out, err := command("audit", "verify", "--data", dir)
	if err != nil || !strings.Contains(out, "sound") {
		t.Errorf("audit verify: %v\n%s", err, out)
	}
	files, err := filepath.Glob(filepath.Join(dir, "audit", "*.jsonl"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no files of the audit: %v", err)
	}
	entries, last := make(map[string]int), uint64(0)
	for _, path := range files {
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for line := range bytes.Lines(b) {
			var e entry
			if err := json.Unmarshal(line, &e); err != nil {
				t.Fatalf("%s: %v", line, err)
			}
			if e.N == 0 {
				continue // a header
			}
			if e.N != last+1 || e.Who == "" {
				t.Errorf("entry %d follows %d, on the word of %q", e.N, last, e.Who)
			}
			last = e.N
			entries[e.text()]++
		}
	}
	t.Logf("the audit has %d entries", last)
	return entries
}

// An entry is what we read of a line of the audit.
type entry struct {
	N                 uint64
	Who, Op, Key, CID string
	Seq               uint64
	IDs               []string
}

func (e *entry) text() string {
	switch e.Op {
	case "put_name":
		return fmt.Sprintf("%s %d %s", e.Key, e.Seq, e.CID)
	case "delete_name":
		return fmt.Sprintf("%s %d deleted", e.Key, e.Seq)
	case "put_manifest":
		return e.Key + " held"
	}
	return fmt.Sprintf("%s %s %d", e.Key, e.Op, e.N) // of one set there are many alike
}

// entry is the text of the entry that tells of the state a thing is in.
func (th *thing) entry() string {
	if th.kind == aName {
		return "name:" + th.key + " " + th.acked
	}
	return th.key + " " + th.acked
}

// verifySound runs db verify on the data of a server that does not run.
func verifySound(t *testing.T, dir string) {
	t.Helper()
	out, err := command("db", "verify", "--data", dir)
	if err != nil || !strings.Contains(out, "sound") {
		t.Errorf("db verify: %v\n%s", err, out)
	}
}
