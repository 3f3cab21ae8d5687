package stages

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"svcindex/index"
)

// reindex is a request to look keys up afresh.
func reindex(priority string, keys ...string) *index.Job {
	return &index.Job{
		Ask: index.AskWrite, Op: index.Reindex, IsJSON: true,
		Body: fmt.Appendf(nil, `{"keys":["%s"],"priority":%q}`, strings.Join(keys, `","`), priority),
	}
}

// obedient is a store that remembers the task, and says an earlier one when
// the Idempotency-Key was seen before.
func obedient() fakeWriter {
	seen := make(map[string]string)
	return func(ms []*index.Mutation) error {
		for _, m := range ms {
			m.TaskID = m.Idem.TaskID
			if k := m.Idem.Key; k != "" {
				if earlier, ok := seen[k]; ok {
					m.TaskID = earlier
				}
				seen[k] = m.TaskID
			}
		}
		return nil
	}
}

func (o *office) state(id string) TaskState {
	o.t.Helper()
	s, ok := o.Tasks.State(id)
	if !ok {
		o.t.Fatalf("task %q is unknown", id)
	}
	return s
}

func TestATaskIsAcceptedThenRunsThenIsDone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := newOffice(t, obedient())
		o.Tasks.lookup = func(j *index.Job) {
			k := map[string]index.Kind{"name:found": index.OK, "name:absent": index.Missing, "name:late": index.Late}[j.Key.String()]
			if !j.Fresh {
				t.Error("a reindex is served from what is known already")
			}
			time.AfterFunc(time.Second, func() { j.Finish(k) })
		}
		j := reindex("low", "name:found", "name:absent", "name:late", "name:found")
		if err := o.Do(j); err != nil {
			t.Fatal(err)
		}
		id := j.Write.Idem.TaskID
		if s := o.state(id); s.State != "accepted" || s.Total != 4 || s.Priority != "low" || s.Created != time.Now().Unix() {
			t.Errorf("before the commit it is %+v", s)
		}
		time.Sleep(time.Minute)
		if s := o.state(id); s.State != "accepted" || s.Done != 0 {
			t.Errorf("without a commit it is %+v", s)
		}
		o.Settle([]*index.Job{j}, make([]index.Kind, 1))
		synctest.Wait()
		if s := o.state(id); s.State != "running" || s.Done != 0 || s.Finished != 0 {
			t.Errorf("after the commit it is %+v", s)
		}
		time.Sleep(2500 * time.Millisecond)
		if s := o.state(id); s.State != "running" || s.Done != 2 || s.Found != 1 || s.Missing != 1 {
			t.Errorf("after two and a half look-ups, one at a time, it is %+v", s)
		}
		time.Sleep(2 * time.Second)
		s := o.state(id)
		if s.State != "done" || s.Done != 4 || s.Found != 2 || s.Missing != 1 || s.Failed != 1 || s.Finished == 0 {
			t.Errorf("in the end it is %+v", s)
		}
		if !o.cache.forgotten(key(t, "name:found")) || !o.cache.forgotten(key(t, "name:late")) {
			t.Error("a key was not evicted")
		}
	})
}

func TestATaskIsAskedForThroughTheWriteRoom(t *testing.T) {
	o := newOffice(t, obedient())
	j := reindex("normal", "name:a")
	if ks := o.write(j); ks[0] != index.OK || j.Answer.Location != "/admin/tasks/"+j.Write.TaskID || j.Answer.Doc != (taskDoc{j.Write.TaskID}) {
		t.Errorf("%v at %q with %v", ks, j.Answer.Location, j.Answer.Doc)
	}
	ask := &index.Job{Ask: index.AskTask, Text: j.Write.TaskID}
	if err := o.Do(ask); err != nil || ask.Answer.Doc.(TaskState).TaskID != j.Write.TaskID {
		t.Errorf("its state: %v, %v", ask.Answer.Doc, err)
	}
	for _, id := range []string{"", "01ARZ3NDEKTSV4RRFFQ69G5FAV", strings.ToLower(j.Write.TaskID)} {
		if err := o.Do(&index.Job{Ask: index.AskTask, Text: id}); err != index.Missing {
			t.Errorf("task %q: %v, want missing", id, err)
		}
	}
}

func TestACIDIsLookedUpWithItsProviders(t *testing.T) {
	for _, tt := range []struct {
		why                string
		resolve, providers index.Kind
		want               string
	}{
		{"both are found", index.OK, index.OK, "found"},
		{"the bytes alone", index.OK, index.Missing, "found"},
		{"the providers alone", index.Missing, index.OK, "found"},
		{"neither", index.Missing, index.Missing, "missing"},
		{"the bytes could not be looked for", index.Down, index.OK, "failed"},
		{"the providers could not be looked for", index.OK, index.Late, "failed"},
	} {
		synctest.Test(t, func(t *testing.T) {
			o := newOffice(t, obedient())
			o.Tasks.lookup = func(j *index.Job) {
				if j.Ask == index.AskProviders {
					j.Finish(tt.providers)
					return
				}
				j.Finish(tt.resolve)
			}
			j := reindex("high", aCID)
			o.write(j)
			synctest.Wait()
			s := o.state(j.Write.TaskID)
			if got := map[string]int{"found": s.Found, "missing": s.Missing, "failed": s.Failed}; got[tt.want] != 1 || s.Done != 1 {
				t.Errorf("%s: %+v, want %s", tt.why, s, tt.want)
			}
		})
	}
}

