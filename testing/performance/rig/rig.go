// Package rig is a server of known behaviour: it answers after a programmed
// delay, stands still, sheds, and notes when it heard and answered each
// request, so that whoever measured it can be held to that.
//
// It is one thread with one epoll instance. What it notes brackets the truth:
// a request is Received when the server has read it, so not before it was
// sent, and Answered just before the answer is given to the kernel, so not
// after it can have arrived.
package rig

import (
	"bytes"
	"fmt"
	"runtime"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// RequestsMax bounds the log.
const RequestsMax = 4_000_000

const (
	eventsMax = 128
	backlog   = 1024
	bufferMax = 64 << 10 // of one connection
	idleWait  = 5        // milliseconds of epoll between looks at the clock
)

// A Behaviour is what a server does, known beforehand.
type Behaviour struct {
	Delay     time.Duration // from a request's receipt to its answer
	StallAt   time.Duration // after the first request, nothing is read or written ...
	Stall     time.Duration // ... for so long
	ShedEvery int           // every such request, by its number, is answered 429; 0: none
	Processor int           // the thread runs there and polls without sleeping; -1: wherever, sleeping
}

// An Entry is what became of one request.
type Entry struct{ Received, Answered time.Time }

// A Server is a running rig.
type Server struct {
	Addr string

	// Immutable.
	b     Behaviour
	epoll int
	ln    int // the listening socket

	// Belong to the thread; the log is anybody's once Close has returned.
	conns   map[int32]*conn
	waiting []waiting // in the order of their instants
	first   time.Time
	log     []Entry
	err     error

	stop atomic.Bool
	gone sync.WaitGroup
}

type conn struct {
	in []byte
}

type waiting struct {
	fd int32
	n  int
	at time.Time
}

// Serve starts a rig on a loopback port. A request's number is its path: /17
// is number 17; one without is counted.
func Serve(b Behaviour) (*Server, error) {
	s := &Server{b: b, conns: map[int32]*conn{}}
	if err := s.listen(); err != nil {
		return nil, fmt.Errorf("rig: %w", err)
	}
	s.gone.Go(s.run)
	return s, nil
}

// Close ends the rig and returns its log by request number, or what went
// wrong: a rig that could not do as it was told has shown nothing.
func (s *Server) Close() ([]Entry, error) {
	s.stop.Store(true)
	s.gone.Wait()
	return s.log, s.err
}

func (s *Server) listen() (err error) {
	if s.ln, err = unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0); err != nil {
		return err
	}
	if err = unix.Bind(s.ln, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err == nil {
		err = unix.Listen(s.ln, backlog)
	}
	if err == nil {
		s.epoll, err = unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	}
	if err == nil {
		err = s.watch(int32(s.ln))
	}
	if err != nil {
		_ = unix.Close(s.ln)
		return err
	}
	at, err := unix.Getsockname(s.ln)
	if a, ok := at.(*unix.SockaddrInet4); ok {
		s.Addr = fmt.Sprintf("127.0.0.1:%d", a.Port)
	}
	return err
}

func (s *Server) watch(fd int32) error {
	return unix.EpollCtl(s.epoll, unix.EPOLL_CTL_ADD, int(fd), &unix.EpollEvent{Events: unix.EPOLLIN, Fd: fd})
}

func (s *Server) run() {
	runtime.LockOSThread() // never unlocked: it ends with its affinity
	if s.b.Processor >= 0 {
		var set unix.CPUSet
		set.Set(s.b.Processor)
		s.fail(unix.SchedSetaffinity(0, &set))
	}
	defer s.shut()
	var events [eventsMax]unix.EpollEvent
	for !s.stop.Load() && s.err == nil {
		s.stall()
		n, err := unix.EpollWait(s.epoll, events[:], s.patience())
		if err != nil && err != unix.EINTR {
			s.fail(err)
		}
		for _, e := range events[:max(n, 0)] {
			if e.Fd == int32(s.ln) {
				s.accept()
			} else {
				s.read(e.Fd)
			}
		}
		s.answer()
	}
}

func (s *Server) fail(err error) {
	if s.err == nil && err != nil {
		s.err = fmt.Errorf("rig: %w", err)
	}
}

func (s *Server) shut() {
	for fd := range s.conns {
		_ = unix.Close(int(fd))
	}
	_ = unix.Close(s.ln)
	_ = unix.Close(s.epoll)
}

// patience is how long to sleep in milliseconds. The rest of a millisecond is
// polled, so that an answer is not late for want of a finer clock.
func (s *Server) patience() int {
	if s.b.Processor >= 0 {
		return 0
	}
	if len(s.waiting) == 0 {
		return idleWait
	}
	return int(max(min(time.Until(s.waiting[0].at).Milliseconds(), idleWait), 0))
}

// stall stands still, once, when its time has come.
func (s *Server) stall() {
	if s.b.Stall == 0 || s.first.IsZero() || time.Since(s.first) < s.b.StallAt {
		return
	}
	time.Sleep(s.b.Stall)
	s.b.Stall = 0
}

func (s *Server) accept() {
	for {
		fd, _, err := unix.Accept4(s.ln, unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC)
		if err != nil {
			return
		}
		_ = unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1)
		s.conns[int32(fd)] = &conn{}
		s.fail(s.watch(int32(fd)))
	}
}

