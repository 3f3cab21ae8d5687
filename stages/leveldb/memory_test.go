package leveldb

import (
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"github.com/syndtr/goleveldb/leveldb/storage"

	"svcindex/index"
)

// A store in memory answers like any other, touches no disk, heals, and is
// full at its bound.
func TestAStoreInMemory(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "never")
	d, err := Open(Options{Path: dir, Sync: true, Memory: 24 << 20})
	must(t, err)
	defer d.Close()
	must(t, d.Commit([]*index.Mutation{putManifest("content"), putName(t, "name:a", "content", 1)}))
	j := &index.Job{Ask: index.AskResolve, Key: key_(t, "name:a")}
	if err := d.Get(j); err != nil || j.Answer.Name.CID != cidOf("content") {
		t.Errorf("name:a is %+v, %v", j.Answer.Name, err)
	}
	must(t, d.reopen())
	if err := d.Get(&index.Job{Ask: index.AskManifest, Key: index.CIDKey(cidOf("content"))}); err != nil {
		t.Errorf("after it healed: %v", err)
	}
	full := false
	for i := 0; i < 64 && !full; i++ {
		err := d.Commit([]*index.Mutation{putManifest(noise(i, 1<<20))})
		if full = index.KindOf(err) == index.Full; err != nil && !full {
			t.Fatal(err)
		}
	}
	if n := d.memory.bytes(); !full || n > 24<<20+tableSize {
		t.Errorf("full: %v, at %d bytes, want it at 24 MiB", full, n)
	}
	if err := d.Get(j); err != nil {
		t.Errorf("a full store does not read: %v", err)
	}
	if _, err := os.Stat(dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("there is something on the disk: %v", err)
	}
}

// noise is n bytes that do not compress.
func noise(seed, n int) string {
	b := make([]byte, n)
	_, _ = rand.NewChaCha8([32]byte{byte(seed)}).Read(b)
	return string(b)
}

func TestTheBooksOfAMemory(t *testing.T) {
	m := newMemory()
	one, two := storage.FileDesc{Type: storage.TypeTable, Num: 1}, storage.FileDesc{Type: storage.TypeTable, Num: 2}
	for _, fd := range []storage.FileDesc{one, two} {
		w, err := m.Create(fd)
		must(t, err)
		_, err = w.Write(make([]byte, 100*fd.Num))
		must(t, err)
		must(t, w.Close())
	}
	for _, step := range []struct {
		do   func() error
		want int64
	}{
		{func() error { return nil }, 300},
		{func() error { return m.Rename(one, two) }, 100},
		{func() error { w, err := m.Create(two); must(t, w.Close()); return err }, 0},
		{func() error { return m.Remove(two) }, 0},
	} {
		must(t, step.do())
		if n := m.bytes(); n != step.want {
			t.Errorf("%d bytes, want %d", n, step.want)
		}
	}
}
