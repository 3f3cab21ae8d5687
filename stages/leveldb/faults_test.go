package leveldb

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"svcindex/index"
)

func TestManyWritersShareASync(t *testing.T) {
	h := open(t, t.TempDir())
	const writers, each = 64, 20
	before := h.disk.syncs.Load()
	var wg sync.WaitGroup
	for w := range writers {
		wg.Go(func() {
			for i := range each {
				m := putName(t, fmt.Sprintf("name:w%d/%d", w, i), "c", 1)
				if err := h.Commit([]*index.Mutation{m}); err != nil || m.Err != nil {
					t.Error(err, m.Err)
				}
			}
		})
	}
	stop := make(chan struct{})
	readers := readAlways(h, stop)
	wg.Wait()
	close(stop)
	readers.Wait()
	syncs := h.disk.syncs.Load() - before
	t.Logf("%d writes, %d syncs", writers*each, syncs)
	if syncs > writers*each/4 {
		t.Errorf("%d syncs for %d writes: they do not share", syncs, writers*each)
	}
	if n := h.Stats().Names; n != writers*each {
		t.Errorf("%d names, want %d", n, writers*each)
	}
}

// readAlways reads while others write.
func readAlways(h *house, stop chan struct{}) *sync.WaitGroup {
	var wg sync.WaitGroup
	key := key_(h.t, "name:w0/0")
	for range 4 {
		wg.Go(func() {
			for found := false; ; {
				select {
				case <-stop:
					return
				default:
				}
				j := &index.Job{Ask: index.AskResolve, Key: key}
				switch err := h.Get(j); {
				case err == nil && j.Answer.Name.CID == cidOf("c"):
					found = true
				case err == index.Missing && !found:
				default:
					h.t.Errorf("while writing: %v, %v", j.Answer.Name, err)
				}
			}
		})
	}
	return &wg
}

func TestAPowerCutLosesNothingAcknowledged(t *testing.T) {
	for _, tt := range []struct {
		why  string
		sync bool
		want index.Kind
	}{
		{"synced writes are there", true, index.OK},
		{"the control: without sync they are lost", false, index.Missing},
	} {
		d, c := new(disk), newClock()
		o := options(t.TempDir(), c, d)
		o.Sync = tt.sync
		h := &house{t: t, clock: c, disk: d}
		h.openWith(o)
		for i := range 50 {
			h.do(putName(t, fmt.Sprintf("name:n%d", i), "c", uint64(i+1)))
		}
		h.do(deleteName(t, "name:n7", 0))
		h.do(putManifest("bytes"))
		after := open(t, d.cut(t))
		_, err := after.ask(index.AskResolve, "name:n49")
		if index.KindOf(err) != tt.want {
			t.Errorf("%s: a name: %v", tt.why, err)
		}
		_, err = after.ask(index.AskManifest, cidOf("bytes").String())
		if index.KindOf(err) != tt.want {
			t.Errorf("%s: a manifest: %v", tt.why, err)
		}
		if _, err := after.ask(index.AskResolve, "name:n7"); err != index.Missing {
			t.Errorf("%s: what was deleted is back: %v", tt.why, err)
		}
		if m := after.do(putName(t, "name:n7", "c", 8)); tt.sync && m.Err != index.Conflict {
			t.Errorf("%s: a sequence went back: %v", tt.why, m.Err)
		}
	}
}

func TestCrashesUnderWriteLoad(t *testing.T) {
	h := open(t, t.TempDir())
	var acked [4]atomic.Uint64
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for w := range acked {
		wg.Go(func() {
			for seq := uint64(1); ; seq++ {
				select {
				case <-stop:
					return
				default:
				}
				m := putName(t, fmt.Sprintf("name:w%d", w), fmt.Sprint(seq), seq)
				if h.Commit([]*index.Mutation{m, putManifest(fmt.Sprint(w, seq))}) == nil && m.Err == nil {
					acked[w].Store(seq)
				}
			}
		})
	}
	for range 5 {
		time.Sleep(20 * time.Millisecond)
		var before [4]uint64
		for w := range acked {
			before[w] = acked[w].Load()
		}
		after := open(t, h.disk.cut(t))
		for w, seq := range before {
			a, err := after.ask(index.AskResolve, fmt.Sprintf("name:w%d", w))
			if seq > 0 && (err != nil || a.Name.Seq < seq || a.Name.CID != cidOf(fmt.Sprint(a.Name.Seq))) {
				t.Errorf("writer %d was told %d, found %d, %v", w, seq, a.Name.Seq, err)
			}
			if err != nil {
				continue
			}
			if _, err := after.ask(index.AskManifest, cidOf(fmt.Sprint(w, a.Name.Seq)).String()); err != nil {
				t.Errorf("half of a call: the name is there, its manifest is not: %v", err)
			}
		}
		must(t, after.DB.Close())
	}
	close(stop)
	wg.Wait()
}

