package kaddht

import (
	"sync"
	"time"
)

// What hedging may cost.
const (
	budgetSteps = 6 // parts of a minute that are forgotten one by one
	budgetStep  = 10 * time.Second
	budgetFloor = 20 // hedges a minute that are always allowed, or the first look-up could have none
)

// A budget keeps the extra requests of the last minute to a share of the
// ordinary ones, so that hedging cannot make an overload worse.
type budget struct {
	mu sync.Mutex
	// Fields below are protected by mu.
	share float64
	plain [budgetSteps]int
	extra [budgetSteps]int
	at    int64 // the step that is counted in now
}

// set changes the share.
func (b *budget) set(share float64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.share = share
}

// charge counts requests that were sent.
func (b *budget) charge(plain, extra int, now time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	i := b.step(now)
	b.plain[i] += plain
	b.extra[i] += extra
}

// allow reports whether n extra requests fit.
func (b *budget) allow(n int, now time.Time) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.share <= 0 {
		return false
	}
	b.step(now)
	plain, extra := 0, 0
	for i := range budgetSteps {
		plain += b.plain[i]
		extra += b.extra[i]
	}
	return float64(extra+n) <= max(b.share*float64(plain), budgetFloor)
}

// step returns the part of the minute that now is in, forgetting what is over
// a minute old.
func (b *budget) step(now time.Time) int {
	at := now.UnixNano() / int64(budgetStep)
	for n := max(b.at+1, at-budgetSteps+1); n <= at; n++ {
		b.plain[n%budgetSteps], b.extra[n%budgetSteps] = 0, 0
	}
	b.at = max(b.at, at)
	return int(b.at % budgetSteps)
}
