package leveldb

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
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
	free.Store(1 << 20)
	time.Sleep(spaceEvery)
	h.do(putName(t, "name:b", "b", 1))
}

// filled is a closed store with a journal of some 60 batches over several
// blocks.
func filled(t *testing.T) string {
	t.Helper()
	h := open(t, t.TempDir())
	for i := range 60 {
		h.do(putName(t, fmt.Sprintf("name:n%d", i), "c", uint64(i+1)))
		h.do(putManifest(strings.Repeat(fmt.Sprint("bytes of ", i), 200)))
	}
	must(t, h.DB.Close())
	return h.disk.dir
}

func TestDamageInTheJournalIsNeverSilent(t *testing.T) {
	dir := filled(t)
	length := size(t, journalOf(t, dir))
	refused := 0
	const trials = 60
	for i := range int64(trials) {
		broken := copyDir(t, dir)
		at := (i*7919*31 + 13) % length
		flip(t, journalOf(t, broken), at)
		db, err := Open(options(broken, newClock(), nil))
		if err == nil {
			db.Close()
			t.Errorf("a flipped bit at %d of %d went unnoticed", at, length)
			continue
		}
		if index.KindOf(err) != index.Broken || !contains(err, ".log", "offset", "records follow", "db verify", "backup") {
			t.Errorf("the refusal does not say enough: %v", err)
		}
		refused++
	}
	t.Logf("%d of %d refused", refused, trials)
}

func TestAZeroedPageInTheJournalIsDamage(t *testing.T) {
	dir := filled(t)
	f, err := os.OpenFile(journalOf(t, dir), os.O_RDWR, 0)
	must(t, err)
	_, err = f.WriteAt(make([]byte, 4096), 8192)
	must(t, errors.Join(err, f.Close()))
	if _, err := Open(options(dir, newClock(), nil)); index.KindOf(err) != index.Broken {
		t.Errorf("opened, or %v", err)
	}
	r, err := Verify(t.Context(), dir, nil)
	if err != nil || r.Sound() {
		t.Errorf("verify: %+v, %v", r, err)
	}
}

func TestATornTailIsNormal(t *testing.T) {
	dir := filled(t)
	cut := func(n int64) func(string) {
		return func(j string) { must(t, os.Truncate(j, size(t, j)-n)) }
	}
	for _, tt := range []struct {
		why  string
		tear func(journal string)
	}{
		{"one byte short", cut(1)},
		{"7 bytes short", cut(7)},
		{"32 bytes short", cut(32)},
		{"64 bytes short", cut(64)},
		{"a page of zeros", func(j string) { appendTo(t, j, make([]byte, 4096)) }},
		{"a block and more of zeros", func(j string) { appendTo(t, j, make([]byte, 40<<10)) }},
		{"short and zero-filled", func(j string) { cut(700)(j); appendTo(t, j, make([]byte, 700)) }},
	} {
		torn := copyDir(t, dir)
		tt.tear(journalOf(t, torn))
		db, err := Open(options(torn, newClock(), nil))
		if err != nil {
			t.Errorf("%s: %v", tt.why, err)
			continue
		}
		j := &index.Job{Ask: index.AskResolve, Key: key_(t, "name:n58")}
		if err := db.Get(j); err != nil || j.Answer.Name.Seq != 59 {
			t.Errorf("%s: an earlier write: %+v, %v", tt.why, j.Answer.Name, err)
		}
		db.Close()
	}
}

func TestLostFilesAreNamed(t *testing.T) {
	dir := filled(t)
	for _, tt := range []struct {
		why  string
		harm func(dir string)
		says []string
	}{
		{"no CURRENT", func(d string) { must(t, os.Remove(filepath.Join(d, "CURRENT"))) }, []string{"CURRENT", "missing"}},
		{"CURRENT is rubbish", func(d string) { must(t, os.WriteFile(filepath.Join(d, "CURRENT"), []byte("x"), 0o600)) }, []string{"CURRENT"}},
		{"CURRENT names nothing", func(d string) {
			must(t, os.WriteFile(filepath.Join(d, "CURRENT"), []byte("MANIFEST-009999\n"), 0o600))
		}, []string{"MANIFEST-009999"}},
		{"no journal", func(d string) { must(t, os.Remove(journalOf(t, d))) }, []string{".log", "missing"}},
		{"a damaged MANIFEST", func(d string) {
			ms, _ := filepath.Glob(filepath.Join(d, "MANIFEST-*"))
			flip(t, ms[0], 10)
		}, []string{"MANIFEST", "offset"}},
	} {
		broken := copyDir(t, dir)
		tt.harm(broken)
		_, err := Open(options(broken, newClock(), nil))
		if index.KindOf(err) != index.Broken || !contains(err, append(tt.says, "db verify", "backup")...) {
			t.Errorf("%s: %v", tt.why, err)
		}
		if r, err := Verify(t.Context(), broken, nil); err != nil || r.Sound() {
			t.Errorf("%s: verify finds nothing: %+v, %v", tt.why, r, err)
		}
	}
}

