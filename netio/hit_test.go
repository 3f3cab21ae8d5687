package netio

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/panjf2000/gnet/v2"

	"svcindex/index"
)

// fakeConn is a gnet connection without a socket.
type fakeConn struct {
	gnet.Conn
	in, out []byte
	unsent  int
	fd      int // and one more; 0: it has none
	context any
}

func (f *fakeConn) Peek(int) ([]byte, error) { return f.in, nil }
func (f *fakeConn) Discard(n int) (int, error) {
	if n < 0 {
		n = len(f.in)
	}
	f.in = f.in[n:]
	return n, nil
}
func (f *fakeConn) Write(b []byte) (int, error) { f.out = append(f.out, b...); return len(b), nil }
func (f *fakeConn) Context() any                { return f.context }
func (f *fakeConn) InboundBuffered() int        { return len(f.in) }
func (f *fakeConn) OutboundBuffered() int       { return f.unsent }
func (f *fakeConn) Fd() int                     { return f.fd - 1 } // what is done to -1 fails

// fakeLoop runs nothing by itself: the test ticks.
type fakeLoop struct {
	gnet.EventLoop
	asked  int // for a tick
	closed int // connections
}

func (l *fakeLoop) Close(gnet.Conn) error { l.closed++; return nil }

func (l *fakeLoop) Execute(context.Context, gnet.Runnable) error { l.asked++; return nil }

// fakeResolver answers every look-up from a page it has, as the cache's worker
// would: in order, appended to what Open lent.
type fakeResolver struct{ page []byte }

func (r *fakeResolver) Push(_ int, fs []*index.Flight) int {
	for _, f := range fs {
		jobs := f.Jobs
		for i, left := 0, len(jobs); i < left; i++ {
			j := jobs[i]
			j.InOrder = true
			j.Home.Open(j)
			j.Answer.Page = append(j.Answer.Page, r.page...)
			j.Answer.From, j.Hit = index.FromCache, true
			j.Finish(index.OK)
		}
	}
	return len(fs)
}

func (r *fakeResolver) Await(int) {}

func (r *fakeResolver) Refused(int) {}

func (r *fakeResolver) Write(*index.Job) bool { return false }

// nobody is a guard that lets nobody in.
type nobody struct{}

func (nobody) Judge(*index.Claim) index.Grant { return index.Grant{} }

// newBareServer is a server without event loops or listeners.
func newBareServer(r index.Resolver) *Server {
	s := &Server{
		opt: Options{
			Dial: index.NewDial(index.Tuning{
				HeadBytes: headCap, TargetBytes: targetCap, BodyBytes: 1 << 20, RequestTimeout: 5 * time.Second, IdleTimeout: time.Minute,
				Budget: time.Second, WriteTimeout: time.Second,
			}),
			Gens: index.NewGenerations(), Lookups: new(index.LookupCounts),
			Guard: nobody{},
		},
		resolver: r, pages: &Pages{Rank: index.Rank{Bias: .5, HalfLife: 3600}, Now: time.Now},
		counts: new(index.NetCounts), log: slog.New(slog.DiscardHandler),
	}
	s.doors.init(s)
	s.setDate(time.Now())
	return s
}

func newBareConn(s *Server) (*conn, *fakeConn) {
	l := newLoop(s, 0)
	l.el = new(fakeLoop)
	gc := new(fakeConn)
	return &conn{loop: l, gc: gc}, gc
}

const hitHead = "GET /resolve/name:go/src/net/http HTTP/1.1\r\nHost: 127.0.0.1:8080\r\nUser-Agent: test\r\nAccept: */*\r\n\r\n"

func testPage(t testing.TB) []byte {
	t.Helper()
	k, err := index.ParseKey("name:go/src/net/http")
	if err != nil {
		t.Fatal(err)
	}
	j := &index.Job{Ask: index.AskResolve, Key: k}
	j.Answer.Name = index.NameRecord{Seq: 7}
	(&Pages{}).Render(j)
	return j.Answer.Page
}

