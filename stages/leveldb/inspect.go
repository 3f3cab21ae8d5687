package leveldb

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"svcindex/index"
)

// What goleveldb would replay is read here first, and held to what we wrote:
// each record sound, each batch one after the other, no file missing. What is
// found is said; nothing is repaired.

// A finding is one thing that is wrong, for the operator.
type finding struct {
	Where string // file, and offset or key
	What  string
}

func (f finding) String() string { return f.Where + ": " + f.What }

// An inspection is what a directory holds before it is opened.
type inspection struct {
	fresh    bool            // nothing was ever stored
	leftover []string        // of a first start that was cut short; in the way
	last     tally           // of the last batch in the journals; its Batch is 0 when they hold none
	batches  int             // in the journals
	journals []int64         // in use, by number
	journal  int64           // the last of them
	torn     int64           // bytes of torn tail; normal after a crash
	blank    int64           // of these, zeros that were written ahead
	ends     map[int64]int64 // journals that end in such zeros: how long they are without
	tables   []finding       // tables that are not as long as they should be
	refuse   []finding       // what forbids opening
}

// Advice that ends every refusal.
const advice = "nothing was changed; look closer with `svc-index db verify`, then restore a backup of the directory"

// err is why the directory must not be opened, or nil.
func (i *inspection) err(dir string) error {
	if len(i.refuse) == 0 {
		return nil
	}
	var all []string
	for _, f := range i.refuse {
		all = append(all, f.String())
	}
	return fmt.Errorf("leveldb: %s is damaged: %s; opening it would silently lose acknowledged writes; %s: %w",
		dir, strings.Join(all, "; "), advice, index.Broken)
}

// inspect reads the directory's CURRENT, MANIFEST and journals. Its error
// means that it could not read them.
func inspect(dir string) (inspection, error) {
	var in inspection
	names, err := fileNames(dir)
	if err != nil {
		return in, err
	}
	current, leftover, err := currentManifest(dir, names)
	if err != nil {
		in.refuse = append(in.refuse, finding{"CURRENT", err.Error()})
		return in, nil
	}
	if current == "" {
		in.fresh, in.leftover = true, leftover
		return in, nil
	}
	c, err := readContents(filepath.Join(dir, current))
	if err != nil {
		return in, err
	}
	if c.damage != nil {
		in.refuse = append(in.refuse, finding{current, c.damage.String()})
		return in, nil
	}
	in.checkTables(dir, c)
	if err := in.checkJournals(dir, names, c); err != nil {
		return in, err
	}
	return in, in.checkClean(dir)
}

func fileNames(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names, nil
}

// currentManifest returns the MANIFEST that CURRENT names, or "" when nothing
// was ever stored. goleveldb would fall back to CURRENT.bak, which may name an
// older state: names would go back in time.
func currentManifest(dir string, names []string) (name string, leftover []string, err error) {
	b, err := os.ReadFile(filepath.Join(dir, "CURRENT"))
	if errors.Is(err, fs.ErrNotExist) {
		if leftover, ok := neverUsed(dir, names); ok {
			return "", leftover, nil
		}
		return "", nil, errors.New("missing, though there are database files; it names the MANIFEST in use")
	}
	if err != nil {
		return "", nil, err
	}
	name, whole := strings.CutSuffix(string(b), "\n")
	if !whole || !strings.HasPrefix(name, "MANIFEST-") || strings.ContainsAny(name, "/\\") {
		return "", nil, fmt.Errorf("holds %.40q, expected the name of a MANIFEST and a newline", b)
	}
	name = pending(name, names)
	if !slices.Contains(names, name) {
		return "", nil, fmt.Errorf("names %s, which is missing", name)
	}
	return name, nil, nil
}

// pending returns the MANIFEST that goleveldb would take instead of name: a
// crash between writing a newer one and naming it leaves CURRENT.<n>, synced.
func pending(name string, names []string) string {
	for _, n := range names {
		var num int64
		if _, err := fmt.Sscanf(n, "CURRENT.%d", &num); err != nil {
			continue
		}
		newer := fmt.Sprintf("MANIFEST-%06d", num)
		if slices.Contains(names, newer) && (len(newer) > len(name) || newer > name) {
			name = newer
		}
	}
	return name
}

// neverUsed reports whether the directory is empty, or was left by a crash
// before its first CURRENT: no journal can exist then, and no write was ever
// acknowledged. What such a crash left makes goleveldb stumble.
func neverUsed(dir string, names []string) (leftover []string, ok bool) {
	for _, n := range names {
		switch {
		case strings.HasSuffix(n, ".log"), strings.HasSuffix(n, ".ldb"), n == "CURRENT.bak":
			return nil, false
		case strings.HasPrefix(n, "MANIFEST-"):
			c, err := readContents(filepath.Join(dir, n))
			if err != nil || c.damage != nil || len(c.tables) > 0 || c.journal != 0 {
				return nil, false
			}
			leftover = append(leftover, n)
		case strings.HasPrefix(n, "CURRENT."):
			leftover = append(leftover, n)
		}
	}
	return leftover, true
}

