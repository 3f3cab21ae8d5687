package kaddht

import (
	"context"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/p2p/transport/tcp"
	ma "github.com/multiformats/go-multiaddr"

	"svcindex/index"
)

// A wall stands, while it stands, between the two halves of a network: nothing
// crosses it, and nobody is told. Who dials waits for his time to be over; what
// is on its way over a connection is lost.
type wall struct {
	stands atomic.Pointer[chan struct{}] // closed when it falls; nil: there is none
	mu     sync.Mutex
	side   map[int]int // of the port that a node listens at
}

func newWall() *wall { return &wall{side: make(map[int]int)} }

// place puts a node on a side.
func (w *wall) place(n *Node, side int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, a := range n.host.Network().ListenAddresses() {
		if _, port, ok := endpoint(a); ok {
			w.side[port] = side
		}
	}
}

func (w *wall) rise() {
	c := make(chan struct{})
	w.stands.Store(&c)
}

func (w *wall) fall() {
	if c := w.stands.Swap(nil); c != nil {
		close(*c)
	}
}

// wait returns once there is no wall, or end is closed.
func (w *wall) wait(end <-chan struct{}) error {
	if c := w.stands.Load(); c != nil {
		select {
		case <-*c:
		case <-end:
			return net.ErrClosed
		}
	}
	return nil
}

// dialer returns that of a node on a side.
func (w *wall) dialer(side int) tcp.DialerForAddr {
	return func(ma.Multiaddr) (tcp.ContextDialer, error) { return wallDialer{w, side}, nil }
}

type wallDialer struct {
	wall *wall
	side int
}

func (d wallDialer) DialContext(ctx context.Context, network, addr string) (net.Conn, error) {
	to, err := net.ResolveTCPAddr(network, addr)
	if err != nil {
		return nil, err
	}
	d.wall.mu.Lock()
	across := d.wall.side[to.Port] != d.side
	d.wall.mu.Unlock()
	if across && d.wall.wait(ctx.Done()) != nil {
		return nil, ctx.Err()
	}
	c, err := new(net.Dialer).DialContext(ctx, network, addr)
	if err != nil || !across {
		return c, err
	}
	return &wallConn{TCPConn: c.(*net.TCPConn), wall: d.wall, closed: make(chan struct{})}, nil
}

// A wallConn is a connection across. What is sent while the wall stands is lost,
// and with it, when that comes out, the connection.
type wallConn struct {
	*net.TCPConn
	wall   *wall
	lost   atomic.Bool
	once   sync.Once
	closed chan struct{}
}

func (c *wallConn) Read(p []byte) (int, error) {
	n, err := c.TCPConn.Read(p)
	if werr := c.wall.wait(c.closed); werr != nil {
		return 0, werr
	}
	if c.lost.Load() {
		return 0, syscall.ECONNRESET
	}
	return n, err
}

func (c *wallConn) Write(p []byte) (int, error) {
	if c.wall.stands.Load() != nil {
		c.lost.Store(true)
	}
	if c.lost.Load() {
		return len(p), nil
	}
	return c.TCPConn.Write(p)
}

func (c *wallConn) Close() error {
	c.once.Do(func() { close(c.closed) })
	return c.TCPConn.Close()
}

// A parted is a network of two halves, with somebody who asks in each.
type parted struct {
	*Devnet
	t     *testing.T
	wall  *wall
	k     int
	asker [2]*Node
	home  map[*DevNode]int
}

func openParted(t *testing.T, nodes, k int) *parted {
	t.Helper()
	p := &parted{t: t, wall: newWall(), k: k, home: make(map[*DevNode]int)}
	d, err := OpenDevnet(DevnetPlan{
		Nodes: nodes, Prefix: testPrefix, Verify: verifyName, BucketSize: k,
		dialer: func(i int) tcp.DialerForAddr { return p.wall.dialer(i % 2) },
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		p.wall.fall()
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	})
	p.Devnet = d
	for i, n := range d.nodes {
		p.wall.place(n.Node, i%2)
		p.home[n] = i % 2
	}
	for side := range p.asker {
		p.asker[side] = openNode(t, d, func(o *Options) { o.BucketSize, o.dialer = k, p.wall.dialer(side) })
	}
	t.Cleanup(p.wall.fall) // before the askers are closed
	return p
}

// hold has those of a side that are nearest hold a manifest; of both sides if
// side is none.
func (p *parted) hold(side int, what string) index.CID {
	p.t.Helper()
	body := []byte(what)
	c := index.Sum(body)
	of := &Devnet{}
	for _, n := range p.nodes {
		if side != 0 && side != 1 || p.home[n] == side {
			of.nodes = append(of.nodes, n)
		}
	}
	if err := of.hold(p.t.Context(), manifestKey(&c), body); err != nil {
		p.t.Fatal(err)
	}
	return c
}

// silent reports whether more than a quarter of those nearest to c, up to the
// last it takes to call it absent, are on the other side, and most of this one
// still know them: whom nobody knows any more, nobody misses.
func (p *parted) silent(side int, c index.CID) bool {
	answers, lost := 0, 0
	for _, near := range p.nearest([]byte(manifestKey(&c))) {
		if p.home[near] == side {
			if answers++; answers == p.k/2 {
				break
			}
		} else if p.known(side, near) {
			lost++
		}
	}
	return 4*lost > answers+lost
}

