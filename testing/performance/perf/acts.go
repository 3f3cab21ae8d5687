package main

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"
)

// acts are what hostile and clumsy clients do.
var acts = map[string]func(context.Context, *stay, *phase, act) error{
	"slow-loris":   slowLoris,
	"bomb":         bombs,
	"big-body":     bigBodies,
	"slow-request": slowRequests,
	"burst":        burst,
	"flap":         flap,
}

const (
	flapEvery = 10 * time.Second // frozen, then thawed
	mib       = 1 << 20
	bombBytes = 200 * mib // what a bomb inflates to
	bigBody   = 3 * mib / 2
)

// A tally is how often each ending was seen.
type tally struct {
	mu   sync.Mutex
	seen map[string]int
}

func (t *tally) add(what string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.seen == nil {
		t.seen = map[string]int{}
	}
	t.seen[what]++
}

// all runs n of do at once and says how they ended.
func all(ctx context.Context, n int, do func(ctx context.Context, i int) string) map[string]int {
	var t tally
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() { t.add(do(ctx, i)) })
	}
	wg.Wait()
	return t.seen
}

// from dials the server from one of many loopback addresses, so that no limit
// on one of them is met first.
func (st *stay) from(ctx context.Context, i int) (net.Conn, error) {
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 1, byte(1+i%250))}, Timeout: 10 * time.Second}
	return d.DialContext(ctx, "tcp", st.server.Addr)
}

// slowLoris opens connections that send a byte a second of a head that never
// ends. Each has to be told 408, or closed, five seconds after its first byte.
func slowLoris(ctx context.Context, st *stay, p *phase, a act) error {
	ends := all(ctx, a.N, func(ctx context.Context, i int) string {
		c, err := st.from(ctx, i)
		if err != nil {
			return "not connected: " + err.Error()
		}
		defer c.Close()
		go func() {
			for _, b := range []byte("GET /resolve/name:load/00000000 HTTP/1.1\r\nHost: loris") {
				if _, err := c.Write([]byte{b}); err != nil {
					return
				}
				time.Sleep(time.Second)
			}
		}()
		_ = c.SetReadDeadline(time.Now().Add(20 * time.Second))
		return ending(bufio.NewReader(c))
	})
	st.judge(p, fmt.Sprintf("%d slow-loris connections are told 408 or closed within 20 s", a.N), ends, "408", "closed")
	return nil
}

// ending is how the server ended a connection.
func ending(r *bufio.Reader) string {
	resp, err := http.ReadResponse(r, nil)
	if ne, ok := errors.AsType[net.Error](err); ok && ne.Timeout() {
		return "still open"
	}
	if err != nil {
		return "closed"
	}
	defer resp.Body.Close()
	body, _ := io.ReadAll(resp.Body)
	if fault := faultOf(resp, body); fault != "" {
		return fmt.Sprintf("%d, which %s", resp.StatusCode, fault)
	}
	return fmt.Sprint(resp.StatusCode)
}

// judge holds how things ended to how they may.
func (st *stay) judge(p *phase, what string, ends map[string]int, may ...string) {
	held := len(ends) > 0
	for e := range ends {
		held = held && slices.Contains(may, e)
	}
	st.mu.Lock()
	defer st.mu.Unlock()
	st.found.check(p.Name, what, held, "%v", ends)
}

// put sends a manifest and returns how that ended.
func (st *stay) put(ctx context.Context, i int, body []byte, header ...string) string {
	c, err := st.from(ctx, i)
	if err != nil {
		return "not connected: " + err.Error()
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(30 * time.Second))
	head := fmt.Sprintf("PUT /manifests HTTP/1.1\r\nHost: perf\r\nAuthorization: Bearer %s\r\nContent-Length: %d\r\n%s\r\n", st.token, len(body), strings.Join(header, ""))
	go func() { // it may answer, and close, before it has read all
		_, _ = c.Write([]byte(head))
		_, _ = c.Write(body)
	}()
	return ending(bufio.NewReader(c))
}

// makeBomb is done before any load: it takes the generator's processor a second.
func makeBomb() ([]byte, error) {
	var b bytes.Buffer
	z, err := gzip.NewWriterLevel(&b, gzip.BestCompression)
	if err != nil {
		return nil, err
	}
	zeros := make([]byte, mib)
	for range bombBytes / mib {
		if _, err := z.Write(zeros); err != nil {
			return nil, err
		}
	}
	if err := z.Close(); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}

