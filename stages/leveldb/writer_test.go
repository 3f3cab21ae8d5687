package leveldb

import (
	"testing"

	"svcindex/index"
)

// A call that the writer has not come by for is answered when the store shuts
// or closes, and the writer leaves it alone from then on.
func TestACallIsTakenBackOnce(t *testing.T) {
	for _, why := range []string{"shut", "closed"} {
		d, err := newDB(Options{Path: t.TempDir()}) // nobody writes
		if err != nil {
			t.Fatal(err)
		}
		failed := make(chan error)
		go func() { failed <- d.Commit([]*index.Mutation{{}}) }()
		c := <-d.calls
		d.calls <- c
		if why == "shut" {
			d.shut(index.Broken)
		} else {
			close(d.quit)
		}
		if err := <-failed; err == nil {
			t.Errorf("%s: a write that nobody took was acknowledged", why)
		}
		if c := <-d.calls; c.take() {
			t.Errorf("%s: the writer would answer a caller who has gone", why)
		}
	}
}

// What the writer has taken he answers, whatever happens meanwhile.
func TestACallInHandIsAnsweredByTheWriter(t *testing.T) {
	d, err := newDB(Options{Path: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	failed := make(chan error)
	go func() { failed <- d.Commit([]*index.Mutation{{}}) }()
	c := <-d.calls
	if !c.take() {
		t.Fatal("a call that waits is not the writer's to take")
	}
	close(d.quit)
	c.done <- nil
	if err := <-failed; err != nil {
		t.Errorf("a durable write was answered with %v", err)
	}
}
