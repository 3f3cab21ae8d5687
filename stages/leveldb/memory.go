package leveldb

import (
	"sync"

	"github.com/syndtr/goleveldb/leveldb/storage"
)

// memoryLeft is how many bytes of a store in memory stay free for compactions,
// which write a table before they drop the ones it was made of.
const memoryLeft = 4 << 20

// A memory is where the files of a store are that is never on disk. It
// outlives an engine, as a disk does, so that a store can heal.
type memory struct {
	storage.Storage

	mu   sync.Mutex // protects the fields below
	size map[storage.FileDesc]int64
	sum  int64
}

func newMemory() *memory {
	return &memory{Storage: storage.NewMemStorage(), size: map[storage.FileDesc]int64{}}
}

// bytes returns how much all files hold.
func (m *memory) bytes() int64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.sum
}

func (m *memory) add(fd storage.FileDesc, n int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.size[fd] += n
	m.sum += n
}

// forget takes a file out of the books, and returns what it held.
func (m *memory) forget(fd storage.FileDesc) int64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	n := m.size[fd]
	m.sum -= n
	delete(m.size, fd)
	return n
}

// Create implements storage.Storage.
func (m *memory) Create(fd storage.FileDesc) (storage.Writer, error) {
	w, err := m.Storage.Create(fd)
	if err != nil {
		return nil, err
	}
	m.forget(fd)
	return &memoryFile{w, m, fd}, nil
}

// Remove implements storage.Storage.
func (m *memory) Remove(fd storage.FileDesc) error {
	err := m.Storage.Remove(fd)
	if err == nil {
		m.forget(fd)
	}
	return err
}

// Rename implements storage.Storage.
func (m *memory) Rename(from, to storage.FileDesc) error {
	err := m.Storage.Rename(from, to)
	if err == nil && from != to {
		n := m.forget(from)
		m.forget(to)
		m.add(to, n)
	}
	return err
}

// A memoryFile is a file in memory that is being written.
type memoryFile struct {
	storage.Writer
	memory *memory
	fd     storage.FileDesc
}

// Write implements io.Writer.
func (f *memoryFile) Write(b []byte) (int, error) {
	n, err := f.Writer.Write(b)
	f.memory.add(f.fd, int64(n))
	return n, err
}