// A whole hit as far as netio goes: parse, take off, open, reply, land, write.
func TestAHitDoesNotAllocate(t *testing.T) {
	for _, n := range []int{1, 16} {
		s := newBareServer(&fakeResolver{testPage(t)})
		c, gc := newBareConn(s)
		in := []byte(strings.Repeat(hitHead, n))
		got := testing.AllocsPerRun(200, func() {
			gc.in, gc.out = in, gc.out[:0]
			c.advance()
			c.loop.tick()
		})
		if got != 0 {
			t.Errorf("%d pipelined hits allocate %v times, want 0", n, got)
		}
		r := bufio.NewReader(bytes.NewReader(gc.out))
		for range n {
			resp, err := http.ReadResponse(r, nil)
			if err != nil {
				t.Fatal(err)
			}
			body, err := io.ReadAll(resp.Body)
			if err != nil || resp.StatusCode != 200 || !bytes.Contains(body, []byte(`"seq":7`)) {
				t.Fatalf("%d pipelined hits: got %d %s, %v", n, resp.StatusCode, body, err)
			}
			if resp.Header.Get("X-Index-Source") != "cache" || resp.Header.Get("Age") != "0" || resp.Header.Get("Date") == "" {
				t.Errorf("head of a hit: %v", resp.Header)
			}
		}
	}
}

// TestALoopKeepsWhatItsConnectionsNeed: that 5,000 connections are at work at once
// allocates nothing, and what is kept for the next time has an end.
func TestALoopKeepsWhatItsConnectionsNeed(t *testing.T) {
	if f, s := reflect.TypeFor[flight]().Size(), reflect.TypeFor[slot]().Size(); f > flightBytes || s > slotBytes {
		t.Errorf("a flight has %d bytes and a slot %d; they are reckoned as %d and %d", f, s, flightBytes, slotBytes)
	}
	s := newBareServer(&fakeResolver{testPage(t)})
	c, _ := newBareConn(s)
	l := c.loop
	out := make([]*flight, 0, 5000)
	fly := func(flights, buffer int) {
		for range flights {
			f := l.newFlight(c)
			f.slot()
			f.out = append(f.out[:cap(f.out)], make([]byte, max(buffer-cap(f.out), 0))...)
			out = append(out, f)
		}
		for _, f := range out {
			l.release(f)
		}
		out = out[:0]
	}
	fly(5000, 700)
	if n := testing.AllocsPerRun(3, func() { fly(5000, 700) }); n > 0 {
		t.Errorf("5,000 flights out at once allocate %v times, want 0", n)
	}
	fly(5000, bufferKept)
	kept := 0
	for _, f := range l.free {
		kept += cap(f.out)
	}
	if l.kept > keptMost || kept > l.kept || len(l.free) == 0 {
		t.Errorf("%d flights are kept, %d bytes in buffers and %d in all, want %d at most", len(l.free), kept, l.kept, keptMost)
	}
	for range 3 {
		l.newFlight(c)
	}
	if l.kept < 0 {
		t.Errorf("%d bytes are kept", l.kept)
	}
}

func benchmarkHits(b *testing.B, n int) {
	b.ReportAllocs()
	s := newBareServer(&fakeResolver{testPage(b)})
	c, gc := newBareConn(s)
	in := []byte(strings.Repeat(hitHead, n))
	for b.Loop() {
		gc.in, gc.out = in, gc.out[:0]
		c.advance()
		c.loop.tick()
	}
}

// What an answer of before was rendered into serves the next, if it is large
// enough; else it is left as it is.
func TestRenderWritesIntoThePageThatIsBroughtAlong(t *testing.T) {
	want := testPage(t)
	k, err := index.ParseKey("name:go/src/net/http")
	if err != nil {
		t.Fatal(err)
	}
	j := &index.Job{Ask: index.AskResolve, Key: k}
	j.Answer.Name = index.NameRecord{Seq: 7}
	small := []byte("small")
	j.Answer.Page = small
	p := &Pages{}
	if p.Render(j); !bytes.Equal(j.Answer.Page, want) || string(small) != "small" {
		t.Errorf("rendered %q, and what was too small is %q", j.Answer.Page, small)
	}
	if n := testing.AllocsPerRun(100, func() { p.Render(j) }); n != 0 || !bytes.Equal(j.Answer.Page, want) {
		t.Errorf("%v allocations for %q, want none", n, j.Answer.Page)
	}
}

