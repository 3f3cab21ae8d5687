package leveldb

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/syndtr/goleveldb/leveldb/storage"
	"go.uber.org/goleak"

	"svcindex/index"
)

// goleveldb's pool drainer takes a second to notice that its store is closed.
func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m, goleak.IgnoreAnyFunction("github.com/syndtr/goleveldb/leveldb.(*DB).mpoolDrain"))
}

// A clock is a wall clock that tests set.
type clock struct{ at atomic.Int64 }

func newClock() *clock {
	c := new(clock)
	c.at.Store(1_790_000_000)
	return c
}

func (c *clock) now() time.Time           { return time.Unix(c.at.Load(), 0) }
func (c *clock) move(by time.Duration)    { c.at.Add(int64(by / time.Second)) }
func (c *clock) in(d time.Duration) int64 { return c.at.Load() + int64(d/time.Second) }

// A disk lies between the store and the real disk: it counts, it fails on
// demand, and it knows what a power cut would leave.
type disk struct {
	dir      string
	syncs    atomic.Int64
	failSync atomic.Pointer[error] // of journals
	failAll  atomic.Pointer[error] // every write, sync and creation

	mu     sync.Mutex       // protects the field below
	synced map[string]int64 // journal -> bytes that a power cut leaves
}

func (d *disk) wrap(s storage.Storage) storage.Storage { return &diskStorage{s, d} }

func (d *disk) fails() error {
	if p := d.failAll.Load(); p != nil {
		return *p
	}
	return nil
}

type diskStorage struct {
	storage.Storage
	disk *disk
}

func (s *diskStorage) Create(fd storage.FileDesc) (storage.Writer, error) {
	if err := s.disk.fails(); err != nil {
		return nil, &os.PathError{Op: "create", Path: fd.String(), Err: err}
	}
	w, err := s.Storage.Create(fd)
	if err != nil {
		return nil, err
	}
	return &diskFile{Writer: w, fd: fd, disk: s.disk}, nil
}

type diskFile struct {
	storage.Writer
	fd   storage.FileDesc
	disk *disk
	size int64
}

func (f *diskFile) Write(b []byte) (int, error) {
	if err := f.disk.fails(); err != nil {
		return 0, &os.PathError{Op: "write", Path: f.fd.String(), Err: err}
	}
	n, err := f.Writer.Write(b)
	f.size += int64(n)
	return n, err
}

func (f *diskFile) Sync() error {
	if err := f.disk.fails(); err != nil {
		return &os.PathError{Op: "sync", Path: f.fd.String(), Err: err}
	}
	if f.fd.Type == storage.TypeJournal {
		f.disk.syncs.Add(1)
		if p := f.disk.failSync.Swap(nil); p != nil {
			return &os.PathError{Op: "sync", Path: f.fd.String(), Err: *p}
		}
	}
	err := f.Writer.Sync()
	if err == nil && f.fd.Type == storage.TypeJournal {
		f.disk.mu.Lock()
		f.disk.synced[f.fd.String()] = f.size
		f.disk.mu.Unlock()
	}
	return err
}

// cut copies the directory as a power cut would leave it: journals only as far
// as they were synced.
func (d *disk) cut(t *testing.T) string {
	t.Helper()
	d.mu.Lock()
	defer d.mu.Unlock()
	to := copyDir(t, d.dir)
	logs, _ := filepath.Glob(filepath.Join(to, "*.log"))
	for _, l := range logs {
		must(t, os.Truncate(l, min(d.synced[filepath.Base(l)], size(t, l))))
	}
	return to
}

func copyDir(t *testing.T, from string) string {
	t.Helper()
	to := t.TempDir()
	entries, err := os.ReadDir(from)
	must(t, err)
	for _, e := range entries {
		b, err := os.ReadFile(filepath.Join(from, e.Name()))
		if errors.Is(err, os.ErrNotExist) {
			continue // deleted by a compaction meanwhile
		}
		must(t, err)
		must(t, os.WriteFile(filepath.Join(to, e.Name()), b, 0o600))
	}
	return to
}

// A house is a store with its clock and its disk.
type house struct {
	*DB
	t     *testing.T
	clock *clock
	disk  *disk
}

