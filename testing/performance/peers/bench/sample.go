package main

import (
	"context"
	"fmt"
	"time"
)

// A Sample is one run of one client against one server.
type Sample struct {
	Requests  int64            `json:"requests"`
	Failed    int64            `json:"failed,omitempty"` // not answered, or not with 200
	Seconds   float64          `json:"seconds"`
	RPS       float64          `json:"rps"`
	CPU       float64          `json:"cpu_us"` // of the server, a request
	Busy      float64          `json:"busy"`   // processors the server used
	Client    float64          `json:"client"` // processors the client used
	P50       float64          `json:"p50_us,omitempty"`
	P90       float64          `json:"p90_us,omitempty"`
	P99       float64          `json:"p99_us,omitempty"`
	P999      float64          `json:"p99_9_us,omitempty"`
	Mallocs   float64          `json:"mallocs,omitempty"` // a request
	Sources   map[string]int64 `json:"sources,omitempty"`
	Others    float64          `json:"others"` // processors that others used
	Steal     float64          `json:"steal"`  // processors that the host kept
	Tries     int              `json:"tries"`
	Disturbed bool             `json:"disturbed,omitempty"` // in every try
	Invalid   []string         `json:"invalid,omitempty"`   // the client says that it was the limit
}

// What others may take, in processors, before a run is done again. The kernel
// counts others in ticks of 10 ms, and its own threads are among them: a quiet
// machine shows up to 0.03.
const (
	othersMax = 0.08
	stealMax  = 0.04
)

// noise is how much a run was disturbed; 1 is too much.
func (s Sample) noise() float64 { return max(s.Others/othersMax, s.Steal/stealMax) }

// An asking is a client at work. It returns what the client has seen, and the
// processor time the client has used.
type asking func(ctx context.Context, addr string) (Sample, time.Duration, error)

// account completes a sample with what the kernel has counted meanwhile.
func account(s Sample, wall, server, client time.Duration, from, to machine) Sample {
	secs := wall.Seconds()
	s.Busy, s.Client = server.Seconds()/secs, client.Seconds()/secs
	s.Steal = (to.steal - from.steal) / secs
	s.Others = max((to.busy-from.busy)/secs-s.Busy-s.Client, 0)
	if s.Requests > 0 {
		s.CPU = server.Seconds() * 1e6 / float64(s.Requests)
	}
	return s
}

// watch runs a client once and accounts for it.
func watch(ctx context.Context, srv *server, ask asking) (Sample, error) {
	allocs := srv.allocs()
	from, err := readMachine()
	if err != nil {
		return Sample{}, err
	}
	before, err := cpuOfAll(srv.pid())
	if err != nil {
		return Sample{}, fmt.Errorf("%s has gone: %w\n%s", srv.name, err, srv.said())
	}
	began := time.Now()
	s, client, err := ask(ctx, srv.addr)
	if err != nil {
		return s, fmt.Errorf("%s: %w\n%s", srv.name, err, srv.said())
	}
	wall := time.Since(began)
	after, err := cpuOfAll(srv.pid())
	if err != nil {
		return s, fmt.Errorf("%s has gone: %w\n%s", srv.name, err, srv.said())
	}
	to, err := readMachine()
	if err != nil {
		return s, err
	}
	if now := srv.allocs(); now.requests > allocs.requests {
		s.Mallocs = max(now.mallocs-allocs.mallocs-now.scrape, 0) / (now.requests - allocs.requests)
	}
	return account(s, wall, after-before, client, from, to), nil
}

// tries is how often a run is done before a disturbed one is taken.
const tries = 4

// undisturbed runs a client until a run was not disturbed. After one that was
// it waits for calm. If all were, it returns the one that was least, and says
// so in it.
func undisturbed(calm func(), run func() (Sample, error)) (Sample, error) {
	var all []Sample
	for len(all) < tries {
		if len(all) > 0 {
			calm()
		}
		s, err := run()
		if err != nil {
			return s, err
		}
		all = append(all, s)
		if s.noise() <= 1 {
			break
		}
	}
	s := least(all)
	s.Tries, s.Disturbed = len(all), s.noise() > 1
	return s, nil
}

// calm waits until others leave the processors alone, or for so long that they
// will not.
func (b *bench) calm() {
	const look, most = 300 * time.Millisecond, 20 * time.Second
	for end := time.Now().Add(most); time.Now().Before(end); {
		from, err := readMachine()
		time.Sleep(look)
		to, err2 := readMachine()
		if err != nil || err2 != nil || (to.busy-from.busy)/look.Seconds() < othersMax {
			return
		}
	}
}
