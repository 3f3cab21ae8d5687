package faults

import (
	"bytes"
	"fmt"
	"io"
	"os/exec"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"
)

// impatient are the time limits of a server with slow clients.
var impatient = []string{
	"limits.request_timeout=1s", "limits.idle_timeout=3s", "limits.conns_per_ip=0", "cache.ttl=5m",
}

// A loris sends one request so slowly that it never ends.
type loris struct {
	name  string
	first string // sent at once
	drop  string // then this, again and again
}

func (s *server) lorises() []loris {
	put := "PUT /manifests HTTP/1.1\r\nHost: index.test\r\n" + s.bearer() + "\r\n"
	return []loris{
		{"the request line", "", "G"},
		{"the head", "GET /resolve/name:x HTTP/1.1\r\nHost: index.test\r\n", "X-Slow: 1\r\n"},
		{"one field", "GET /resolve/name:x HTTP/1.1\r\nHost: index.test\r\nX-Slow: ", "a"},
		{"a counted body", put + "Content-Length: 1000\r\n\r\n", "b"},
		{"a chunked body", put + "Transfer-Encoding: chunked\r\n\r\n", "1\r\nb\r\n"},
		{"an unwanted body", "PUT /nowhere HTTP/1.1\r\nHost: index.test\r\nContent-Length: 1000\r\n\r\n", "b"},
		{"a body after 100", put + "Expect: 100-continue\r\nContent-Length: 1000\r\n\r\n", ""},
		{"a second request", resolve("warm/0") + "GET /resolve/name:x HTTP/1.1\r\n", ""},
	}
}

// crawl behaves as a loris does and returns the status it was sent away with.
func crawl(s *server, l *line, slow loris) (status int, err error) {
	quit := make(chan struct{})
	defer close(quit)
	_ = l.SetDeadline(time.Now().Add(patience))
	if _, err := io.WriteString(l, slow.first); err != nil {
		return 0, err
	}
	go func() {
		for {
			select {
			case <-quit:
				return
			case <-time.After(50 * time.Millisecond):
				_, _ = io.WriteString(l, slow.drop)
			}
		}
	}()
	if strings.Contains(slow.first, "Expect:") {
		if line, err := l.r.ReadString('\n'); err != nil || !strings.HasPrefix(line, "HTTP/1.1 100 ") {
			return 0, fmt.Errorf("%q %v", line, err)
		}
		_, _ = l.r.ReadString('\n')
	}
	a, err := l.answer()
	if err == nil && a.status == 200 { // the request before
		a, err = l.answer()
	}
	if err != nil {
		return 0, err
	}
	if !a.close() {
		return a.status, fmt.Errorf("%v without Connection: close", a)
	}
	if _, err := l.answer(); err == nil {
		return a.status, fmt.Errorf("two answers to one request")
	}
	return a.status, nil
}

// TestFaultSlowLoris sends requests in drops. Each is answered 408 and closed
// in time; nobody else notices.
func TestFaultSlowLoris(t *testing.T) {
	s := start(t, options{set: impatient})
	warm := s.publish("warm/", 20)
	s.warm(warm)
	hits := s.stream(warm, 4, 2*time.Millisecond)
	time.Sleep(100 * time.Millisecond)
	before := s.memory()
	var wg sync.WaitGroup
	var mu sync.Mutex
	slowest := time.Duration(0)
	for _, slow := range s.lorises() {
		for i := range size(5, 50) {
			l := s.dial(dialing{from: byte(2 + i)})
			wg.Go(func() {
				began := time.Now()
				status, err := crawl(s, l, slow)
				want := 408
				if slow.name == "the request line" {
					want = 501 // a method this long is none
				}
				if err != nil || status != want && !(want == 501 && status == 408) {
					t.Errorf("dripping %s: %d %v, want 408", slow.name, status, err)
				}
				mu.Lock()
				defer mu.Unlock()
				slowest = max(slowest, time.Since(began))
			})
		}
	}
	wg.Wait()
	s.await("end of the connections", func() bool { return s.scrape()["http_connections_open"] <= 4 })
	took := hits.stop()
	m := s.scrape()
	t.Logf("the last was closed after %v; %v closed as slow; memory %+d KiB; %d hits, p99 %v",
		slowest, m["http_slow_closed_total"], (s.memory()-before)>>10, hits.hits.Load(), quantile(took, .99))
	if slowest > 8*time.Second {
		t.Errorf("a client held its connection for %v, with a request_timeout of 1s", slowest)
	}
	if m["http_buffered_bytes"] != 0 {
		t.Errorf("%v bytes are still counted as buffered", m["http_buffered_bytes"])
	}
	s.stop()
}

