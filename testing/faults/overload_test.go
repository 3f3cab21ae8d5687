package faults

import (
	"fmt"
	"io"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// capacity is what four workers at 5 ms a read can do in a second.
const capacity = 800

// TestFaultOverload asks for more than the database can read. The rest is
// refused at the door, costs the database nothing, and leaves no trace.
func TestFaultOverload(t *testing.T) {
	s := start(t, options{
		env: []string{"RIG_DB_DELAY=5ms"},
		set: []string{"stages.db.workers_max=4", "stages.db.workers_min=4", "limits.conns_per_ip=0", "cache.ttl=10m", "cache.bytes=64MiB"},
	})
	warm := s.publish("warm/", 50)
	for _, times := range []int{2, 10} {
		t.Run(fmt.Sprintf("%dx", times), func(t *testing.T) {
			for round := range size(1, 3) {
				o := &overload{s: s, t: t, rate: times * capacity, tag: fmt.Sprintf("%d/%d", times, round)}
				keys := o.keys()
				s.warm(warm) // after the writes: one of theirs may share a generation with a warm key
				o.run(keys, warm)
			}
		})
	}
	s.stop()
}

// An overload is one stretch of open-loop misses: every key is asked once, at
// its time, whether or not those before have been answered.
type overload struct {
	s    *server
	t    *testing.T
	rate int    // a second
	tag  string // makes the keys new
	got  tally

	broken atomic.Int64 // connections

	mu   sync.Mutex
	past []time.Duration // of misses that were answered 200 or 404
}

// keys makes up what is asked for: at most every eighth key is there.
func (o *overload) keys() []string {
	total := o.rate * size(3, 20)
	present := o.s.publish("over/"+o.tag+"/", min(total/8, 4000))
	keys := make([]string, total)
	for i := range keys {
		keys[i] = fmt.Sprintf("none/%s/%d", o.tag, i)
		if every := total / len(present); i%every == 0 && i/every < len(present) {
			keys[i] = present[i/every]
		}
	}
	o.s.publish("after/"+o.tag+"/", normals)
	return keys
}

func (o *overload) run(keys, warm []string) {
	t, s, total := o.t, o.s, len(keys)
	before := s.scrape()
	hits := s.stream(warm, 4, time.Millisecond)
	width := s.watchWidth()
	took := o.send(keys)
	widest := width()
	if n := o.broken.Load(); n > 0 {
		t.Fatalf("%d connections broke under overload; server still running: %v", n, s.running())
	}
	time.Sleep(time.Second)
	s.normal(t, o.tag)
	p99 := quantile(hits.stop(), .99)
	after := s.scrape()

	answered, timeouts := o.got.of(200, 404), o.got.of(504)
	delta := func(result string) int { return after.attempts("db", result) - before.attempts("db", result) }
	attempts := delta("found") + delta("missed") - 2*normals
	expired := after.of("stage_expired_total", "db") - before.of("stage_expired_total", "db")
	t.Logf("%d misses at %d/s in %v: %v; %.0f/s answered, p99 %v; db attempts %d, expired in the queue %d, widest %d; hits %d, p99 %v",
		total, o.rate, took, &o.got, float64(answered)/took.Seconds(), quantile(o.past, .99), attempts, expired, widest, hits.hits.Load(), p99)
	if o.got.all() != total {
		t.Errorf("%d answers to %d requests", o.got.all(), total)
	}
	if other := total - answered - timeouts - o.got.of(429); other > 0 {
		t.Errorf("%d misses were answered neither 200, 404 nor 429: %v", other, &o.got)
	}
	if timeouts > total/size(10, 100) { // a machine that stands still for a second makes some
		t.Errorf("%d of %d misses were answered 504: what overstays in a queue is 429", timeouts, total)
	}
	if attempts < answered || attempts > answered+timeouts+int(hits.past.Load()) {
		t.Errorf("the database was asked %d times for %d answers: refused look-ups have cost it work", attempts, answered)
	}
	if delta("failed") != 0 {
		t.Errorf("%d reads failed", delta("failed"))
	}
	if widest > 4 {
		t.Errorf("%d workers were busy, want 4 at most", widest)
	}
	if o.got.of(429) == 0 || answered == 0 {
		t.Errorf("no overload was reached: %v", &o.got)
	}
}

// send sends every key at its time, on many connections, and waits for the
// answers.
func (o *overload) send(keys []string) time.Duration {
	const lines = 128
	began := time.Now()
	var wg sync.WaitGroup
	for i := range lines {
		var mine []string
		for k := i; k < len(keys); k += lines {
			mine = append(mine, keys[k])
		}
		l := o.s.dial(dialing{from: 2 + byte(i)})
		_ = l.SetDeadline(time.Now().Add(3 * patience))
		pause := time.Second * lines / time.Duration(o.rate)
		first := began.Add(pause * time.Duration(i) / lines)
		asked := make(chan time.Time, len(mine))
		wg.Go(func() { o.write(l, mine, first, pause, asked) })
		wg.Go(func() { o.read(l, len(mine), asked) })
	}
	wg.Wait()
	return time.Since(began)
}

// write sends what is due; late, it catches up.
func (o *overload) write(l *line, keys []string, at time.Time, pause time.Duration, asked chan<- time.Time) {
	for len(keys) > 0 {
		time.Sleep(time.Until(at))
		var b strings.Builder
		now := time.Now()
		for len(keys) > 0 && !at.After(now) {
			b.WriteString(resolve(keys[0]))
			asked <- at
			keys, at = keys[1:], at.Add(pause)
		}
		if _, err := io.WriteString(l, b.String()); err != nil {
			return // whoever reads will find out
		}
	}
}

func (o *overload) read(l *line, n int, asked <-chan time.Time) {
	defer l.Close()
	for range n {
		a, err := l.answer()
		if err != nil {
			o.broken.Add(1)
			return
		}
		o.got.add(a.status)
		at := <-asked
		switch {
		case a.status == 429 && a.retryAfter() < 1:
			o.t.Errorf("a 429 without Retry-After: %v", a)
		case a.status == 200 || a.status == 404:
			o.mu.Lock()
			o.past = append(o.past, time.Since(at))
			o.mu.Unlock()
		}
	}
}

// watchWidth samples how many database workers are busy; the function it
// returns ends that and says how many at most.
func (s *server) watchWidth() func() int {
	quit, most := make(chan struct{}), make(chan int)
	go func() {
		widest := 0
		for {
			select {
			case <-quit:
				most <- widest
				return
			case <-time.After(50 * time.Millisecond):
				widest = max(widest, int(s.scrape()[`stage_workers{stage="db",state="busy"}`]))
			}
		}
	}()
	return func() int { close(quit); return <-most }
}

// normals is how many present and how many absent keys are asked for after.
const normals = 10

// normal asks for a few keys one after the other: nothing refuses them.
func (s *server) normal(t *testing.T, tag string) {
	l := s.dial(dialing{})
	for i := range normals {
		l.want(t, resolve(fmt.Sprintf("after/%s/%d", tag, i)), 200)
		l.want(t, resolve(fmt.Sprintf("after/%s/none/%d", tag, i)), 404)
	}
}
