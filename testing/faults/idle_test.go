package faults

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestFaultIdleConnections opens many connections that ask little or nothing.
func TestFaultIdleConnections(t *testing.T) {
	idleFor := size(2*time.Second, 20*time.Second)
	n := room(t, size(300, 5000))
	s := start(t, options{set: []string{"limits.idle_timeout=" + idleFor.String(), "cache.ttl=5m"}})
	warm := s.publish("warm/", 20)
	s.warm(warm)
	hits := s.stream(warm, 2, 2*time.Millisecond)
	time.Sleep(200 * time.Millisecond)
	before := s.memory()

	began := time.Now()
	lines := s.open(n, warm)
	opening := time.Since(began)
	if opening < idleFor/2 {
		grown := s.memory() - before
		t.Logf("%d idle connections, opened in %v: %.1f KiB each", n, opening, float64(grown)/float64(n)/1024)
		slack := int64(size(8, 2)) << 20 // the heap breathes
		if grown > int64(n)*20<<10+slack {
			t.Errorf("memory grew by %d KiB for %d connections, want less than 20 each", grown>>10, n)
		}
	}
	if open := int(s.scrape()["http_connections_open"]); opening < idleFor/4 && open < n {
		t.Errorf("%d connections open, want at least %d", open, n)
	}
	ended := awaitEnds(t, lines)
	took := hits.stop()
	s.await("end of all connections", func() bool { return s.scrape()["http_connections_open"] == 0 })
	t.Logf("%d of %d closed by the server, the last %v after the last was opened; %d hits, p99 %v",
		ended, n, time.Since(began)-opening, hits.hits.Load(), quantile(took, .99))
	if ended != n {
		t.Errorf("%d idle connections were not closed", n-ended)
	}
	s.stop()
}

// TestFaultIdleCosts measures what connections cost that ask nothing: their
// memory, and the processor's time, which is the process's own and so does not
// depend on what else the machine does.
func TestFaultIdleCosts(t *testing.T) {
	n := room(t, size(300, 5000))
	s := start(t, options{set: []string{"limits.idle_timeout=10m", "cache.ttl=5m"}})
	warm := s.publish("warm/", 20)
	s.warm(warm)
	before := s.memory()
	lines := s.open(n, warm)
	grown := s.memory() - before
	time.Sleep(2 * time.Second) // the opening is over, and so is what came after it
	began, used := time.Now(), s.processor()
	time.Sleep(size(time.Second, 20*time.Second))
	share := (s.processor() - used).Seconds() / time.Since(began).Seconds()
	t.Logf("%d idle connections: %.2f %% of a processor, %.1f KiB each", n, 100*share, float64(grown)/float64(n)/1024)
	if *full && share > .01 {
		t.Errorf("%d idle connections cost %.2f %% of a processor, want less than 1 %%", n, 100*share)
	}
	if *full && grown > int64(n)*8<<10 {
		t.Errorf("memory grew by %d KiB for %d connections, want less than 8 each", grown>>10, n)
	}
	for _, l := range lines {
		_ = l.Close()
	}
	s.stop()
}

// open opens n connections from many addresses. Every other asks for something
// once; then they are silent.
func (s *server) open(n int, warm []string) []*line {
	s.t.Helper()
	lines := make([]*line, n)
	var wg sync.WaitGroup
	const dialers = 16
	for d := range dialers {
		wg.Go(func() {
			for i := d; i < n; i += dialers {
				l, err := dialing{from: byte(2 + i/100)}.dial(s.addr)
				if err != nil {
					s.t.Errorf("connection %d: %v", i, err)
					return
				}
				lines[i] = l
				if i%2 == 0 {
					l.want(s.t, resolve(warm[i%len(warm)]), 200)
				}
			}
		})
	}
	wg.Wait()
	return lines
}

// processor returns the processor time the server has used.
func (s *server) processor() time.Duration {
	s.t.Helper()
	var ns int64
	tasks, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", s.cmd.Process.Pid))
	for _, path := range tasks {
		b, err := os.ReadFile(path) // a thread may end meanwhile
		var n int64
		if _, scanned := fmt.Sscan(string(b), &n); err == nil && scanned == nil {
			ns += n
		}
	}
	if ns == 0 {
		s.t.Fatal("the kernel does not say how much processor time was used")
	}
	return time.Duration(ns)
}

// room returns how many of the connections wanted the limit on descriptors
// allows us and the server, whose max_conns is a share of it.
func room(t *testing.T, wanted int) int {
	t.Helper()
	var r syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &r); err != nil {
		t.Fatal(err)
	}
	n := min(wanted, int(min(r.Max, 1<<20))*28/100-200)
	if n < wanted {
		t.Logf("only %d connections: the limit on descriptors is %d", n, r.Max)
	}
	if n < 50 {
		t.Skipf("the limit on descriptors, %d, is too low for this test", r.Max)
	}
	return n
}