// TestFaultSlowReaders asks for much and reads little.
func TestFaultSlowReaders(t *testing.T) {
	s := start(t, options{set: impatient})
	warm := s.publish("warm/", 20)
	manifest := strings.Repeat("a manifest of 200 KB;", 10_000)
	s.dial(dialing{}).want(t, s.putManifest(manifest), 201)
	s.warm(warm)
	hits := s.stream(warm, 4, 2*time.Millisecond)
	before := s.memory()
	n := size(10, 60)
	accepted := s.scrape()["http_connections_accepted_total"]
	for i := range n {
		l := s.dial(dialing{from: byte(2 + i%200), rcvbuf: 4 << 10})
		if _, err := io.WriteString(l, strings.Repeat(get("/manifests/"+cidOf(manifest)), 64)); err != nil {
			t.Fatal(err)
		}
		go func() { // a few bytes now and then, until the test closes it
			for buf := make([]byte, 100); ; time.Sleep(50 * time.Millisecond) {
				if _, err := l.Read(buf); err != nil {
					return
				}
			}
		}()
	}
	var held float64
	s.await("all connections", func() bool {
		m := s.scrape()
		held = max(held, m["http_buffered_bytes"])
		return int(m["http_connections_accepted_total"]-accepted) >= n
	})
	began := time.Now()
	s.await("end of the slow readers", func() bool {
		m := s.scrape()
		held = max(held, m["http_buffered_bytes"])
		return m["http_connections_open"] <= 4
	})
	closed := time.Since(began)
	took := hits.stop()
	m := s.scrape()
	grown := s.memory() - before
	t.Logf("%d slow readers, closed within %v, %v of them as slow; held for them at most %.1f MiB, memory after %+d KiB; %d hits, p99 %v",
		n, closed, m["http_slow_closed_total"], held/(1<<20), grown>>10, hits.hits.Load(), quantile(took, .99))
	if m["http_buffered_bytes"] != 0 {
		t.Errorf("%v bytes are still counted as buffered", m["http_buffered_bytes"])
	}
	if most := float64(n * 4 << 20); held > most {
		t.Errorf("%.0f bytes were held for slow readers, want at most %.0f", held, most)
	}
	if int(m["http_slow_closed_total"]) < n {
		t.Errorf("%v connections were closed as slow, want %d", m["http_slow_closed_total"], n)
	}
	s.stop()
}

// TestFaultSlowHTTPTest lets the well-known tool try, with 1,000 connections.
func TestFaultSlowHTTPTest(t *testing.T) {
	if !*full {
		t.Skip("only with -full")
	}
	tool, err := exec.LookPath("slowhttptest")
	if err != nil {
		t.Skip("slowhttptest is not installed; Debian has a package of that name")
	}
	for _, tt := range []struct {
		name string
		args []string
	}{
		{"slow heads", []string{"-H", "-i", "2", "-x", "24"}},
		{"slow bodies", []string{"-B", "-i", "2", "-x", "24", "-s", "8192"}},
		{"slow reading", []string{"-X", "-w", "1", "-y", "1", "-n", "2", "-z", "1", "-k", "10"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			n := room(t, 1000)
			s := start(t, options{set: []string{"limits.conns_per_ip=0", "limits.idle_timeout=4s", "cache.ttl=5m"}})
			warm := s.publish("warm/", 20)
			manifest := strings.Repeat("m", 20_000)
			s.dial(dialing{}).want(t, s.putManifest(manifest), 201)
			s.warm(warm)
			before := s.memory()
			hits := s.stream(warm, 4, 2*time.Millisecond)
			var out bytes.Buffer
			url := "http://" + s.addr + "/manifests/" + cidOf(manifest)
			args := append(tt.args, "-c", fmt.Sprint(n), "-r", "300", "-l", "30", "-p", "5", "-u", url)
			attack := exec.Command(tool, args...)
			attack.Stdout, attack.Stderr = &out, &out
			if err := attack.Start(); err != nil {
				t.Fatal(err)
			}
			began := time.Now()
			s.await("connections of the tool", func() bool { return s.scrape()["http_connections_open"] > float64(n/10) })
			s.await("end of its connections", func() bool { return s.scrape()["http_connections_open"] <= 8 })
			ended := time.Since(began)
			err := attack.Wait()
			took := hits.stop()
			m := s.scrape()
			verdict := ends.FindString(out.String())
			t.Logf("%v %q; all closed %v after its start; %d hits, p99 %v; memory %+d KiB", err, verdict,
				ended, hits.hits.Load(), quantile(took, .99), (s.memory()-before)>>10)
			// One who reads slowly goes on reading what the system has taken
			// for it, long after we have closed.
			if tt.name != "slow reading" && !strings.Contains(verdict, "No open connections left") {
				t.Errorf("not all connections were closed before the end of the attack:\n%q", out.Bytes()[max(out.Len()-600, 0):])
			}
			if m["http_buffered_bytes"] != 0 {
				t.Errorf("%v bytes are still counted as buffered", m["http_buffered_bytes"])
			}
			s.stop()
		})
	}
}

// ends is what the tool calls the ways a test may go.
var ends = regexp.MustCompile(`No open connections left|Hit test time limit|Cancelled by user|Unexpected error`)
