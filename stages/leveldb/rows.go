package leveldb

import (
	"encoding/binary"
	"math"
	"sort"

	"svcindex/index"
)

// The payloads. They are read only after their digest matched, so a reader
// that runs out of bytes met a bug or another program's row: it says not ok,
// and the row counts as damaged.

// A reader takes a payload apart. After the first short read all is zero.
type reader struct {
	b   []byte
	bad bool
}

func (r *reader) take(n int) []byte {
	if n < 0 || n > len(r.b) {
		r.b, r.bad = nil, true
		return nil
	}
	b := r.b[:n]
	r.b = r.b[n:]
	return b
}

func (r *reader) u8() uint8 {
	if b := r.take(1); b != nil {
		return b[0]
	}
	return 0
}

func (r *reader) u16() uint16 {
	if b := r.take(2); b != nil {
		return binary.LittleEndian.Uint16(b)
	}
	return 0
}

func (r *reader) u32() uint32 {
	if b := r.take(4); b != nil {
		return binary.LittleEndian.Uint32(b)
	}
	return 0
}

func (r *reader) u64() uint64 {
	if b := r.take(8); b != nil {
		return binary.LittleEndian.Uint64(b)
	}
	return 0
}

func (r *reader) i64() int64 { return int64(r.u64()) }

// done reports whether the payload was read to its end and no further.
func (r *reader) done() bool { return !r.bad && len(r.b) == 0 }

func appendU64(dst []byte, v uint64) []byte { return binary.LittleEndian.AppendUint64(dst, v) }

func appendShort[T ~string | ~[]byte](dst []byte, s T) []byte {
	return append(binary.LittleEndian.AppendUint16(dst, uint16(len(s))), s...)
}

// Flags of a name row. Rows of format 1 have only the first.
const (
	nameDeleted = 1 << iota
	nameChecked // when it was last known to be the newest stands at the end
	nameFound
)

func appendName(dst []byte, r *index.NameRecord) []byte {
	flags := byte(nameChecked)
	if r.Deleted {
		flags |= nameDeleted
	}
	if r.Found {
		flags |= nameFound
	}
	dst = append(dst, flags)
	dst = append(dst, r.CID[:]...)
	dst = appendU64(dst, r.Seq)
	dst = appendU64(dst, uint64(r.IssuedAt))
	dst = appendU64(dst, uint64(r.ExpiresAt))
	dst = appendShort(dst, r.PubKey)
	dst = appendShort(dst, r.Sig)
	return appendU64(dst, uint64(r.Checked))
}

// parseName reads a name row. The record keeps hold of b.
func parseName(b []byte) (r index.NameRecord, ok bool) {
	p := reader{b: b}
	flags := p.u8()
	copy(r.CID[:], p.take(len(r.CID)))
	r.Seq = p.u64()
	r.IssuedAt = p.i64()
	r.ExpiresAt = p.i64()
	r.PubKey = p.take(int(p.u16()))
	r.Sig = p.take(int(p.u16()))
	r.Deleted, r.Found = flags&nameDeleted != 0, flags&nameFound != 0
	if flags&nameChecked != 0 {
		r.Checked = p.i64()
	}
	return r, p.done()
}

// A set is all that is known of who serves one cid.
type set struct {
	pinned  bool
	gone    int64 // when the last of its gone marks ends; 0: there are none
	checked int64 // when the network last told of it; 0: never
	rows    []index.Provider
}

// Flags of a set, and of a row. Sets of format 1 have only the first.
const (
	setPinned  = 1
	setFlagged = 2 // when it was checked follows, and each row begins with its flags
	rowFound   = 1
)

// A provider's numbers come first, so that live rows are counted without
// looking at a string.
func appendSet(dst []byte, s *set) []byte {
	flags := byte(setFlagged)
	if s.pinned {
		flags |= setPinned
	}
	dst = append(dst, flags)
	dst = appendU64(dst, uint64(s.gone))
	dst = appendU64(dst, uint64(s.checked))
	dst = binary.LittleEndian.AppendUint16(dst, uint16(len(s.rows)))
	for i := range s.rows {
		p := &s.rows[i]
		flags := byte(0)
		if p.Found {
			flags = rowFound
		}
		dst = append(dst, flags)
		dst = appendU64(dst, uint64(p.LastSeen))
		dst = appendU64(dst, uint64(p.Expires))
		dst = append(dst, byte(len(p.ID)))
		dst = binary.LittleEndian.AppendUint16(dst, uint16(len(p.Addr)))
		dst = append(dst, byte(len(p.Region)))
		dst = append(append(append(dst, p.ID...), p.Addr...), p.Region...)
	}
	return dst
}

