package leveldb

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"svcindex/durable"
)

// A crash may tear the end of the journal, and what it tears was never
// acknowledged. Damage may look just the same. So a store that is closed in
// good order says how its journals end; while it is open, nothing does. With
// the mark there, none of what it names may be missing.
//
// The mark is a hint, never an authority: one that is not whole, or names
// another journal than the last one there is (an older version was here, or a
// backup of an open store), says nothing.
const (
	cleanMark = "CLEAN"
	cleanTemp = "CLEAN.tmp"
	cleanForm = "closed in good order: journal %d ends with batch %d\n"
)

// ending is the mark that fits what was inspected.
func (in *inspection) ending() string { return fmt.Sprintf(cleanForm, in.journal, in.last.Batch) }

// markClean notes how the journals of a closed store end. The caller still
// holds the directory.
func markClean(dir string) error {
	in, err := inspect(dir)
	if err != nil || in.fresh || len(in.refuse) > 0 || in.torn > 0 {
		return err // no mark: the next opening judges for itself
	}
	for _, num := range in.journals { // their length was cut to what is in them
		if err := syncFile(filepath.Join(dir, fmt.Sprintf("%06d.log", num))); err != nil {
			return err
		}
	}
	temp := filepath.Join(dir, cleanTemp)
	f, err := os.OpenFile(temp, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.WriteString(in.ending())
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return errors.Join(err, os.Remove(temp))
	}
	return durable.Rename(temp, filepath.Join(dir, cleanMark))
}

func syncFile(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

// checkClean holds the journals to the mark, if there is one that fits.
func (in *inspection) checkClean(dir string) error {
	b, err := os.ReadFile(filepath.Join(dir, cleanMark))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	var journal int64
	var batch uint64
	if n, _ := fmt.Sscanf(string(b), cleanForm, &journal, &batch); n != 2 || string(b) != fmt.Sprintf(cleanForm, journal, batch) {
		return nil
	}
	if journal != in.journal || in.last.Batch > batch || in.last.Batch == batch && in.torn == 0 {
		return nil
	}
	in.refuse = append(in.refuse, finding{cleanMark, fmt.Sprintf(
		"the store was closed in good order after batch %d; now the last whole one is number %d, before %d bytes of a torn tail",
		batch, in.last.Batch, in.torn)})
	return nil
}

// unmarkClean is for the moment before anything is written: from now on the
// end of the journals may be torn by a crash.
func unmarkClean(dir string) error {
	_ = os.Remove(filepath.Join(dir, cleanTemp)) // half a mark, of a crash
	err := os.Remove(filepath.Join(dir, cleanMark))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return errors.Join(err, durable.SyncDir(dir))
}
