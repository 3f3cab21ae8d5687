package faults

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"svcindex/index"
)

// A line is a client's connection, spoken to byte by byte: net/http would hide
// what is to be seen here.
type line struct {
	net.Conn
	r *bufio.Reader
}

// dialing says how a connection is opened. The zero value is an ordinary one.
type dialing struct {
	from   byte // the last byte of the address it comes from, 127.0.0.x; 0: any
	rcvbuf int  // SO_RCVBUF; 0: as the system likes
}

func (d dialing) dial(addr string) (*line, error) {
	dialer := net.Dialer{Timeout: 10 * time.Second}
	if d.from != 0 {
		dialer.LocalAddr = &net.TCPAddr{IP: net.IPv4(127, 0, 0, d.from)}
	}
	if d.rcvbuf != 0 {
		dialer.Control = func(_, _ string, c syscall.RawConn) (err error) {
			return errors.Join(c.Control(func(fd uintptr) {
				err = syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_RCVBUF, d.rcvbuf)
			}), err)
		}
	}
	nc, err := dialer.DialContext(context.Background(), "tcp", addr)
	if err != nil {
		return nil, err
	}
	return &line{nc, bufio.NewReaderSize(nc, 4<<10)}, nil
}

// dial opens a connection, which the test's end closes.
func (s *server) dial(d dialing) *line {
	s.t.Helper()
	l, err := d.dial(s.addr)
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { _ = l.Close() })
	return l
}

// An answer is one complete answer.
type answer struct {
	status int
	head   map[string]string // field names in lower case
	body   []byte
}

func (a answer) String() string { return fmt.Sprintf("%d %.200s", a.status, a.body) }

// close reports whether the connection ends with this answer.
func (a answer) close() bool { return a.head["connection"] == "close" }

// notNow reports whether the answer promises nothing, and asking again may help.
func (a answer) notNow() bool { return a.status == 429 || a.status == 503 || a.status == 504 }

// retryAfter returns the field's seconds, 0 without it.
func (a answer) retryAfter() int {
	n, _ := strconv.Atoi(a.head["retry-after"])
	return n
}

// field returns a top-level field of a JSON body as text.
func (a answer) field(name string) string {
	var m map[string]json.RawMessage
	if json.Unmarshal(a.body, &m) != nil {
		return ""
	}
	return strings.Trim(string(m[name]), `"`)
}

// errTruncated is the end of a connection in the middle of an answer.
var errTruncated = errors.New("the connection ended in the middle of an answer")

// answer reads one answer. io.EOF: the connection ended before it.
func (l *line) answer() (a answer, err error) {
	first, err := l.r.ReadString('\n')
	if err != nil {
		if first != "" {
			return a, errTruncated
		}
		return a, err
	}
	if n, _ := fmt.Sscanf(first, "HTTP/1.1 %d", &a.status); n != 1 {
		return a, fmt.Errorf("a status line was expected, not %q", first)
	}
	a.head = make(map[string]string, 12)
	for {
		field, err := l.r.ReadSlice('\n')
		if err != nil {
			return a, errTruncated
		}
		name, value, ok := bytes.Cut(bytes.TrimRight(field, "\r\n"), []byte(": "))
		if !ok {
			break
		}
		a.head[strings.ToLower(string(name))] = string(value)
	}
	n, err := strconv.Atoi(a.head["content-length"])
	if err != nil {
		return a, fmt.Errorf("an answer without Content-Length: %v", a.head)
	}
	a.body = make([]byte, n)
	if _, err := io.ReadFull(l.r, a.body); err != nil {
		return a, errTruncated
	}
	return a, nil
}

// ask sends one request and reads its answer.
func (l *line) ask(request string) (answer, error) {
	_ = l.SetDeadline(time.Now().Add(patience))
	if _, err := io.WriteString(l, request); err != nil {
		return answer{}, err
	}
	return l.answer()
}

// want asks and fails the test unless the answer has one of the statuses.
func (l *line) want(t *testing.T, request string, statuses ...int) answer {
	t.Helper()
	a, err := l.ask(request)
	if err != nil {
		t.Fatalf("%.80q: %v", request, err)
	}
	for _, s := range statuses {
		if a.status == s {
			return a
		}
	}
	t.Errorf("%.80q: %v, want %v", request, a, statuses)
	return a
}

// Requests, as text. fields are whole lines without their ends.

func get(path string, fields ...string) string { return request("GET", path, "", fields...) }

func request(method, path, body string, fields ...string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s HTTP/1.1\r\nHost: index.test\r\n", method, path)
	for _, f := range fields {
		b.WriteString(f + "\r\n")
	}
	if body != "" || method == "PUT" {
		fmt.Fprintf(&b, "Content-Length: %d\r\n", len(body))
	}
	return b.String() + "\r\n" + body
}

