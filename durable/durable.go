// Package durable gives files their names so that a power cut leaves them there.
package durable

import (
	"errors"
	"os"
	"path/filepath"
)

// Rename gives the file from the name to, in place of what had it. The file
// itself has to be synced before.
func Rename(from, to string) error {
	if err := os.Rename(from, to); err != nil {
		return err
	}
	return SyncDir(filepath.Dir(to))
}

// SyncDir brings the names in a directory to the disk.
func SyncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