// tabled is a closed store whose rows are in tables.
func tabled(t *testing.T) string {
	t.Helper()
	h := open(t, filled(t))
	h.reopen() // each opening turns the journal into a table
	must(t, h.DB.Close())
	return h.disk.dir
}

func TestADamagedTableNeverLies(t *testing.T) {
	dir := tabled(t)
	for i := range int64(40) {
		broken := copyDir(t, dir)
		table := tablesOf(t, broken)[0]
		flip(t, table, (i*104729+5)%size(t, table))
		db, err := Open(options(broken, newClock(), nil))
		if err != nil {
			if k := index.KindOf(err); k != index.Broken && k != index.Down {
				t.Errorf("refused for another reason: %v", err)
			}
			continue
		}
		for n := range 60 {
			checkRead(t, db, n)
		}
		db.Close()
	}
}

// checkRead reads what filled put as number n: right, or not at all.
func checkRead(t *testing.T, db *DB, n int) {
	t.Helper()
	j := &index.Job{Ask: index.AskResolve, Key: key_(t, fmt.Sprintf("name:n%d", n))}
	switch err := db.Get(j); index.KindOf(err) {
	case index.OK:
		if j.Answer.Name.Seq != uint64(n+1) || j.Answer.Name.CID != cidOf("c") {
			t.Errorf("a wrong record: %+v", j.Answer.Name)
		}
	case index.Broken, index.Down:
	default:
		t.Errorf("a damaged table turned into %v", err)
	}
	want := strings.Repeat(fmt.Sprint("bytes of ", n), 200)
	j = &index.Job{Ask: index.AskManifest, Key: index.CIDKey(cidOf(want))}
	switch err := db.Get(j); index.KindOf(err) {
	case index.OK:
		if string(j.Answer.Body) != want {
			t.Error("wrong bytes")
		}
	case index.Broken, index.Down:
	default:
		t.Errorf("a damaged table turned into %v", err)
	}
}

func TestATableCutShort(t *testing.T) {
	dir := tabled(t)
	table := tablesOf(t, dir)[0]
	must(t, os.Truncate(table, size(t, table)/2))
	h := open(t, dir)
	if err := h.Ready(); index.KindOf(err) != index.Broken || !contains(err, ".ldb", "MANIFEST says") {
		t.Errorf("ready: %v", err)
	}
	for n := range 60 {
		checkRead(t, h.DB, n)
	}
}

func TestDamagedBytesAreQuarantinedUntilPutAgain(t *testing.T) {
	h := open(t, t.TempDir())
	h.do(putManifest("good"))
	h.do(putManifest("other"))
	c := cidOf("good")
	h.tamper(cidKey(rowContent, &c), []byte("\x02evil"))
	cid := c.String()
	if _, err := h.ask(index.AskManifest, cid); index.KindOf(err) != index.Broken {
		t.Fatalf("damaged bytes: %v", err)
	}
	if n := h.DB.integrity.DB.Load(); n != 1 {
		t.Errorf("counted %d times, want 1", n)
	}
	for _, a := range []index.Ask{index.AskManifest, index.AskResolve} {
		if _, err := h.ask(a, cid); index.KindOf(err) != index.Broken {
			t.Errorf("ask %d of quarantined bytes: %v", a, err)
		}
	}
	eventually(t, "the mark is durable", func() bool { return h.Stats().Quarantined == 1 })
	must(t, h.Ready()) // the damage is known and out of the way
	h.reopen()
	if _, err := h.ask(index.AskResolve, cid); index.KindOf(err) != index.Broken {
		t.Errorf("after a restart: %v", err)
	}
	if r := verify(t, h); r.Sound() || !strings.Contains(strings.Join(r.Findings, "\n"), cid) {
		t.Errorf("verify does not list it: %+v", r)
	}
	if m := h.do(putManifest("good")); m.Err != nil || !m.Created {
		t.Fatalf("putting it again: %v, created %v", m.Err, m.Created)
	}
	if a, err := h.ask(index.AskManifest, cid); err != nil || string(a.Body) != "good" {
		t.Errorf("healed: %q, %v", a.Body, err)
	}
	if r := verify(t, h); !r.Sound() || r.Manifests != 2 {
		t.Errorf("verify after healing: %+v", r)
	}
}

// verify closes, verifies and opens again.
func verify(t *testing.T, h *house) Report {
	t.Helper()
	must(t, h.DB.Close())
	calls := 0
	r, err := Verify(t.Context(), h.disk.dir, func(Progress) { calls++ })
	must(t, err)
	h.reopenClosed()
	return r
}