func TestPriorityIsHowMuchIsUnderWayAtOnce(t *testing.T) {
	for priority, want := range map[string]int64{"low": 1, "normal": 4, "high": 16} {
		synctest.Test(t, func(t *testing.T) {
			o := newOffice(t, obedient())
			var now, most atomic.Int64
			o.Tasks.lookup = func(j *index.Job) {
				most.Store(max(most.Load(), now.Add(1)))
				time.AfterFunc(time.Second, func() { now.Add(-1); j.Finish(index.OK) })
			}
			keys := make([]string, 40)
			for i := range keys {
				keys[i] = fmt.Sprint("name:k", i)
			}
			o.write(reindex(priority, keys...))
			time.Sleep(time.Minute)
			if most.Load() != want {
				t.Errorf("%s: %d look-ups at once, want %d", priority, most.Load(), want)
			}
		})
	}
}

func TestARepetitionNamesTheFirstTaskAndDropsItsOwn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := newOffice(t, obedient())
		var looks atomic.Int64
		o.Tasks.lookup = func(j *index.Job) { looks.Add(1); time.AfterFunc(time.Second, func() { j.Finish(index.OK) }) }
		ask := func() *index.Job {
			j := reindex("normal", "name:a")
			j.Idempotency = "same"
			o.write(j)
			return j
		}
		first, again := ask(), ask()
		time.Sleep(time.Minute)
		later := ask() // after it is done
		time.Sleep(time.Minute)
		for _, j := range []*index.Job{again, later} {
			if j.Write.TaskID != first.Write.TaskID || j.Answer.Doc != (taskDoc{first.Write.TaskID}) {
				t.Errorf("a repetition is task %q, want %q", j.Write.TaskID, first.Write.TaskID)
			}
			if _, ok := o.Tasks.State(j.Write.Idem.TaskID); ok {
				t.Error("a repetition left a task of its own")
			}
		}
		if looks.Load() != 1 {
			t.Errorf("%d look-ups, want 1", looks.Load())
		}
	})
}

func TestARefusedTaskIsDropped(t *testing.T) {
	for _, tt := range []struct {
		why   string
		store fakeWriter
		want  index.Kind
	}{
		{"another body under the same key", func(ms []*index.Mutation) error { ms[0].Err = index.Conflict; return nil }, index.Conflict},
		{"a commit that fails", func([]*index.Mutation) error { return errors.New("disk") }, index.Down},
	} {
		o := newOffice(t, tt.store)
		o.Tasks.lookup = func(*index.Job) { t.Errorf("%s: it was begun all the same", tt.why) }
		j := reindex("normal", "name:a")
		if ks := o.write(j); ks[0] != tt.want {
			t.Errorf("%s: %v, want %v", tt.why, ks[0], tt.want)
		}
		if _, ok := o.Tasks.State(j.Write.Idem.TaskID); ok || len(o.Tasks.order) != 0 {
			t.Errorf("%s: the task is still listed", tt.why)
		}
	}
}

func TestABusyHouseIsAskedAgainButNotForEver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := newOffice(t, obedient())
		var looks atomic.Int64
		o.Tasks.lookup = func(j *index.Job) {
			if looks.Add(1) == 3 && j.Key == key(t, "name:twice") {
				j.Finish(index.OK)
				return
			}
			j.Finish(index.Busy)
		}
		j := reindex("low", "name:twice")
		o.write(j)
		time.Sleep(time.Minute)
		if s := o.state(j.Write.TaskID); s.Found != 1 || looks.Load() != 3 {
			t.Errorf("%+v after %d looks, want it found at the third", s, looks.Load())
		}
		looks.Store(0)
		j = reindex("low", "name:never")
		o.write(j)
		time.Sleep(time.Minute)
		if s := o.state(j.Write.TaskID); s.Failed != 1 || looks.Load() != tries {
			t.Errorf("%+v after %d looks, want it given up after %d", s, looks.Load(), tries)
		}
	})
}

func TestCloseCancelsWhatRuns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := newOffice(t, obedient())
		var looks atomic.Int64
		o.Tasks.lookup = func(j *index.Job) { looks.Add(1); time.AfterFunc(time.Second, func() { j.Finish(index.OK) }) }
		keys := make([]string, 100)
		for i := range keys {
			keys[i] = fmt.Sprint("name:k", i)
		}
		j := reindex("low", keys...)
		o.write(j)
		waiting := reindex("low", "name:a")
		if err := o.Do(waiting); err != nil {
			t.Fatal(err)
		}
		time.Sleep(1500 * time.Millisecond)
		start := time.Now()
		o.Tasks.Close()
		if d := time.Since(start); d > 2*time.Second {
			t.Errorf("Close took %v; it may wait for the look-up in hand, no longer", d)
		}
		s := o.state(j.Write.TaskID)
		if s.State != "cancelled" || s.Done == 100 || s.Finished == 0 {
			t.Errorf("it is %+v", s)
		}
		before := looks.Load()
		o.Settle([]*index.Job{waiting}, make([]index.Kind, 1))
		time.Sleep(time.Minute)
		if looks.Load() != before {
			t.Error("a task was begun after Close")
		}
	})
}