func BenchmarkHit(b *testing.B)   { benchmarkHits(b, 1) }
func BenchmarkHit16(b *testing.B) { benchmarkHits(b, 16) }

func BenchmarkRender(b *testing.B) {
	b.ReportAllocs()
	k, _ := index.ParseKey("name:go/src/net/http")
	j := &index.Job{Ask: index.AskResolve, Key: k}
	p := &Pages{}
	for b.Loop() {
		p.Render(j)
	}
}

func TestAnErrorBodyIsTheDocument(t *testing.T) {
	for _, d := range []errorDoc{
		{Code: "not_found", Message: "no", CorrID: "a"},
		{Code: "over_capacity", Message: `a "quoted" word`, CorrID: "b-_", RetryAfter: 3, Stage: "db", Reason: "r\n", CurrentSeq: 9},
	} {
		want, err := json.Marshal(d)
		if err != nil {
			t.Fatal(err)
		}
		var a, b map[string]any
		if err := json.Unmarshal(d.appendJSON(nil), &a); err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal(want, &b); err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(a, b) {
			t.Errorf("%s, want %s", d.appendJSON(nil), want)
		}
	}
}

// What is asked for most is accepted on a way of its own. It must end where the
// long way does, which a head takes that says what it accepts.
func TestAPlainLookUpIsAcceptedAsAnyOther(t *testing.T) {
	for _, tc := range []struct {
		name   string
		set    func(*Server, *conn)
		status int
	}{
		{"nothing is in its way", func(*Server, *conn) {}, 200},
		{"a rate", func(s *Server, _ *conn) { retune(s, func(t *index.Tuning) { t.Rate = 1 }) }, 429},
		{"a quota of its address", func(s *Server, c *conn) {
			c.peer = &peer{ip: "192.0.2.1"}
			retune(s, func(t *index.Tuning) { t.ResolvesPerMin = 1 })
		}, 429},
		{"it came after the drain had begun", func(_ *Server, c *conn) { c.late = true }, 503},
		{"look-ups need a capability", func(s *Server, _ *conn) { s.opt.AuthReads = true }, 401},
	} {
		var answers [2]string
		for i, accept := range []string{"", "Accept: application/json\r\n"} {
			s := newBareServer(&fakeResolver{testPage(t)})
			s.born = time.Now()
			c, gc := newBareConn(s)
			c.peer = new(peer)
			tc.set(s, c)
			for range 2 { // the second is over a limit of one
				gc.in, gc.out = []byte("GET /resolve/name:go/src/net/http HTTP/1.1\r\nHost: a\r\n"+accept+"\r\n"), gc.out[:0]
				c.advance()
				c.loop.tick()
				if c.ending {
					break
				}
			}
			r, err := http.ReadResponse(bufio.NewReader(bytes.NewReader(gc.out)), nil)
			if err != nil {
				t.Fatalf("%s: %v of %q", tc.name, err, gc.out)
			}
			if r.StatusCode != tc.status {
				t.Errorf("%s: %d, want %d", tc.name, r.StatusCode, tc.status)
			}
			if s.counts.Requests[index.RouteResolve][index.MethodGet][index.OutcomeOf(tc.status)].Load() == 0 {
				t.Errorf("%s: it is not counted", tc.name)
			}
			if n := s.counts.Inflight[index.RouteResolve].Load(); n != 0 {
				t.Errorf("%s: %d are in flight for ever", tc.name, n)
			}
			for _, differs := range []string{"X-Corr-Id", "Date", "Ratelimit-Reset", "Retry-After"} {
				if r.Header[differs] != nil {
					r.Header[differs] = []string{"of the moment"}
				}
			}
			answers[i] = fmt.Sprint(r.StatusCode, r.Close, r.ContentLength, r.Header)
		}
		if answers[0] != answers[1] {
			t.Errorf("%s: the short way ends at\n%s\nthe long one at\n%s", tc.name, answers[0], answers[1])
		}
	}
}

// retune changes the configuration in force.
func retune(s *Server, set func(*index.Tuning)) {
	t := *s.opt.Dial.Now()
	set(&t)
	s.opt.Dial = index.NewDial(t)
}