func options(dir string, c *clock, d *disk) Options {
	o := Options{Path: dir, Sync: true, Now: c.now}
	if d != nil {
		d.dir, d.synced = dir, map[string]int64{}
		o.wrap = d.wrap
	}
	return o
}

func open(t *testing.T, dir string) *house {
	t.Helper()
	h := &house{t: t, clock: newClock(), disk: new(disk)}
	h.openWith(options(dir, h.clock, h.disk))
	return h
}

func (h *house) openWith(o Options) {
	h.t.Helper()
	db, err := Open(o)
	must(h.t, err)
	h.DB = db
	h.t.Cleanup(func() { db.Close() })
}

// reopen closes and opens again, with the same clock.
func (h *house) reopen() {
	h.t.Helper()
	must(h.t, h.DB.Close())
	h.openWith(options(h.disk.dir, h.clock, h.disk))
}

func (h *house) do(m *index.Mutation) *index.Mutation {
	h.t.Helper()
	must(h.t, h.Commit([]*index.Mutation{m}))
	return m
}

func (h *house) ask(a index.Ask, key string) (index.Answer, error) {
	h.t.Helper()
	j := &index.Job{Ask: a, Key: key_(h.t, key)}
	err := h.Get(j)
	return j.Answer, err
}

// eventually waits for what another goroutine does in its own time.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		if ok() {
			return
		}
	}
	t.Fatal("never: " + what)
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func size(t *testing.T, path string) int64 {
	t.Helper()
	fi, err := os.Stat(path)
	must(t, err)
	return fi.Size()
}

func key_(t testing.TB, s string) index.Key {
	t.Helper()
	k, err := index.ParseKey(s)
	must(t, err)
	return k
}

func cidOf(s string) index.CID { return index.Sum([]byte(s)) }

func putManifest(s string) *index.Mutation {
	return &index.Mutation{Op: index.PutManifest, Key: index.CIDKey(cidOf(s)), Manifest: []byte(s)}
}

func putName(t testing.TB, name, content string, seq uint64) *index.Mutation {
	return &index.Mutation{Op: index.PutName, Key: key_(t, name), Name: index.NameRecord{CID: cidOf(content), Seq: seq}}
}

func deleteName(t testing.TB, name string, seq uint64) *index.Mutation {
	return &index.Mutation{Op: index.DeleteName, Key: key_(t, name), Name: index.NameRecord{Seq: seq}}
}

func putProviders(content string, ps ...index.Provider) *index.Mutation {
	return &index.Mutation{Op: index.PutProviders, Key: index.CIDKey(cidOf(content)), Providers: ps}
}

func deleteProvider(content, id string) *index.Mutation {
	return &index.Mutation{Op: index.DeleteProvider, Key: index.CIDKey(cidOf(content)), ProviderID: id}
}

func on(op index.Op, content string) *index.Mutation {
	return &index.Mutation{Op: op, Key: index.CIDKey(cidOf(content))}
}

func (h *house) provider(id string, lives time.Duration) index.Provider {
	return index.Provider{ID: id, Addr: "http://" + id, Region: "eu", LastSeen: h.clock.in(0), Expires: h.clock.in(lives)}
}

// journal returns the path of the one journal in use.
func journalOf(t *testing.T, dir string) string {
	t.Helper()
	logs, err := filepath.Glob(filepath.Join(dir, "*.log"))
	must(t, err)
	slices.Sort(logs)
	if len(logs) == 0 {
		t.Fatal("no journal in " + dir)
	}
	return logs[len(logs)-1]
}

func tablesOf(t *testing.T, dir string) []string {
	t.Helper()
	tables, err := filepath.Glob(filepath.Join(dir, "*.ldb"))
	must(t, err)
	return tables
}

// flip turns one bit of a file.
func flip(t *testing.T, path string, at int64) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	must(t, err)
	defer f.Close()
	var b [1]byte
	_, err = f.ReadAt(b[:], at)
	must(t, err)
	b[0] ^= 0x40
	_, err = f.WriteAt(b[:], at)
	must(t, err)
}

func appendTo(t *testing.T, path string, b []byte) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND, 0)
	must(t, err)
	_, err = f.Write(b)
	must(t, errors.Join(err, f.Close()))
}

func contains(err error, words ...string) bool {
	for _, w := range words {
		if err == nil || !strings.Contains(err.Error(), w) {
			return false
		}
	}
	return true
}
