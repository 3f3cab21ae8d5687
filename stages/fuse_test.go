package stages

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"svcindex/index"
)

// burn reports n calls that ended as k. It fails the test if one is refused.
func burn(t *testing.T, f *fuse, n int, k index.Kind) {
	t.Helper()
	for range n {
		report, err := f.allow()
		if err != nil {
			t.Fatalf("a call was refused: %v", err)
		}
		report(k)
	}
}

const (
	closed   = 0
	halfOpen = 1
	open     = 2
)

func TestAFuseOpensWhenHalfTheCallsFail(t *testing.T) {
	for _, tt := range []struct {
		why           string
		well, failing int
		want          int
	}{
		{"all is well", 100, 0, closed},
		{"too few to mean anything", 0, 19, closed},
		{"enough, and all failing", 0, 20, open},
		{"half of them", 10, 10, open},
		{"less than half", 11, 9, closed},
		{"less than half of many", 60, 59, closed},
	} {
		synctest.Test(t, func(t *testing.T) {
			f := newFuse("room", testBreaker)
			burn(t, f, tt.well, index.Missing)
			burn(t, f, tt.failing, index.Down)
			if f.state() != tt.want || f.blown() != (tt.want == open) {
				t.Errorf("%s: state %d, blown %v; want %d", tt.why, f.state(), f.blown(), tt.want)
			}
		})
	}
}

func TestWhatBlowsAFuse(t *testing.T) {
	for _, k := range []index.Kind{
		index.OK, index.Missing, index.Invalid, index.Unsupported, index.TooLarge, index.BadType, index.Conflict,
		index.Busy, index.Late, index.Down, index.Full, index.Broken,
	} {
		// It measures the neighbour, not the question.
		want := k == index.Late || k == index.Down || k == index.Broken
		synctest.Test(t, func(t *testing.T) {
			f := newFuse("room", testBreaker)
			burn(t, f, 20, k)
			if f.blown() != want || failure(k) != want {
				t.Errorf("twenty times %v: blown %v, want %v", k, f.blown(), want)
			}
		})
	}
	synctest.Test(t, func(t *testing.T) {
		f := newFuse("room", testBreaker)
		for range 20 {
			report, _ := f.allow()
			report(errors.New("something strange"))
		}
		if !f.blown() {
			t.Error("a step that failed without saying why counts as well")
		}
	})
}

// A blown fuse, in a bubble's fake time.
func blown(t *testing.T) *fuse {
	t.Helper()
	f := newFuse("room", testBreaker)
	burn(t, f, 20, index.Down)
	if !f.blown() {
		t.Fatal("twenty failures did not open it")
	}
	return f
}

func TestAnOpenFuseRefusesUntilItHasCooled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := blown(t)
		if _, err := f.allow(); err == nil {
			t.Error("an open fuse lets a call through")
		}
		time.Sleep(testBreaker.Cooldown)
		if !f.blown() {
			t.Error("it has cooled too soon")
		}
		time.Sleep(time.Nanosecond)
		if f.state() != halfOpen || f.blown() {
			t.Errorf("after the cooldown: state %d, blown %v; want half-open", f.state(), f.blown())
		}
	})
}

func TestAHalfOpenFuseLetsProbesThroughAndNoMore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := blown(t)
		time.Sleep(testBreaker.Cooldown + 1)
		var reports []func(error)
		for range testBreaker.Probes {
			report, err := f.allow()
			if err != nil {
				t.Fatalf("a probe was refused: %v", err)
			}
			reports = append(reports, report)
		}
		if _, err := f.allow(); err == nil {
			t.Error("a call too many was let through")
		}
		for i, report := range reports {
			if f.state() != halfOpen {
				t.Errorf("after %d probes it is %d, want half-open", i, f.state())
			}
			report(index.Missing) // an absence is an answer
		}
		if f.state() != closed {
			t.Errorf("after all probes went well it is %d, want closed", f.state())
		}
		burn(t, f, 19, index.Down) // what it counted before is forgotten
		if f.state() != closed {
			t.Error("it opened on fewer calls than mean anything")
		}
	})
}

func TestOneFailingProbeOpensTheFuseAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := blown(t)
		time.Sleep(testBreaker.Cooldown + 1)
		burn(t, f, 2, index.OK)
		late, err := f.allow()
		if err != nil {
			t.Fatal(err)
		}
		late(index.Late)
		if f.state() != open {
			t.Errorf("it is %d, want open", f.state())
		}
		time.Sleep(testBreaker.Cooldown + 1)
		burn(t, f, 3, index.OK)
		if f.state() != closed {
			t.Errorf("the second time it is %d, want closed", f.state())
		}
	})
}

func TestACallOfAnEarlierTimeDoesNotCount(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFuse("room", testBreaker)
		hangs, err := f.allow()
		if err != nil {
			t.Fatal(err)
		}
		burn(t, f, 19, index.Down) // the twentieth is the one that hangs
		if f.state() != open {
			t.Fatalf("it is %d, want open", f.state())
		}
		time.Sleep(testBreaker.Cooldown + 1)
		if f.state() != halfOpen {
			t.Fatalf("it is %d, want half-open", f.state())
		}
		hangs(index.Down)
		if f.state() != halfOpen {
			t.Error("a call from before it opened was taken for a failing probe")
		}
	})
}

func TestFailuresAreForgottenAfterTheWindow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFuse("room", testBreaker)
		burn(t, f, 19, index.Down)
		time.Sleep(testBreaker.Window + testBreaker.Window/10)
		burn(t, f, 19, index.Down)
		if f.state() != closed {
			t.Error("failures from before the window count still")
		}
		burn(t, f, 1, index.Down)
		if f.state() != open {
			t.Error("twenty failures in the window did not open it")
		}
	})
}
