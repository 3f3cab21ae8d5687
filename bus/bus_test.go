package bus

import (
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func Example() {
	b := New(8)
	events, cancel := b.Subscribe()
	b.Publish(Event{Kind: "name", Key: "name:go/src"})
	cancel()
	for e := range events {
		fmt.Println(e.Kind, e.Key)
	}
	// Output: name name:go/src
}

func TestEverySubscriberSeesEveryEvent(t *testing.T) {
	b := New(4)
	one, _ := b.Subscribe()
	two, _ := b.Subscribe()
	for i := range 4 {
		b.Publish(Event{Key: fmt.Sprint(i)})
	}
	b.Close()
	for _, ch := range []<-chan Event{one, two} {
		for i := range 4 {
			if e := <-ch; e.Key != fmt.Sprint(i) {
				t.Errorf("event %d is %q; order is part of the bargain", i, e.Key)
			}
		}
		if _, open := <-ch; open {
			t.Error("the channel is open after Close")
		}
	}
	if n := b.Lagged(); n != 0 {
		t.Errorf("%d events lagged with room for all", n)
	}
}

func TestASlowSubscriberLosesOnlyItsOwnEvents(t *testing.T) {
	b := New(2)
	slow, cancelSlow := b.Subscribe()
	fast, cancelFast := b.Subscribe()
	defer cancelSlow()
	defer cancelFast()
	for i := range 5 {
		b.Publish(Event{Key: fmt.Sprint(i)})
		if e := <-fast; e.Key != fmt.Sprint(i) {
			t.Errorf("fast reader got %q, want %d", e.Key, i)
		}
	}
	if n := b.Lagged(); n != 3 {
		t.Errorf("Lagged() = %d, want the 3 that did not fit", n)
	}
	if e := <-slow; e.Key != "0" {
		t.Errorf("slow reader's first is %q, want the oldest", e.Key)
	}
}

func TestEndingsAreSafeInAnyOrder(t *testing.T) {
	b := New(0)
	_, cancel := b.Subscribe()
	cancel()
	cancel()
	_, late := b.Subscribe()
	if n := b.Subscribers(); n != 1 {
		t.Errorf("Subscribers() = %d, want 1", n)
	}
	b.Close()
	b.Close()
	late()
	b.Publish(Event{}) // nobody there, nothing happens
	ch, gone := b.Subscribe()
	if _, open := <-ch; open {
		t.Error("a subscription after Close is open")
	}
	gone()
}

// Publish waits for nobody: in the bubble a blocked publisher would be found
// as a deadlock.
func TestPublishNeverWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := New(1)
		_, cancel := b.Subscribe()
		defer cancel()
		var wg sync.WaitGroup
		for range 8 {
			wg.Go(func() {
				for range 100 {
					b.Publish(Event{At: time.Now()})
				}
			})
		}
		wg.Wait()
		if n := b.Lagged(); n != 799 {
			t.Errorf("Lagged() = %d, want 799", n)
		}
	})
}

func TestPublishDoesNotAllocate(t *testing.T) {
	b := New(1)
	_, cancel := b.Subscribe()
	defer cancel()
	if n := testing.AllocsPerRun(100, func() { b.Publish(Event{Kind: "name"}) }); n != 0 {
		t.Errorf("Publish allocates %v times, want 0", n)
	}
}

func BenchmarkPublish(b *testing.B) {
	bus := New(1)
	_, cancel := bus.Subscribe()
	defer cancel()
	b.ReportAllocs()
	for b.Loop() {
		bus.Publish(Event{Kind: "name"})
	}
}