func TestAFailedSyncIsNotBuiltUpon(t *testing.T) {
	h := open(t, t.TempDir())
	h.do(putName(t, "name:a", "a", 1))
	h.do(putName(t, "name:b", "b", 1))
	eio := error(syscall.EIO)
	h.disk.failSync.Store(&eio)
	if err := h.Commit([]*index.Mutation{putName(t, "name:c", "c", 1)}); index.KindOf(err) != index.Down {
		t.Fatalf("the write whose sync failed: %v", err)
	}
	if _, err := h.ask(index.AskResolve, "name:a"); err != nil && index.KindOf(err) != index.Down {
		t.Errorf("reading meanwhile: %v", err)
	}
	eventually(t, "open for writes again", func() bool { return !h.ReadOnly() })
	must(t, h.Ready())
	h.do(putName(t, "name:d", "d", 1))
	after := open(t, h.disk.cut(t))
	for _, name := range []string{"name:a", "name:b", "name:d"} {
		if _, err := after.ask(index.AskResolve, name); err != nil {
			t.Errorf("%s was acknowledged: %v", name, err)
		}
	}
	if h.Stats().Heals != 1 {
		t.Errorf("healed %d times, want 1", h.Stats().Heals)
	}
}

func TestAFullDisk(t *testing.T) {
	h := open(t, t.TempDir())
	h.do(putName(t, "name:a", "a", 1))
	enospc := error(syscall.ENOSPC)
	h.disk.failAll.Store(&enospc)
	if err := h.Commit([]*index.Mutation{putName(t, "name:b", "b", 1)}); index.KindOf(err) != index.Full {
		t.Fatalf("a write on a full disk: %v", err)
	}
	if !h.ReadOnly() || index.KindOf(h.Ready()) != index.Full {
		t.Errorf("read-only %v, ready %v", h.ReadOnly(), h.Ready())
	}
	eventually(t, "a read from the full disk", func() bool {
		_, err := h.ask(index.AskResolve, "name:a")
		return err == nil
	})
	if err := h.Commit([]*index.Mutation{putName(t, "name:b", "b", 1)}); index.KindOf(err) != index.Full {
		t.Errorf("the next write: %v", err)
	}
	time.Sleep(200 * time.Millisecond) // some attempts fail for want of room
	if _, err := h.ask(index.AskResolve, "name:a"); err != nil && index.KindOf(err) != index.Down {
		t.Errorf("a read between attempts: %v", err)
	}
	h.disk.failAll.Store(nil)
	eventually(t, "writes once there is room", func() bool { return !h.ReadOnly() })
	h.do(putName(t, "name:b", "b", 2))
	after := open(t, h.disk.cut(t))
	for _, name := range []string{"name:a", "name:b"} {
		if _, err := after.ask(index.AskResolve, name); err != nil {
			t.Errorf("%s was acknowledged: %v", name, err)
		}
	}
}

