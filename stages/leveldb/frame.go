package leveldb

import (
	"encoding/binary"
	"sync"

	"svcindex/index"
)

// The first letter of a key says what the row is.
const (
	rowContent    = 'c'
	rowGone       = 'g'
	rowHeld       = 'h'
	rowIdem       = 'i'
	rowName       = 'n'
	rowProviders  = 'p'
	rowQuarantine = 'q'
	rowPin        = 'x'
	rowOwn        = '!'
)

const (
	keyFormat = "!format"
	keyBatch  = "!batch"
	keyCanary = "!canary"
)

const (
	framed     = 1  // version byte of a value with its own digest
	contentual = 2  // version byte of a manifest: the key is the digest
	digestLen  = 16 // bytes of BLAKE3 kept: enough to find damage, which does not aim
	frameLen   = 1 + digestLen
	format     = 3 // of the whole store; a program that knows less must not open it
	formatMin  = 1 // the oldest that can still be read; the next write makes it the present one
)

// A scratch is what a read or a write needs for a moment.
type scratch struct {
	key []byte
	buf []byte
}

var scratches = sync.Pool{New: func() any {
	return &scratch{key: make([]byte, 0, 256), buf: make([]byte, 0, 1024)}
}}

// scratchKept is the longest buffer worth keeping for the next user.
const scratchKept = 64 << 10

func (s *scratch) release() {
	if cap(s.buf) <= scratchKept {
		scratches.Put(s)
	}
}

func appendCIDKey(dst []byte, row byte, c *index.CID) []byte {
	return append(append(dst, row), c[:]...)
}

func cidKey(row byte, c *index.CID) []byte {
	return appendCIDKey(make([]byte, 0, 33), row, c)
}

func appendNameKey(dst []byte, k *index.Key) []byte {
	return append(append(dst, rowName), k.Bytes()[len("name:"):]...)
}

func goneKey(c *index.CID, id string) []byte {
	return append(cidKey(rowGone, c), id...)
}

// appendFrame appends the value that keeps payload under key.
func appendFrame(dst, key, payload []byte) []byte {
	if key[0] == rowContent {
		return append(append(dst, contentual), payload...)
	}
	d := digest(key, payload)
	return append(append(append(dst, framed), d[:digestLen]...), payload...)
}

// unframe returns the payload of a value, or false when the value is not the
// one that was put under key. The payload is part of the value.
func unframe(key, value []byte) ([]byte, bool) {
	if key[0] == rowContent {
		if len(key) != 33 || len(value) < 1 || value[0] != contentual {
			return nil, false
		}
		return value[1:], index.Sum(value[1:]) == index.CID(key[1:])
	}
	if len(value) < frameLen || value[0] != framed {
		return nil, false
	}
	payload := value[frameLen:]
	d := digest(key, payload)
	return payload, [digestLen]byte(value[1:frameLen]) == [digestLen]byte(d[:digestLen])
}

// digest is over the key too, so that a value that strayed under another key
// is damage like any other.
func digest(key, payload []byte) index.CID {
	s := scratches.Get().(*scratch)
	defer s.release()
	s.buf = append(s.buf[:0], framed)
	s.buf = binary.LittleEndian.AppendUint16(s.buf, uint16(len(key)))
	s.buf = append(s.buf, key...)
	s.buf = append(s.buf, payload...)
	return index.Sum(s.buf)
}
