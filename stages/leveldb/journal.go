package leveldb

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"strconv"
)

// goleveldb's journal and its table of contents (MANIFEST) share one shape:
// blocks of 32 KiB that hold chunks, each with a checksum, a length and a type;
// a record is one full chunk, or a first, middles and a last. goleveldb's own
// reader drops the rest of a damaged block and goes on without a word, so we
// read the file before it does.
const (
	blockSize   = 32 << 10
	chunkHead   = 7   // checksum u32, length u16, type u8
	sectorSize  = 512 // the least a disk writes as one
	chunkFull   = 1
	chunkFirst  = 2
	chunkMiddle = 3
	chunkLast   = 4
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// A scan is what a walk over a journal file found.
type scan struct {
	Records int   // whole ones, before any damage
	Good    int64 // bytes up to the end of the last of them
	Torn    int64 // bytes after Good that a crash may have left; 0: a clean end
	Blank   bool  // those are zeros, written ahead of a batch that did not come
	Damage  *damage
}

// A damage is what no crash explains.
type damage struct {
	Offset  int64  // of the first bad byte we know of
	Reason  string // what is wrong there
	Follows int    // whole records after it
}

func (d *damage) String() string {
	return fmt.Sprintf("at offset %d: %s; %d whole records follow", d.Offset, d.Reason, d.Follows)
}

// scanRecords walks over a file and calls visit with each whole record. The
// record is only valid during the call. visit's complaint is a damage.
//
// A crash leaves a torn tail: a record that ends too early, or that has zeros
// where sectors were not yet written. That is normal and was never
// acknowledged. Everything else is damage: whole records after the bad place,
// or a last record that is all there and wrong.
func scanRecords(b []byte, visit func(rec []byte) error) scan {
	var s scan
	for pos := 0; ; {
		rec, next, bad, why := recordAt(b, pos)
		if why != "" {
			s.judge(b, pos, bad, why)
			return s
		}
		if rec == nil {
			return s
		}
		if err := visit(rec); err != nil {
			s.Damage = &damage{Offset: int64(pos), Reason: err.Error(), Follows: recordsAfter(b, next)}
			return s
		}
		s.Records++
		s.Good = int64(next)
		pos = next
	}
}

// judge decides whether a bad chunk, in the record that begins at pos, is a
// torn tail.
func (s *scan) judge(b []byte, pos, bad int, why string) {
	s.Torn = int64(len(b) - pos)
	if s.Blank = allZero(b[pos:]); s.Blank {
		return
	}
	after := recordsAfter(b, bad)
	if after > 0 || !maybeTorn(b, bad) {
		s.Torn = 0
		s.Damage = &damage{Offset: int64(bad), Reason: why, Follows: after}
	}
}

// recordAt reads the record that begins at pos. A nil record without a why is
// the end of the file; with a why, bad is where the fault is.
func recordAt(b []byte, pos int) (rec []byte, next, bad int, why string) {
	pos = skipTrailer(pos)
	if pos >= len(b) {
		return nil, pos, 0, ""
	}
	for first := true; ; first = false {
		pos = skipTrailer(pos)
		if pos >= len(b) {
			return nil, 0, pos, "the record ends too early"
		}
		typ, data, why := chunkAt(b, pos)
		if why != "" {
			return nil, 0, pos, why
		}
		if first != (typ == chunkFull || typ == chunkFirst) {
			return nil, 0, pos, "a chunk of another record where this one should go on"
		}
		pos += chunkHead + len(data)
		switch {
		case typ == chunkFull:
			return data, pos, 0, ""
		case first:
			rec = append(make([]byte, 0, 2*blockSize), data...)
		default:
			rec = append(rec, data...)
		}
		if typ == chunkLast {
			return rec, pos, 0, ""
		}
	}
}

// skipTrailer returns pos, or the next block when no chunk fits into this one.
func skipTrailer(pos int) int {
	if left := blockSize - pos%blockSize; left < chunkHead {
		return pos + left
	}
	return pos
}

// chunkAt reads the chunk at pos, or says what is wrong with it.
func chunkAt(b []byte, pos int) (typ byte, data []byte, why string) {
	if len(b)-pos < chunkHead {
		return 0, nil, "the file ends inside a chunk's head"
	}
	sum, n, typ := chunkParts(b, pos)
	end := pos + chunkHead + n
	switch {
	case sum == 0 && n == 0 && typ == 0:
		return 0, nil, "zeros where a chunk should begin"
	case typ < chunkFull || typ > chunkLast:
		return 0, nil, "chunk type " + strconv.Itoa(int(typ)) + "; 1 to 4 exist" // made for every octet that recordsAfter tries
	case end > pos-pos%blockSize+blockSize:
		return 0, nil, "a chunk longer than its block"
	case end > len(b):
		return 0, nil, "the file ends inside a chunk"
	case checksum(b[pos+chunkHead-1:end]) != sum:
		return 0, nil, "a chunk does not match its checksum"
	}
	return typ, b[pos+chunkHead : end], ""
}

func chunkParts(b []byte, pos int) (sum uint32, n int, typ byte) {
	return binary.LittleEndian.Uint32(b[pos:]), int(binary.LittleEndian.Uint16(b[pos+4:])), b[pos+6]
}

// checksum is goleveldb's masked CRC-32C.
func checksum(b []byte) uint32 { return masked(crc32.Checksum(b, castagnoli)) }

func masked(c uint32) uint32 { return (c>>15 | c<<17) + 0xa282ead8 }

// maybeTorn reports whether a crash while appending explains the bad chunk at
// pos, with nothing whole after it: the file ends too early, or a sector of
// what should be there was never written and reads as zeros.
func maybeTorn(b []byte, pos int) bool {
	if len(b)-pos < chunkHead {
		return true
	}
	if _, _, why := chunkAt(b, pos); why == "" {
		return false // it is sound, but of another record
	}
	if allThere(b, pos) {
		return false // only its head is wrong
	}
	_, n, typ := chunkParts(b, pos)
	end := pos + chunkHead + n
	typed := typ >= chunkFull && typ <= chunkLast
	inBlock := end <= pos-pos%blockSize+blockSize
	switch {
	case !typed || !inBlock:
		end = len(b)
	case end > len(b):
		return true // cut short
	}
	return hasUnwritten(b, pos, end)
}

// tallyZeros is how many zeros a batch ends with at most: its tally comes last,
// and of that only Rows is sure not to be 0.
const tallyZeros = 7*8 + 7

// allThere reports whether the data of the chunk at pos, which is bad, is all
// there. The checksum is over type and data: so any type is tried, with the
// data as long as the head says, as the block or the file lets it be, and up to
// the zeros that were written ahead, of which the first may be its own.
func allThere(b []byte, pos int) bool {
	sum, n, _ := chunkParts(b, pos)
	data := b[pos+chunkHead : min(len(b), pos-pos%blockSize+blockSize)]
	least := len(bytes.TrimRight(data, "\x00"))
	most := min(len(data), least+tallyZeros)
	for typ := byte(chunkFull); typ <= chunkLast; typ++ {
		begun := crc32.Checksum([]byte{typ}, castagnoli)
		if masked(crc32.Update(begun, castagnoli, data[:min(n, len(data))])) == sum {
			return true
		}
		if masked(crc32.Update(begun, castagnoli, data)) == sum {
			return true
		}
		c := crc32.Update(begun, castagnoli, data[:least])
		for i := least; i <= most; i++ {
			if masked(c) == sum {
				return true
			}
			c = crc32.Update(c, castagnoli, data[i:min(i+1, most)])
		}
	}
	return false
}

// hasUnwritten reports whether some sector's part of b[pos:end] is all zeros.
func hasUnwritten(b []byte, pos, end int) bool {
	for pos < end {
		stop := min(end, pos-pos%sectorSize+sectorSize)
		if allZero(b[pos:stop]) {
			return true
		}
		pos = stop
	}
	return false
}

func allZero(b []byte) bool {
	for _, c := range b {
		if c != 0 {
			return false
		}
	}
	return true
}

// recordsAfter counts the whole records that can still be read from pos on.
// Inside the block of the damage they may begin anywhere, since the length
// that leads from one to the next may be what is damaged; later blocks begin
// with a chunk.
func recordsAfter(b []byte, pos int) (n int) {
	blockEnd := pos - pos%blockSize + blockSize
	for pos < len(b) {
		_, data, why := chunkAt(b, pos)
		switch {
		case why == "":
			if _, next, _, why := recordAt(b, pos); why == "" {
				n++
				pos = next
				continue
			}
			pos += chunkHead + len(data) // sound, but of a record that is not
		case pos+1 < blockEnd:
			pos++
		default:
			pos = pos - pos%blockSize + blockSize
		}
	}
	return n
}
