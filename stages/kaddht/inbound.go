package kaddht

import (
	"fmt"

	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/protocol"
)

// requestMax is the longest request of others that is read: a manifest, and
// what is around it.
const requestMax = ManifestMax + 16<<10

var errRequestSize = fmt.Errorf("dht: a request of over %d bytes", requestMax)

// A strict host hands its handlers streams that are held to requestMax and to
// the memory there is. kad-dht takes in 4 MiB from each stream, without asking
// the resource manager.
type strict struct{ host.Host }

// SetStreamHandler implements host.Host.
func (h strict) SetStreamHandler(p protocol.ID, serve network.StreamHandler) {
	h.Host.SetStreamHandler(p, func(s network.Stream) { serve(&intake{Stream: s}) })
}

// An intake is a stream of messages, each behind its length. It is read by one
// goroutine.
type intake struct {
	network.Stream
	size  uint64 // of the next message, as far as it was read
	shift uint
	left  int // bytes of this message still to come
	held  int // bytes reserved for it
}

// Read implements io.Reader. Memory for a message is reserved before the first
// byte of it is read, and until the next one is asked for; the end of the
// stream gives back what is left.
func (s *intake) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	if s.left > 0 {
		n, err := s.Stream.Read(p[:min(len(p), s.left)])
		s.left -= n
		return n, err
	}
	if s.held > 0 {
		s.Scope().ReleaseMemory(s.held)
		s.held = 0
	}
	n, err := s.Stream.Read(p[:1])
	if n == 0 {
		return n, err
	}
	s.size |= uint64(p[0]&0x7f) << s.shift
	s.shift += 7
	switch {
	case s.size > requestMax || s.shift > 35:
		return 0, errRequestSize
	case p[0]&0x80 != 0:
		return n, err
	}
	if err := s.Scope().ReserveMemory(int(s.size), network.ReservationPriorityAlways); err != nil {
		return 0, err
	}
	s.held, s.left, s.size, s.shift = int(s.size), int(s.size), 0, 0
	return n, err
}
