package main

import (
	"bytes"
	"context"
	_ "embed"
	"encoding/json"
	"fmt"
	"os/exec"
	"path/filepath"
	"strconv"
	"time"
)

//go:embed wrk.lua
var wrkScript []byte

// run runs a client to its end, in its place.
func (b *bench) run(ctx context.Context, cores []int, procs int, path string, args ...string) (out []byte, used time.Duration, err error) {
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.Env = append(cmd.Environ(), fmt.Sprintf("GOMAXPROCS=%d", procs))
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := pinned(cores, cmd.Start); err != nil {
		return nil, 0, fmt.Errorf("starting %s: %w", path, err)
	}
	err = cmd.Wait()
	used = cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()
	if err != nil {
		err = fmt.Errorf("%s: %w\n%s%s", filepath.Base(path), err, stderr.Bytes(), stdout.Bytes())
	}
	return stdout.Bytes(), used, err
}

// wrk asks as fast as conns connections allow, depth requests at a time, with
// heads that are padding bytes longer.
func (b *bench) wrk(at place, conns, depth, padding int, d time.Duration) asking {
	return func(ctx context.Context, addr string) (s Sample, used time.Duration, err error) {
		out, used, err := b.run(ctx, at.asks, at.procs, b.wrkPath, "-t"+strconv.Itoa(at.procs), "-c"+strconv.Itoa(max(conns, at.procs)),
			"-d"+wrkSeconds(d), "-s", b.script, "http://"+addr+"/", "--", b.keyFile, strconv.Itoa(depth), strconv.Itoa(padding))
		if err != nil {
			return s, used, err
		}
		s, err = parseWrk(out)
		return s, used, err
	}
}

// wrkSeconds is a duration in the only unit wrk knows.
func wrkSeconds(d time.Duration) string { return strconv.Itoa(max(int(d.Seconds()+.5), 1)) + "s" }

// parseWrk reads the line that our script adds to wrk's output.
func parseWrk(out []byte) (s Sample, err error) {
	_, line, ok := bytes.Cut(out, []byte("RESULT "))
	if !ok {
		return s, fmt.Errorf("wrk said no RESULT:\n%s", out)
	}
	line, _, _ = bytes.Cut(line, []byte("\n"))
	if err := json.Unmarshal(line, &s); err != nil {
		return s, fmt.Errorf("wrk said %q: %w", line, err)
	}
	if s.Seconds > 0 {
		s.RPS = float64(s.Requests) / s.Seconds
	}
	return s, nil
}

// loadgen runs our own generator, which polls and never sleeps, so that it is
// never late.
func (b *bench) loadgen(at place, args ...string) asking {
	return func(ctx context.Context, addr string) (s Sample, used time.Duration, err error) {
		all := append([]string{"loadgen", "--server", "http://" + addr, "--spin", "1s", "--json", "-"}, args...)
		out, used, err := b.run(ctx, at.asks, 1, filepath.Join(b.bin, "svc-index"), all...)
		if err != nil && len(out) == 0 {
			return s, used, err
		}
		s, err = parseLoadgen(out)
		return s, used, err
	}
}

// warm asks for the few keys for a moment, so that they are in the cache and the
// server has its stride.
func (b *bench) warm() asking { return b.uniform(hotKeys, 400*time.Millisecond) }

// parseLoadgen reads a report of loadgen's.
func parseLoadgen(out []byte) (s Sample, err error) {
	var r struct {
		Valid    bool
		Reason   []string `json:"invalid_because"`
		Requests struct {
			Answered, Failed, OK int64
			Rate                 float64 `json:"answered_per_s"`
		}
		Setup struct {
			Duration float64 `json:"duration_s"`
		}
		Response struct {
			P50, P90, P99 float64
			P999          float64 `json:"p99_9"`
		} `json:"response_us"`
		Sources []struct {
			Name     string
			Response struct{ Count int64 } `json:"response_us"`
		}
	}
	if err := json.Unmarshal(out, &r); err != nil {
		return s, fmt.Errorf("loadgen said no report: %w\n%s", err, out)
	}
	s = Sample{
		Requests: r.Requests.Answered, Failed: r.Requests.Failed + r.Requests.Answered - r.Requests.OK, RPS: r.Requests.Rate,
		P50: r.Response.P50, P90: r.Response.P90, P99: r.Response.P99, P999: r.Response.P999,
		Invalid: r.Reason, Sources: map[string]int64{},
	}
	if s.RPS > 0 {
		s.Seconds = float64(s.Requests) / s.RPS
	}
	for _, src := range r.Sources {
		s.Sources[src.Name] = src.Response.Count
	}
	return s, nil
}
