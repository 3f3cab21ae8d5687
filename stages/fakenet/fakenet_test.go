//go:build rig

package fakenet

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"svcindex/index"
)

func job(name string) *index.Job {
	k, err := index.ParseKey(name)
	if err != nil {
		panic(err)
	}
	return &index.Job{Ask: index.AskResolve, Key: k}
}

func TestTheSameSeedKnowsTheSameKeysInTheSameTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := Net{Seed: 1, Known: .5, Median: 40 * time.Millisecond, P99: 400 * time.Millisecond}
		known := 0
		var took []time.Duration
		for i := range 1000 {
			var verdicts [2]error
			for round := range verdicts {
				start := time.Now()
				verdicts[round] = n.Discover(context.Background(), job(fmt.Sprint("name:k", i)))
				took = append(took, time.Since(start))
			}
			if verdicts[0] != verdicts[1] || took[len(took)-1] != took[len(took)-2] {
				t.Fatalf("key %d: %v in %v, then %v in %v", i, verdicts[0], took[len(took)-2], verdicts[1], took[len(took)-1])
			}
			if verdicts[0] == nil {
				known++
			}
		}
		slices.Sort(took)
		if p50 := took[len(took)/2]; known < 440 || known > 560 || p50 < 35*time.Millisecond || p50 > 46*time.Millisecond {
			t.Errorf("%d of 1000 known, median %v; want about 500 and 40ms", known, p50)
		}
	})
}

func TestADeadlineEndsTheWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(context.Background(), time.Millisecond)
		defer cancel()
		if err := (Net{Median: time.Hour}).Discover(ctx, job("name:a")); err != index.Late {
			t.Errorf("got %v, want late", err)
		}
	})
}
