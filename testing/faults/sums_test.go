package faults

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"
)

// A tally counts answers by status.
type tally struct {
	mu sync.Mutex
	n  map[int]int
}

func (c *tally) add(status int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.n == nil {
		c.n = make(map[int]int)
	}
	c.n[status]++
}

func (c *tally) of(statuses ...int) (n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, s := range statuses {
		n += c.n[s]
	}
	return n
}

func (c *tally) all() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	sum := 0
	for _, n := range c.n {
		sum += n
	}
	return sum
}

func (c *tally) String() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	var parts []string
	for _, s := range slices.Sorted(maps.Keys(c.n)) {
		parts = append(parts, fmt.Sprintf("%d: %d", s, c.n[s]))
	}
	return strings.Join(parts, ", ")
}

// quantile returns the q-quantile of durations, which it sorts.
func quantile(ds []time.Duration, q float64) time.Duration {
	if len(ds) == 0 {
		return 0
	}
	slices.Sort(ds)
	return ds[min(int(q*float64(len(ds))), len(ds)-1)]
}
