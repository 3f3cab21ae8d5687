package leveldb

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// A crash may tear the end of the journal, and what it tears was never
// acknowledged. Damage may look just the same. So a store that is closed in
// good order says how its journals end; while it is open, nothing does. With
// the mark there, no byte of the journals may be missing.
const cleanMark = "CLEAN"

// ending is what the mark says of the journals.
func (in *inspection) ending() string {
	return fmt.Sprintf("%d batches in %d journals, the last is number %d\n", in.batches, in.journals, in.last.Batch)
}

// markClean notes how the journals of a closed store end.
func markClean(dir string) error {
	in, err := inspect(dir)
	if err != nil || in.fresh || len(in.refuse) > 0 || in.torn > 0 {
		return err // no mark: the next opening judges for itself
	}
	f, err := os.OpenFile(filepath.Join(dir, cleanMark), os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.WriteString(in.ending())
	return errors.Join(err, f.Sync(), f.Close(), syncDir(dir))
}

// checkClean holds the journals to the mark, if there is one.
func (in *inspection) checkClean(dir string) error {
	b, err := os.ReadFile(filepath.Join(dir, cleanMark))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return err
	case in.torn == 0 && string(b) == in.ending():
		return nil
	}
	in.refuse = append(in.refuse, finding{cleanMark, fmt.Sprintf(
		"the store was closed in good order with %.80q, but now there are %d batches, the last is number %d, and %d bytes of a torn tail",
		b, in.batches, in.last.Batch, in.torn)})
	return nil
}

// unmarkClean is for the moment before anything is written: from now on the
// end of the journals may be torn by a crash.
func unmarkClean(dir string) error {
	err := os.Remove(filepath.Join(dir, cleanMark))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return errors.Join(err, syncDir(dir))
}
