package auth

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"svcindex/durable"
)

const (
	secretMode = 0o600
	secretMax  = 256 << 10 // bytes read of a secret file: two keys, and what was revoked under them
)

// readSecret returns the content of a secret file. It looks at the mode of the
// file it has open, so that nobody can swap it between the look and the read.
func readSecret(path string) ([]byte, error) {
	// O_NONBLOCK: a named pipe in its place must not hang the start.
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is not a regular file: move it away", path)
	}
	if m := info.Mode().Perm(); m&0o077 != 0 {
		return nil, fmt.Errorf("%s has mode %04o, so others can read this secret: chmod 600 it, "+
			"and replace it if it may have been read", path, m)
	}
	b, err := io.ReadAll(io.LimitReader(f, secretMax+1))
	if err == nil && len(b) > secretMax {
		return nil, fmt.Errorf("%s is over %d bytes: it is not ours, move it away", path, secretMax)
	}
	return b, err
}

// createSecret puts content at path, whole and synced or not at all. It fails
// with fs.ErrExist if another process was first: theirs stands.
func createSecret(path string, content []byte) error {
	dir := filepath.Dir(path)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	tmp, err := writeTemp(path, content, "")
	if err != nil {
		return err
	}
	defer os.Remove(tmp)
	if err := place(tmp, path); err != nil {
		return err
	}
	return durable.SyncDir(dir)
}

// replaceSecret puts content at path in place of what is there: whoever opens
// it finds the old or the new, whole.
func replaceSecret(path string, content []byte) error {
	tmp, err := writeTemp(path, content, path)
	if err != nil {
		return err
	}
	if err := os.Rename(tmp, path); err != nil {
		return errors.Join(err, os.Remove(tmp))
	}
	return durable.SyncDir(filepath.Dir(path))
}

// keepOwner gives a new file to whose the old one, or a directory, is: an
// operator edits as root what a server reads as somebody else. It takes the
// open file and no name: whoever owns the directory could have a link there, and
// be given what it leads to.
func keepOwner(f *os.File, as string) error {
	info, err := os.Stat(as)
	if err != nil {
		return err
	}
	of, ok := info.Sys().(*syscall.Stat_t)
	if !ok || int(of.Uid) == os.Geteuid() {
		return nil
	}
	if err := f.Chown(int(of.Uid), int(of.Gid)); err != nil {
		return fmt.Errorf("%w: run this as the user who owns %s, or as root", err, as)
	}
	return nil
}

// writeTemp writes content to a new file beside path, and syncs it. It is for
// whom the file as is; "": for us. CreateTemp opens with O_EXCL and mode 0600.
func writeTemp(path string, content []byte, as string) (name string, err error) {
	f, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".tmp")
	if err != nil {
		return "", err
	}
	defer func() {
		err = errors.Join(err, f.Close())
		if err != nil {
			os.Remove(f.Name())
		}
	}()
	if err := f.Chmod(secretMode); err != nil {
		return "", err
	}
	if as != "" {
		if err := keepOwner(f, as); err != nil {
			return "", err
		}
	}
	if _, err := f.Write(content); err != nil {
		return "", err
	}
	return f.Name(), f.Sync()
}

// place gives tmp its name. A link, unlike a rename, does not replace what a
// second process put there meanwhile; some file systems have no links, and
// there a rename must do.
func place(tmp, path string) error {
	err := os.Link(tmp, path)
	if err == nil || errors.Is(err, fs.ErrExist) {
		return err
	}
	if _, err := os.Lstat(path); err == nil {
		return fs.ErrExist
	}
	return os.Rename(tmp, path)
}
