package faults

import (
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// A caller keeps one connection busy, pipelining, through a shutdown.
type caller struct {
	id    int
	r     *rand.Rand
	deep  bool // sends a second batch before it reads the first
	sent  []sending
	wrong []string
}

// A sending is one write of 1 to 16 requests.
type sending struct {
	ids    []string // X-Corr-ID, which the answers have to echo in order
	done   time.Time
	failed bool // the connection took only part of it
}

func (c *caller) batch(s *server, names []string) (text string, ids []string) {
	var b strings.Builder
	for range 1 + c.r.IntN(16) {
		id := fmt.Sprintf("c%d-%d-%d", c.id, len(c.sent), len(ids))
		ids = append(ids, id)
		corr := "X-Corr-ID: " + id
		switch c.r.IntN(5) {
		case 0:
			b.WriteString(s.putManifest(fmt.Sprint("manifest ", id, c.r.Uint64()), corr))
		case 1:
			b.WriteString(resolve("absent/"+fmt.Sprint(c.r.Uint64()), corr))
		default:
			b.WriteString(resolve(names[c.r.IntN(len(names))], corr))
		}
	}
	return b.String(), ids
}

// run sends and reads until the server closes.
func (c *caller) run(s *server, l *line, names []string, ended *atomic.Bool) {
	defer l.Close()
	_ = l.SetDeadline(time.Now().Add(2 * patience))
	var due []string // answers to come
	last := time.Time{}
	for {
		for n := 1 + b2i(c.deep); n > 0 && !ended.Load(); n-- {
			text, ids := c.batch(s, names)
			_, err := io.WriteString(l, text)
			c.sent = append(c.sent, sending{ids, time.Now(), err != nil})
			due = append(due, ids...)
		}
		for len(due) > 0 {
			a, err := l.answer()
			if err != nil {
				if errors.Is(err, errTruncated) {
					c.wrong = append(c.wrong, "an answer was cut short")
				}
				c.unanswered(due)
				return
			}
			c.check(a, due[0])
			due, last = due[1:], time.Now()
		}
		if ended.Load() && time.Since(last) > 50*time.Millisecond {
			if a, err := l.answer(); err == nil {
				c.wrong = append(c.wrong, fmt.Sprintf("an answer too many: %v", a))
			}
			return
		}
	}
}

func b2i(b bool) int {
	if b {
		return 1
	}
	return 0
}

func (c *caller) check(a answer, id string) {
	if got := a.head["x-corr-id"]; got != id {
		c.wrong = append(c.wrong, fmt.Sprintf("the answer to %s came where that to %s was due", got, id))
	}
	switch a.status {
	case 200, 201, 404, 429:
	default:
		c.wrong = append(c.wrong, fmt.Sprintf("%s: %v", id, a))
	}
}

// unanswered notes which sendings were not answered in full.
func (c *caller) unanswered(due []string) {
	for i := len(c.sent) - 1; i >= 0 && len(due) > 0; i-- {
		due = due[:max(len(due)-len(c.sent[i].ids), 0)]
		c.sent[i].failed = true
	}
}

// firstFailed returns the first sending that was not answered in full.
func (c *caller) firstFailed() int {
	return slices.IndexFunc(c.sent, func(b sending) bool { return b.failed })
}

// TestFaultSIGTERM ends a server whose clients pipeline hits, misses and
// writes. Whoever had sent before it was told has every answer, in order.
func TestFaultSIGTERM(t *testing.T) {
	dir := t.TempDir()
	r := rand.New(rand.NewPCG(15, 15))
	requests, late := 0, 0
	var drains []time.Duration
	for range size(3, 50) {
		n, l, d := terminate(t, dir, r)
		requests, late, drains = requests+n, late+l, append(drains, d)
		if t.Failed() {
			break
		}
	}
	verifySound(t, dir)
	t.Logf("%d requests before the signals, all answered; %d sendings after them not answered in full; drains: median %v, longest %v",
		requests, late, quantile(drains, .5), quantile(drains, 1))
}

// terminate runs one cycle and returns how many requests had been sent before
// the signal, how many later sendings were not answered, and the time it took.
func terminate(t *testing.T, dir string, r *rand.Rand) (requests, late int, took time.Duration) {
	s := start(t, options{dir: dir})
	names := s.publish("drain/", 20)
	s.warm(names)
	var ended atomic.Bool
	var wg sync.WaitGroup
	var callers []*caller
	for i := range size(32, 200) {
		c := &caller{id: i, deep: i%2 == 1, r: rand.New(rand.NewPCG(uint64(i), r.Uint64()))}
		callers = append(callers, c)
		l := s.dial(dialing{})
		l.want(t, get("/healthz"), 200) // it has been taken in
		wg.Go(func() { c.run(s, l, names, &ended) })
	}
	time.Sleep(100*time.Millisecond + time.Duration(r.IntN(300))*time.Millisecond)

	sawUnready := make(chan bool, 1)
	before := time.Now()
	s.signal(syscall.SIGTERM)
	go func() {
		status := 200
		for status == 200 {
			status = s.readyz()
		}
		sawUnready <- status == 503
	}()
	time.AfterFunc(500*time.Millisecond, func() { ended.Store(true) })
	if code := s.exit(); code != 0 {
		t.Errorf("exit code %d, want 0", code)
	}
	took = time.Since(before)
	wg.Wait()
	if !<-sawUnready {
		t.Error("/readyz never turned 503")
	}
	for _, c := range callers {
		n, l := c.judge(t, before)
		requests, late = requests+n, late+l
	}
	if requests == 0 {
		t.Error("no request was sent before the signal: nothing was put to the test")
	}
	return requests, late, took
}

// judge fails the test for every promise that was not kept.
func (c *caller) judge(t *testing.T, before time.Time) (requests, late int) {
	for i, w := range c.wrong {
		if i < 3 {
			t.Errorf("client %d: %s", c.id, w)
		}
	}
	for i, b := range c.sent {
		switch {
		case b.done.Before(before):
			requests += len(b.ids)
			if b.failed && i == c.firstFailed() {
				t.Errorf("client %d: sending %d of %d (%d requests), complete %v before the signal, was not answered in full",
					c.id, i+1, len(c.sent), len(b.ids), before.Sub(b.done))
			}
		case b.failed:
			late++
		}
	}
	return requests, late
}

// TestFaultSIGTERMTwice ends a server that cannot drain, because its database
// hangs: the second signal does not wait for it.
func TestFaultSIGTERMTwice(t *testing.T) {
	s := start(t, options{env: []string{"RIG_DB_FREEZE=60s"}, set: []string{"limits.drain=30s"}})
	s.freeze()
	for i := range 4 {
		if _, err := io.WriteString(s.dial(dialing{}), resolve(fmt.Sprint("frozen/", i))); err != nil {
			t.Fatal(err)
		}
	}
	s.await("look-up that hangs", func() bool { return s.scrape()[`stage_workers{stage="db",state="busy"}`] > 0 })
	s.signal(syscall.SIGTERM)
	time.Sleep(500 * time.Millisecond)
	if !s.running() {
		t.Fatal("the server ended while its database hung: it waited for nothing")
	}
	again := time.Now()
	s.signal(syscall.SIGTERM)
	if code := s.exit(); code <= 0 {
		t.Errorf("exit code %d, want one that says it was forced", code)
	}
	if took := time.Since(again); took > 5*time.Second {
		t.Errorf("the second signal took %v", took)
	}
}

// freeze makes the database hang, as the environment says for how long.
func (s *server) freeze() {
	s.t.Helper()
	s.signal(syscall.SIGUSR1)
	s.await("word of the freeze", func() bool { return strings.Contains(s.said(), "the database hangs") })
}

// TestFaultDrainLimit ends a server whose database hangs: it waits for
// limits.drain as a reload has set it, and says what it left.
func TestFaultDrainLimit(t *testing.T) {
	path := filepath.Join(t.TempDir(), "svc-index.toml")
	write := func(text string) {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("limits.drain = \"10m\"\n")
	s := start(t, options{args: []string{"--config", path}, env: []string{"RIG_DB_FREEZE=10m"}, set: []string{"budget.resolve=5m", "dht.enabled=false"}})
	s.freeze()
	l := s.dial(dialing{})
	if _, err := io.WriteString(l, resolve("frozen")); err != nil {
		t.Fatal(err)
	}
	s.await("look-up that hangs", func() bool { return s.scrape()[`stage_workers{stage="db",state="busy"}`] > 0 })
	write("limits.drain = \"300ms\"\n")
	s.await("the reload", func() bool { return s.scrape()[`config_reloads_total{result="ok"}`] > 0 })
	s.signal(syscall.SIGTERM)
	if code := s.exit(); code != 1 { // long before 10 minutes, or exit gives up
		t.Errorf("exit code %d, want 1: not everything was answered", code)
	}
	for _, word := range []string{"still had work after limits.drain", "a step is still under way"} {
		if !strings.Contains(s.said(), word) {
			t.Errorf("it does not say %q:\n%s", word, s.said())
		}
	}
	verifySound(t, s.dir)
}
