package kaddht

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peerstore"
	"github.com/libp2p/go-libp2p/p2p/transport/tcp"
	ma "github.com/multiformats/go-multiaddr"

	"svcindex/index"
)

// A badLine dials connections that lose packets. TCP sends again what was lost,
// after its timer, and hands over nothing behind it before: what an application
// sees of loss is time.
type badLine struct {
	loss float64
	lost atomic.Int64
}

const (
	segment = 1400
	rto     = 200 * time.Millisecond // the least Linux waits before it sends again
	synRTO  = time.Second            // and for an answer to the first packet
)

func (b *badLine) dialer(ma.Multiaddr) (tcp.ContextDialer, error) { return b, nil }

func (b *badLine) loses() bool {
	if rand.Float64() >= b.loss {
		return false
	}
	b.lost.Add(1)
	return true
}

func (b *badLine) DialContext(ctx context.Context, network, addr string) (net.Conn, error) {
	for again := synRTO; b.loses(); again *= 2 {
		select {
		case <-time.After(again):
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	c, err := new(net.Dialer).DialContext(ctx, network, addr)
	if err != nil {
		return nil, err
	}
	return &badConn{Conn: c, line: b, closed: make(chan struct{})}, nil
}

type badConn struct {
	net.Conn
	line   *badLine
	once   sync.Once
	closed chan struct{}
}

func (c *badConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	c.carry(n)
	return n, err
}

func (c *badConn) Write(p []byte) (int, error) {
	c.carry(len(p))
	return c.Conn.Write(p)
}

func (c *badConn) Close() error {
	c.once.Do(func() { close(c.closed) })
	return c.Conn.Close()
}

// carry takes as long as TCP does to bring n bytes over the line.
func (c *badConn) carry(n int) {
	for range (n + segment - 1) / segment {
		for again := rto; c.line.loses(); again *= 2 {
			select {
			case <-time.After(again):
			case <-c.closed:
				return
			}
		}
	}
}

// squatters are peers that listen and are no nodes: some say nothing, some
// reset whoever comes. They stand in n's routing table like everybody else.
func squatters(t *testing.T, n *Node, count int) {
	t.Helper()
	var all sync.WaitGroup
	t.Cleanup(all.Wait) // what is cleaned up below comes before it
	for i := range count {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		all.Go(func() {
			var held []net.Conn
			for {
				c, err := l.Accept()
				if err != nil {
					break
				}
				if i%2 == 0 {
					held = append(held, c) // a tarpit
					continue
				}
				_ = c.(*net.TCPConn).SetLinger(0) // and Close sends a reset
				_ = c.Close()
			}
			for _, c := range held {
				_ = c.Close()
			}
		})
		t.Cleanup(func() { _ = l.Close() })
		addr, _ := ma.NewMultiaddr(fmt.Sprintf("/ip4/127.0.0.1/tcp/%d", l.Addr().(*net.TCPAddr).Port))
		n.host.Peerstore().AddAddrs(junk(i), []ma.Multiaddr{addr}, peerstore.PermanentAddrTTL)
		_, _ = n.dht.RoutingTable().TryAddPeer(junk(i), true, false)
	}
}

const stageTime = 900 * time.Millisecond

// A tally is how look-ups over a bad line ended.
type tally struct{ found, late, down, absent, odd int }

func (y *tally) count(err error) {
	switch err {
	case nil:
		y.found++
	case index.Missing:
		y.absent++
	case index.Late:
		y.late++
	case index.Down:
		y.down++
	default:
		y.odd++
	}
}

// overABadLine asks a network, over connections that are not there yet, for
// what it holds and for what nobody does. Whatever the line does, each look-up
// ends in time, and no answer is a wrong one.
func overABadLine(t *testing.T, keys int, change ...func(*Options)) {
	t.Helper()
	var held, nowhere tally
	d := openDevnet(t, 12)
	bodies := make([][]byte, keys)
	for i := range bodies {
		bodies[i] = fmt.Appendf(make([]byte, 0, 8<<10), "manifest %d %s", i, strings.Repeat("x", 4<<10)) // some segments
		if err := d.Publish(i, bodies[i]); err != nil {
			t.Fatal(err)
		}
	}
	ask := func(n *Node, j *index.Job) error {
		ctx, cancel := context.WithTimeout(t.Context(), stageTime)
		defer cancel()
		began := time.Now()
		err := n.Discover(ctx, j)
		if took := time.Since(began); took > stageTime+5*time.Second { // the deadline, and what a busy machine may add
			t.Errorf("%v took %v, its deadline was %v", j.Key.String(), took, stageTime)
		}
		return err
	}
	var mu sync.Mutex
	var all sync.WaitGroup
	slots := make(chan struct{}, 8)
	for range 2 { // each new to everybody
		n := openNode(t, d, change...)
		squatters(t, n, 6)
		for _, body := range bodies {
			slots <- struct{}{}
			all.Go(func() {
				defer func() { <-slots }()
				c, none := index.Sum(body), index.Sum(append(body, "nowhere"...))
				what, who := askFor(index.AskManifest, c.String()), askFor(index.AskProviders, c.String())
				whatErr, whoErr := ask(n, what), ask(n, who)
				noneErr := ask(n, askFor(index.AskManifest, none.String()))
				if whatErr == nil && string(what.Answer.Body) != string(body) || whoErr == nil && len(who.Answer.Providers) != 1 {
					t.Errorf("%s: %d other bytes came, or %d providers", c, len(what.Answer.Body), len(who.Answer.Providers))
				}
				mu.Lock()
				defer mu.Unlock()
				held.count(whatErr)
				held.count(whoErr)
				nowhere.count(noneErr)
			})
		}
		all.Wait()
	}
	if held.absent+held.odd > 0 || nowhere.found+nowhere.odd > 0 {
		t.Errorf("what is there: %+v, what is nowhere: %+v", held, nowhere)
	}
	if most := 2 * 2 * keys; held.found < most*9/10 {
		t.Errorf("%d of %d that are there were found in time (%+v), want nine of ten", held.found, most, held)
	}
	t.Logf("there: %+v; nowhere: %+v", held, nowhere)
}

func TestPacketLossTarpitsAndResetsCostTimeAndNothingElse(t *testing.T) {
	keys := 20
	if *full {
		keys = 200
	}
	line := &badLine{loss: .05}
	overABadLine(t, keys, func(o *Options) { o.dialer = line.dialer })
	if line.lost.Load() == 0 {
		t.Error("nothing was lost: the test says nothing")
	}
	t.Logf("%d packets were lost", line.lost.Load())
}

// losses are the ways to lose 5 % of the packets of a namespace's loopback;
// which of them there are is up to the kernel and to what is installed.
var losses = [][]string{
	{"tc qdisc add dev lo root netem loss 5%"},
	{"nft add table inet t", "nft add chain inet t i { type filter hook input priority 0 ; }", "nft add rule inet t i iif lo numgen random mod 100 < 5 drop"},
	{"iptables -A INPUT -i lo -m statistic --mode random --probability 0.05 -j DROP"},
}

const inNamespace = "KADDHT_IN_NAMESPACE"

// The same in a network of its own, where the kernel loses real packets. It
// takes root and one of the tools; where there is none, the test above is what
// there is.
func TestPacketLossInANamespaceOfItsOwn(t *testing.T) {
	if os.Getenv(inNamespace) == "" {
		cmd := exec.Command(os.Args[0], "-test.run", "^"+t.Name()+"$", "-test.v")
		cmd.Env = append(os.Environ(), inNamespace+"=1")
		cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET, Pdeathsig: syscall.SIGKILL}
		out, err := cmd.CombinedOutput()
		_, failed := err.(*exec.ExitError)
		switch {
		case err != nil && !failed:
			t.Skipf("no namespace here (%v): loss in the process is tested by the test above", err)
		case err != nil:
			t.Errorf("in the namespace: %v\n%s", err, out)
		case strings.Contains(string(out), "SKIP"):
			t.Skipf("nothing here loses packets: install nftables or iptables\n%s", out)
		}
		t.Logf("%s", out)
		return
	}
	if out, err := exec.Command("ip", "link", "set", "lo", "up").CombinedOutput(); err != nil {
		t.Skipf("ip link set lo up: %v %s", err, out)
	}
	if !lose(t) {
		t.Skip("no way to lose packets")
	}
	overABadLine(t, 20)
}

// lose has the loopback of this namespace lose packets.
func lose(t *testing.T) bool {
	for _, way := range losses {
		ok := true
		for _, line := range way {
			words := strings.Fields(line)
			if out, err := exec.Command(words[0], words[1:]...).CombinedOutput(); err != nil {
				t.Logf("%s: %v %s", line, err, out)
				ok = false
				break
			}
		}
		if ok {
			t.Logf("packets are lost by: %s", way[len(way)-1])
			return true
		}
	}
	return false
}