// What heals is the store that was open, or nothing: where the disk is gone there
// may be an empty directory, and of an empty store every name is absent.
func TestReopeningTakesNoOtherStore(t *testing.T) {
	replace := func(t *testing.T, dir, by string) {
		must(t, os.RemoveAll(dir))
		must(t, os.Rename(by, dir))
	}
	for _, tt := range []struct {
		why  string
		harm func(t *testing.T, dir, old string)
		ok   bool
	}{
		{"as it was", func(*testing.T, string, string) {}, true},
		{"an empty directory", func(t *testing.T, dir, _ string) { replace(t, dir, t.TempDir()) }, false},
		{"an older copy", replace, false},
		{"its last batch is torn", func(t *testing.T, dir, _ string) {
			j := journalOf(t, dir)
			must(t, os.Truncate(j, size(t, j)-20))
		}, false},
		{"another with as many batches", func(t *testing.T, dir, _ string) {
			d := &house{t: t, DB: manual(t, dir+".other")}
			d.alone(putManifest("one"))
			d.alone(putManifest("two"))
			must(t, d.engine.Swap(nil).retire(nil))
			replace(t, dir, dir+".other")
		}, false},
	} {
		dir := filepath.Join(t.TempDir(), "db")
		d := &house{t: t, DB: manual(t, dir)}
		d.alone(putName(t, "name:a", "a", 5))
		old := copyDir(t, dir)
		d.alone(putName(t, "name:a", "a", 6))
		must(t, d.engine.Swap(nil).retire(nil))
		tt.harm(t, dir, old)
		err := d.DB.reopen()
		if (err == nil) != tt.ok || err != nil && !contains(err, dir, "acknowledged", "start the server anew") {
			t.Errorf("%s: reopened with %v, want that it is taken: %v", tt.why, err, tt.ok)
		}
		e := d.engine.Load()
		if (e != nil) != tt.ok {
			t.Errorf("%s: reads are answered: %v, want %v", tt.why, e != nil, tt.ok)
		}
		if a, err := d.ask(index.AskResolve, "name:a"); tt.ok && (err != nil || a.Name.Seq != 6) || !tt.ok && index.KindOf(err) != index.Down {
			t.Errorf("%s: the name reads %+v, %v", tt.why, a.Name, err)
		}
		if e != nil {
			must(t, e.retire(nil))
		}
	}
}

// A batch that failed may be found stored all the same.
func TestReopeningTakesTheBatchThatFailed(t *testing.T) {
	d := manual(t, t.TempDir())
	e := d.engine.Load()
	g := d.take(e, func(t *txn) { t.put([]byte(keyCanary), []byte("stored, and nobody was told")) })
	g.txn.render(&d.batch)
	must(t, e.write(&d.batch, true))
	must(t, d.reopen())
	must(t, d.engine.Load().retire(nil))
}

func TestTooLittleFreeDisk(t *testing.T) {
	var free atomic.Int64
	free.Store(1 << 30)
	o := options(t.TempDir(), newClock(), nil)
	o.MinFree, o.free = 1<<20, func(string) (int64, error) { return free.Load(), nil }
	h := &house{t: t, clock: newClock()}
	h.openWith(o)
	h.do(putName(t, "name:a", "a", 1))
	free.Store(1<<20 - 1)
	time.Sleep(spaceEvery)
	err := h.Commit([]*index.Mutation{putName(t, "name:b", "b", 1)})
	if index.KindOf(err) != index.Full || !contains(err, "db.min_free", "1048575") {
		t.Errorf("below the threshold: %v", err)
	}
	if _, err := h.ask(index.AskResolve, "name:a"); err != nil {
		t.Errorf("reads go on: %v", err)
	}
	if h.ReadOnly() {
		t.Error("a refused write must not close the store")
	}
	if err := h.Ready(); index.KindOf(err) != index.Full {
		t.Errorf("ready for writes it refuses: %v", err)
	}
	free.Store(1 << 20)
	time.Sleep(spaceEvery)
	if err := h.Ready(); err != nil {
		t.Errorf("not ready with room again: %v", err)
	}
	h.do(putName(t, "name:b", "b", 1))
}

func TestNobodyElseCanRead(t *testing.T) {
	old := syscall.Umask(0)
	defer syscall.Umask(old)
	dir := filepath.Join(t.TempDir(), "new", "db")
	h := open(t, dir)
	h.do(putManifest("x"))
	h.reopen()
	h.do(putManifest("y"))
	must(t, filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		must(t, err)
		fi, err := e.Info()
		must(t, err)
		want := fs.FileMode(fileMode)
		if e.IsDir() {
			want = dirMode
		}
		if fi.Mode().Perm() != want {
			t.Errorf("%s is %v, want %v", path, fi.Mode().Perm(), want)
		}
		return nil
	}))
}

