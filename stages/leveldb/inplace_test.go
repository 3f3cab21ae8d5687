package leveldb

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"strings"
	"testing"

	"svcindex/index"
)

// A crash leaves the zeros that were written ahead. They are no damage, not
// even a torn end, and nobody reads them; a good end leaves none.
func TestZerosWrittenAheadAreNoTornEnd(t *testing.T) {
	h := open(t, t.TempDir())
	for i := range 40 {
		h.do(putName(t, fmt.Sprintf("name:n%d", i), "c", 1))
	}
	dir := copyDir(t, h.disk.dir) // as after kill -9
	journal := journalOf(t, dir)
	b, err := os.ReadFile(journal)
	must(t, err)
	s := scanRecords(b, func([]byte) error { return nil })
	if s.Torn < sectorSize || !s.Blank || s.Damage != nil {
		t.Fatalf("the journal of an open store ends with %d bytes ahead (blank %v, damage %v): this test proves nothing", s.Torn, s.Blank, s.Damage)
	}
	if r, err := Verify(t.Context(), dir, nil); err != nil || !r.Sound() || r.Torn != 0 {
		t.Errorf("verify: %+v, %v", r, err)
	}
	var log bytes.Buffer
	o := options(dir, newClock(), nil)
	o.Log = slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelWarn}))
	after := &house{t: t}
	after.openWith(o)
	if log.Len() > 0 {
		t.Errorf("opening it was worth a warning: %s", log.Bytes())
	}
	for i := range 40 {
		if a, err := after.ask(index.AskResolve, fmt.Sprintf("name:n%d", i)); err != nil || a.Name.Seq != 1 {
			t.Errorf("name %d: %+v, %v", i, a.Name, err)
		}
	}
	must(t, after.DB.Close())
	in, err := inspect(dir)
	if err != nil || in.torn != 0 {
		t.Errorf("a store closed in good order ends with %d bytes too many, %v", in.torn, err)
	}
}

// After kill -9 zeros follow the last batch, which was acknowledged. They must
// not make damage of its heads look like a batch that did not come whole.
func TestZerosWrittenAheadHideNoDamage(t *testing.T) {
	for _, tt := range []struct {
		why   string
		last  *index.Mutation
		heads int
	}{
		{"a small batch, whose one chunk ends with zeros of its tally", putName(t, "name:last", "c", 1), 1},
		{"a batch over three blocks", putManifest(strings.Repeat("many bytes ", 7000)), 3},
	} {
		h := open(t, t.TempDir())
		for i := range 20 {
			h.do(putName(t, fmt.Sprintf("name:n%d", i), "c", 1))
		}
		h.do(tt.last)
		dir := copyDir(t, h.disk.dir)
		journal := journalOf(t, dir)
		b, err := os.ReadFile(journal)
		must(t, err)
		heads, _ := lastRecord(b)
		if len(heads) != tt.heads {
			t.Fatalf("%s has %d chunks, expected %d: this test proves nothing", tt.why, len(heads), tt.heads)
		}
		for _, at := range heads {
			for bit := range 8 * chunkHead {
				b[at+bit/8] ^= 1 << (bit % 8)
				must(t, os.WriteFile(journal, b, 0o600))
				b[at+bit/8] ^= 1 << (bit % 8)
				db, err := Open(options(dir, newClock(), nil))
				if index.KindOf(err) != index.Broken {
					t.Fatalf("%s: bit %d of the head at %d flipped: opened, or %v", tt.why, bit, at, err)
				}
				if err == nil {
					db.Close()
				}
			}
		}
	}
}

// lastRecord returns where the chunks of the last whole record begin, and where
// it ends.
func lastRecord(b []byte) (heads []int, end int) {
	for pos := 0; ; {
		rec, next, _, why := recordAt(b, pos)
		if rec == nil || why != "" {
			return heads, end
		}
		for heads, end = nil, next; pos < next; {
			pos = skipTrailer(pos)
			heads = append(heads, pos)
			_, n, _ := chunkParts(b, pos)
			pos += chunkHead + n
		}
	}
}

// The other way round: whatever sectors of the last batch a power cut leaves
// unwritten, it is a torn end, and the store opens.
func TestSectorsThatWereNotWrittenAreNoDamage(t *testing.T) {
	h := open(t, t.TempDir())
	h.do(putName(t, "name:a", "c", 1))
	h.do(putManifest(strings.Repeat("many bytes ", 7000)))
	b, err := os.ReadFile(journalOf(t, h.disk.dir))
	must(t, err)
	heads, end := lastRecord(b)
	torn := 0
	for at := heads[0]; at < end; at += sectorSize - at%sectorSize {
		for why, stop := range map[string]int{"one sector": min(end, at-at%sectorSize+sectorSize), "all sectors": end} {
			cut := bytes.Clone(b)
			clear(cut[at:stop])
			s := scanRecords(cut, func([]byte) error { return nil })
			if s.Damage != nil {
				t.Errorf("%s from %d on not written: %v", why, at, s.Damage)
			}
			if s.Torn > 0 {
				torn++
			}
		}
	}
	if torn < 200 {
		t.Errorf("%d torn ends: this test proves nothing", torn)
	}
}

// Where a batch goes on in the next block, its chunk may end with any number of
// zeros: they are somebody's.
func TestZerosAtTheEndOfABlockHideNoDamage(t *testing.T) {
	chunk := func(typ byte, data []byte) []byte {
		b := binary.LittleEndian.AppendUint32(nil, checksum(append([]byte{typ}, data...)))
		return append(append(binary.LittleEndian.AppendUint16(b, uint16(len(data))), typ), data...)
	}
	data := bytes.Repeat([]byte("x"), blockSize-chunkHead)
	clear(data[len(data)-3*tallyZeros:])
	b := slices.Concat(chunk(chunkFirst, data), chunk(chunkLast, []byte("its end")), make([]byte, aheadLeast))
	for bit := range 8 * chunkHead {
		b[bit/8] ^= 1 << (bit % 8)
		if s := scanRecords(b, func([]byte) error { return nil }); s.Damage == nil {
			t.Errorf("bit %d of the first head flipped: %+v", bit, s)
		}
		b[bit/8] ^= 1 << (bit % 8)
	}
}
