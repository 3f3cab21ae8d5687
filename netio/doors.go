package netio

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// doors are the sockets we listen on. They are ours and not gnet's, because
// gnet ends its loops, and with them every connection, when accept fails for
// want of descriptors; removes whatever lies at the path of a Unix socket; and
// cannot stop listening without stopping to serve. A connection is handed to
// the loop with the fewest.
type doors struct {
	server  *Server
	busy    sync.WaitGroup
	turning chan struct{} // one for each connection being turned away
	uids    []uint32      // who may connect to the Unix socket; none: anybody. Set before it listens

	mu sync.Mutex
	// Fields below are protected by mu.
	open   []net.Listener
	peers  map[string]*peer
	gone   []*peer // without a connection and with a debt, the oldest first
	ids    corrIDs
	total  int
	closed bool
}

func (d *doors) init(s *Server) {
	d.server, d.peers = s, make(map[string]*peer)
	d.turning = make(chan struct{}, turnersMost)
	d.ids.init()
}

// Listen opens a TCP address and returns the one it got; port 0 lets the
// system choose.
func (s *Server) Listen(addr string) (net.Addr, error) {
	ln, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("listen: %w (is another server running there? choose an address with -listen)", err)
	}
	s.doors.add(ln)
	return ln.Addr(), nil
}

// ListenUnix opens a Unix socket, 0600 in a directory that is 0700. A socket
// that nobody answers on is replaced; anything else in the way is left alone.
// With uids, others than its owner may reach the socket, and only the users
// listed are served: the kernel says who connected.
func (s *Server) ListenUnix(path string, uids []uint32) error {
	if err := clearWay(path); err != nil {
		return err
	}
	dir := filepath.Dir(path)
	socketMode, dirMode, forbidden := fs.FileMode(0o600), fs.FileMode(0o700), fs.FileMode(0o077)
	if len(uids) > 0 {
		socketMode, dirMode, forbidden = 0o666, 0o711, 0o022 // nobody else may put a socket in its place
	}
	if err := os.MkdirAll(dir, dirMode); err != nil {
		return fmt.Errorf("uds.path: %w", err)
	}
	if fi, err := os.Stat(dir); err != nil || fi.Mode().Perm()&forbidden != 0 {
		return fmt.Errorf("uds.path: directory %s has mode %v, want %04o: others could reach the socket or replace it; chmod it or choose a directory of its own", dir, fi.Mode().Perm(), dirMode)
	}
	ln, err := net.Listen("unix", path)
	if err != nil {
		return fmt.Errorf("uds.path: %w", err)
	}
	s.doors.uids = uids
	if err := os.Chmod(path, socketMode); err != nil {
		_ = ln.Close()
		return fmt.Errorf("uds.path: %w", err)
	}
	s.doors.add(ln)
	return nil
}

// clearWay removes a socket that nobody listens on.
func clearWay(path string) error {
	fi, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return fmt.Errorf("uds.path: %w", err)
	case fi.Mode().Type() != fs.ModeSocket:
		return fmt.Errorf("uds.path: %s is a %v: %w; move it or choose another path", path, fi.Mode().Type(), errSocketInTheWay)
	}
	if nc, err := net.DialTimeout("unix", path, time.Second); err == nil {
		_ = nc.Close()
		return fmt.Errorf("uds.path: another server answers on %s; stop it or choose another path", path)
	}
	return os.Remove(path)
}

// acceptors take connections from one listener. More than one, because each
// waits for the event loop to take its connection in.
const acceptors = 16

func (d *doors) add(ln net.Listener) {
	d.mu.Lock()
	d.open = append(d.open, ln)
	d.mu.Unlock()
	for range acceptors {
		d.busy.Go(func() { d.accept(ln) })
	}
}

// acceptPause is how long to wait when accept fails: for want of descriptors
// it will go on failing until a connection closes.
const acceptPause = 10 * time.Millisecond

func (d *doors) accept(ln net.Listener) {
	for {
		nc, err := ln.Accept()
		switch {
		case errors.Is(err, net.ErrClosed):
			return
		case err != nil:
			if d.server.counts.AcceptErrors.Add(1)%100 == 1 {
				d.server.log.Warn("accept failed; raise the limit on open files or lower limits.max_conns", "err", err)
			}
			time.Sleep(acceptPause)
			continue
		}
		d.take(nc)
	}
}

