package main

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"svcindex/index"
)

func TestMapSegment(t *testing.T) {
	for _, tt := range []struct{ why, in, want string }{
		{"what a name can hold stays", "aZ09._+-", "aZ09._+-"},
		{"the escape itself is escaped, so no two collide", "a~20b", "a~7e20b"},
		{"@ would open a self-certifying name", "@me", "~40me"},
		{"a blank", "a b", "a~20b"},
		{"bytes, not runes", "é", "~c3~a9"},
		{"lowercase hex", "\x1f\xff", "~1f~ff"},
		{"three dots are a segment", "...", "..."},
		{"a colon", "a:b", "a~3ab"},
	} {
		got := mapSegment(tt.in)
		if got != tt.want {
			t.Errorf("%s: mapSegment(%q) = %s, want %s", tt.why, tt.in, got, tt.want)
		}
		if _, err := index.ParseKey("name:x/" + got); err != nil {
			t.Errorf("%s: %s is no name: %v", tt.why, got, err)
		}
	}
}

// plant makes files under a new directory; a content of "/" makes a directory.
func plant(t *testing.T, files map[string]string) string {
	t.Helper()
	root := t.TempDir()
	for path, content := range files {
		full := filepath.Join(root, path)
		if err := os.MkdirAll(filepath.Dir(full), 0o755); err != nil {
			t.Fatal(err)
		}
		var err error
		if content == "/" {
			err = os.MkdirAll(full, 0o755)
		} else {
			err = os.WriteFile(full, []byte(content), 0o644)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return root
}

// readTree scans, hashes and seals what args name.
func readTree(t *testing.T, args ...string) ([]*folder, *scan) {
	t.Helper()
	roots, err := arguments(args, "p", nil)
	if err != nil {
		t.Fatal(err)
	}
	s := &scan{ctx: t.Context(), tally: &tally{}}
	var all []*folder
	for _, r := range roots {
		s.fill(r)
		r.walk(func(f *folder) { all = append(all, f) })
	}
	hashAll(t.Context(), all, 2, s.tally, &progress{})
	for _, r := range roots {
		r.seal()
	}
	return roots, s
}

func TestTheSameTreeHasTheSameIDWhateverItsName(t *testing.T) {
	files := map[string]string{"a": "1", "d/b": "2", "d/e/c": "3", "d/e/empty": "/", "Z": ""}
	one, _ := readTree(t, plant(t, files))
	two, _ := readTree(t, plant(t, files))
	if one[0].manifest().cid != two[0].manifest().cid {
		t.Error("two copies of a tree have two ids")
	}
	files["d/e/c"] = "4"
	three, _ := readTree(t, plant(t, files))
	if one[0].manifest().cid == three[0].manifest().cid {
		t.Error("a changed tree has the old id")
	}
	want := `{"dirs":[{"cid":"` + one[0].dirs[0].manifest().cid.String() + `","name":"d"}],"files":[` +
		`{"b3":"` + cidOfNothing + `","path":"Z","size":0},` +
		`{"b3":"` + index.Sum([]byte("1")).String() + `","path":"a","size":1}],"v":1}`
	if got := string(one[0].manifest().text); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

func TestLinksAndSpecialFilesAreSkippedAndCounted(t *testing.T) {
	root := plant(t, map[string]string{"a": "1", "d/b": "2"})
	for link, to := range map[string]string{"to-file": "a", "to-dir": "d", "to-nothing": "x", "loop": "."} {
		if err := os.Symlink(to, filepath.Join(root, link)); err != nil {
			t.Fatal(err)
		}
	}
	if err := syscall.Mkfifo(filepath.Join(root, "pipe"), 0o600); err != nil {
		t.Fatal(err)
	}
	roots, s := readTree(t, root)
	if s.links != 4 || s.specials != 1 || s.files != 2 || s.dirs != 2 {
		t.Errorf("%d links, %d specials, %d files, %d dirs", s.links, s.specials, s.files, s.dirs)
	}
	plain, _ := readTree(t, plant(t, map[string]string{"a": "1", "d/b": "2"}))
	if roots[0].manifest().cid != plain[0].manifest().cid {
		t.Error("skipped entries left a trace in the manifest")
	}
}

func TestANameThatIsNotUTF8FailsItsDirectoryAndThoseAbove(t *testing.T) {
	root := plant(t, map[string]string{"good/a": "1", "bad/x/\xff": "2", "bad/y/b": "3"})
	roots, s := readTree(t, root)
	n, first := s.tally.failures()
	if n != 1 || !strings.Contains(first[0], "not UTF-8") {
		t.Errorf("%d failures: %q", n, first)
	}
	damaged := map[string]bool{}
	roots[0].walk(func(f *folder) { damaged[f.name] = f.damaged })
	want := map[string]bool{"name:p": true, "name:p/good": false, "name:p/bad": true, "name:p/bad/x": true, "name:p/bad/y": false}
	for name, bad := range want {
		if damaged[name] != bad {
			t.Errorf("%s: damaged is %v, want %v", name, damaged[name], bad)
		}
	}
}

func TestHasher(t *testing.T) {
	dir := plant(t, map[string]string{"small": "abc", "empty": "", "big": strings.Repeat("x", 3*hashStep+1)})
	var read atomic.Int64
	h := newHasher(&read)
	for _, name := range []string{"small", "empty", "big", "small"} {
		content, _ := os.ReadFile(filepath.Join(dir, name))
		cid, size, err := h.file(t.Context(), filepath.Join(dir, name))
		if err != nil || cid != index.Sum(content) || size != int64(len(content)) {
			t.Errorf("%s: %s, %d, %v", name, cid, size, err)
		}
	}
	if n := read.Load(); n != 3*hashStep+1+6 {
		t.Errorf("%d bytes were counted", n)
	}
	if err := os.Symlink("small", filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	if _, _, err := h.file(t.Context(), filepath.Join(dir, "link")); err == nil {
		t.Error("a link was followed")
	}
	if _, _, err := h.file(t.Context(), dir); !errors.Is(err, errReplaced) {
		t.Errorf("a directory: %v", err)
	}
	if _, _, err := h.file(t.Context(), filepath.Join(dir, "gone")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a file that vanished: %v", err)
	}
}

// A readerFunc is a reader in one line.
type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(b []byte) (int, error) { return f(b) }

func TestAnInterruptDoesNotWaitForTheEndOfABigFile(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	endless := readerFunc(func(b []byte) (int, error) { cancel(); return len(b), nil })
	var read atomic.Int64
	if _, err := newHasher(&read).stream(ctx, endless, 1<<60); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

func TestAFileThatOutrunsUsIsGivenUp(t *testing.T) {
	steps := 0
	endless := readerFunc(func(b []byte) (int, error) { steps++; return len(b), nil })
	var read atomic.Int64
	if _, err := newHasher(&read).stream(t.Context(), endless, 2*hashStep); !errors.Is(err, errChanged) || steps != 3 {
		t.Errorf("after %d steps: %v", steps, err)
	}
}

// Who may write to a tree that is being published must not have files published
// that he may not read.
func TestADirectoryThatBecomesALinkIsNotFollowed(t *testing.T) {
	secret := plant(t, map[string]string{"f": "secret", "e/f": "secret"})
	root := plant(t, map[string]string{"d/f": "mine", "d/e/f": "mine"})
	roots, err := arguments([]string{root}, "p", nil)
	if err != nil {
		t.Fatal(err)
	}
	s := &scan{ctx: t.Context(), tally: &tally{}}
	s.fill(roots[0])
	d := filepath.Join(root, "d")
	if err := errors.Join(os.Rename(d, d+".was"), os.Symlink(secret, d)); err != nil {
		t.Fatal(err)
	}
	var all []*folder
	roots[0].walk(func(f *folder) { all = append(all, f) })
	hashAll(t.Context(), all, 2, s.tally, &progress{})
	for _, f := range all {
		for _, e := range f.files {
			if !e.bad {
				t.Errorf("%s of %s would be published as %s", e.base, f.name, e.cid)
			}
		}
	}
	if n, first := s.tally.failures(); n != 2 {
		t.Errorf("%d failures: %q", n, first)
	}
	if _, err := readDir(filepath.Join(d, "e")); err == nil {
		t.Error("a directory behind a link was read")
	}
}

func TestSameNoticesWhatHappenedMeanwhile(t *testing.T) {
	for _, tt := range []struct {
		why  string
		do   func(path string) error
		same bool
	}{
		{"nothing", func(string) error { return nil }, true},
		{"grown", func(p string) error { return os.WriteFile(p, []byte("abcd"), 0o644) }, false},
		{"written in place", func(p string) error {
			when, err := os.Stat(p)
			if err != nil {
				return err
			}
			return os.Chtimes(p, when.ModTime(), when.ModTime().Add(1))
		}, false},
		{"replaced", func(p string) error {
			if err := os.WriteFile(p+"2", []byte("abc"), 0o644); err != nil {
				return err
			}
			return os.Rename(p+"2", p)
		}, false},
	} {
		path := filepath.Join(plant(t, map[string]string{"f": "abc"}), "f")
		before, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		if err := tt.do(path); err != nil {
			t.Fatal(err)
		}
		after, err := os.Lstat(path)
		if err != nil {
			t.Fatal(err)
		}
		if got := same(before, after); got != tt.same {
			t.Errorf("%s: same = %v", tt.why, got)
		}
	}
}

func TestArguments(t *testing.T) {
	root := plant(t, map[string]string{"d/a": "1", "e/a": "1", "f x": "1"})
	if err := os.Symlink("d", filepath.Join(root, "link")); err != nil {
		t.Fatal(err)
	}
	t.Chdir(filepath.Join(root, "d"))
	at := func(s string) string { return filepath.Join(root, s) }
	for _, tt := range []struct {
		why    string
		args   []string
		prefix string
		want   string // names, or the start of an error
	}{
		{"one directory is the prefix itself", []string{at("d")}, "name:go/src", "name:go/src"},
		{"the prefix's name: is optional, as is a slash at its end", []string{at("d")}, "go/src/", "name:go/src"},
		{"a file is below it", []string{at("f x")}, "p", "name:p/f~20x"},
		{"several are below it", []string{at("d"), at("e")}, "p", "name:p/d name:p/e"},
		{"a dot has a base name", []string{".", at("e")}, "p", "name:p/d name:p/e"},
		{"a link is followed and keeps its name", []string{at("link"), at("e")}, "p", "name:p/link name:p/e"},
		{"two of one name", []string{at("d/a"), at("e/a")}, "p", "error: would both be name:p/a"},
		{"no prefix", []string{at("d")}, "", "error: --prefix is missing"},
		{"a bad prefix", []string{at("d")}, "a b", "error: --prefix"},
		{"not there", []string{at("nope")}, "p", "error: no such file"},
		{"neither file nor directory", []string{"/dev/null"}, "p", "error: neither"},
	} {
		roots, err := arguments(tt.args, tt.prefix, nil)
		var names []string
		for _, r := range roots {
			names = append(names, r.name)
		}
		want, wrong := strings.CutPrefix(tt.want, "error: ")
		if wrong && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%s: error %v, want %q", tt.why, err, want)
		}
		if !wrong && (err != nil || strings.Join(names, " ") != want) {
			t.Errorf("%s: got %v (%v), want %s", tt.why, names, err, want)
		}
	}
}

func TestAFileArgumentIsAFolderOfOneFile(t *testing.T) {
	root := plant(t, map[string]string{"d/only": "1"})
	lone, _ := readTree(t, filepath.Join(root, "d/only"))
	dir, _ := readTree(t, filepath.Join(root, "d"))
	if lone[0].manifest().cid != dir[0].manifest().cid {
		t.Errorf("got %s", lone[0].manifest().text)
	}
}
