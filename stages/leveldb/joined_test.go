package leveldb

import (
	"bytes"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/syndtr/goleveldb/leveldb/storage"

	"svcindex/index"
)

// SlowTables wait until the store is being closed, so that a full journal stays
// in use.
type slowTables struct {
	storage.Storage
	closing chan struct{}
}

func (s *slowTables) Create(fd storage.FileDesc) (storage.Writer, error) {
	if fd.Type == storage.TypeTable {
		<-s.closing
	}
	return s.Storage.Create(fd)
}

// slow are options of a store with slow tables. That it is being closed is in
// goleveldb's diary.
func slow(dir string) Options {
	closing, once := make(chan struct{}), sync.Once{}
	diary := writerFunc(func(b []byte) (int, error) {
		if bytes.Contains(b, []byte("db@close closing")) {
			once.Do(func() { close(closing) })
		}
		return len(b), nil
	})
	o := options(dir, newClock(), nil)
	o.wrap = func(s storage.Storage) storage.Storage { return &slowTables{s, closing} }
	o.Log = slog.New(slog.NewTextHandler(diary, &slog.HandlerOptions{Level: slog.LevelDebug}))
	return o
}

// big is a manifest of which some ten fill a journal.
func big(i int) string { return strings.Repeat(fmt.Sprintf("bytes of %d ", i), 80_000) }

// twoJournals fills a journal and begins the next. It returns what is left of
// the store after kill -9, and after a good end.
func twoJournals(t *testing.T) (killed, closed string) {
	t.Helper()
	o := slow(t.TempDir())
	h := &house{t: t}
	h.openWith(o)
	h.do(putName(t, "name:new", "old", 1))
	h.do(putName(t, "name:gone", "old", 1))
	for i := range 11 {
		h.do(putManifest(big(i)))
	}
	h.do(putName(t, "name:new", "new", 2))
	h.do(deleteName(t, "name:gone", 2))
	killed = copyDir(t, o.Path)
	must(t, h.DB.Close())
	for _, dir := range []string{killed, o.Path} {
		if in, err := inspect(dir); err != nil || len(in.journals) != 2 || len(in.ends) == 0 && dir == killed {
			t.Fatalf("journals %v in use, ends %v, %v: this test proves nothing", in.journals, in.ends, err)
		}
	}
	return killed, o.Path
}

// goleveldb, which may not write, takes the end of the first of two journals
// for an error.
func TestTwoJournalsAreReadAsOne(t *testing.T) {
	killed, closed := twoJournals(t)
	torn := copyDir(t, killed)
	must(t, os.Truncate(journalOf(t, torn), size(t, journalOf(t, closed))-20)) // the deletion goes, and only zeros with it
	for _, tt := range []struct {
		why, dir string
		gone     index.Kind
	}{
		{"after kill -9", killed, index.Missing},
		{"after a good end", closed, index.Missing},
		{"with a torn tail", torn, index.OK},
	} {
		r, err := Verify(t.Context(), tt.dir, nil)
		if err != nil || !r.Sound() || r.Manifests != 11 {
			t.Errorf("%s: verify: %+v, %v", tt.why, r, err)
		}
		var log bytes.Buffer
		o := options(tt.dir, newClock(), nil)
		o.Log = slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelWarn}))
		d, err := newDB(o)
		must(t, err)
		d.openReadOnly()
		e := d.engine.Load()
		if e == nil {
			t.Errorf("%s: not opened for reading only", tt.why)
			continue
		}
		h := &house{DB: d, t: t}
		if a, err := h.ask(index.AskResolve, "name:new"); err != nil || a.Name.Seq != 2 {
			t.Errorf("%s: a name of both journals: %+v, %v", tt.why, a.Name, err)
		}
		if _, err := h.ask(index.AskResolve, "name:gone"); index.KindOf(err) != tt.gone {
			t.Errorf("%s: a name deleted in the second journal: %v", tt.why, err)
		}
		for i := range 11 {
			if a, err := h.ask(index.AskManifest, cidOf(big(i)).String()); err != nil || string(a.Body) != big(i) {
				t.Errorf("%s: manifest %d: %d bytes, %v", tt.why, i, len(a.Body), err)
			}
		}
		if tt.dir != torn && log.Len() > 0 {
			t.Errorf("%s: opening it was worth a warning: %s", tt.why, log.Bytes())
		}
		must(t, e.retire(nil))
	}
}

func TestABackupOfMoreThanAJournalIsRestored(t *testing.T) {
	d, err := Open(options(t.TempDir(), newClock(), nil))
	must(t, err)
	defer d.Close()
	for i := range 11 {
		must(t, d.Commit([]*index.Mutation{putManifest(big(i))}))
	}
	var backup bytes.Buffer
	_, err = d.Backup(t.Context(), &backup)
	must(t, err)
	o := slow(filepath.Join(t.TempDir(), "db"))
	r, err := restore(t.Context(), o, &backup, nil)
	if err != nil || r.Manifests != 11 {
		t.Fatalf("%+v, %v", r, err)
	}
	if in, err := inspect(o.Path); err != nil || len(in.journals) != 2 {
		t.Errorf("journals %v in use, %v: this test proves nothing", in.journals, err)
	}
}
