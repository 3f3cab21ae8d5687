package leveldb

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/syndtr/goleveldb/leveldb/storage"
)

// Joined are files that goleveldb opens for reading only, whose journals in use
// are one to it: the end of the first of several, which is no error, keeps it
// from opening then. There are two while a full one becomes a table.
type joined struct {
	storage.Storage
	journals []int64 // in use, in order
}

func joinJournals(s storage.Storage, inUse []int64) storage.Storage {
	if len(inUse) < 2 {
		return s
	}
	return &joined{s, inUse}
}

// List implements storage.Storage.
func (j *joined) List(t storage.FileType) ([]storage.FileDesc, error) {
	fds, err := j.Storage.List(t)
	return slices.DeleteFunc(fds, func(fd storage.FileDesc) bool {
		return fd.Type == storage.TypeJournal && fd.Num != j.journals[0]
	}), err
}

// Open implements storage.Storage.
func (j *joined) Open(fd storage.FileDesc) (storage.Reader, error) {
	if fd.Type != storage.TypeJournal || fd.Num != j.journals[0] {
		return j.Storage.Open(fd)
	}
	c := new(chain)
	var all []io.Reader
	for _, fd.Num = range j.journals {
		r, err := j.Storage.Open(fd)
		if err != nil {
			return nil, errors.Join(err, c.Close())
		}
		c.files = append(c.files, r)
		all = append(all, &padded{r: r})
	}
	c.Reader, c.all = c.files[0], io.MultiReader(all...)
	return c, nil
}

// Log implements storage.Storage. That the padding is dropped is no news.
func (j *joined) Log(line string) {
	if !strings.Contains(line, fmt.Sprintf("invalid chunk type %#x", padding)) {
		j.Storage.Log(line)
	}
}

// A chain is several journals, read one after the other.
type chain struct {
	storage.Reader // of the first
	files          []storage.Reader
	all            io.Reader
}

// Read implements io.Reader.
func (c *chain) Read(b []byte) (int, error) { return c.all.Read(b) }

// Close implements io.Closer.
func (c *chain) Close() (err error) {
	for _, f := range c.files {
		err = errors.Join(err, f.Close())
	}
	return err
}

// padding is no type of a chunk: goleveldb drops the rest of a block that has it
// where one should begin. Zeros would do, too, but could complete a batch that
// was cut short among the zeros of its tally.
const padding = 0xff

// A padded journal goes on up to the end of a block, and for a block more: so
// what is torn is not taken for the beginning of a record of the next one.
type padded struct {
	r     io.Reader
	n     int // bytes read
	left  int // bytes of padding still to come, once r ended
	ended bool
}

// Read implements io.Reader.
func (p *padded) Read(b []byte) (int, error) {
	if !p.ended {
		n, err := p.r.Read(b)
		p.n += n
		if err != io.EOF {
			return n, err
		}
		p.ended, p.left = true, 2*blockSize-p.n%blockSize
		if n > 0 {
			return n, nil
		}
	}
	if p.left == 0 {
		return 0, io.EOF
	}
	b = b[:min(len(b), p.left)]
	for i := range b {
		b[i] = padding
	}
	p.left -= len(b)
	return len(b), nil
}
