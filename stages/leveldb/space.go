package leveldb

import (
	"fmt"
	"sync"
	"syscall"
	"time"

	"svcindex/index"
)

// spaceEvery is how old the figure for free disk may be: statfs is cheap, but
// not per-write cheap.
const spaceEvery = 250 * time.Millisecond

// A space watches the free bytes of a disk.
type space struct {
	dir  string
	free func(dir string) (int64, error)
	any  bool // asking costs nothing: no figure is old

	mu   sync.Mutex // protects the fields below
	at   time.Time
	last int64
}

// left returns the free bytes, at most spaceEvery old. Its clock is the
// monotonic one: a wall clock that jumps must not freeze the figure.
func (s *space) left() (int64, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.any && !s.at.IsZero() && time.Since(s.at) < spaceEvery {
		return s.last, nil
	}
	n, err := s.free(s.dir)
	if err != nil {
		return 0, err
	}
	s.at, s.last = time.Now(), n
	return n, nil
}

// forget makes the next question go to the disk.
func (s *space) forget() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.at = time.Time{}
}

// room refuses when fewer than need bytes are free.
func (s *space) room(need int64) error {
	if need <= 0 {
		return nil
	}
	n, err := s.left()
	if err != nil {
		return fmt.Errorf("leveldb: asking for the free bytes of %s: %w: %w", s.dir, err, index.Down)
	}
	if n < need {
		return fmt.Errorf("leveldb: %d bytes free in %s, writes need %d: free some, or lower db.min_free: %w", n, s.dir, need, index.Full)
	}
	return nil
}

// freeBytes is what an unprivileged process may still write.
func freeBytes(dir string) (int64, error) {
	var st syscall.Statfs_t
	if err := syscall.Statfs(dir, &st); err != nil {
		return 0, err
	}
	return int64(st.Bavail) * int64(st.Bsize), nil
}
