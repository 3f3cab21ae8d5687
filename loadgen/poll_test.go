package loadgen

import (
	"runtime"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// The runtime does not know that a thread in a raw wait sleeps. Were it not to
// be woken, a collection of garbage would take as long as the wait.
func TestARawWaitEndsWhenTheRuntimeStopsEverybody(t *testing.T) {
	p, err := newPoller(true)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(p.fd)
	done := make(chan int)
	go func() { done <- p.wait(time.Hour) }()
	for {
		runtime.GC()
		select {
		case n := <-done:
			if n != 0 {
				t.Errorf("%d events of nothing", n)
			}
			return
		default:
		}
	}
}
