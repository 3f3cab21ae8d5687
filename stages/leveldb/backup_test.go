package leveldb

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"svcindex/index"
)

// stocked is a store with some of everything.
func stocked(t testing.TB, path string, n int) *DB {
	t.Helper()
	d, err := Open(Options{Path: path, Sync: true, Audit: true})
	if err != nil {
		t.Fatal(err)
	}
	for i := range n {
		content := fmt.Sprint("content ", i)
		ms := []*index.Mutation{
			putName(t, fmt.Sprintf("name:b/%d", i), content, 3), putManifest(content),
			putProviders(content, index.Provider{ID: "p", Addr: "/ip4/192.0.2.1", LastSeen: 1, Expires: 1 << 40}),
		}
		if i%7 == 0 {
			ms = append(ms, &index.Mutation{Op: index.DeleteName, Key: ms[0].Key})
		}
		if err := d.Commit(ms); err != nil {
			t.Fatal(err)
		}
	}
	return d
}

func restoreInto(t testing.TB, path string, backup []byte) (Report, error) {
	t.Helper()
	return Restore(t.Context(), path, bytes.NewReader(backup), nil)
}

// A backup of a store that is being written to is one moment of it, and a store
// restored from it says the same, goes on, and keeps its promises.
func TestBackupIsOneMoment(t *testing.T) {
	const moment = 600 // more rows than a step, and than a batch of a restore
	d := stocked(t, t.TempDir(), moment)
	defer d.Close()
	before := d.Stats()
	var backup bytes.Buffer
	var once sync.Once
	// The first piece arrives, then more is written: none of it may show.
	rows, err := d.Backup(t.Context(), writerFunc(func(b []byte) (int, error) {
		once.Do(func() {
			for i := range 200 {
				if err := d.Commit([]*index.Mutation{putName(t, fmt.Sprintf("name:b/%d", i), "late", 9), putName(t, fmt.Sprintf("name:z/%d", i), "late", 1)}); err != nil {
					t.Error(err)
				}
			}
		})
		return backup.Write(b)
	}))
	if err != nil || rows < 4*moment {
		t.Fatalf("%d rows, %v", rows, err)
	}
	if s := d.Stats(); s.Snapshots != 0 || s.Iterators != 0 {
		t.Errorf("%d snapshots and %d iterators are left", s.Snapshots, s.Iterators)
	}
	path := filepath.Join(t.TempDir(), "db")
	r, err := restoreInto(t, path, backup.Bytes())
	if err != nil || !r.Sound() {
		t.Fatalf("%+v, %v", r, err)
	}
	back, err := Open(Options{Path: path, Sync: true, Audit: true})
	if err != nil {
		t.Fatal(err)
	}
	defer back.Close()
	after := back.Stats()
	if after.Names != before.Names || after.Tombstones != before.Tombstones || after.Manifests != before.Manifests ||
		after.Sets != before.Sets || after.Providers != before.Providers {
		t.Errorf("restored %+v, backed up %+v", after, before)
	}
	for i := range moment {
		j := &index.Job{Ask: index.AskResolve, Key: key_(t, fmt.Sprintf("name:b/%d", i))}
		err := back.Get(j)
		switch {
		case i%7 == 0:
			if err != index.Missing {
				t.Errorf("name %d was deleted: %v", i, err)
			}
		case err != nil || j.Answer.Name.Seq != 3 || j.Answer.Name.CID != cidOf(fmt.Sprint("content ", i)):
			t.Errorf("name %d: %+v, %v", i, j.Answer.Name, err)
		}
	}
	es, err := back.AuditAfter(0, 1<<20)
	if err != nil || uint64(len(es)) != back.AuditMark().Last || len(es) != moment*3+(moment+6)/7 {
		t.Errorf("%d entries of the audit, mark %+v, %v", len(es), back.AuditMark(), err)
	}
	// A deleted name stays deleted, and the audit goes on where it was.
	m := putName(t, "name:b/0", "again", 2)
	if err := back.Commit([]*index.Mutation{m}); err != nil || m.Err == nil {
		t.Errorf("an old sequence after a deletion: %v %v", err, m.Err)
	}
	if err := back.Commit([]*index.Mutation{putName(t, "name:new", "x", 1)}); err != nil {
		t.Error(err)
	}
	if n := back.AuditMark().Last; n != uint64(len(es))+1 {
		t.Errorf("the audit went on with %d", n)
	}
	var again bytes.Buffer
	if _, err := back.Backup(t.Context(), &again); err != nil {
		t.Errorf("a backup of what was restored: %v", err)
	}
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(b []byte) (int, error) { return f(b) }

func backupOf(t testing.TB, n int) []byte {
	t.Helper()
	d := stocked(t, t.TempDir(), n)
	defer d.Close()
	var b bytes.Buffer
	if _, err := d.Backup(t.Context(), &b); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// Nothing that was cut, changed or added is taken, and nothing of it is left.
func TestRestoreTakesNothingButAWholeBackup(t *testing.T) {
	good := backupOf(t, 20)
	edit := func(f func([]byte) []byte) []byte { return f(bytes.Clone(good)) }
	for _, tt := range []struct {
		why    string
		backup []byte
	}{
		{"nothing", nil},
		{"only a head", good[:len(backupHead)]},
		{"another head", edit(func(b []byte) []byte { b[0] ^= 1; return b })},
		{"cut at the end", good[:len(good)-1]},
		{"without its digest", good[:len(good)-32]},
		{"cut in the middle", good[:len(good)/2]},
		{"something behind it", append(bytes.Clone(good), 0)},
		{"twice", append(bytes.Clone(good), good...)},
		{"a bit in the middle", edit(func(b []byte) []byte { b[len(b)/2] ^= 4; return b })},
		{"a bit in the digest", edit(func(b []byte) []byte { b[len(b)-1] ^= 1; return b })},
		{"a bit in the count", edit(func(b []byte) []byte { b[len(b)-34] ^= 1; return b })},
		{"a length beyond all", append([]byte(backupHead), 0xff, 0xff, 0xff, 0xff, 0x0f)},
	} {
		path := filepath.Join(t.TempDir(), "db")
		if _, err := restoreInto(t, path, tt.backup); !errors.Is(err, index.Broken) {
			t.Errorf("%s: %v", tt.why, err)
		}
		if left, _ := filepath.Glob(path + "*"); len(left) > 0 {
			t.Errorf("%s: %v is left", tt.why, left)
		}
	}
	path := t.TempDir()
	if _, err := restoreInto(t, path, good); err != nil {
		t.Errorf("into an empty directory: %v", err)
	}
	if _, err := restoreInto(t, path, good); !errors.Is(err, index.Invalid) || !strings.Contains(err.Error(), "not empty") {
		t.Errorf("over a database: %v", err)
	}
	if err := os.Mkdir(path+".x.restoring", 0o700); err != nil {
		t.Fatal(err)
	}
	if _, err := restoreInto(t, path+".x", good); err == nil || !strings.Contains(err.Error(), "remove it") {
		t.Errorf("beside a restore that did not end: %v", err)
	}
}

// Anybody can make a backup in which all digests match: what stands in it under
// a publisher's key has to be signed with it, deletions too.
func TestRestoreTakesNoSignatureThatNobodyVouchesFor(t *testing.T) {
	d := stocked(t, t.TempDir(), 3)
	key, sig := bytes.Repeat([]byte{1}, index.PubKeySize), bytes.Repeat([]byte{2}, index.SigSize)
	for i, r := range []index.NameRecord{{CID: cidOf("x"), Seq: 7, PubKey: key, Sig: sig}, {CID: cidOf("x"), Seq: 7, PubKey: key}} {
		m := &index.Mutation{Op: index.PutName, Key: key_(t, fmt.Sprint("name:signed/", i)), Name: r}
		if err := d.Commit([]*index.Mutation{m}); err != nil || m.Err != nil {
			t.Fatal(err, m.Err)
		}
	}
	var b bytes.Buffer
	if _, err := d.Backup(t.Context(), &b); err != nil {
		t.Fatal(err)
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "db")
	var asked []string
	vouch := func(fault error) Vouch {
		return func(name *index.Key, r *index.NameRecord) error {
			if asked = append(asked, name.String()); r.Seq != 7 || !bytes.Equal(r.PubKey, key) {
				t.Errorf("asked about %+v", r)
			}
			return fault
		}
	}
	if _, err := Restore(t.Context(), path, bytes.NewReader(b.Bytes()), vouch(errors.New("forged"))); !errors.Is(err, index.Invalid) || !strings.Contains(err.Error(), "name:signed/0") || !strings.Contains(err.Error(), "forged") {
		t.Errorf("a signature that nobody vouches for: %v", err)
	}
	if left, _ := filepath.Glob(path + "*"); len(left) > 0 {
		t.Errorf("%v is left", left)
	}
	asked = nil
	if _, err := Restore(t.Context(), path, bytes.NewReader(b.Bytes()), vouch(nil)); err != nil || strings.Join(asked, " ") != "name:signed/0 name:signed/1" {
		t.Errorf("asked about %v, %v", asked, err)
	}
}

// A damaged row is not copied as if it were sound, and a reader who stops
// holds nothing.
func TestBackupOfDamageFails(t *testing.T) {
	path := t.TempDir()
	d := stocked(t, path, 20)
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	e, err := Open(Options{Path: path, Sync: true, Audit: true})
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	c := cidOf("content 3")
	if err := e.engine.Load().db.Put(cidKey(rowContent, &c), []byte{contentual, 'x'}, nil); err != nil {
		t.Fatal(err)
	}
	if _, err := e.Backup(t.Context(), &bytes.Buffer{}); !errors.Is(err, index.Broken) || !strings.Contains(err.Error(), c.String()) {
		t.Errorf("a damaged manifest: %v", err)
	}
	gone := errors.New("gone")
	if _, err := e.Backup(t.Context(), writerFunc(func([]byte) (int, error) { return 0, gone })); !errors.Is(err, gone) && !errors.Is(err, index.Broken) {
		t.Errorf("a reader who left: %v", err)
	}
	if s := e.Stats(); s.Snapshots != 0 || s.Iterators != 0 {
		t.Errorf("%d snapshots and %d iterators are left", s.Snapshots, s.Iterators)
	}
}

// FuzzReadBackup: rubbish costs no more memory than its length, and what is
// taken holds only rows that match their digests.
func FuzzReadBackup(f *testing.F) {
	good := backupOf(f, 3)
	f.Add(good)
	f.Add(good[:len(good)/2])
	f.Add([]byte(backupHead + "\x00"))
	f.Fuzz(func(t *testing.T, in []byte) {
		n := uint64(0)
		rows, err := ReadBackup(t.Context(), bytes.NewReader(in), func(key, value []byte) error {
			n++
			if _, ok := unframe(key, value); !ok {
				t.Fatalf("a row that does not match its digest: %q", key)
			}
			return nil
		})
		if n != rows {
			t.Fatalf("%d rows shown, %d said (%v)", n, rows, err)
		}
	})
}