func (s *Server) read(fd int32) {
	c := s.conns[fd]
	if c == nil {
		return
	}
	if c.in == nil {
		c.in = make([]byte, 0, bufferMax)
	}
	n, err := unix.Read(int(fd), c.in[len(c.in):cap(c.in)])
	if err == unix.EAGAIN {
		return
	}
	if n <= 0 {
		delete(s.conns, fd)
		_ = unix.Close(int(fd))
		return
	}
	now := time.Now()
	if s.first.IsZero() {
		s.first = now
	}
	c.in = c.in[:len(c.in)+n]
	for {
		end := bytes.Index(c.in, []byte("\r\n\r\n"))
		if end < 0 {
			break
		}
		s.receive(fd, numberOf(c.in[:end]), now)
		c.in = c.in[:copy(c.in, c.in[end+4:])]
	}
}

// numberOf reads 17 out of "GET /17 HTTP/1.1", or returns -1.
func numberOf(head []byte) int {
	_, rest, _ := bytes.Cut(head, []byte(" /"))
	number, _, _ := bytes.Cut(rest, []byte(" "))
	n, err := strconv.Atoi(string(number))
	if err != nil {
		return -1
	}
	return n
}

func (s *Server) receive(fd int32, n int, now time.Time) {
	if n < 0 {
		n = len(s.log)
	}
	if n >= RequestsMax {
		s.fail(fmt.Errorf("request %d: the log ends at %d", n, RequestsMax))
		return
	}
	for len(s.log) <= n {
		s.log = append(s.log, Entry{})
	}
	if !s.log[n].Received.IsZero() {
		s.fail(fmt.Errorf("request %d came twice", n))
	}
	s.log[n].Received = now
	s.waiting = append(s.waiting, waiting{fd, n, now.Add(s.b.Delay)})
}

// answer writes what is due.
func (s *Server) answer() {
	done := 0
	for _, w := range s.waiting {
		now := time.Now()
		if now.Before(w.at) {
			break
		}
		done++
		if s.conns[w.fd] == nil {
			continue
		}
		s.log[w.n].Answered = now
		text := answerOK
		if s.Sheds(w.n) {
			text = answerShed
		}
		if n, err := unix.Write(int(w.fd), []byte(text)); n != len(text) {
			s.fail(fmt.Errorf("request %d: wrote %d of %d bytes: %v", w.n, n, len(text), err))
		}
	}
	s.waiting = s.waiting[:copy(s.waiting, s.waiting[done:])]
}

// Sheds reports whether request n is answered 429.
func (s *Server) Sheds(n int) bool { return s.b.ShedEvery > 0 && n%s.b.ShedEvery == 0 }

const (
	answerOK   = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nX-Index-Source: cache\r\n\r\n12345"
	answerShed = "HTTP/1.1 429 Too Many Requests\r\nContent-Length: 24\r\nRetry-After: 1\r\n\r\n" + `{"code":"over_capacity"}`
)