func resolve(name string, fields ...string) string { return get("/resolve/name:"+name, fields...) }

// bearer is the field that allows writes.
func (s *server) bearer() string { return "Authorization: Bearer " + s.token }

func (s *server) putManifest(body string, fields ...string) string {
	return request("PUT", "/manifests", body, append(fields, s.bearer())...)
}

func (s *server) putName(name, cid string, seq uint64) string {
	body := fmt.Sprintf(`{"manifest_cid":%q,"seq":%d}`, cid, seq)
	return request("PUT", "/names/name:"+name, body, s.bearer(), "Content-Type: application/json")
}

func cidOf(content string) string { return index.Sum([]byte(content)).String() }

// publish stores names 0..n-1 under prefix, all of them one manifest, and
// returns them. They are not in the cache.
func (s *server) publish(prefix string, n int) (names []string) {
	s.t.Helper()
	const manifest = `{"v":1,"files":[],"dirs":[]}`
	l := s.dial(dialing{})
	l.want(s.t, s.putManifest(manifest), 200, 201)
	cid := cidOf(manifest)
	for i := range n {
		names = append(names, prefix+strconv.Itoa(i))
	}
	var wg sync.WaitGroup
	const writers = 16 // a connection writes one thing at a time; many share a sync
	for w := range min(writers, n) {
		l := s.dial(dialing{})
		wg.Go(func() {
			defer l.Close()
			for i := w; i < n; i += writers {
				a, err := l.ask(s.putName(names[i], cid, 1))
				for try := 0; try < 20 && err == nil && a.notNow(); try++ {
					time.Sleep(100 * time.Millisecond)
					a, err = l.ask(s.putName(names[i], cid, 1))
				}
				if err != nil || a.status != 200 {
					s.t.Errorf("publishing %s: %v %v", names[i], a, err)
					return
				}
			}
		})
	}
	wg.Wait()
	_ = l.Close()
	return names
}

// warm asks for names until they are answered from the cache.
func (s *server) warm(names []string) {
	s.t.Helper()
	l := s.dial(dialing{})
	for _, name := range names {
		for try := 0; l.want(s.t, resolve(name), 200, 429, 503, 504).head["x-index-source"] != "cache"; try++ {
			if try > 50 {
				s.t.Fatalf("%s is never answered from memory", name)
			}
		}
	}
	_ = l.Close()
}

// A stream asks for warm names at a steady pace, on a few connections. Every
// answer has to be a 200, and but for a few a hit: on a machine that is too
// busy a request may overstay in the lane of the cache and walk past it.
type stream struct {
	t      *testing.T
	hits   atomic.Int64
	past   atomic.Int64 // answered 200, but not from memory
	faults atomic.Int64
	end    func() []time.Duration
}

// stream begins one: lines connections, a request every pause on each.
func (s *server) stream(names []string, lines int, pause time.Duration) *stream {
	s.t.Helper()
	st := &stream{t: s.t}
	quit := make(chan struct{})
	took := make(chan []time.Duration, lines)
	for i := range lines {
		l := s.dial(dialing{from: 250})
		go func() { took <- st.run(l, names[i%len(names):], pause, quit) }()
	}
	st.end = func() (all []time.Duration) {
		close(quit)
		for range lines {
			all = append(all, <-took...)
		}
		return all
	}
	return st
}

// stop ends the stream and returns how long each hit took.
func (st *stream) stop() []time.Duration {
	st.t.Helper()
	took := st.end()
	if past, hits := st.past.Load(), st.hits.Load(); past > 0 {
		st.t.Logf("%d of %d warm keys were not answered from memory", past, past+hits)
		if past > 5+hits/50 {
			st.t.Errorf("%d of %d warm keys were not answered from memory", past, past+hits)
		}
	}
	return took
}

func (st *stream) run(l *line, names []string, pause time.Duration, quit chan struct{}) (took []time.Duration) {
	defer l.Close()
	tick := time.NewTicker(pause)
	defer tick.Stop()
	for i := 0; ; i++ {
		select {
		case <-quit:
			return took
		case <-tick.C:
		}
		began := time.Now()
		a, err := l.ask(resolve(names[i%len(names)]))
		switch {
		case err != nil:
			st.t.Errorf("asking for a warm key: %v", err)
			return took
		case a.status != 200:
			if st.faults.Add(1) <= 5 {
				st.t.Errorf("a warm key was answered %v", a)
			}
		case a.head["x-index-source"] != "cache":
			st.past.Add(1)
		default:
			st.hits.Add(1)
			took = append(took, time.Since(began))
		}
	}
}
