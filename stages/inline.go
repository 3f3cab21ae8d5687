//go:build rig

package stages

import (
	"time"

	"svcindex/index"
)

// Inline is a pipeline whose first room has no queue: the cache is asked on the
// event loop itself. It is what a hit costs without staging, for comparison;
// whoever pushes waits for the look-ups, which the product never lets him.
type Inline struct{ *Pipeline }

// Push implements index.Resolver.
func (p Inline) Push(lane int, fs []*index.Flight) int {
	if p.closing.Load() {
		return 0
	}
	l, took := p.cache.lanes[lane], 0
	for took < len(fs) {
		l.n = copy(l.batch, fs[took:])
		now := time.Now()
		for _, f := range l.batch[:l.n] {
			f.Entered = now
			l.jobs.Add(int64(len(f.Jobs)))
		}
		took += l.n
		l.turn()
	}
	return took
}