func (h *house) reopenClosed() { h.openWith(options(h.disk.dir, h.clock, h.disk)) }

// tamper writes a value behind the store's back.
func (h *house) tamper(key, value []byte) {
	h.t.Helper()
	must(h.t, h.engine.Load().db.Put(key, value, nil))
}

func TestADamagedRowIsBroken(t *testing.T) {
	h := open(t, t.TempDir())
	h.do(putName(t, "name:a", "a", 5))
	h.do(putProviders("a", h.provider("p", time.Hour)))
	c := cidOf("a")
	key := key_(t, "name:a")
	h.tamper(appendNameKey(nil, &key), appendFrame(nil, []byte("nother"), []byte("row")))
	h.tamper(cidKey(rowProviders, &c), []byte("rubbish"))
	if _, err := h.ask(index.AskResolve, "name:a"); index.KindOf(err) != index.Broken {
		t.Errorf("a name: %v", err)
	}
	if _, err := h.ask(index.AskProviders, c.String()); index.KindOf(err) != index.Broken {
		t.Errorf("providers: %v", err)
	}
	if index.KindOf(h.Ready()) != index.Broken {
		t.Errorf("ready: %v", h.Ready())
	}
	if m := h.do(putName(t, "name:a", "a", 9)); index.KindOf(m.Err) != index.Broken {
		t.Errorf("a name whose sequence is lost must not be replaced: %v", m.Err)
	}
	if m := h.do(putProviders("a", h.provider("q", time.Hour))); m.Err != nil {
		t.Errorf("providers heal themselves: %v", m.Err)
	}
	h.want("a", "q", "a damaged set is replaced")
}

func TestReadinessReturnsAfterAProof(t *testing.T) {
	h := open(t, t.TempDir())
	h.do(putName(t, "name:a", "a", 1))
	key := key_(t, "name:a")
	k := appendNameKey(nil, &key)
	value, err := h.engine.Load().db.Get(k, nil)
	must(t, err)
	h.tamper(k, []byte("rubbish"))
	h.ask(index.AskResolve, "name:a")
	if h.Ready() == nil {
		t.Fatal("ready with a row that cannot be trusted")
	}
	before := h.Stats().Batch
	h.tamper(k, value)
	eventually(t, "ready again", func() bool { return h.Ready() == nil })
	if h.Stats().Batch == before {
		t.Error("ready again without a canary written")
	}
}

func TestALostCanaryClosesTheStore(t *testing.T) {
	h := open(t, t.TempDir())
	must(t, h.engine.Load().db.Delete([]byte(keyCanary), nil))
	eventually(t, "healed", func() bool { return h.Stats().Heals == 1 })
	must(t, h.Ready())
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

func TestVerifyOfASoundStore(t *testing.T) {
	h := open(t, tabled(t))
	h.do(putProviders("c", h.provider("p", time.Hour)))
	h.do(on(index.Pin, "c"))
	h.do(deleteName(t, "name:n3", 0))
	r := verify(t, h)
	if !r.Sound() || r.Manifests != 60 || r.Batches == 0 || r.Tables == 0 {
		t.Errorf("%+v", r)
	}
	if s := h.Stats(); s.Names != 59 || s.Tombstones != 1 || s.Manifests != 60 || s.Bytes == 0 || s.Free == 0 {
		t.Errorf("%+v", s)
	}
}

func TestVerifyNamesADamagedTable(t *testing.T) {
	dir := tabled(t)
	table := tablesOf(t, dir)[0]
	flip(t, table, 100)
	before, err := os.ReadFile(table)
	must(t, err)
	r, err := Verify(t.Context(), dir, nil)
	if err != nil || r.Sound() || !strings.Contains(strings.Join(r.Findings, "\n"), filepath.Base(table)) {
		t.Errorf("%+v, %v", r.Findings, err)
	}
	after, err := os.ReadFile(table)
	if err != nil || !bytes.Equal(before, after) {
		t.Error("verify changed what it looked at")
	}
}

func FuzzScanRecords(f *testing.F) {
	f.Add([]byte{}, 0)
	f.Add(bytes.Repeat([]byte{1}, 100), 50)
	f.Fuzz(func(t *testing.T, b []byte, at int) {
		s := scanRecords(b, func([]byte) error { return nil })
		if s.Good < 0 || s.Good > int64(len(b)) || s.Good+s.Torn > int64(len(b)) && s.Torn > 0 {
			t.Fatalf("%+v of %d bytes", s, len(b))
		}
		readBatch(b)
		(&contents{tables: map[int64]int64{}}).apply(b)
		parseName(b)
		parseSet(b, 0, nil)
		parseIdem(b)
		countLive(b, 0, 1)
	})
}