// known reports whether most nodes of a side have n in their routing tables.
func (p *parted) known(side int, n *DevNode) bool {
	by, of := 0, 0
	for mate, home := range p.home {
		if home != side {
			continue
		}
		of++
		if mate.dht.RoutingTable().Find(n.self) != "" {
			by++
		}
	}
	return 2*by > of
}

// ask asks for a manifest as the stage would, which always ends in time.
func (p *parted) ask(side int, c index.CID) error {
	ctx, cancel := context.WithTimeout(p.t.Context(), stageTime)
	defer cancel()
	began := time.Now()
	err := p.asker[side].Discover(ctx, askFor(index.AskManifest, c.String()))
	if took := time.Since(began); took > stageTime+5*time.Second { // the deadline, and what a busy machine may add
		p.t.Errorf("it took %v, the deadline was %v", took, stageTime)
	}
	return err
}

// Two halves of a network that do not reach each other: each goes on with what
// it has, and neither says that what only the other has does not exist.
func TestPartedInTwoHalves(t *testing.T) {
	nodes, k, keys, rounds := 24, 20, 3, 1
	if *full {
		nodes, k, keys, rounds = 60, 20, 50, 4
	}
	p := openParted(t, nodes, k)
	var both, ours [2][]index.CID
	for i := range keys {
		for side := range p.asker {
			both[side] = append(both[side], p.hold(2, fmt.Sprintf("both %d %d", side, i)))
			ours[side] = append(ours[side], p.hold(side, fmt.Sprintf("of side %d: %d", side, i)))
		}
	}
	p.wall.rise()
	var mu sync.Mutex
	var here, there tally
	var all sync.WaitGroup
	slots := make(chan struct{}, 8)
	for i := range rounds * keys {
		for side := range p.asker {
			slots <- struct{}{}
			all.Go(func() {
				defer func() { <-slots }()
				other := ours[1-side][i%keys]
				a, b, none := p.ask(side, both[side][i%keys]), p.ask(side, ours[side][i%keys]), p.ask(side, other)
				if none == index.Missing && p.silent(side, other) {
					t.Error("it is said to be absent, and too many of those who would know are silent")
				}
				mu.Lock()
				defer mu.Unlock()
				here.count(a)
				here.count(b)
				there.count(none)
			})
		}
	}
	all.Wait()
	t.Logf("parted: with a holder on this side %+v, with none %+v", here, there)
	if here.absent+here.odd > 0 || there.found+there.odd > 0 {
		t.Errorf("with a holder on this side %+v, with none %+v", here, there)
	}
	if most := rounds * 2 * 2 * keys; here.found < most*9/10 {
		t.Errorf("of %d with a holder within reach %d were found in time", most, here.found)
	}
	for side, n := range p.asker {
		if got, least := n.dht.RoutingTable().Size(), min(nodes/2, k)*3/4; got < least {
			t.Errorf("the routing table of side %d has %d peers left, want at least %d", side, got, least)
		}
	}
	p.wall.fall()
	p.heals(append(append(both[0], both[1]...), append(ours[0], ours[1]...)...))
}

// healsWithin is how many beats it takes at most until both sides find
// everything: a minute.
const healsWithin = 12

func (p *parted) heals(cs []index.CID) {
	p.t.Helper()
	for beats := range healsWithin {
		missed := 0
		for _, c := range cs {
			for side := range p.asker {
				if p.ask(side, c) != nil {
					missed++
				}
			}
		}
		p.t.Logf("%d beats after the end of the partition %d of %d were missed", beats, missed, 2*len(cs))
		if missed == 0 {
			return
		}
		p.beat()
	}
	p.t.Errorf("after %d beats not everything is found", healsWithin)
}

// beat is one of everybody's.
func (p *parted) beat() {
	var all sync.WaitGroup
	for _, n := range p.asker {
		all.Go(n.beat)
	}
	for n := range p.home {
		all.Go(n.beat)
	}
	all.Wait()
}

// When it lasts, each side takes the other out of its routing tables: nobody is
// left to say who was there, and still they find each other.
func TestPartedForLongTheHalvesFindEachOther(t *testing.T) {
	nodes, k, keys := 24, 20, 3
	if *full {
		nodes, k, keys = 60, 20, 50
	}
	p := openParted(t, nodes, k)
	p.wall.rise()
	var ours [2][]index.CID
	for side := range p.asker {
		for i := range keys {
			ours[side] = append(ours[side], p.hold(side, fmt.Sprintf("of side %d: %d", side, i)))
		}
	}
	p.forget()
	for side := range p.asker {
		for _, c := range ours[side] {
			if err := p.ask(side, c); err != nil {
				t.Errorf("with a holder on this side: %v", err)
			}
		}
	}
	p.wall.fall()
	p.heals(append(ours[0], ours[1]...))
}

// forget does to every node's routing table what a long partition does.
func (p *parted) forget() {
	all := map[*Node]int{p.asker[0]: 0, p.asker[1]: 1}
	for n, side := range p.home {
		all[n.Node] = side
	}
	for n, side := range all {
		for other, home := range p.home {
			if home != side {
				for _, c := range n.host.Network().ConnsToPeer(other.self) {
					_ = c.Close()
				}
				n.drop(other.self, n.now())
				n.host.Peerstore().ClearAddrs(other.self)
			}
		}
		n.mu.Lock()
		n.known = nil
		n.mu.Unlock()
		n.remember()
	}
}
