package kaddht

import (
	"math/rand/v2"
	"time"
)

// A Hedging is how eagerly look-ups ask. It can be changed under way; a look-up
// keeps the one it began under.
type Hedging struct {
	Alpha  int           // requests in flight
	Beta   int           // and as many more each time nothing happens for After
	After  time.Duration // 0: never
	Jitter float64       // share of After by which it varies
	Budget float64       // extra requests in a minute, as a share of the others
}

// Tune puts a hedging in force.
func (n *Node) Tune(h Hedging) {
	if h.After <= 0 {
		h.Beta, h.After = 0, time.Hour
	}
	n.budget.set(h.Budget)
	n.hedging.Store(&h)
}

// patience is how long a look-up waits for progress before it asks more:
// dht.hedge, or four times what answers usually take where that is less.
func (n *Node) patience(h *Hedging) time.Duration {
	return time.Duration(float64(n.stallOf(h)) * (1 + h.Jitter*(2*rand.Float64()-1)))
}

// stall is what patience varies around, under the hedging in force.
func (n *Node) stall() time.Duration { return n.stallOf(n.hedging.Load()) }

func (n *Node) stallOf(h *Hedging) time.Duration {
	return min(h.After, max(4*n.pace.usual(), patienceMin))
}

func (n *Node) mayHedge(h *Hedging) bool {
	if h.Beta <= 0 || !n.opt.Calm() || !n.budget.allow(h.Beta, n.now()) {
		return false
	}
	n.budget.charge(0, h.Beta, n.now())
	return true
}
