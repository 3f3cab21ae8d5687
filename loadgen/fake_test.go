package loadgen

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"path/filepath"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// A fakeServer answers each request after a known delay, with a known status.
// It counts what it was asked, so that a report can be held to it.
type fakeServer struct {
	net.Listener
	delay  time.Duration
	status func(n int64) int // of the nth request; nil: always 200
	last   int64             // a connection ends after so many answers; 0: never
	raw    string            // said instead of an answer

	asked, conns atomic.Int64
	stalledUntil atomic.Int64 // unix nanoseconds

	mu   sync.Mutex // protects open
	open map[net.Conn]bool
	wg   sync.WaitGroup
}

func serveFake(t testing.TB, s *fakeServer) *fakeServer {
	t.Helper()
	return serveFakeOn(t, "tcp", "127.0.0.1:0", s)
}

func serveFakeOn(t testing.TB, network, addr string, s *fakeServer) *fakeServer {
	t.Helper()
	ln, err := net.Listen(network, addr)
	if err != nil {
		t.Fatal(err)
	}
	s.Listener, s.open = ln, map[net.Conn]bool{}
	s.wg.Go(s.accept)
	t.Cleanup(s.shut)
	return s
}

func (s *fakeServer) accept() {
	for {
		c, err := s.Accept()
		if err != nil {
			return
		}
		s.conns.Add(1)
		s.mu.Lock()
		s.open[c] = true
		s.mu.Unlock()
		s.wg.Go(func() { s.serve(c) })
	}
}

func (s *fakeServer) shut() {
	_ = s.Close()
	s.mu.Lock()
	for c := range s.open {
		_ = c.Close()
	}
	s.mu.Unlock()
	s.wg.Wait()
}

// stall has every answer wait until d from now.
func (s *fakeServer) stall(d time.Duration) { s.stalledUntil.Store(time.Now().Add(d).UnixNano()) }

// serve answers a connection's requests in order. It allocates nothing for
// each, so that a test can count what the generator allocates.
func (s *fakeServer) serve(c net.Conn) {
	defer c.Close()
	in, out, have := make([]byte, 64<<10), make([]byte, 0, 64<<10), 0
	end := []byte("\r\n\r\n")
	var answered int64
	for {
		n, err := c.Read(in[have:])
		if err != nil {
			return
		}
		have += n
		out = out[:0]
		at := 0
		for {
			i := bytes.Index(in[at:have], end)
			if i < 0 {
				break
			}
			head := in[at : at+i]
			at += i + len(end)
			out = s.answer(out, head)
			answered++
			if s.last > 0 && answered == s.last {
				_, _ = c.Write(out)
				return
			}
		}
		copy(in, in[at:have])
		have -= at
		if len(out) == 0 {
			continue
		}
		if s.delay > 0 {
			time.Sleep(s.delay)
		}
		if d := s.stalledUntil.Load() - time.Now().UnixNano(); d > 0 {
			time.Sleep(time.Duration(d))
		}
		if _, err := c.Write(out); err != nil {
			return
		}
	}
}

func (s *fakeServer) answer(out, head []byte) []byte {
	n := s.asked.Add(1)
	status := 200
	if s.status != nil {
		status = s.status(n)
	}
	if s.raw != "" {
		return append(out, s.raw...)
	}
	out = append(strconv.AppendInt(append(out, "HTTP/1.1 "...), int64(status), 10), " X\r\nContent-Length: 5\r\n"...)
	switch {
	case status >= 400:
	case n%10 == 0:
		out = append(out, "X-Index-Source: db\r\n"...)
	default:
		out = append(out, "X-Index-Source: cache\r\n"...)
	}
	out = append(out, "\r\n"...)
	if !bytes.HasPrefix(head, []byte("HEAD ")) {
		out = append(out, "12345"...)
	}
	return out
}

// asks is an Asker of one constant request, GET but for every seventh.
type asks struct{ heads bool }

func (a asks) Ask(dst []byte, n int64) ([]byte, bool) {
	if a.heads && n%7 == 0 {
		return append(dst, "HEAD /x HTTP/1.1\r\nHost: a\r\n\r\n"...), true
	}
	return append(dst, "GET /x HTTP/1.1\r\nHost: a\r\n\r\n"...), false
}

// config is a run against s, for tests to change.
func (s *fakeServer) config(rate float64, d time.Duration) Config {
	return Config{
		Network: s.Addr().Network(), Address: s.Addr().String(), NewAsker: func() Asker { return asks{} },
		SourceField: sourceField, Pacer: Constant(rate), Duration: d, Connections: 16, Spin: -1, Seed: 1,
		Drain: 20 * time.Second, // however busy the machine is, what is due is sent
	}
}

func run(t testing.TB, cfg Config) *Report {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	r, err := Run(ctx, cfg)
	if err != nil {
		t.Fatal(err)
	}
	q := r.Requests
	if q.Due != q.Answered+q.Failed+q.Cut || q.Answered != q.OK+q.Throttled+q.Refused || r.Response.Count != q.Due {
		t.Errorf("the counts do not add up: %+v, %d response times", q, r.Response.Count)
	}
	return r
}

func socketPath(t *testing.T) string { return filepath.Join(t.TempDir(), "s") }

func (r *Report) codeCount(status int) int64 {
	for _, s := range r.Codes {
		if s.Name == fmt.Sprint(status) {
			return s.Response.Count
		}
	}
	return 0
}

func (r *Report) errorCount(f Failure) int64 {
	for _, e := range r.Errors {
		if e.Kind == f.String() {
			return e.Count
		}
	}
	return 0
}