// take hands a connection to an event loop, or turns it away.
func (d *doors) take(nc net.Conn) {
	s := d.server
	if !d.knows(nc) {
		s.counts.PeersRefused.Add(1)
		d.refuse(nc, errPeer)
		return
	}
	c := &conn{peer: d.enter(addressOf(nc)), late: s.draining.Load(), tuning: s.opt.Dial.Now()}
	if c.peer == nil {
		s.counts.ConnsRefused.Add(1)
		d.refuse(nc, errConnCap)
		return
	}
	s.counts.Accepted.Add(1)
	_, err := s.engine.EnrollContext(nc, c)
	if err == nil && c.loop == nil { // gnet has closed it and told nobody
		err = errNotEnrolled
	}
	if err != nil {
		d.leave(c.peer)
		s.counts.AcceptErrors.Add(1)
		s.log.Warn("a connection could not be taken in", "err", err)
	}
}

var errNotEnrolled = errors.New("the event loop could not watch it")

// turnersMost is how many clients over a cap may be told so at once. Each may
// take a moment, and must not keep the next from being accepted.
const turnersMost = 64

// enter counts a connection and returns whose it is, unless that is one too
// many: then nil.
func (d *doors) enter(ip string) *peer {
	o := d.server.opt.Dial.Now()
	d.mu.Lock()
	defer d.mu.Unlock()
	p := d.peers[ip]
	if p == nil {
		p = &peer{ip: ip}
	}
	if d.closed || o.MaxConns > 0 && d.total >= o.MaxConns || o.ConnsPerIP > 0 && ip != "" && p.conns >= o.ConnsPerIP {
		return nil
	}
	d.peers[ip] = p
	d.total++
	p.conns++
	d.server.counts.Conns.Add(1)
	return p
}

func (d *doors) leave(p *peer) {
	now := d.server.clock(time.Now())
	d.mu.Lock()
	defer d.mu.Unlock()
	d.total--
	p.conns--
	d.server.counts.Conns.Add(-1)
	switch {
	case p.conns > 0 || p.gone:
	case p.owes(now): // or a new connection would be a new start
		p.gone = true
		d.gone = append(d.gone, p)
	default:
		delete(d.peers, p.ip)
	}
	// Two for each that comes: the list empties in the end, and nobody pays for
	// all of it.
	for range min(2, len(d.gone)) {
		if first := d.gone[0]; len(d.gone) > goneMost || first.conns > 0 || !first.owes(now) {
			d.forget(first)
		}
	}
}

// forget takes the first out of the list of those with a debt, and out of
// memory if it has not come back.
func (d *doors) forget(first *peer) {
	first.gone = false
	d.gone[0] = nil
	d.gone = d.gone[1:]
	if first.conns == 0 {
		delete(d.peers, first.ip)
	}
}

// refuse turns a connection away with a word, if there is time for one.
func (d *doors) refuse(nc net.Conn, r *refusal) {
	select {
	case d.turning <- struct{}{}:
		d.busy.Go(func() { d.turnAway(nc, r); <-d.turning })
	default:
		_ = nc.Close()
	}
}

// knows reports whether the peer of a Unix socket may connect. What the kernel
// says is of the process that called connect, whoever holds the descriptor
// now; only its user counts, a pid may be another's by the time it is read.
func (d *doors) knows(nc net.Conn) bool {
	uc, ok := nc.(*net.UnixConn)
	if !ok || len(d.uids) == 0 {
		return true
	}
	raw, err := uc.SyscallConn()
	if err != nil {
		return false
	}
	known := false
	err = raw.Control(func(fd uintptr) {
		cred, err := unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
		known = err == nil && slices.Contains(d.uids, cred.Uid)
	})
	return err == nil && known
}

// turnAway answers a connection with a canned refusal and closes it.
func (d *doors) turnAway(nc net.Conn, r *refusal) {
	defer nc.Close()
	_ = nc.SetDeadline(time.Now().Add(acceptPause))
	s := &slot{server: d.server, close: true}
	d.mu.Lock()
	d.ids.give(s, nil, time.Now())
	d.mu.Unlock()
	s.refuse(r)
	d.server.counts.Rejected[r.reject].Add(1)
	_, _ = nc.Write(s.out)
	if tc, ok := nc.(interface{ CloseWrite() error }); ok {
		// Let the client read the answer before a reset for its unread
		// request can overtake it; but not for long.
		_ = tc.CloseWrite()
		var sink [512]byte
		_, _ = nc.Read(sink[:])
	}
}

// close stops listening.
func (d *doors) close() {
	d.mu.Lock()
	d.closed = true
	open := d.open
	d.open = nil
	d.mu.Unlock()
	for _, ln := range open {
		_ = ln.Close()
	}
	d.busy.Wait()
}
