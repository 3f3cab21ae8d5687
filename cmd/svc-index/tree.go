package main

import (
	"context"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"unicode/utf8"

	"golang.org/x/sys/unix"

	"svcindex/index"
)

// hashStep is how much of a file is in memory at once, per worker.
const hashStep = 64 << 10

// A folder is what gets a manifest and a name: a directory, or a FILE argument
// dressed as a directory that holds only that file.
type folder struct {
	path  string // on disk; of a FILE argument, the file
	base  string // in its parent's manifest; empty for an argument
	name  string // what it is published under
	lone  bool   // a FILE argument
	files []file
	dirs  []*folder

	// Some of it could not be read. A manifest without that part would say
	// that it does not exist, so there is none, nor one for the folders above.
	damaged bool

	facets []facet
	pages  []page // the manifest is the last; before it its parts, if any

	published bool // name points to the manifest
}

// A file is an entry of a folder.
type file struct {
	base string
	size int64
	cid  index.CID
	bad  bool // could not be read
}

// manifest returns the folder's own manifest.
func (f *folder) manifest() page { return f.pages[len(f.pages)-1] }

// pathOf returns where file i is on disk.
func (f *folder) pathOf(i int) string {
	if f.lone {
		return f.path
	}
	return filepath.Join(f.path, f.files[i].base)
}

// walk calls visit for f and all folders below it, children first.
func (f *folder) walk(visit func(*folder)) {
	for _, d := range f.dirs {
		d.walk(visit)
	}
	visit(f)
}

// mapSegment turns the base name of a file into a segment of a name: each byte
// that a name cannot hold, and ~ and @, becomes ~ and two hex digits. No two
// base names share a segment.
func mapSegment(base string) string {
	const hex = "0123456789abcdef"
	b := make([]byte, 0, len(base))
	for i := range len(base) {
		if c := base[i]; inSegment(c) {
			b = append(b, c)
		} else {
			b = append(b, '~', hex[c>>4], hex[c&15])
		}
	}
	return string(b)
}

func inSegment(c byte) bool {
	return c >= '0' && c <= '9' || c >= 'A' && c <= 'Z' || c >= 'a' && c <= 'z' ||
		strings.IndexByte("._+-", c) >= 0
}

// A scan walks real directories and notes what is there.
type scan struct {
	ctx             context.Context
	tally           *tally
	dirs, files     int64
	links, specials int64 // skipped
}

var errNotUTF8 = errors.New("its name is not UTF-8, which JSON cannot hold: rename it")

// fill reads the directory of f and all below it.
func (s *scan) fill(f *folder) {
	if f.lone {
		f.files = []file{{base: f.base}}
		f.base = ""
		s.files++
		return
	}
	if s.ctx.Err() != nil {
		return
	}
	s.dirs++
	entries, err := readDir(f.path)
	if err != nil {
		f.damaged = true
		s.tally.fail(f.path, err)
	}
	for _, e := range entries {
		s.take(f, e)
	}
}

func (s *scan) take(f *folder, e fs.DirEntry) {
	switch kind := e.Type(); {
	case kind&fs.ModeSymlink != 0:
		s.links++
	case !kind.IsDir() && !kind.IsRegular():
		s.specials++
	case !utf8.ValidString(e.Name()):
		f.damaged = true
		s.tally.fail(filepath.Join(f.path, e.Name()), errNotUTF8)
	case kind.IsDir():
		d := &folder{path: filepath.Join(f.path, e.Name()), base: e.Name(), name: f.name + "/" + mapSegment(e.Name())}
		f.dirs = append(f.dirs, d)
		s.fill(d)
	default:
		f.files = append(f.files, file{base: e.Name()})
		s.files++
	}
}

// openReal opens what is at path for reading, and follows no link, also not on
// the way: what was a directory when it was listed may be a link by now, put
// there by somebody who may write here and not read where it leads.
func openReal(path string, flags int) (*os.File, error) {
	how := unix.OpenHow{Flags: uint64(unix.O_RDONLY | unix.O_CLOEXEC | flags), Resolve: unix.RESOLVE_NO_SYMLINKS}
	for {
		fd, err := unix.Openat2(unix.AT_FDCWD, path, &how)
		switch err {
		case nil:
			return os.NewFile(uintptr(fd), path), nil
		case unix.EINTR:
		case unix.ENOSYS, unix.EPERM: // an old kernel, or a sandbox that does not know the call
			return os.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW|flags, 0)
		default:
			return nil, &fs.PathError{Op: "open", Path: path, Err: err}
		}
	}
}

// readDir returns the entries of a directory sorted by the bytes of their
// names.
func readDir(path string) ([]fs.DirEntry, error) {
	d, err := openReal(path, unix.O_DIRECTORY)
	if err != nil {
		return nil, err
	}
	defer d.Close()
	entries, err := d.ReadDir(-1)
	slices.SortFunc(entries, func(a, b fs.DirEntry) int { return strings.Compare(a.Name(), b.Name()) })
	return entries, err
}

// hashAll hashes the files of all folders, n at a time.
func hashAll(ctx context.Context, folders []*folder, n int, t *tally, p *progress) {
	type task struct {
		f *folder
		i int
	}
	var tasks []task
	for _, f := range folders {
		for i := range f.files {
			tasks = append(tasks, task{f, i})
		}
	}
	hashers := sync.Pool{New: func() any { return newHasher(&p.bytes) }}
	each(ctx, n, tasks, func(k task) {
		h := hashers.Get().(*hasher)
		defer hashers.Put(h)
		f := &k.f.files[k.i]
		var err error
		f.cid, f.size, err = h.file(ctx, k.f.pathOf(k.i))
		if f.bad = err != nil; f.bad && ctx.Err() == nil {
			t.fail(k.f.pathOf(k.i), err)
		}
		p.hashed.Add(1)
	})
}

