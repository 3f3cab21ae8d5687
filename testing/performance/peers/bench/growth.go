package main

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"strconv"
	"time"
)

// moreKeys asks for few keys and for many, all of them in the cache.
func (b *bench) moreKeys(ctx context.Context, s *Section) error {
	defer b.fewerRounds()()
	dir, n, err := b.million(ctx)
	if err != nil {
		return err
	}
	srv, err := b.ours("ours", filepath.Join(b.bin, "svc-index"), dir, nil, apart, fmt.Sprintf("cache.bytes=%d", max(n*1000, 64<<20)),
		"limits.max_conns=300", "limits.buffered_bytes=64MiB") // what they might take is the cache's
	if err != nil {
		return err
	}
	defer b.stop(srv)
	b.log("asking for %s keys, to have them in the cache", thousands(int64(n)))
	if err := walk(srv.addr, n); err != nil {
		return err
	}
	var xs []float64
	var sizes []int
	for k := 64; k < n; k *= 8 {
		sizes = append(sizes, k)
	}
	sizes = b.thinned(append(sizes, n))
	m := map[string][]Sample{}
	for round := range b.rounds {
		for _, k := range sizes {
			ask := b.uniform(k, b.span)
			sample, err := undisturbed(b.calm, func() (Sample, error) { return watch(ctx, srv, ask) })
			if err != nil {
				return err
			}
			if miss := 1 - float64(sample.Sources["cache"])/float64(sample.Requests); miss > .001 {
				return fmt.Errorf("%.1f %% of %d keys were not in the cache", 100*miss, k)
			}
			s.count(sample)
			name := strconv.Itoa(k)
			m[name] = append(m[name], sample)
			b.log("%d/%d %s keys: %s", round+1, b.rounds, thousands(int64(k)), sample.line("ours"))
		}
	}
	s.Samples = Samples{"keys": m}
	var c Curve
	t := Table{Title: "CPU a hit, as keys grow (one core, 64 connections, uniform)", Head: []string{"keys", "CPU us a request", "requests/s"}}
	for _, k := range sizes {
		ss := m[strconv.Itoa(k)]
		xs = append(xs, float64(k))
		c.Ys = append(c.Ys, of(ss, cpu))
		t.Rows = append(t.Rows, []string{thousands(int64(k)), of(ss, cpu).String(), of(ss, rps).String()})
	}
	c.Name, c.Xs = "svc-index", xs
	s.Tables = append(s.Tables, t)
	return s.plot("keys", Plot{Title: "CPU a hit as keys grow", X: "keys", Y: "us of CPU a request", Curves: []Curve{c}})
}

// walk asks once for each of the first n keys, sixteen at a time on each of a
// few connections.
func walk(addr string, n int) error {
	const conns, depth = 4, 16
	ended := make(chan error, conns)
	for c := range conns {
		go func() { ended <- walkPart(addr, c, n, conns, depth) }()
	}
	var first error
	for range conns {
		if err := <-ended; err != nil && first == nil {
			first = err
		}
	}
	return first
}

func walkPart(addr string, from, n, step, depth int) error {
	c, err := net.Dial("tcp", addr)
	if err != nil {
		return err
	}
	defer c.Close()
	r := bufio.NewReaderSize(c, 64<<10)
	var out bytes.Buffer
	for i := from; i < n; {
		out.Reset()
		asked := 0
		for ; asked < depth && i < n; asked, i = asked+1, i+step {
			fmt.Fprintf(&out, "GET /resolve/%s HTTP/1.1\r\nHost: x\r\n\r\n", keyName(i))
		}
		_ = c.SetDeadline(time.Now().Add(patience))
		if _, err := c.Write(out.Bytes()); err != nil {
			return err
		}
		for range asked {
			resp, err := http.ReadResponse(r, nil)
			if err != nil {
				return err
			}
			if _, err := io.Copy(io.Discard, resp.Body); err != nil {
				return err
			}
			if resp.StatusCode != http.StatusOK {
				return fmt.Errorf("asking for all keys: status %d", resp.StatusCode)
			}
		}
	}
	return nil
}

// moreConns asks over few connections and over many.
func (b *bench) moreConns(ctx context.Context, s *Section) error {
	return b.curve(ctx, s, "connections", "connections", []int{1, 8, 64, 256, 1000, 5000},
		func(n int) (ask asking, set []string) {
			return b.wrk(apart, n, 1, 0, b.span), []string{"limits.max_conns=5300"}
		})
}

// longerHeads asks with short heads and with long ones.
func (b *bench) longerHeads(ctx context.Context, s *Section) error {
	base := len(fmt.Sprintf("GET /resolve/%s HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n", b.keys[0]))
	return b.curve(ctx, s, "heads", "bytes of a request's head", []int{100, 250, 500, 1000, 2000, 4000},
		func(n int) (ask asking, set []string) {
			return b.wrk(apart, 64, 1, max(n-base, 14), b.span), nil
		})
}

// curve measures our server and fasthttp at each size.
func (b *bench) curve(ctx context.Context, s *Section, name, x string, sizes []int, at func(n int) (asking, []string)) error {
	defer b.fewerRounds()()
	servers := []string{"ours", "fasthttp"}
	sizes = b.thinned(sizes)
	var settings []setting
	called := func(n int) string { return fmt.Sprintf("%s %s", thousands(int64(n)), x) }
	for _, n := range sizes {
		ask, set := at(n)
		settings = append(settings, setting{name: called(n), at: apart, servers: servers, ask: ask, warm: b.warm(), set: set})
	}
	m, err := b.inRounds(ctx, s, settings)
	if err != nil {
		return err
	}
	t := Table{Title: "CPU a hit, as " + x + " grow (one core)", Head: []string{x, "svc-index, CPU us", "fasthttp + freecache, CPU us", "ratio"}}
	ours, peer := Curve{Name: "svc-index"}, Curve{Name: "fasthttp + freecache"}
	for _, n := range sizes {
		mine, theirs := m[called(n)]["ours"], m[called(n)]["fasthttp"]
		ours.Xs, peer.Xs = append(ours.Xs, float64(n)), append(peer.Xs, float64(n))
		ours.Ys, peer.Ys = append(ours.Ys, of(mine, cpu)), append(peer.Ys, of(theirs, cpu))
		t.Rows = append(t.Rows, []string{thousands(int64(n)), of(mine, cpu).String(), of(theirs, cpu).String(), paired(mine, theirs, cpuRatio).String()})
	}
	s.Tables = append(s.Tables, t)
	return s.plot(name, Plot{Title: "CPU a hit as " + x + " grow", X: x, Y: "us of CPU a request", Curves: []Curve{ours, peer}})
}

// thinned leaves the ends and the middle of sizes, when there is little time.
func (b *bench) thinned(sizes []int) []int {
	if !b.quick {
		return sizes
	}
	return []int{sizes[0], sizes[len(sizes)/2], sizes[len(sizes)-1]}
}

// fewerRounds has a curve measured less often than a goal: it has many points.
// The function it returns undoes it.
func (b *bench) fewerRounds() func() {
	rounds := b.rounds
	b.rounds = max(rounds/3, 1)
	return func() { b.rounds = rounds }
}
