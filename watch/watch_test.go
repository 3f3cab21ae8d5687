package watch

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"svcindex/index"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// begin starts a watch that the test's end closes.
func begin(t *testing.T, opt Options) *Watch {
	t.Helper()
	opt.Log = slog.New(slog.NewTextHandler(t.Output(), nil))
	w, err := Start(opt)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		if err := w.Close(ctx); err != nil {
			t.Error(err)
		}
	})
	return w
}

// await waits for what is going to happen; only a watch that does not see it
// meets the end.
func await(t *testing.T, what string, happened func() bool) {
	t.Helper()
	for range 3000 {
		if happened() {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Fatalf("%s: it never came", what)
}

func files(t *testing.T, dir, suffix string) []string {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(dir, "*"+suffix))
	if err != nil {
		t.Fatal(err)
	}
	return names
}

// TestAStarvedSchedulerIsFound has many goroutines that never stop fight for
// few processors: the others get theirs every now and then.
func TestAStarvedSchedulerIsFound(t *testing.T) {
	counts := new(index.WatchCounts)
	dir := t.TempDir()
	w := begin(t, Options{Limits: Limits{Sched: 50 * time.Millisecond}, Counts: counts,
		Files: Files{Dir: dir, Keep: 64 << 20, Gap: time.Minute, Buffer: 1 << 20}})
	var stop atomic.Bool
	var spinning sync.WaitGroup
	for range 20 * runtime.GOMAXPROCS(0) {
		spinning.Go(func() {
			for !stop.Load() {
			}
		})
	}
	await(t, "a starved scheduler", func() bool { return counts.Stalls[index.StallSched].Load() > 0 })
	stop.Store(true)
	spinning.Wait()
	await(t, "the dump", func() bool { return counts.Dumps.Load() > 0 })
	await(t, "the end of it", func() bool { return len(w.Status().Stalled) == 0 })
	if r := w.Status().Recent; len(r) == 0 || r[0].Name != "scheduler" || w.Status().Totals["scheduler"] == 0 {
		t.Errorf("it is not shown afterwards: %+v", w.Status())
	}
	if text, err := os.ReadFile(files(t, dir, ".goroutines.txt")[0]); err != nil || !strings.Contains(string(text), "TestAStarvedScheduler") {
		t.Errorf("the dump does not show who spins: %v, %d bytes", err, len(text))
	}
}

func TestASlowRequestLeavesATraceOfTheTimeBefore(t *testing.T) {
	counts, net := new(index.WatchCounts), new(index.NetCounts)
	dir := t.TempDir()
	w := begin(t, Options{Limits: Limits{Slow: time.Second}, Net: net, Counts: counts,
		Files: Files{Dir: dir, Keep: 64 << 20, Gap: time.Minute, Flight: true, Window: time.Second, Buffer: 1 << 20}})
	net.Latency[index.RouteResolve][index.MethodGet].Observe(time.Second) // not more than
	net.Latency[index.RouteResolve][index.MethodGet].Observe(1200 * time.Millisecond)
	await(t, "the dump", func() bool { return counts.Dumps.Load() > 0 })
	if n := counts.Stalls[index.StallSlow].Load(); n != 1 {
		t.Errorf("%d stalls, want 1", n)
	}
	for _, name := range files(t, dir, ".trace") {
		if b, err := os.ReadFile(name); err != nil || !bytes.HasPrefix(b, []byte("go 1.")) {
			t.Errorf("%s is no trace: %v, %.20q", name, err, b)
		}
	}
	var now bytes.Buffer
	if err := w.Recording(&now); err != nil || !bytes.HasPrefix(now.Bytes(), []byte("go 1.")) {
		t.Errorf("what is recorded now is no trace: %v, %.20q", err, now.Bytes())
	}
}

func TestWithoutAFlightRecorderThereIsNoRecording(t *testing.T) {
	w := begin(t, Options{})
	if err := w.Recording(new(bytes.Buffer)); err == nil || !strings.Contains(err.Error(), "watch.flight") {
		t.Errorf("error %v does not name the knob", err)
	}
}

func TestADirectoryThatCannotBeIsSaidAtTheStart(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Start(Options{Files: Files{Dir: file}}); err == nil || !strings.Contains(err.Error(), "watch.dir") {
		t.Errorf("error %v does not name the knob", err)
	}
}

// still is a recorder that writes to dir and records nothing by itself.
func still(t *testing.T, f Files) *recorder {
	t.Helper()
	r, err := newRecorder(f, new(index.WatchCounts), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	r.stop() // traces nothing afterwards
	t.Cleanup(func() { _ = r.close(context.Background()) })
	return r
}

func TestDumpsAreRare(t *testing.T) {
	r := still(t, Files{Dir: t.TempDir(), Keep: 64 << 20, Gap: time.Minute, Buffer: 1 << 20})
	now := time.Now()
	for _, tt := range []struct {
		why            string
		after          time.Duration
		dumps, skipped uint64
	}{
		{"the first", 0, 1, 0},
		{"too soon", 59 * time.Second, 1, 1},
		{"late enough", 61 * time.Second, 2, 1},
	} {
		r.dump(Breach{Name: "stage", Where: "db"}, now.Add(tt.after))
		r.work.Wait()
		if d, s := r.counts.Dumps.Load(), r.counts.Skipped.Load(); d != tt.dumps || s != tt.skipped {
			t.Errorf("%s: %d dumps, %d skipped; want %d, %d", tt.why, d, s, tt.dumps, tt.skipped)
		}
	}
}

func TestTheOldestDumpsMakeRoom(t *testing.T) {
	dir := t.TempDir()
	for i := range 10 {
		name := fmt.Sprintf("%s2026010%d-old.trace", prefix, i)
		if err := os.WriteFile(filepath.Join(dir, name), make([]byte, 1<<20), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "mine.trace"), make([]byte, 9<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	r := still(t, Files{Dir: dir, Keep: 4 << 20, Gap: time.Minute, Buffer: 1 << 20})
	r.dump(Breach{Name: "slow"}, time.Now())
	r.work.Wait()
	_, _, sum, err := r.kept()
	if err != nil || sum > 4<<20 {
		t.Errorf("%d bytes are kept, %v; at most %d may be", sum, err, 4<<20)
	}
	if len(files(t, dir, "-slow.trace")) != 1 || len(files(t, dir, "0-old.trace")) != 0 {
		t.Errorf("the new dump is gone, or the oldest is not: %v", files(t, dir, ""))
	}
	if len(files(t, dir, "mine.trace")) != 1 {
		t.Error("a file that is not a dump was removed")
	}
}

func TestAFileStopsAtItsLimit(t *testing.T) {
	var b bytes.Buffer
	l := &limited{w: &b, left: 5}
	if n, err := l.Write([]byte("abc")); n != 3 || err != nil {
		t.Errorf("within: %d, %v", n, err)
	}
	if n, err := l.Write([]byte("defg")); n != 2 || !errors.Is(err, errFull) || b.String() != "abcde" {
		t.Errorf("over: %d, %v, %q", n, err, b.String())
	}
}

// Example shows a stage that gets nothing done.
func Example() {
	beats := map[string]beat{"db": {done: 7, at: time.Unix(0, 0)}}
	db := index.RoomStats{Name: "db", Busy: 8, Workers: 8, Depth: 40, Done: 7, OldestWait: 3900 * time.Millisecond, Step: 4 * time.Second}
	for _, b := range judge(&look{at: time.Unix(4, 0), rooms: []index.RoomStats{db}}, Limits{Stall: 3 * time.Second}, beats) {
		fmt.Printf("%s %s: %s\n", b.Name, b.Where, b.Found)
	}
	// Output:
	// stage db: 8 of 8 workers have a job in hand, the longest for 4s; 40 jobs wait, the oldest for 3.9s; nothing done for 4s
}

func TestARecordingNeedsNoDirectory(t *testing.T) {
	w := begin(t, Options{Files: Files{Flight: true, Window: time.Second, Buffer: 1 << 20}})
	var b bytes.Buffer
	if err := w.Recording(&b); err != nil || b.Len() == 0 {
		t.Errorf("%d bytes, %v", b.Len(), err)
	}
	if names := files(t, ".", ".trace"); len(names) != 0 {
		t.Errorf("it left %v", names)
	}
}