func TestAHouseThatIsFullWhenItClosesDoesNotHoldTheTask(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := newOffice(t, obedient())
		o.Tasks.lookup = func(j *index.Job) { j.Finish(index.Busy) }
		o.write(reindex("high", "name:a", "name:b", "name:c"))
		time.Sleep(120 * time.Millisecond)
		start := time.Now()
		o.Tasks.Close()
		if d := time.Since(start); d > 50*time.Millisecond {
			t.Errorf("Close took %v of waiting for another try", d)
		}
	})
}

func TestTheListOfTasksIsBoundedAndForgetsTheOldestFinished(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := newOffice(t, obedient())
		var first, last string
		for i := range tasksKept + 10 {
			j := reindex("low", "name:a")
			o.write(j)
			if i%64 == 0 {
				synctest.Wait()
			}
			if i == 0 {
				first = j.Write.TaskID
			}
			last = j.Write.TaskID
		}
		synctest.Wait()
		if n := len(o.Tasks.byID); n > tasksKept || n != len(o.Tasks.order) {
			t.Errorf("%d tasks by id, %d in order; want at most %d", n, len(o.Tasks.order), tasksKept)
		}
		if _, ok := o.Tasks.State(first); ok {
			t.Error("the oldest is still there")
		}
		if s := o.state(last); s.State != "done" {
			t.Errorf("the newest is %+v", s)
		}
	})
}

// A task that was answered with 202 is worked off, whatever else is on the
// list; one that does not fit is refused.
func TestAnAcceptedTaskIsNeverForgottenBeforeItRan(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := newOffice(t, obedient())
		release := make(chan struct{})
		o.Tasks.lookup = func(j *index.Job) { go func() { <-release; j.Finish(index.OK) }() }
		var accepted []string
		refused := 0
		for range tasksKept + 5 {
			j := reindex("low", "name:a")
			if err := o.Do(j); err != nil {
				if index.KindOf(err) != index.Busy {
					t.Fatalf("a full list says %v, want busy", err)
				}
				refused++
				continue
			}
			o.Settle([]*index.Job{j}, make([]index.Kind, 1))
			accepted = append(accepted, j.Write.TaskID)
		}
		if len(accepted) != tasksKept || refused != 5 {
			t.Errorf("%d accepted and %d refused, want %d and 5", len(accepted), refused, tasksKept)
		}
		close(release)
		time.Sleep(time.Minute)
		for _, id := range accepted {
			if s, ok := o.Tasks.State(id); !ok || s.State != "done" {
				t.Fatalf("a task that was answered with 202 is %+v (known %v)", s, ok)
			}
		}
		if j := reindex("low", "name:a"); o.Do(j) != nil {
			t.Error("with everything done there is no room for another")
		}
	})
}

// Prepared and never settled, because the fuse was open or the store fell
// over: such tasks must not fill the list for ever.
func TestTasksThatNobodyBeganMakeRoomAfterAWhile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := newOffice(t, obedient())
		for range tasksKept {
			if err := o.Do(reindex("low", "name:a")); err != nil {
				t.Fatal(err)
			}
		}
		if err := o.Do(reindex("low", "name:a")); index.KindOf(err) != index.Busy {
			t.Errorf("one more at once: %v, want busy: the others may be begun yet", err)
		}
		time.Sleep(5 * time.Minute)
		j := reindex("low", "name:a")
		if ks := o.write(j); ks[0] != index.OK {
			t.Errorf("five minutes later: %v", ks[0])
		}
		synctest.Wait()
		if s := o.state(j.Write.TaskID); s.State != "done" {
			t.Errorf("it is %+v", s)
		}
	})
}

func TestBeginningAndClosingAtOnceLeavesNothingBehind(t *testing.T) {
	for range 50 {
		o := newOffice(t, obedient())
		o.Tasks.lookup = func(j *index.Job) { j.Finish(index.OK) }
		o.Changed = nil
		j := reindex("high", "name:a", "name:b")
		if err := o.Do(j); err != nil {
			t.Fatal(err)
		}
		var both sync.WaitGroup
		both.Go(func() { o.Settle([]*index.Job{j}, make([]index.Kind, 1)) })
		both.Go(func() {
			o.Tasks.Close()
			if s, ok := o.Tasks.State(j.Write.Idem.TaskID); ok && s.State == "running" {
				t.Error("Close came back with a task running")
			}
		})
		both.Wait()
	}
}