// A hasher hashes one file after another.
type hasher struct {
	sum  hash.Hash
	buf  []byte
	read *atomic.Int64 // bytes, for those who watch
}

func newHasher(read *atomic.Int64) *hasher {
	return &hasher{index.NewHash(), make([]byte, hashStep), read}
}

var (
	errChanged  = errors.New("it changed while it was read: run this again when it is quiet")
	errReplaced = errors.New("it is no longer a regular file")
)

// file returns the content id and size of a file that stood still meanwhile.
func (h *hasher) file(ctx context.Context, path string) (cid index.CID, size int64, err error) {
	f, err := openReal(path, unix.O_NONBLOCK) // it may have become a pipe
	if err != nil {
		return cid, 0, err
	}
	defer f.Close()
	before, err := f.Stat()
	if err != nil {
		return cid, 0, err
	}
	if !before.Mode().IsRegular() {
		return cid, 0, errReplaced
	}
	if size, err = h.stream(ctx, f, before.Size()); err != nil {
		return cid, 0, err
	}
	after, err := os.Lstat(path)
	if err != nil || size != before.Size() || !same(before, after) {
		return cid, 0, errChanged
	}
	h.sum.Sum(cid[:0])
	return cid, size, nil
}

// same reports whether nothing tells that a file was written between two looks.
func same(before, after fs.FileInfo) bool {
	return os.SameFile(before, after) && before.Size() == after.Size() && before.ModTime().Equal(after.ModTime())
}

// stream hashes r in steps, so that an interrupt does not wait for the end of
// a big file. One that grows past most is given up: a log may grow for ever.
func (h *hasher) stream(ctx context.Context, r io.Reader, most int64) (size int64, err error) {
	h.sum.Reset()
	for ctx.Err() == nil {
		n, err := r.Read(h.buf)
		h.sum.Write(h.buf[:n])
		h.read.Add(int64(n))
		size += int64(n)
		if err == io.EOF {
			return size, nil
		}
		if err != nil {
			return size, err
		}
		if size > most {
			return size, errChanged
		}
	}
	return size, ctx.Err()
}

// seal makes the manifests of f and all below it, and reports whether f has
// one.
func (f *folder) seal() bool {
	for _, d := range f.dirs {
		if !d.seal() {
			f.damaged = true
		}
	}
	if f.damaged = f.damaged || slices.ContainsFunc(f.files, func(e file) bool { return e.bad }); f.damaged {
		return false
	}
	dirs, files := make([][]byte, len(f.dirs)), make([][]byte, len(f.files))
	for i, d := range f.dirs {
		dirs[i] = dirEntry(d.base, d.manifest().cid)
	}
	for i, e := range f.files {
		files[i] = fileEntry(e.base, e.size, e.cid)
	}
	f.pages = paginate(dirs, files, f.facets, pageMax)
	return true
}

// each calls do for every item, n at a time, and returns when all calls have.
// Once ctx has ended it begins no more.
func each[T any](ctx context.Context, n int, items []T, do func(T)) {
	var next atomic.Int64
	var wg sync.WaitGroup
	for range min(n, len(items)) {
		wg.Go(func() {
			for ctx.Err() == nil {
				i := int(next.Add(1)) - 1
				if i >= len(items) {
					return
				}
				do(items[i])
			}
		})
	}
	wg.Wait()
}

// arguments turns the arguments of publish into folders. One directory is
// published as the prefix itself; of several, and of files, each is published
// as its base name under the prefix.
func arguments(args []string, prefix string, facets []facet) ([]*folder, error) {
	prefix, err := parsePrefix(prefix)
	if err != nil {
		return nil, err
	}
	var folders []*folder
	taken := map[string]string{}
	for _, arg := range args {
		f, err := argument(arg)
		if err != nil {
			return nil, err
		}
		f.facets = facets
		f.name = prefix
		if f.lone || len(args) > 1 {
			f.name += "/" + mapSegment(f.base)
		}
		if other, ok := taken[f.name]; ok {
			return nil, usagef("%s and %s would both be %s: publish them under different prefixes", other, arg, f.name)
		}
		taken[f.name] = arg
		folders = append(folders, f)
	}
	return folders, nil
}

// argument looks at what the user named. A link on the command line is meant,
// so it is followed; it keeps the name the user gave it.
func argument(arg string) (*folder, error) {
	path, err := filepath.EvalSymlinks(arg)
	if err != nil {
		return nil, err
	}
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	whole, err := filepath.Abs(arg) // "." has a base name too
	if err != nil {
		return nil, err
	}
	f := &folder{path: path, base: filepath.Base(whole), lone: info.Mode().IsRegular()}
	if !f.lone && !info.IsDir() {
		return nil, usagef("%s is neither a directory nor a regular file", arg)
	}
	if f.lone && !utf8.ValidString(f.base) {
		return nil, fmt.Errorf("%q: %w", arg, errNotUTF8)
	}
	return f, nil
}

// parsePrefix returns the text of a name; its "name:" and a slash at its end
// are optional.
func parsePrefix(s string) (string, error) {
	if s == "" {
		return "", usagef("--prefix is missing: the name to publish under, such as name:go/src")
	}
	s = strings.TrimSuffix("name:"+strings.TrimPrefix(s, "name:"), "/")
	if _, err := index.ParseKey(s); err != nil {
		return "", usagef("--prefix: %w", err)
	}
	return s, nil
}
