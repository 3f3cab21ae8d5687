package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"slices"
	"strings"

	"svcindex/testing/performance/compare"
)

// benchmarked are packages whose benchmarks allocate the same each time.
var benchmarked = []string{"./queue", "./index", "./netio", "./stages", "./stages/ram"}

// errAllocs says that something allocates more than it did.
var errAllocs = errors.New("benchmarks allocate more than they did")

// allocations compares what benchmarks allocate with what is kept. more are
// flags of go test.
func allocations(ctx context.Context, save bool, more ...string) error {
	// So many rounds of each that what is allocated once rounds to nothing.
	args := append([]string{"test", "-run", "^$", "-bench", ".", "-benchmem", "-benchtime", "2000x", "-count", "1"}, more...)
	args = append(args, benchmarked...)
	cmd := exec.CommandContext(ctx, "go", args...)
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		return fmt.Errorf("go %s: %w\n%s", strings.Join(args, " "), err, out)
	}
	now := compare.ParseBench(string(out))
	if len(now) == 0 {
		return errors.New("no benchmark ran")
	}
	if save {
		return writeJSON(allocsFile, now)
	}
	base := compare.Allocs{}
	text, err := os.ReadFile(allocsFile)
	if err == nil {
		err = json.Unmarshal(text, &base)
	}
	if err != nil {
		return fmt.Errorf("%w; make one with: go run ./testing/performance/gate -allocs -save", err)
	}
	vs := compare.DecideAllocs(base, now)
	bad := 0
	for _, v := range vs {
		if v.State == compare.Failed {
			bad++
			fmt.Printf("%s: %v allocs/op, was %v: %s\n", v.Name, v.New, v.Base, v.Why)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(now)) {
		if _, there := base[name]; !there {
			fmt.Printf("%s: %v allocs/op, and nobody holds it to that: gate -allocs -save\n", name, now[name])
		}
	}
	if bad > 0 {
		return fmt.Errorf("%d of %d %w", bad, len(vs), errAllocs)
	}
	fmt.Printf("%d benchmarks allocate no more than they did\n", len(vs))
	return nil
}
