package main

import (
	"math"
	"runtime/debug"
	"testing"
)

func TestGarbageIsHeldToWhatIsAliveBesideTheCache(t *testing.T) {
	const mib = 1 << 20
	for _, c := range []struct {
		name              string
		live, cache, made uint64
		garbage           uint64 // allowed
	}{
		{"before the first collection the cache is all that is known", 0, 256 * mib, 0, leastGarbage},
		{"little is alive and little is made", 266 * mib, 256 * mib, mib, leastGarbage},
		{"as much garbage as is alive beside the cache", 356 * mib, 256 * mib, mib, 100 * mib},
		{"a collection a second, not more", 266 * mib, 256 * mib, 120 * mib, 120 * mib},
		{"never more than Go itself would allow", 266 * mib, 256 * mib, 4096 * mib, 266 * mib},
		{"a small cache", 20 * mib, 8 * mib, 0, leastGarbage},
		{"nothing alive, no cache", 0, 0, 0, 0},
	} {
		p := garbagePercent(c.live, c.cache, c.made)
		live := max(c.live, c.cache)
		if got, step := uint64(p)*live/100, live/100; math.Abs(float64(got)-float64(c.garbage)) > float64(step) {
			t.Errorf("%s: GOGC=%d allows %d MiB of garbage, want %d MiB", c.name, p, got/mib, c.garbage/mib)
		}
	}
}

func TestWhoSetsGOGCKeepsIt(t *testing.T) {
	t.Setenv("GOGC", "70")
	was := debug.SetGCPercent(70)
	defer debug.SetGCPercent(was)
	g := startGarbageMan(256 << 20)
	defer g.close()
	if now := debug.SetGCPercent(70); now != 70 {
		t.Errorf("GOGC is %d", now)
	}
}

func TestGarbageIsAsBeforeOnceAHouseIsClosed(t *testing.T) {
	t.Setenv("GOGC", "")
	was := debug.SetGCPercent(80)
	defer debug.SetGCPercent(was)
	g := startGarbageMan(256 << 20)
	during := debug.SetGCPercent(6)
	g.close()
	if after := debug.SetGCPercent(80); during != 6 || after != 80 {
		t.Errorf("GOGC was %d under way and %d after it", during, after)
	}
}
