package leveldb

import (
	"fmt"
	"strings"
	"syscall"
	"testing"

	"svcindex/index"
)

// byHand is a store whose writer is the test.
func byHand(t *testing.T) (*DB, *engine) {
	t.Helper()
	d := manual(t, t.TempDir())
	e := d.engine.Load()
	t.Cleanup(func() { _ = e.retire(nil) })
	return d, e
}

// manual is byHand at a place of the test's own, who retires the engine.
func manual(t *testing.T, dir string) *DB {
	t.Helper()
	d, err := newDB(options(dir, newClock(), nil))
	must(t, err)
	e, last, err := d.openEngine(false)
	must(t, err)
	must(t, d.adopt(e, last))
	return d
}

// alone makes a write durable, in a batch of its own.
func (h *house) alone(m *index.Mutation) {
	h.t.Helper()
	done := committing(h.t, h.DB, m)
	made(h.t, h.DB, h.take(h.engine.Load(), nil))
	must(h.t, <-done)
}

// committing commits, and returns once its part of the batch is built.
func committing(t *testing.T, d *DB, ms ...*index.Mutation) chan error {
	t.Helper()
	done := make(chan error, 1)
	go func() { done <- d.Commit(ms) }()
	<-d.waiting
	return done
}

// made makes a group durable, as the writer does.
func made(t *testing.T, d *DB, g *group) {
	t.Helper()
	must(t, d.flush(g.txn))
	g.end(nil)
}

func answered(done chan error) bool { return len(done) > 0 }

// What is built while the batch before is not durable yet meets that batch's
// rows, and is answered after it.
func TestABatchIsBuiltUponTheOneBefore(t *testing.T) {
	d, e := byHand(t)
	first := putName(t, "name:a", "one", 5)
	one := committing(t, d, first, putManifest("one"))
	g1 := d.take(e, nil)
	old, next, same := putName(t, "name:a", "two", 5), putName(t, "name:a", "two", 6), putManifest("one")
	two := committing(t, d, old, next, same)
	if old.Err != index.Conflict || old.Current != 5 || next.Err != nil || same.Err != nil || same.Created {
		t.Errorf("built upon %v: %v (current %d), %v, %v (created %v)", first, old.Err, old.Current, next.Err, same.Err, same.Created)
	}
	if answered(one) || answered(two) {
		t.Error("a write was answered before it was durable")
	}
	made(t, d, g1)
	must(t, <-one)
	g2 := d.take(e, nil)
	if answered(two) {
		t.Error("a write was answered with the batch before its own")
	}
	made(t, d, g2)
	must(t, <-two)
	if g2.txn.tally.Batch != g1.txn.tally.Batch+1 || g2.txn.tally.Names != 1 || g2.txn.tally.Manifests != 1 {
		t.Errorf("after %+v the store counts %+v", g1.txn.tally, g2.txn.tally)
	}
	j := &index.Job{Ask: index.AskResolve, Key: key_(t, "name:a")}
	if err := d.Get(j); err != nil || j.Answer.Name.Seq != 6 {
		t.Errorf("the name reads %+v, %v", j.Answer.Name, err)
	}
}

// A write that changes nothing, because the batch under way holds it already,
// is as durable as that batch: it is not answered before.
func TestWhatIsSaidTwiceWaitsForTheFirst(t *testing.T) {
	d, e := byHand(t)
	one := committing(t, d, putManifest("one"))
	g1 := d.take(e, nil)
	two := committing(t, d, putManifest("one"))
	if answered(two) {
		t.Error("a manifest that is not durable was called held")
	}
	made(t, d, g1)
	must(t, <-one)
	g2 := d.take(e, nil)
	if n := len(g2.txn.ops); n != 0 {
		t.Errorf("%d rows were written for what is there", n)
	}
	made(t, d, g2)
	must(t, <-two)
}

// What is built upon a batch that failed fails with it, and leaves nothing.
func TestNothingIsBuiltUponABatchThatFailed(t *testing.T) {
	for _, why := range []string{"shut", "closed"} {
		d, e := byHand(t)
		batch := d.tally.Load().Batch
		one := committing(t, d, putName(t, "name:a", "one", 1))
		g1 := d.take(e, nil)
		two := committing(t, d, putName(t, "name:a", "two", 2))
		if why == "shut" {
			d.shut(syscall.EIO)
		} else {
			close(d.quit)
		}
		g1.end(index.Down)
		d.fail(index.Down)
		for i, done := range []chan error{one, two} {
			if err := <-done; err == nil {
				t.Errorf("%s: write %d of a batch that failed was acknowledged", why, i+1)
			}
		}
		if err := d.Commit([]*index.Mutation{putName(t, "name:b", "b", 1)}); err == nil {
			t.Errorf("%s: a later write was acknowledged", why)
		}
		must(t, d.turn(e, func(t *txn) { t.put([]byte(keyCanary), []byte("x")) }))
		if n := d.tally.Load(); n.Batch != batch+1 || n.Names != 0 {
			t.Errorf("%s: after batch %d came %+v", why, batch, n)
		}
	}
}

// A bug in one call costs those who share its batch, and no other.
func TestABugCostsItsBatch(t *testing.T) {
	d, e := byHand(t)
	one := committing(t, d, putName(t, "name:a", "a", 1))
	bug := make(chan error, 1)
	go func() { bug <- d.Commit([]*index.Mutation{nil}) }()
	for i, done := range []chan error{one, bug} {
		if err := <-done; index.KindOf(err) != index.Broken {
			t.Errorf("call %d: %v, want that it is a bug", i, err)
		}
	}
	two := committing(t, d, putName(t, "name:a", "a", 1))
	made(t, d, d.take(e, nil))
	must(t, <-two)
}

// A batch takes only so much; who comes then waits for the next.
func TestAFullBatchMakesTheNextCallWait(t *testing.T) {
	d, e := byHand(t)
	var done []chan error
	for i := range groupBytes / index.ManifestMax {
		body := fmt.Sprint(i, strings.Repeat("x", index.ManifestMax-1))
		done = append(done, committing(t, d, putManifest(body)))
	}
	late := make(chan error, 1)
	m := putManifest("late")
	go func() { late <- d.Commit([]*index.Mutation{m}) }()
	g := d.take(e, nil)
	made(t, d, g)
	for _, c := range done {
		must(t, <-c)
	}
	<-d.waiting
	if g.size != groupBytes {
		t.Errorf("the batch holds %d bytes, want %d", g.size, groupBytes)
	}
	made(t, d, d.take(e, nil))
	must(t, <-late)
}
