package audit

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"svcindex/index"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// A fakeStore holds entries as the real one does: a test cannot make that one
// forget.
type fakeStore struct {
	told chan struct{}

	mu      sync.Mutex
	mark    index.AuditMark
	entries []index.AuditEntry // not kept yet
	deaf    bool               // AuditKept fails
}

func newFakeStore() *fakeStore { return &fakeStore{told: make(chan struct{}, 1)} }

func (s *fakeStore) write(m index.Mutation) {
	s.mu.Lock()
	n := s.mark.Last + 1
	text := index.AppendAuditText(nil, n, 1_790_000_000, &m)
	s.mark.Last, s.mark.Head = n, index.ChainAudit(s.mark.Head, text)
	s.entries = append(s.entries, index.AuditEntry{N: n, Text: text, Chain: s.mark.Head})
	s.mu.Unlock()
	select {
	case s.told <- struct{}{}:
	default:
	}
}

func (s *fakeStore) AuditMark() index.AuditMark {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.mark
}

func (s *fakeStore) Audited() <-chan struct{} { return s.told }

func (s *fakeStore) AuditAfter(n uint64, most int) ([]index.AuditEntry, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	i := slices.IndexFunc(s.entries, func(e index.AuditEntry) bool { return e.N > n })
	if i < 0 {
		return nil, nil
	}
	return slices.Clone(s.entries[i:min(i+most, len(s.entries))]), nil
}

func (s *fakeStore) AuditKept(e index.AuditEntry) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.deaf {
		return errors.New("deaf")
	}
	for len(s.entries) > 0 && s.entries[0].N <= e.N {
		s.mark.Kept, s.mark.KeptChain = s.entries[0].N, s.entries[0].Chain
		s.entries = s.entries[1:]
	}
	return nil
}

func named(i int) index.Mutation {
	k, err := index.ParseKey(fmt.Appendf(nil, "name:n/%d", i))
	if err != nil {
		panic(err)
	}
	return index.Mutation{Op: index.PutName, Key: k, Who: "k.n", Record: index.NameRecord{Seq: 1, CID: index.Sum([]byte{byte(i)})}}
}