// parseSet reads a provider set and appends the rows live at now to rows. A
// pinned set's rows are all live. until is when the first of them ends, 0 for
// never. All strings share one copy of b.
func parseSet(b []byte, now int64, rows []index.Provider) (s set, until int64, ok bool) {
	p := reader{b: b}
	flags := p.u8()
	s.pinned = flags&setPinned != 0
	s.gone = p.i64()
	if flags&setFlagged != 0 {
		s.checked = p.i64()
	}
	n := int(p.u16())
	text := string(b)
	until = math.MaxInt64
	for range n {
		var row index.Provider
		if flags&setFlagged != 0 {
			row.Found = p.u8()&rowFound != 0
		}
		row.LastSeen, row.Expires = p.i64(), p.i64()
		id, addr, region := int(p.u8()), int(p.u16()), int(p.u8())
		at := len(b) - len(p.b)
		p.take(id + addr + region)
		if p.bad {
			return set{}, 0, false
		}
		if !s.pinned && row.Expires <= now {
			continue
		}
		until = min(until, row.Expires)
		row.ID = text[at : at+id]
		row.Addr = text[at+id : at+id+addr]
		row.Region = text[at+id+addr : at+id+addr+region]
		rows = append(rows, row)
	}
	if s.pinned || until == math.MaxInt64 {
		until = 0
	}
	s.rows = rows
	return s, until, p.done()
}

// countLive counts the rows of a set that are live at now, up to most.
func countLive(b []byte, now int64, most int) (live int, ok bool) {
	p := reader{b: b}
	flags := p.u8()
	pinned, skip := flags&setPinned != 0, 8
	p.take(8)
	if flags&setFlagged != 0 {
		p.take(8)
		skip++
	}
	for range p.u16() {
		p.take(skip)
		expires := p.i64()
		p.take(int(p.u8()) + int(p.u16()) + int(p.u8()))
		if pinned || expires > now {
			live++
		}
	}
	return min(live, most), p.done()
}

// find returns where the row of id is, or where it belongs.
func (s *set) find(id string) (int, bool) {
	i := sort.Search(len(s.rows), func(i int) bool { return s.rows[i].ID >= id })
	return i, i < len(s.rows) && s.rows[i].ID == id
}

// empty reports whether nothing is left that is worth a row.
func (s *set) empty(now int64) bool {
	return !s.pinned && len(s.rows) == 0 && s.gone <= now
}

func appendIdem(dst []byte, i *index.Idempotency) []byte {
	dst = appendU64(dst, uint64(i.Expires))
	dst = append(dst, i.Body[:]...)
	return appendShort(dst, i.TaskID)
}

func parseIdem(b []byte) (i index.Idempotency, ok bool) {
	p := reader{b: b}
	i.Expires = p.i64()
	copy(i.Body[:], p.take(len(i.Body)))
	i.TaskID = string(p.take(int(p.u16())))
	return i, p.done()
}

// A tally is the row that every batch carries: the batch's number, how many
// rows it has, itself included, and what the store holds after it.
type tally struct {
	Batch       uint64 // grows by one; never goes back
	Rows        uint64 // of this batch
	Names       uint64 // not deleted, expired ones included
	Tombstones  uint64
	Manifests   uint64
	Sets        uint64 // cids with a provider row
	Providers   uint64 // expired ones not yet swept included
	Pins        uint64
	Quarantined uint64
}

func (t *tally) fields() [9]*uint64 {
	return [...]*uint64{&t.Batch, &t.Rows, &t.Names, &t.Tombstones, &t.Manifests, &t.Sets, &t.Providers, &t.Pins, &t.Quarantined}
}

func appendTally(dst []byte, t tally) []byte {
	for _, f := range t.fields() {
		dst = appendU64(dst, *f)
	}
	return dst
}

func parseTally(b []byte) (t tally, ok bool) {
	p := reader{b: b}
	for _, f := range t.fields() {
		*f = p.u64()
	}
	return t, p.done()
}
