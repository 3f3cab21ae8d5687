package leveldb

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/syndtr/goleveldb/leveldb/storage"

	"svcindex/durable"
	"svcindex/index"
)

// Files are goleveldb's files, held to what goleveldb assumes of them:
//
//   - a file that failed to write or sync once takes nothing more, because
//     goleveldb would go on and the next acknowledged batch would be skipped
//     at replay;
//   - a new file's name is synced too, because goleveldb syncs only its bytes;
//   - nobody else can read them.
type files struct {
	storage.Storage
	dir    string
	log    *slog.Logger
	stat   *fileStats
	memory *memory         // what they are in, if not on disk
	ends   map[int64]int64 // journals of which only so much is to be read
	// failed is told of each journal or MANIFEST that failed. It must not block.
	failed func(*files, error)
}

// FileStats outlive a reopening.
type fileStats struct {
	syncs     atomic.Uint64
	syncNanos atomic.Int64
	failures  atomic.Uint64
}

const (
	dirMode  = 0o700
	fileMode = 0o600
)

// openFiles makes the directory and takes its lock. It changes nothing when
// readOnly.
func openFiles(dir string, readOnly bool) (storage.Storage, error) {
	if !readOnly {
		if err := makeDir(dir); err != nil {
			return nil, explain(dir, err)
		}
	}
	s, err := storage.OpenFile(dir, readOnly)
	if err != nil {
		return nil, explain(dir, err)
	}
	if readOnly {
		return s, nil
	}
	if err := tighten(dir); err != nil {
		return nil, explain(dir, errors.Join(err, s.Close()))
	}
	return s, nil
}

// makeDir creates dir 0700 whatever the umask, and syncs its name. One that
// is there is tightened too, if it is ours to tighten.
func makeDir(dir string) error {
	fi, err := os.Stat(dir)
	if err == nil {
		if fi.Mode().Perm() == dirMode {
			return nil
		}
		return unlessForbidden(os.Chmod(dir, dirMode))
	}
	if err := os.MkdirAll(dir, dirMode); err != nil {
		return err
	}
	if err := os.Chmod(dir, dirMode); err != nil {
		return err
	}
	return unlessForbidden(durable.SyncDir(filepath.Dir(dir)))
}

func unlessForbidden(err error) error {
	if errors.Is(err, fs.ErrPermission) {
		return nil
	}
	return err
}

// tighten takes the files goleveldb made for itself, and those of an earlier
// time, away from everybody else.
func tighten(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if !e.Type().IsRegular() {
			continue
		}
		if err := os.Chmod(filepath.Join(dir, e.Name()), fileMode); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

// explain says what an operator can do about an error of the directory.
func explain(dir string, err error) error {
	switch {
	case errors.Is(err, syscall.EWOULDBLOCK), errors.Is(err, storage.ErrLocked):
		return fmt.Errorf("leveldb: %s is in use by another process, and two would destroy it: "+
			"stop the other, or set db.path to another directory: %w", dir, index.Down)
	case errors.Is(err, syscall.EROFS), errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("leveldb: %s cannot be written (%w): "+
			"remount it, give its owner mode 0700, or set db.path to another directory: %w", dir, err, index.Down)
	case isFull(err):
		return fmt.Errorf("leveldb: no room to open %s (%w): "+
			"opening rewrites the journal, so free some megabytes first: %w", dir, err, index.Full)
	case errors.Is(err, syscall.EMFILE), errors.Is(err, syscall.ENFILE):
		return fmt.Errorf("leveldb: no file descriptor left to open %s (%w): "+
			"raise the limit (ulimit -n) or lower limits.max_conns: %w", dir, err, index.Down)
	}
	return fmt.Errorf("leveldb: opening %s: %w; look closer with `svc-index db verify`, or restore a backup", dir, err)
}

func isFull(err error) bool {
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT)
}

// Log implements storage.Storage. goleveldb's diary becomes ours; what it
// dropped is worth a warning.
func (f *files) Log(line string) {
	if strings.Contains(line, "journal@drop") || strings.Contains(line, "corrupt") {
		f.log.Warn("goleveldb", "line", line)
		return
	}
	f.log.Debug("goleveldb", "line", line)
}

// Create implements storage.Storage.
func (f *files) Create(fd storage.FileDesc) (storage.Writer, error) {
	w, err := f.Storage.Create(fd)
	if err == nil && f.memory != nil {
		return &file{Writer: w, fd: fd, files: f}, nil
	}
	if err == nil {
		err = errors.Join(os.Chmod(filepath.Join(f.dir, fd.String()), fileMode), durable.SyncDir(f.dir))
		if err == nil {
			return &file{Writer: w, fd: fd, files: f}, nil
		}
		err = errors.Join(err, w.Close())
	}
	return nil, f.fail(fd, err)
}

// Open implements storage.Storage.
func (f *files) Open(fd storage.FileDesc) (storage.Reader, error) {
	r, err := f.Storage.Open(fd)
	if end, cut := f.ends[fd.Num]; cut && fd.Type == storage.TypeJournal && err == nil {
		return &head{r, end}, nil
	}
	return r, err
}

// Rename implements storage.Storage.
func (f *files) Rename(from, to storage.FileDesc) error {
	if err := f.Storage.Rename(from, to); err != nil {
		return f.fail(to, err)
	}
	if f.memory != nil {
		return nil
	}
	if err := durable.SyncDir(f.dir); err != nil {
		return f.fail(to, err)
	}
	return nil
}

// SetMeta implements storage.Storage: it writes CURRENT.
func (f *files) SetMeta(fd storage.FileDesc) error {
	if err := f.Storage.SetMeta(fd); err != nil {
		return f.fail(fd, err)
	}
	if f.memory != nil {
		return nil
	}
	for _, name := range [...]string{"CURRENT", "CURRENT.bak"} {
		if err := os.Chmod(filepath.Join(f.dir, name), fileMode); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return f.fail(fd, err)
		}
	}
	return nil
}

// fail counts a failure and passes it on. A table that failed is written anew
// by goleveldb; a journal or MANIFEST is lost until the store is reopened.
func (f *files) fail(fd storage.FileDesc, err error) error {
	f.stat.failures.Add(1)
	f.log.Error("leveldb: a file failed", "file", fd.String(), "err", err)
	if fd.Type != storage.TypeTable && f.failed != nil {
		f.failed(f, err)
	}
	return err
}

// A file is one that is being written. goleveldb sees to it that only one
// goroutine at a time does.
type file struct {
	storage.Writer
	fd    storage.FileDesc
	files *files
	err   error // the first failure; it stands
}

// Write implements io.Writer.
func (w *file) Write(b []byte) (int, error) {
	if w.err != nil {
		return 0, w.err
	}
	n, err := w.Writer.Write(b)
	if err != nil {
		w.err = w.files.fail(w.fd, fmt.Errorf("writing %s: %w", w.fd, err))
	}
	return n, w.err
}

// Sync implements storage.Syncer. After a failed sync the kernel may have
// dropped the pages and call them clean, so a second sync proves nothing.
func (w *file) Sync() error {
	if w.err != nil {
		return w.err
	}
	began := time.Now()
	if err := w.Writer.Sync(); err != nil {
		w.err = w.files.fail(w.fd, fmt.Errorf("syncing %s: %w", w.fd, err))
	}
	w.files.stat.syncs.Add(1)
	w.files.stat.syncNanos.Add(int64(time.Since(began)))
	return w.err
}