// checkTables notes the tables whose length is not what the MANIFEST says. A
// missing one keeps goleveldb from opening; a short one does not, and would
// only fail the reads that meet it.
func (in *inspection) checkTables(dir string, c *contents) {
	for num, want := range c.tables {
		name := fmt.Sprintf("%06d.ldb", num)
		fi, err := os.Stat(filepath.Join(dir, name))
		switch {
		case err != nil:
			in.refuse = append(in.refuse, finding{name, "the MANIFEST lists it, but " + reason(err)})
		case fi.Size() != want:
			in.tables = append(in.tables, finding{name, fmt.Sprintf("has %d bytes, the MANIFEST says %d", fi.Size(), want)})
		}
	}
}

// reason is err without the path, which the finding already names.
func reason(err error) string {
	if pe, ok := errors.AsType[*fs.PathError](err); ok {
		return pe.Err.Error()
	}
	return err.Error()
}

// checkJournals reads what goleveldb would replay.
func (in *inspection) checkJournals(dir string, names []string, c *contents) error {
	nums := journalsInUse(names, c)
	if c.journal != 0 && !slices.Contains(nums, c.journal) {
		in.refuse = append(in.refuse, finding{fmt.Sprintf("%06d.log", c.journal), "the journal that the MANIFEST names is missing"})
		return nil
	}
	in.journals = nums
	in.ends = map[int64]int64{}
	seq, open := c.seq, (*finding)(nil)
	for _, num := range nums {
		in.journal = num
		name := fmt.Sprintf("%06d.log", num)
		b, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			return err
		}
		s := scanRecords(b, func(rec []byte) error { return in.follow(rec, &seq) })
		if s.Records > 0 && open != nil {
			in.refuse = append(in.refuse, *open) // torn, yet something was written after it
			open = nil
		}
		if s.Damage != nil {
			hint := ""
			if s.Damage.Follows == 0 {
				hint = fmt.Sprintf(" (to give up just this last record, truncate the file to %d bytes)", s.Good)
			}
			in.refuse = append(in.refuse, finding{name, s.Damage.String() + hint})
		}
		if s.Torn > 0 {
			in.torn += s.Torn
		}
		switch {
		case s.Blank && s.Records > 0: // was there more, the numbers of the batches will tell
			in.blank += s.Torn
			in.ends[num] = s.Good
		case s.Torn > 0:
			open = &finding{name, fmt.Sprintf("ends torn at offset %d, but a later journal was written to", s.Good)}
		}
	}
	return nil
}

func journalsInUse(names []string, c *contents) []int64 {
	var nums []int64
	for _, n := range names {
		var num int64
		if _, err := fmt.Sscanf(n, "%d.log", &num); err == nil && strings.HasSuffix(n, ".log") &&
			(num >= c.journal || num == c.prevJournal) {
			nums = append(nums, num)
		}
	}
	slices.Sort(nums)
	return nums
}

// follow holds one batch to the one before it. goleveldb skips a batch whose
// sequence is not past the last one's, without a word.
func (in *inspection) follow(rec []byte, seq *uint64) error {
	b, err := readBatch(rec)
	if err != nil {
		return err
	}
	switch {
	case b.seq < *seq:
		return fmt.Errorf("a batch with sequence %d after %d: goleveldb would skip it", b.seq, *seq)
	case !b.numbered:
		return errors.New("a batch without our number")
	case b.tally.Rows != uint64(b.rows):
		return fmt.Errorf("batch %d has %d rows, expected %d", b.tally.Batch, b.rows, b.tally.Rows)
	case in.last.Batch != 0 && b.tally.Batch != in.last.Batch+1:
		return fmt.Errorf("batch %d follows batch %d: what was between them is gone", b.tally.Batch, in.last.Batch)
	}
	*seq = b.seq + uint64(b.rows)
	in.last = b.tally
	in.batches++
	return nil
}

// A batch is what we read of one journal record.
type batch struct {
	seq      uint64 // goleveldb's
	rows     int
	numbered bool
	tally    tally
}

// readBatch takes a journal record apart: sequence, count, and for each row
// its type, key and value.
func readBatch(rec []byte) (b batch, err error) {
	if len(rec) < 12 {
		return b, errors.New("a batch shorter than its head")
	}
	b.seq = binary.LittleEndian.Uint64(rec)
	count := int(binary.LittleEndian.Uint32(rec[8:]))
	p := reader{b: rec[12:]}
	for len(p.b) > 0 {
		put := p.u8()
		key := p.take(p.uvarint())
		if put == 1 {
			value := p.take(p.uvarint())
			if string(key) == keyBatch {
				payload, ok := unframe(key, value)
				if b.tally, b.numbered = parseTally(payload); !ok || !b.numbered {
					return b, errors.New("a batch whose number does not match its digest")
				}
			}
		}
		if p.bad || put > 1 {
			return b, errors.New("a batch that cannot be taken apart")
		}
		b.rows++
	}
	if b.rows != count {
		return b, fmt.Errorf("a batch of %d rows that says %d", b.rows, count)
	}
	return b, nil
}

func (r *reader) uvarint() int {
	v, n := binary.Uvarint(r.b)
	if n <= 0 || v > 1<<31 {
		r.b, r.bad = nil, true
		return 0
	}
	r.b = r.b[n:]
	return int(v)
}