// bombs sends bodies that inflate to two hundred times the limit.
func bombs(ctx context.Context, st *stay, p *phase, a act) error {
	st.pace(ctx, p, a, fmt.Sprintf("%d bombs of %d KiB that inflate to %d MiB are told 413", a.N, len(st.bomb)>>10, bombBytes/mib), "413",
		func(ctx context.Context, i int) string {
			return st.put(ctx, i, st.bomb, "Content-Encoding: gzip\r\n")
		})
	return nil
}

// pace does something n times, spread over the phase.
func (st *stay) pace(ctx context.Context, p *phase, a act, what, want string, do func(context.Context, int) string) {
	every := st.b.length(p) / time.Duration(a.N+1)
	ends := all(ctx, a.N, func(ctx context.Context, i int) string {
		select {
		case <-ctx.Done():
			return "interrupted"
		case <-time.After(time.Duration(i) * every):
		}
		return do(ctx, i)
	})
	st.judge(p, what, ends, want)
}

// bigBodies sends bodies of 1.5 MiB, half as much again as may be.
func bigBodies(ctx context.Context, st *stay, p *phase, a act) error {
	body := bytes.Repeat([]byte("x"), bigBody)
	st.pace(ctx, p, a, fmt.Sprintf("%d bodies of 1.5 MiB are told 413", a.N), "413",
		func(ctx context.Context, i int) string { return st.put(ctx, i, body) })
	return nil
}

// slowRequests sends a whole head, and a body that never comes.
func slowRequests(ctx context.Context, st *stay, p *phase, a act) error {
	ends := all(ctx, a.N, func(ctx context.Context, i int) string {
		c, err := st.from(ctx, i)
		if err != nil {
			return "not connected: " + err.Error()
		}
		defer c.Close()
		fmt.Fprintf(c, "PUT /manifests HTTP/1.1\r\nHost: perf\r\nAuthorization: Bearer %s\r\nContent-Length: 100\r\n\r\nx", st.token)
		_ = c.SetReadDeadline(time.Now().Add(20 * time.Second))
		return ending(bufio.NewReader(c))
	})
	st.judge(p, fmt.Sprintf("%d requests whose body does not come are told 408 within 20 s", a.N), ends, "408")
	return nil
}

// burst asks for n keys that have to be looked up, all at once. What is over a
// limit is told 429, and what is let in 200, 404 or, when its time is up, 504.
func burst(ctx context.Context, st *stay, p *phase, a act) error {
	gate := make(chan struct{})
	var dialled sync.WaitGroup
	dialled.Add(a.N)
	go func() { dialled.Wait(); close(gate) }()
	ends := all(ctx, a.N, func(ctx context.Context, i int) string {
		c, err := st.from(ctx, i)
		dialled.Done()
		if err != nil {
			return "not connected: " + err.Error()
		}
		defer c.Close()
		<-gate
		_ = c.SetDeadline(time.Now().Add(20 * time.Second))
		fmt.Fprintf(c, "GET /resolve/name:perf-burst/%d HTTP/1.1\r\nHost: perf\r\n\r\n", i)
		return ending(bufio.NewReader(c))
	})
	st.judge(p, fmt.Sprintf("of %d look-ups at once, those over the limit are told 429", a.N), ends, "404", "429", "504")
	st.mu.Lock()
	defer st.mu.Unlock()
	st.found.check(p.Name, "no more are let in than limits.inflight, 512, and some are refused", ends["429"] >= a.N-512 && ends["404"]+ends["504"] > 0, "%v", ends)
	return nil
}

// flap freezes the devnet and thaws it, n times.
func flap(ctx context.Context, st *stay, p *phase, a act) error {
	if st.devnet == nil {
		return errors.New("flap: there is no devnet")
	}
	for range 2 * a.N {
		if err := st.devnet.freeze(); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return errors.Join(st.devnet.thaw(), ctx.Err())
		case <-time.After(time.Duration(float64(flapEvery) * st.b.scale)):
		}
	}
	return st.devnet.thaw()
}
