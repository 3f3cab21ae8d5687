package leveldb

import (
	"errors"
	"io"
	"syscall"

	"github.com/syndtr/goleveldb/leveldb/storage"
)

// A journal that grows with each batch makes each sync write two things: the
// batch, and in the file system's own journal how long the file is now. So
// journals are made longer ahead of time, with zeros, and batches are written
// over them. What a crash leaves of the zeros is known for what it is: see
// inspect. Where nothing is synced it is not done: what is written over may
// reach the disk in any order, and a gap before whole batches is damage.

const (
	aheadLeast = 16 << 10  // bytes of zeros written ahead, for a journal that holds little,
	aheadMost  = 512 << 10 // and for one that holds much
)

// inPlace are files whose journals are written over in place.
type inPlace struct{ storage.Storage }

// A roomy is the file under a Writer of goleveldb's.
type roomy interface {
	storage.Writer
	io.WriterAt
	Truncate(size int64) error
	Fd() uintptr
}

// Create implements storage.Storage.
func (s inPlace) Create(fd storage.FileDesc) (storage.Writer, error) {
	w, err := s.Storage.Create(fd)
	if f, ok := w.(roomy); ok && err == nil && fd.Type == storage.TypeJournal {
		return &journal{roomy: f}, nil
	}
	return w, err
}

// A journal is one that is being written.
type journal struct {
	roomy
	end  int64 // of what was written
	room int64 // of the file
}

// Write implements io.Writer. That there was no room for zeros is no failure:
// the sync takes care of the length, too.
func (j *journal) Write(b []byte) (int, error) {
	n, err := j.roomy.Write(b)
	j.end += int64(n)
	if err == nil && j.end > j.room {
		j.extend()
	}
	return n, err
}

func (j *journal) extend() {
	var zeros [aheadLeast]byte
	to := j.end + min(max(j.end, aheadLeast), aheadMost)
	for j.room = j.end; j.room < to; {
		n, err := j.WriteAt(zeros[:], j.room)
		j.room += int64(n)
		if err != nil {
			return
		}
	}
}

// Sync implements storage.Syncer. When the file was last changed, which is all
// that fsync would add, is nobody's concern.
func (j *journal) Sync() error {
	for {
		err := syscall.Fdatasync(int(j.Fd()))
		if !errors.Is(err, syscall.EINTR) {
			return err
		}
	}
}

// Close implements io.Closer. Zeros that stay are no loss, either.
func (j *journal) Close() error {
	if j.room > j.end {
		_ = j.Truncate(j.end)
	}
	return j.roomy.Close()
}

// A head is a file up to where something is in it.
type head struct {
	storage.Reader
	left int64
}

// Read implements io.Reader.
func (h *head) Read(b []byte) (int, error) {
	if h.left <= 0 {
		return 0, io.EOF
	}
	n, err := h.Reader.Read(b[:min(int64(len(b)), h.left)])
	h.left -= int64(n)
	return n, err
}
