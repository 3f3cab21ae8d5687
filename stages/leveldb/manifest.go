package leveldb

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
)

// Contents are what a MANIFEST says: goleveldb's table of contents.
type contents struct {
	journal     int64 // the oldest journal still needed
	prevJournal int64
	seq         uint64
	tables      map[int64]int64 // number -> bytes
	damage      *damage
}

// The fields of a MANIFEST record, as goleveldb writes them.
const (
	fieldComparer    = 1
	fieldJournal     = 2
	fieldNextFile    = 3
	fieldSeq         = 4
	fieldCompactPtr  = 5
	fieldDelTable    = 6
	fieldAddTable    = 7
	fieldPrevJournal = 9
)

// readContents reads a MANIFEST. Its tail may be torn like a journal's.
func readContents(path string) (*contents, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	c := &contents{tables: map[int64]int64{}}
	s := scanRecords(b, c.apply)
	c.damage = s.Damage
	if c.damage == nil && s.Records == 0 {
		c.damage = &damage{Reason: "it holds no whole record"}
	}
	return c, nil
}

func (c *contents) apply(rec []byte) error {
	p := reader{b: rec}
	for len(p.b) > 0 {
		switch field := p.uvarint(); field {
		case fieldComparer:
			p.take(p.uvarint())
		case fieldJournal:
			c.journal = int64(p.uvarint())
		case fieldPrevJournal:
			c.prevJournal = int64(p.uvarint())
		case fieldNextFile:
			p.uvarint()
		case fieldSeq:
			c.seq = p.uvarint64()
		case fieldCompactPtr:
			p.uvarint()
			p.take(p.uvarint())
		case fieldDelTable:
			p.uvarint()
			delete(c.tables, int64(p.uvarint()))
		case fieldAddTable:
			p.uvarint()
			num := int64(p.uvarint())
			c.tables[num] = int64(p.uvarint64())
			p.take(p.uvarint())
			p.take(p.uvarint())
		default:
			return fmt.Errorf("field %d, which goleveldb does not write", field)
		}
		if p.bad {
			return errors.New("a record that cannot be taken apart")
		}
	}
	return nil
}

func (r *reader) uvarint64() uint64 {
	v, n := binary.Uvarint(r.b)
	if n <= 0 {
		r.b, r.bad = nil, true
		return 0
	}
	r.b = r.b[n:]
	return v
}
