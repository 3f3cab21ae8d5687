package kaddht

import (
	"testing"
	"time"
)

func TestAHedgingIsChangedUnderWay(t *testing.T) {
	n := &Node{budget: new(budget)}
	n.opt.Calm = func() bool { return true }
	n.now = time.Now
	n.Tune(Hedging{Alpha: 3, Beta: 2, After: time.Second, Budget: 1})
	was := n.hedging.Load()
	n.budget.charge(100, 0, n.now())
	if !n.mayHedge(was) {
		t.Error("on, and it may not")
	}
	n.Tune(Hedging{Alpha: 5, Beta: 2, After: time.Second})
	if n.mayHedge(n.hedging.Load()) {
		t.Error("the budget is 0, and it may")
	}
	n.Tune(Hedging{Alpha: 5, Beta: 2, Budget: 1})
	if h := n.hedging.Load(); n.mayHedge(h) {
		t.Error("hedging is off, and it may")
	}
	if was.Alpha != 3 || was.Beta != 2 {
		t.Error("who began under the old one has another now")
	}
}