func keep(t *testing.T, dir string, s *fakeStore, fileMax int64) *Keeper {
	t.Helper()
	k, err := Start(Options{Dir: dir, Linger: time.Millisecond, FileMax: fileMax}, s)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// verify judges the files, and the store if facts are given.
func verify(t *testing.T, dir string, s *fakeStore, facts ...index.Fact) *Report {
	t.Helper()
	v := NewVerifier(time.Unix(1_790_000_001, 0))
	if err := v.Files(dir); err != nil {
		t.Fatal(err)
	}
	v.Mark(s.AuditMark())
	for _, e := range s.entries {
		v.Entry(e)
	}
	if facts != nil {
		for _, f := range facts {
			v.Fact(f)
		}
		v.End()
	}
	return &v.Report
}

func factsOf(n int) (fs []index.Fact) {
	for i := range n {
		m := named(i)
		fs = append(fs, index.Fact{Op: m.Op, Key: m.Key, Seq: m.Record.Seq, CID: m.Record.CID})
	}
	return fs
}

// Entries reach the files once each and in order, over rotations, restarts, and
// crashes at every step.
func TestNoGapAndNoDuplicate(t *testing.T) {
	dir, s := filepath.Join(t.TempDir(), "audit"), newFakeStore()
	n := 0
	write := func(many int) {
		for range many {
			s.write(named(n))
			n++
		}
	}
	for round := range 12 {
		k := keep(t, dir, s, 2000)
		write(5)
		switch round % 4 {
		case 0: // a good end
			if err := k.Close(); err != nil {
				t.Fatal(err)
			}
			continue
		case 1: // written and not told
			s.mu.Lock()
			s.deaf = true
			s.mu.Unlock()
		case 2: // torn in the middle of a line
		}
		close(k.quit)
		k.busy.Wait()
		_ = k.round()
		write(3) // nobody heard of these
		if round%4 == 2 {
			if _, err := k.file.WriteString(`{"n":99999,"at":1`); err != nil {
				t.Fatal(err)
			}
		}
		if k.file != nil {
			_ = k.file.Close()
		}
		if round%4 == 3 { // a crash just after the next file was created
			if err := os.WriteFile(filepath.Join(dir, fmt.Sprintf(nameForm, k.name+1)), []byte(`{"v":1`), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		s.mu.Lock()
		s.deaf = false
		s.mu.Unlock()
	}
	k := keep(t, dir, s, 2000)
	if err := k.Close(); err != nil {
		t.Fatal(err)
	}
	r := verify(t, dir, s, factsOf(n)...)
	if !r.Sound() || r.Entries != uint64(n) || r.Last != uint64(n) || r.First != 1 || r.Files < 5 || len(r.Notes) > 0 {
		t.Errorf("%d entries were written: %+v", n, r)
	}
	if m := s.AuditMark(); m.Kept != uint64(n) || len(s.entries) != 0 {
		t.Errorf("the store was told of %d", m.Kept)
	}
	names, _ := files(dir)
	for _, name := range names {
		if fi, err := os.Stat(filepath.Join(dir, name)); err != nil || fi.Mode().Perm() != 0o600 {
			t.Errorf("%s has mode %v", name, fi.Mode())
		}
	}
}

// Whatever is done to the files or to the store shows.
func TestVerifyFinds(t *testing.T) {
	lines := func(path string) []string {
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		return slices.Collect(strings.Lines(string(b)))
	}
	for _, tt := range []struct {
		why  string
		do   func(files []string) error // to three files of three entries or so
		want string
	}{
		{"nothing", func([]string) error { return nil }, ""},
		{"a line removed", func(fs []string) error {
			l := lines(fs[1])
			return os.WriteFile(fs[1], []byte(strings.Join(slices.Delete(l, len(l)-1, len(l)), "")), 0o600)
		}, "files are missing"},
		{"the first line of a file removed", func(fs []string) error {
			l := lines(fs[1])
			return os.WriteFile(fs[1], []byte(strings.Join(slices.Delete(l, 1, 2), "")), 0o600)
		}, "missing or out of order"},
		{"the last line removed", func(fs []string) error {
			l := lines(fs[len(fs)-1])
			return os.WriteFile(fs[len(fs)-1], []byte(strings.Join(l[:len(l)-1], "")), 0o600)
		}, "missing from the end"},
		{"two lines swapped", func(fs []string) error {
			l := lines(fs[1])
			l[1], l[2] = l[2], l[1]
			return os.WriteFile(fs[1], []byte(strings.Join(l, "")), 0o600)
		}, "out of order"},
		{"a letter changed", func(fs []string) error {
			l := lines(fs[0])
			l[1] = strings.Replace(l[1], `"k.n"`, `"x.n"`, 1)
			return os.WriteFile(fs[0], []byte(strings.Join(l, "")), 0o600)
		}, "was changed"},
		{"a line changed, and all chains after it made anew", func(fs []string) error {
			return rechain(fs, lines, func(s string) string { return strings.Replace(s, `"n":2,"at":1`, `"n":2,"at":2`, 1) })
		}, "not the one the store remembers"},
		{"a line twice", func(fs []string) error {
			l := lines(fs[1])
			return os.WriteFile(fs[1], []byte(strings.Join(slices.Insert(l, 2, l[2]), "")), 0o600)
		}, "out of order"},
		{"a file in the middle removed", func(fs []string) error { return os.Remove(fs[1]) }, "files are missing"},
		{"the newest file removed", func(fs []string) error { return os.Remove(fs[len(fs)-1]) }, "missing from the end"},
		{"a file cut off", func(fs []string) error { return os.Truncate(fs[0], 300) }, "middle of a line"},
		{"rubbish", func(fs []string) error {
			l := lines(fs[0])
			l[1] = "rubbish\n"
			return os.WriteFile(fs[0], []byte(strings.Join(l, "")), 0o600)
		}, "not an entry"},
		{"an entry made up, with the right chain", func(fs []string) error {
			last := lines(fs[len(fs)-1])
			p, _, err := parseLine([]byte(last[len(last)-1]))
			if err != nil {
				return err
			}
			m := named(77)
			text := index.AppendAuditText(nil, p.n+1, 1, &m)
			e := index.AuditEntry{N: p.n + 1, Text: text, Chain: index.ChainAudit(p.chain, text)}
			f, err := os.OpenFile(fs[len(fs)-1], os.O_APPEND|os.O_WRONLY, 0)
			if err != nil {
				return err
			}
			_, err = f.Write(index.AppendAuditLine(nil, &e))
			return errors.Join(err, f.Close())
		}, "entries without their writes"},
	} {
		dir, s := t.TempDir(), newFakeStore()
		k := keep(t, dir, s, 700)
		for i := range 9 {
			s.write(named(i))
			if err := waitKept(s); err != nil {
				t.Fatal(err)
			}
		}
		if err := k.Close(); err != nil {
			t.Fatal(err)
		}
		names, _ := files(dir)
		for i := range names {
			names[i] = filepath.Join(dir, names[i])
		}
		if len(names) < 3 {
			t.Fatalf("only %d files", len(names))
		}
		if err := tt.do(names); err != nil {
			t.Fatal(err)
		}
		r := verify(t, dir, s, factsOf(9)...)
		if (tt.want == "") != r.Sound() || !strings.Contains(strings.Join(r.Findings, "\n"), tt.want) {
			t.Errorf("%s: found %q, want %q", tt.why, r.Findings, tt.want)
		}
	}
}

func waitKept(s *fakeStore) error {
	for until := time.Now().Add(20 * time.Second); ; time.Sleep(time.Millisecond) {
		if m := s.AuditMark(); m.Kept == m.Last {
			return nil
		}
		if time.Now().After(until) {
			return errors.New("never kept")
		}
	}
}

// rechain changes lines and chains everything anew, as a forger would.
func rechain(fs []string, lines func(string) []string, change func(string) string) error {
	var at position
	for _, path := range fs {
		out := []byte{}
		for i, l := range lines(path) {
			if i == 0 {
				out = fmt.Appendf(out, "{\"v\":1,\"first\":%d,\"prev\":\"%x\"}\n", at.n+1, at.chain[:])
				continue
			}
			p, text, err := parseLine([]byte(l))
			if err != nil {
				return err
			}
			e := index.AuditEntry{N: p.n, Text: []byte(change(string(text)))}
			e.Chain = index.ChainAudit(at.chain, e.Text)
			at = position{e.N, e.Chain}
			out = index.AppendAuditLine(out, &e)
		}
		if err := os.WriteFile(path, out, 0o600); err != nil {
			return err
		}
	}
	return nil
}

func TestVerifyHoldsEntriesToWrites(t *testing.T) {
	m := named(1)
	cid := index.CIDKey(index.Sum([]byte("c")))
	provider := index.Mutation{Op: index.PutProviders, Key: cid, Providers: []index.Provider{{ID: "p", Expires: 1_790_000_100}, {ID: "q", Expires: 1_790_000_000}}}
	short := index.Mutation{Op: index.PutProviders, Key: cid, Providers: []index.Provider{{ID: "s", Expires: 1_790_000_000}}}
	heard := index.Mutation{Op: index.PutProviders, Key: cid, Found: true, Who: index.AuditNetwork, Providers: provider.Providers}
	fact := index.Fact{Op: index.PutName, Key: m.Key, Seq: 1, CID: m.Record.CID}
	older := fact
	older.Seq = 0
	for _, tt := range []struct {
		why   string
		ms    []index.Mutation
		facts []index.Fact
		want  string
	}{
		{"a name", []index.Mutation{m}, []index.Fact{fact}, ""},
		{"a write without its entry", []index.Mutation{}, []index.Fact{fact}, "a write without its entry"},
		{"an entry without its write", []index.Mutation{m}, []index.Fact{}, "not in the store"},
		{"a name in another state", []index.Mutation{m}, []index.Fact{older}, "another state"},
		{"deleted, and yet there", []index.Mutation{{Op: index.DeleteName, Key: m.Key, Record: index.NameRecord{Seq: 2}}}, []index.Fact{fact}, "another state"},
		{"providers", []index.Mutation{provider}, []index.Fact{{Op: index.PutProviders, Key: cid, ID: "p"}, {Op: index.PutProviders, Key: cid, ID: "q"}}, ""},
		{"a provider gone before its time", []index.Mutation{provider}, []index.Fact{{Op: index.PutProviders, Key: cid, ID: "q"}}, "not in the store"},
		{"the one of two whose time is over", []index.Mutation{provider}, []index.Fact{{Op: index.PutProviders, Key: cid, ID: "p"}}, ""},
		{"what the network had and there was no room for", []index.Mutation{heard}, []index.Fact{}, ""},
		{"what the network had and is there", []index.Mutation{heard}, []index.Fact{{Op: index.PutProviders, Key: cid, ID: "p"}}, ""},
		{"a provider gone after its time", []index.Mutation{short}, []index.Fact{}, ""},
		{"a provider nobody put", []index.Mutation{provider}, []index.Fact{{Op: index.PutProviders, Key: cid, ID: "p"}, {Op: index.PutProviders, Key: cid, ID: "q"}, {Op: index.PutProviders, Key: cid, ID: "r"}}, "a write without its entry"},
		{"a provider that was deleted", []index.Mutation{short, {Op: index.DeleteProvider, Key: cid, ProviderID: "s"}}, []index.Fact{{Op: index.PutProviders, Key: cid, ID: "s"}}, "a write without its entry"},
		{"a pin that was taken back", []index.Mutation{{Op: index.Pin, Key: cid}, {Op: index.Unpin, Key: cid}}, []index.Fact{}, ""},
		{"a pin nobody set", []index.Mutation{{Op: index.Unpin, Key: cid}}, []index.Fact{{Op: index.Pin, Key: cid}}, "a write without its entry"},
	} {
		s := newFakeStore()
		for _, m := range tt.ms {
			s.write(m)
		}
		facts := tt.facts
		if facts == nil {
			facts = []index.Fact{}
		}
		r := verify(t, t.TempDir(), s, facts...)
		if (tt.want == "") != r.Sound() || !strings.Contains(strings.Join(r.Findings, "\n"), tt.want) {
			t.Errorf("%s: found %q, want %q", tt.why, r.Findings, tt.want)
		}
	}
}

// A store that went back in time does not go on in files that know better.
func TestARestoredStoreBeginsAFileOfItsOwn(t *testing.T) {
	dir, s := t.TempDir(), newFakeStore()
	s.write(named(0))
	old := s.AuditMark()
	oldEntries := slices.Clone(s.entries)
	k := keep(t, dir, s, 0)
	s.write(named(1))
	if err := k.Close(); err != nil {
		t.Fatal(err)
	}
	back := newFakeStore()
	back.mark, back.entries = old, oldEntries
	k = keep(t, dir, back, 0)
	back.write(named(2))
	if err := k.Close(); err != nil {
		t.Fatal(err)
	}
	if names, _ := files(dir); len(names) != 2 {
		t.Errorf("files %v, want two", names)
	}
	if r := verify(t, dir, back); r.Sound() || !strings.Contains(r.Findings[0], "a backup was restored") {
		t.Errorf("found %q", r.Findings)
	}
}

// Writes that never pause must reach the files as they come: what waits in the
// store may only be so much, and then writes end.
func TestWritesThatNeverPauseAreKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newFakeStore()
		k, err := Start(Options{Dir: t.TempDir(), Linger: time.Second}, s)
		if err != nil {
			t.Fatal(err)
		}
		for i := range 100 {
			s.write(named(i))
			time.Sleep(100 * time.Millisecond)
		}
		if m := s.AuditMark(); m.Last-m.Kept > 20 {
			t.Errorf("after ten seconds of writes %d of %d entries still wait", m.Last-m.Kept, m.Last)
		}
		if err := k.Close(); err != nil {
			t.Fatal(err)
		}
	})
}