// awaitEnds waits until the server has ended the connections, and returns how
// many it did.
func awaitEnds(t *testing.T, lines []*line) int {
	t.Helper()
	var ended atomic.Int64
	var wg sync.WaitGroup
	until := time.Now().Add(size(10*time.Second, 40*time.Second) + patience)
	for _, l := range lines {
		if l == nil {
			continue
		}
		wg.Go(func() {
			defer l.Close()
			_ = l.SetReadDeadline(until)
			if _, err := io.Copy(io.Discard, l); err == nil || errors.Is(err, syscall.ECONNRESET) {
				ended.Add(1)
			}
		})
	}
	wg.Wait()
	return int(ended.Load())
}

// TestFaultDescriptorsCap starts a server under a small limit on descriptors:
// it takes what it can, turns the rest away, and recovers.
func TestFaultDescriptorsCap(t *testing.T) {
	s := start(t, options{nofile: 160})
	if status, body := s.adminGet("/debug/stages"); status != 200 {
		t.Errorf("/debug/stages: %d %s", status, body)
	}
	const n = 200
	var got tally
	var lines []*line
	for range n {
		l, err := dialing{}.dial(s.addr)
		if err != nil {
			got.add(0)
			continue
		}
		lines = append(lines, l)
		a, err := l.ask(resolve("absent"))
		if err != nil {
			got.add(0)
			continue
		}
		got.add(a.status)
	}
	m := s.scrape()
	t.Logf("%d connections under a limit of 160 descriptors: %v (0: closed); accept errors %v, refused %v",
		n, &got, m["http_accept_errors_total"], m["http_connections_refused_total"])
	if got.of(404) == 0 || got.of(503) == 0 || got.of(404, 503, 0) != n {
		t.Errorf("connections over the cap were answered %v, want 404 for the first and 503 or a close for the rest", &got)
	}
	for _, l := range lines {
		_ = l.Close()
	}
	s.await("recovery", func() bool {
		l, err := dialing{}.dial(s.addr)
		if err != nil {
			return false
		}
		defer l.Close()
		a, err := l.ask(resolve("absent"))
		return err == nil && a.status == 404
	})
	s.stop()
}

// TestFaultDescriptorsExhausted takes the descriptors away from a running
// server, so that accept itself fails.
func TestFaultDescriptorsExhausted(t *testing.T) {
	s := start(t, options{})
	warm := s.publish("warm/", 10)
	s.warm(warm)
	hits := s.stream(warm, 2, 5*time.Millisecond)
	time.Sleep(50 * time.Millisecond)
	pid := s.cmd.Process.Pid
	var was unix.Rlimit
	few := unix.Rlimit{Cur: 60, Max: 20000}
	if err := unix.Prlimit(pid, unix.RLIMIT_NOFILE, nil, &was); err != nil {
		t.Skipf("prlimit: %v", err)
	}
	few.Max = was.Max
	if err := unix.Prlimit(pid, unix.RLIMIT_NOFILE, &few, nil); err != nil {
		t.Skipf("prlimit: %v", err)
	}
	var lines []*line
	for i := range 150 { // the system completes them; the server cannot take them all in
		l, err := dialing{from: byte(2 + i%3)}.dial(s.addr)
		if err != nil {
			break
		}
		_, _ = io.WriteString(l, resolve(fmt.Sprint("absent/", i)))
		lines = append(lines, l)
	}
	time.Sleep(time.Second)
	answered := 0
	for _, l := range lines {
		_ = l.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
		if a, err := l.answer(); err == nil {
			answered++
			if a.status != 404 && a.status != 503 {
				t.Errorf("%v", a)
			}
		}
		_ = l.Close()
	}
	if err := unix.Prlimit(pid, unix.RLIMIT_NOFILE, &was, nil); err != nil {
		t.Error(err)
	}
	var errs float64
	s.await("recovery", func() bool {
		if s.readyz() != 200 {
			return false
		}
		errs = s.scrape()["http_accept_errors_total"]
		return errs > 0
	})
	l := s.dial(dialing{})
	l.want(t, resolve("absent"), 404)
	l.want(t, s.putManifest("after the famine"), 201)
	hits.stop()
	t.Logf("%d connections for 60 descriptors: %d answered; %v failures of accept; %d hits meanwhile", len(lines), answered, errs, hits.hits.Load())
	if answered == len(lines) {
		t.Error("all were answered: nothing was put to the test")
	}
	s.await("end of the connections", func() bool { return s.scrape()["http_connections_open"] <= 1 })
	s.stop()
}