func TestOpenSaysWhatToDo(t *testing.T) {
	dir := t.TempDir()
	open(t, dir)
	file := filepath.Join(t.TempDir(), "file")
	must(t, os.WriteFile(file, nil, 0o600))
	for _, tt := range []struct {
		why, path string
		says      []string
	}{
		{"two processes", dir, []string{dir, "in use", "db.path"}},
		{"a file in the way", file, []string{file}},
		{"no directory", "", []string{"db.path"}},
	} {
		if _, err := Open(options(tt.path, newClock(), nil)); err == nil || !contains(err, tt.says...) {
			t.Errorf("%s: %v", tt.why, err)
		}
	}
	if _, err := Verify(t.Context(), dir, nil); !contains(err, "in use") {
		t.Errorf("verifying an open store: %v", err)
	}
	for _, tt := range []struct {
		err  error
		kind index.Kind
		says string
	}{
		{syscall.EROFS, index.Down, "remount"},
		{syscall.EACCES, index.Down, "0700"},
		{syscall.ENOSPC, index.Full, "free"},
		{syscall.EMFILE, index.Down, "ulimit"},
	} {
		if err := explain("/d", &os.PathError{Op: "open", Path: "/d", Err: tt.err}); index.KindOf(err) != tt.kind || !contains(err, "/d", tt.says) {
			t.Errorf("%v: %v", tt.err, err)
		}
	}
}

func TestAReadOnlyDiskAtStart(t *testing.T) {
	d := new(disk)
	erofs := error(syscall.EROFS)
	d.failAll.Store(&erofs)
	if _, err := Open(options(t.TempDir(), newClock(), d)); index.KindOf(err) != index.Down || !contains(err, "cannot be written") {
		t.Errorf("opened, or %v", err)
	}
}

func TestACrashBeforeTheFirstWriteIsANewStore(t *testing.T) {
	dir := t.TempDir()
	h := open(t, dir)
	must(t, h.DB.Close())
	for _, name := range []string{"CURRENT", "CURRENT.bak"} {
		os.Remove(filepath.Join(dir, name))
	}
	logs, _ := filepath.Glob(filepath.Join(dir, "*.log"))
	for _, l := range append(logs, tablesOf(t, dir)...) {
		must(t, os.Remove(l))
	}
	if _, err := Open(options(dir, newClock(), nil)); index.KindOf(err) != index.Broken {
		t.Errorf("a used MANIFEST without its files: %v", err)
	}
	ms, _ := filepath.Glob(filepath.Join(dir, "MANIFEST-*"))
	for _, m := range ms {
		must(t, os.Truncate(m, firstRecord(t, m)))
	}
	open(t, dir).do(putManifest("x"))
}

// firstRecord is the length of a MANIFEST that was just made.
func firstRecord(t *testing.T, path string) (n int64) {
	t.Helper()
	b, err := os.ReadFile(path)
	must(t, err)
	_, next, _, why := recordAt(b, 0)
	if why != "" {
		t.Fatal(why)
	}
	return int64(next)
}

func TestNoIteratorOutlivesItsCall(t *testing.T) {
	h := open(t, filled(t))
	for n := range 60 {
		checkRead(t, h.DB, n)
		h.ask(index.AskProviders, cidOf("c").String())
	}
	time.Sleep(roundEvery + 200*time.Millisecond) // a round of the keeper
	s := h.Stats()
	if s.Iterators != 0 || s.Snapshots != 0 {
		t.Errorf("%d iterators and %d snapshots are alive between calls", s.Iterators, s.Snapshots)
	}
	if s.Scrubbed == 0 {
		t.Error("the keeper looked at nothing, so this test proves nothing")
	}
}

func TestTheSequenceNeverGoesBack(t *testing.T) {
	h := open(t, t.TempDir())
	last := h.Stats().Batch
	for range 4 {
		h.do(putManifest(fmt.Sprint(last)))
		if n := h.Stats().Batch; n <= last {
			t.Fatalf("batch %d after %d", n, last)
		}
		last = h.Stats().Batch
		h.reopen()
		if n := h.Stats().Batch; n <= last {
			t.Fatalf("batch %d after %d and a restart", n, last)
		}
		last = h.Stats().Batch
	}
}
