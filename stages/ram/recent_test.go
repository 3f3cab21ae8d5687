package ram

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"svcindex/index"
)

func TestRecentIsWhatWasAskedLast(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := setUp(t, usual)
		for i := range 50 {
			b.keep(index.AskResolve, fmt.Sprint("name:n", i), "page")
			time.Sleep(time.Millisecond)
		}
		b.keepAbsence(index.AskResolve, "name:gone")
		b.keep(index.AskManifest, cid, "bytes")
		b.keep(index.AskResolve, "name:overtaken", "page")
		b.gens.Bump(b.job(index.AskResolve, "name:overtaken").Hash)
		var got []string
		for _, r := range b.Recent(t.Context(), 4) {
			got = append(got, fmt.Sprint(r.Ask, r.Format, r.Key))
		}
		want := []string{fmt.Sprint(index.AskManifest, index.JSON, " ", cid)}
		for i := 49; i > 46; i-- {
			want = append(want, fmt.Sprint(index.AskResolve, index.JSON, " name:n", i))
		}
		if d := cmp.Diff(want, got); d != "" {
			t.Error(d)
		}
		if n := len(b.Recent(t.Context(), 1000)); n != 51 {
			t.Errorf("%d are all there are, want 51", n)
		}
		if n := len(b.Recent(t.Context(), 0)); n != 0 {
			t.Errorf("none were wanted, and %d came", n)
		}
		over, cancel := context.WithCancel(t.Context())
		cancel()
		if n := len(b.Recent(over, 1000)); n != 0 {
			t.Errorf("there was no time, and %d came", n)
		}
	})
}

// An answer says that it is near its end in the share of its life that
// cache.refresh_ahead names, and not a nanosecond before; an absence never does.
func TestAnAnswerNearItsEndSaysSo(t *testing.T) {
	for _, tt := range []struct {
		share float64
		from  time.Duration // of a minute; 0: at once
		never bool
	}{{0, 0, true}, {.1, 54 * time.Second, false}, {.5, 30 * time.Second, false}, {1, 1, false}} {
		synctest.Test(t, func(t *testing.T) {
			b := setUp(t, usual)
			tuning := &index.Tuning{Lives: index.Lives{TTL: time.Minute, NegTTL: time.Minute, StaleFor: time.Minute, RefreshAhead: tt.share}}
			ask := func(text string) *index.Job {
				j := b.job(index.AskResolve, text)
				j.Tuning = tuning
				return j
			}
			j := ask("name:a")
			j.Answer.Page = []byte("page")
			gone := ask("name:gone")
			gone.Result = index.Missing
			if !b.PutIf(j) || !b.PutIf(gone) {
				t.Fatal("not kept")
			}
			aging := func(text string) bool {
				j := ask(text)
				j.Answer.Aging = true // whatever it was before
				return b.Get(j) == nil && j.Answer.Aging
			}
			time.Sleep(max(tt.from, 1))
			if aging("name:a") && tt.share < 1 {
				t.Errorf("%v: near its end too early", tt.share)
			}
			time.Sleep(time.Nanosecond)
			if aging("name:a") == tt.never {
				t.Errorf("%v: after %v it says %v", tt.share, tt.from+1, !tt.never)
			}
			if aging("name:gone") {
				t.Errorf("%v: an absence wants to be renewed", tt.share)
			}
			time.Sleep(time.Minute)
			if stale := ask("name:a"); b.GetStale(stale) != nil || stale.Answer.Aging {
				t.Errorf("%v: what is past its end is near it", tt.share)
			}
		})
	}
}
