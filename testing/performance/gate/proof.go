package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"svcindex/testing/performance/compare"
)

// A fault is something bad that a rig can be told to do, and the gates that
// have to see it.
type fault struct {
	env   string
	gates []string
}

// faults are planted all at once: no two of them speak for the same gate.
var faults = []fault{
	{"RIG_HIT_BURN=120us", []string{"p95 hit", "throughput", "cpu"}},
	{"RIG_DB_DELAY=1ms", []string{"p95 miss"}},
	{"RIG_DB_LEAK=16384", []string{"memory"}},
	{"RIG_NET_SLOWER=1.3", []string{"p95 inter-region"}},
}

// prove holds this build to itself with faults planted, and succeeds if every
// gate fails: first the counted one, then those that are measured, which have
// to fail twice, as for anybody.
func (o *options) prove(ctx context.Context) error {
	if err := proveAllocs(ctx); err != nil {
		return err
	}
	p := *o
	p.null = true
	for _, f := range faults {
		p.env = append(p.env, f.env)
	}
	builds, err := makeBuilds(ctx, &p)
	if err != nil {
		return err
	}
	defer builds.remove()
	m := measured{Host: thisHost(), Base: builds.base.rev, New: builds.now.rev + " with " + strings.Join(p.env, " "), Taken: time.Now().UTC()}
	fmt.Printf("%s, %s against itself with %s, %d rounds twice\n", m.Host.Class, m.Base, strings.Join(p.env, " "), o.rounds)
	var found []compare.Verdict
	for range 2 {
		if found, err = o.series(ctx, builds, &m, found); err != nil {
			return err
		}
	}
	fmt.Print("\n", compare.Table(found))
	if err := writeJSON(o.out, m); err != nil {
		return err
	}
	return unseen(found)
}

// unseen names the gates that a planted fault did not fail.
func unseen(vs []compare.Verdict) error {
	var blind []string
	for _, f := range faults {
		for _, gate := range f.gates {
			i := slices.IndexFunc(vs, func(v compare.Verdict) bool { return v.Name == gate })
			if i < 0 || vs[i].State != compare.Failed {
				blind = append(blind, fmt.Sprintf("%s, with %s", gate, f.env))
			}
		}
	}
	if blind != nil {
		return fmt.Errorf("planted and not seen: %s", strings.Join(blind, "; "))
	}
	fmt.Println("every gate saw what was planted")
	return nil
}

// The place of the planted allocation: what a lane does for every push.
const (
	plantIn    = "queue/lane.go"
	plantAfter = "room := uint64(len(l.ring)) - (tail - l.head.Load())\n"
)

// proveAllocs plants an allocation in a hot path, for the compiler alone, and
// succeeds if the gate of allocations fails.
func proveAllocs(ctx context.Context) error {
	dir, err := os.MkdirTemp("", "gate")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	overlay, err := plant(dir)
	if err != nil {
		return err
	}
	err = allocations(ctx, false, "-overlay", overlay)
	if !errors.Is(err, errAllocs) {
		return fmt.Errorf("an allocation was planted in %s, and the gate says: %v", plantIn, err)
	}
	fmt.Println("as it should, with one planted in", plantIn)
	return nil
}

// plant writes what go build -overlay takes.
func plant(dir string) (overlay string, err error) {
	from, err := filepath.Abs(plantIn)
	if err != nil {
		return "", err
	}
	text, err := os.ReadFile(from)
	if err != nil {
		return "", err
	}
	before, after, ok := strings.Cut(string(text), plantAfter)
	if !ok {
		return "", fmt.Errorf("%s has no line %q to plant after", plantIn, plantAfter)
	}
	to := filepath.Join(dir, "planted.go")
	planted := before + plantAfter + "\tplanted = new([16]byte)\n" + after + "\nvar planted *[16]byte\n"
	if err := os.WriteFile(to, []byte(planted), 0o600); err != nil {
		return "", err
	}
	overlay = filepath.Join(dir, "overlay.json")
	list, err := json.Marshal(map[string]map[string]string{"Replace": {from: to}})
	if err != nil {
		return "", err
	}
	return overlay, os.WriteFile(overlay, list, 0o600)
}
