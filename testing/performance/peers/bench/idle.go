package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"time"
)

// crowd opens n connections, asks once on each, and leaves them open.
func crowd(addr, key string, n int) (conns []net.Conn, err error) {
	for range n {
		c, err := net.DialTimeout("tcp", addr, patience)
		if err != nil {
			return conns, err
		}
		conns = append(conns, c)
		_ = c.SetDeadline(time.Now().Add(patience))
		if _, err := fmt.Fprintf(c, "GET /resolve/%s HTTP/1.1\r\nHost: x\r\n\r\n", key); err != nil {
			return conns, err
		}
		resp, err := http.ReadResponse(bufio.NewReaderSize(c, 1<<10), nil)
		if err != nil {
			return conns, err
		}
		if _, err := io.Copy(io.Discard, resp.Body); err != nil || resp.StatusCode != http.StatusOK {
			return conns, fmt.Errorf("connection %d: status %d, %v", len(conns), resp.StatusCode, err)
		}
	}
	return conns, nil
}

// idle measures what connections cost that were used once and are kept.
func (b *bench) idle(ctx context.Context, s *Section) error {
	const n = 5000
	srv, err := b.ours("ours", filepath.Join(b.bin, "svc-index"), b.few, nil, together, fmt.Sprintf("limits.max_conns=%d", n+200))
	if err != nil {
		return err
	}
	defer b.stop(srv)
	const few = 100 // so that what the first connections make is not charged to the others
	first, err := crowd(srv.addr, b.keys[0], few)
	defer closeAll(first)
	if err != nil {
		return err
	}
	memory := func() (float64, error) {
		srv.get("/debug/pprof/heap?gc=1")
		srv.get("/debug/pprof/heap?gc=1") // what finalizers let go
		m, err := resident(srv.pid())
		return float64(m), err
	}
	quiet, err := b.sleeping(ctx, srv)
	if err != nil {
		return err
	}
	before, err := memory()
	if err != nil {
		return err
	}
	all, err := crowd(srv.addr, b.keys[0], n)
	defer closeAll(all)
	if err != nil {
		return err
	}
	after, err := memory()
	if err != nil {
		return err
	}
	busy, err := b.sleeping(ctx, srv)
	if err != nil {
		return err
	}
	if open := srv.metric("connections_open"); open > 0 && open < n {
		return fmt.Errorf("%v connections are open, want %d", open, n)
	}
	each := (after - before) / n / 1024
	b.log("idle: %.3f %% of a core with %d connections, %.3f %% with %d; %.2f KiB a connection", busy, n+few, quiet, few, each)
	s.Rows = []Row{
		{What: "CPU with 5,000 idle connections, of a core", Goal: 1, Unit: "%", Found: spread([]float64{busy})},
		{What: "memory an idle connection (resident, after a collection)", Goal: 8, Unit: "KiB", Found: spread([]float64{each})},
	}
	s.Text = append(s.Text, fmt.Sprintf("With %d connections the same server used %s %% of a core. The kernel's own memory for sockets is not in the figure.", few, number(quiet)))
	return nil
}

// sleeping returns the share of a core, in percent, that a server uses while
// nobody asks it anything.
func (b *bench) sleeping(ctx context.Context, srv *server) (float64, error) {
	d := 10 * time.Second
	if b.quick {
		d = 3 * time.Second
	}
	from, err := cpuOf(srv.pid())
	if err != nil {
		return 0, err
	}
	select {
	case <-time.After(d):
	case <-ctx.Done():
		return 0, ctx.Err()
	}
	to, err := cpuOf(srv.pid())
	return 100 * (to - from).Seconds() / d.Seconds(), err
}

func closeAll(cs []net.Conn) {
	for _, c := range cs {
		_ = c.Close()
	}
}