// A power cut may leave zeros where lines were to be. That is damage to be
// told, and no reason not to start.
func TestALongTailOfZerosDoesNotKeepTheServerDown(t *testing.T) {
	dir, s := t.TempDir(), newFakeStore()
	s.write(named(0))
	k := keep(t, dir, s, 0)
	if err := errors.Join(waitKept(s), k.Close()); err != nil {
		t.Fatal(err)
	}
	names, err := files(dir)
	if err != nil || len(names) != 1 {
		t.Fatal(names, err)
	}
	f, err := os.OpenFile(filepath.Join(dir, names[0]), os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		t.Fatal(err)
	}
	_, err = f.Write(make([]byte, 2*lineMax))
	if err := errors.Join(err, f.Close()); err != nil {
		t.Fatal(err)
	}
	s.write(named(1))
	k = keep(t, dir, s, 0)
	if err := errors.Join(waitKept(s), k.Close()); err != nil {
		t.Fatal(err)
	}
	if r := verify(t, dir, s); r.Sound() {
		t.Error("and nobody is told of it")
	}
}

// Who removes the newest file with the others does not lose what comes after.
func TestAFileThatIsTakenAwayIsNotWrittenOn(t *testing.T) {
	dir, s := t.TempDir(), newFakeStore()
	k := keep(t, dir, s, 0)
	for i := range 3 {
		s.write(named(i))
		if err := waitKept(s); err != nil {
			t.Fatal(err)
		}
		if names, err := files(dir); err != nil || len(names) != 1 {
			t.Fatal(names, err)
		} else if i == 0 {
			if err := os.Remove(filepath.Join(dir, names[0])); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := k.Close(); err != nil {
		t.Fatal(err)
	}
	if r := verify(t, dir, s); !r.Sound() || r.First != 2 || r.Entries != 2 {
		t.Errorf("of three entries, the first removed: %+v", r)
	}
}

// A file whose beginning is damaged may hold entries after that.
func TestADamagedFileIsKept(t *testing.T) {
	dir, s := t.TempDir(), newFakeStore()
	path := filepath.Join(dir, fmt.Sprintf(nameForm, 1))
	if err := os.WriteFile(path, append(make([]byte, lineMax), "\n{}\n"...), 0o600); err != nil {
		t.Fatal(err)
	}
	s.write(named(0))
	k := keep(t, dir, s, 0)
	if err := errors.Join(waitKept(s), k.Close()); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(path); err != nil {
		t.Errorf("it is gone: %v", err)
	}
	if r := verify(t, dir, s); r.Sound() {
		t.Error("and nobody is told of it")
	}
}

// FuzzLine: what is taken for an entry is written the same way.
func FuzzLine(f *testing.F) {
	m := named(1)
	e := index.AuditEntry{N: 1, Text: index.AppendAuditText(nil, 1, 1, &m)}
	f.Add(index.AppendAuditLine(nil, &e))
	f.Add([]byte(`{"n":1,"chain":"` + strings.Repeat("0", 64) + "\"}\n"))
	f.Fuzz(func(t *testing.T, in []byte) {
		p, text, err := parseLine(in)
		if err != nil {
			return
		}
		again := index.AppendAuditLine(nil, &index.AuditEntry{N: p.n, Text: text, Chain: p.chain})
		if !strings.EqualFold(string(again), string(in)) {
			t.Fatalf("%q is written %q", in, again)
		}
	})
}
