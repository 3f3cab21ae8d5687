package ram

import (
	"bytes"
	"encoding/binary"
	"errors"
	"time"

	"svcindex/index"
)

// An entry is what freecache holds, laid out as
//
//	u8 flags | u8 key length | u32 generation | u32 page length
//	i64 filled at | i64 fresh until | i64 stale until   (ns since the cache began)
//	key | page | provider set
type entry struct {
	flags      byte
	gen        index.Generation
	filledAt   time.Duration
	freshUntil time.Duration
	staleUntil time.Duration
	key        []byte
	page       []byte
	set        []byte
}

const (
	flagNegative = 1 << iota
	flagName
)

const (
	entryHead = 2 + 4 + 4 + 3*8
	entryRoom = 2 << 10 // for an entry on its way into the cache; a resolve's has some 800 bytes
)

func flagsOf(k *index.Key, negative bool) (f byte) {
	if negative {
		f |= flagNegative
	}
	if k.IsName() {
		f |= flagName
	}
	return f
}

func (e *entry) negative() bool { return e.flags&flagNegative != 0 }

// aging reports whether e is in so large a share of its life, at its end. An
// absence is not worth renewing.
func (e *entry) aging(now time.Duration, share float64) bool {
	return !e.negative() && float64(e.freshUntil-now) < share*float64(e.freshUntil-e.filledAt)
}

// isOf reports whether e was filled for k and not for a key of the same hash.
func (e *entry) isOf(k *index.Key) bool {
	return k.IsName() == (e.flags&flagName != 0) && bytes.Equal(k.Bytes(), e.key)
}

func (e *entry) append(dst []byte) []byte {
	le := binary.LittleEndian
	dst = append(dst, e.flags, byte(len(e.key)))
	dst = le.AppendUint32(dst, uint32(e.gen))
	dst = le.AppendUint32(dst, uint32(len(e.page)))
	dst = le.AppendUint64(dst, uint64(e.filledAt))
	dst = le.AppendUint64(dst, uint64(e.freshUntil))
	dst = le.AppendUint64(dst, uint64(e.staleUntil))
	dst = append(dst, e.key...)
	dst = append(dst, e.page...)
	return append(dst, e.set...)
}

// parse reads an entry. Its slices point into b.
func parse(b []byte) (e entry, ok bool) {
	if len(b) < entryHead {
		return e, false
	}
	le := binary.LittleEndian
	nkey, npage := int(b[1]), int(le.Uint32(b[6:]))
	e = entry{
		flags: b[0], gen: index.Generation(le.Uint32(b[2:])),
		filledAt:   time.Duration(le.Uint64(b[10:])),
		freshUntil: time.Duration(le.Uint64(b[18:])),
		staleUntil: time.Duration(le.Uint64(b[26:])),
	}
	b = b[entryHead:]
	if len(b) < nkey+npage {
		return e, false
	}
	e.key, e.page, e.set = b[:nkey], b[nkey:nkey+npage], b[nkey+npage:]
	return e, true
}

var errSet = errors.New("ram: a provider set is cut short")

// encodeSet appends a provider set: for each row the three texts with a length
// before each, and the two times.
func encodeSet(dst []byte, ps []index.Provider) []byte {
	dst = binary.AppendUvarint(dst, uint64(len(ps)))
	for i := range ps {
		p := &ps[i]
		for _, s := range [...]string{p.ID, p.Addr, p.Region} {
			dst = append(binary.AppendUvarint(dst, uint64(len(s))), s...)
		}
		dst = binary.AppendVarint(dst, p.LastSeen)
		dst = binary.AppendVarint(dst, p.Expires)
	}
	return dst
}

func decodeSet(dst []index.Provider, b []byte) ([]index.Provider, error) {
	count, n := binary.Uvarint(b)
	if n <= 0 {
		return dst, errSet
	}
	b = b[n:]
	for range count {
		var p index.Provider
		for _, s := range [...]*string{&p.ID, &p.Addr, &p.Region} {
			size, n := binary.Uvarint(b)
			if n <= 0 || uint64(len(b)-n) < size {
				return dst, errSet
			}
			*s, b = string(b[n:n+int(size)]), b[n+int(size):]
		}
		for _, v := range [...]*int64{&p.LastSeen, &p.Expires} {
			x, n := binary.Varint(b)
			if n <= 0 {
				return dst, errSet
			}
			*v, b = x, b[n:]
		}
		dst = append(dst, p)
	}
	return dst, nil
}
