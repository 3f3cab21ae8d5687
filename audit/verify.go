package audit

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"svcindex/index"
)

const findingsMax = 100

// A Report is what Verify found.
type Report struct {
	Files    int
	First    uint64 // oldest entry that is there
	Last     uint64 // newest
	Entries  uint64
	Facts    uint64   // things in the store that were held against them
	Notes    []string // what could not be judged, and why
	Findings []string
	More     int // findings beyond the first hundred
}

// Sound reports whether nothing is wrong.
func (r *Report) Sound() bool { return len(r.Findings) == 0 }

func (r *Report) find(format string, args ...any) {
	if len(r.Findings) == findingsMax {
		r.More++
		return
	}
	r.Findings = append(r.Findings, fmt.Sprintf(format, args...))
}

// A doc is what Verify reads of an entry.
type doc struct {
	N     uint64   `json:"n"`
	At    int64    `json:"at"`
	Who   string   `json:"who"`
	Op    string   `json:"op"`
	Key   string   `json:"key"`
	Seq   uint64   `json:"seq"`
	CID   string   `json:"cid"`
	IDs   []string `json:"ids"`
	Until int64    `json:"until"`  // of the last of them
	Each  []int64  `json:"untils"` // of each, where they differ
}

// A claim is what the entries say of one thing in the end.
type claim struct {
	n    uint64 // the entry that says it
	sum  [16]byte
	live bool
	till int64 // it may be gone after
	seen bool  // the store says so, too
}

// A Verifier holds the files, then the entries of a store that are in no file
// yet, then what the store holds, to each other. In this order: Files, Entry,
// Fact, End.
type Verifier struct {
	Report Report
	now    int64
	pos    position
	begun  bool
	claims map[[16]byte]*claim
}

// NewVerifier returns one that judges what may have expired at now.
func NewVerifier(now time.Time) *Verifier {
	return &Verifier{now: now.Unix(), claims: make(map[[16]byte]*claim)}
}

// Files reads all files of a directory. Its error means that it could not
// look.
func (v *Verifier) Files(dir string) error {
	names, err := files(dir)
	if err != nil {
		return err
	}
	v.Report.Files = len(names)
	for i, name := range names {
		if err := v.file(filepath.Join(dir, name), i == len(names)-1); err != nil {
			return err
		}
	}
	return nil
}

func (v *Verifier) file(path string, newest bool) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	r := bufio.NewReaderSize(f, lineMax)
	for n := 1; ; n++ {
		line, err := r.ReadSlice('\n')
		where := fmt.Sprintf("%s:%d", filepath.Base(path), n)
		switch {
		case err == io.EOF && len(line) > 0 && newest:
			v.Report.Notes = append(v.Report.Notes, where+" is torn, as by a crash; the server cuts it off when it starts")
			return nil
		case err == io.EOF && len(line) > 0:
			v.Report.find("%s: it ends in the middle of a line", where)
			return nil
		case err == io.EOF:
			return nil
		case errors.Is(err, bufio.ErrBufferFull):
			v.Report.find("%s: a line of over %d bytes", where, lineMax)
			return nil
		case err != nil:
			return err
		}
		if n == 1 {
			v.header(where, line)
			continue
		}
		p, text, err := parseLine(line)
		if err != nil {
			v.Report.find("%s: %v", where, err)
			continue
		}
		v.entry(where, p, text)
	}
}

func (v *Verifier) header(where string, line []byte) {
	p, err := parseHeader(line)
	switch {
	case err != nil:
		v.Report.find("%s: %v", where, err)
	case !v.begun:
		v.begin(p)
	case p != v.pos:
		v.Report.find("%s: begins after entry %d, the file before it ends with entry %d: files are missing, or a backup was restored in between", where, p.n, v.pos.n)
		v.pos = p
	}
}

func (v *Verifier) begin(p position) {
	v.begun, v.pos, v.Report.First = true, p, p.n+1
}

// entry takes one entry in.
func (v *Verifier) entry(where string, p position, text []byte) {
	switch want := index.ChainAudit(v.pos.chain, text); {
	case p.n != v.pos.n+1:
		v.Report.find("%s: entry %d follows entry %d: lines are missing or out of order", where, p.n, v.pos.n)
	case p.chain != want:
		v.Report.find("%s: entry %d, or the one before it, was changed: its chain does not fit", where, p.n)
	}
	v.pos = p
	v.Report.Entries++
	v.Report.Last = max(v.Report.Last, p.n)
	var d doc
	if err := json.Unmarshal(append(text[:len(text):len(text)], '}'), &d); err != nil || d.N != p.n {
		v.Report.find("%s: entry %d cannot be read", where, p.n)
		return
	}
	v.replay(&d)
}

// Mark says how far the store's account goes. Call it after Files, and give
// the entries that are in no file to Entry.
func (v *Verifier) Mark(m index.AuditMark) {
	if !v.begun {
		v.begin(position{m.Kept, m.KeptChain})
	}
	if m.Unaudited {
		v.Report.Notes = append(v.Report.Notes, "the store holds what was written without an audit: that every write has its entry cannot be judged")
		v.Report.First = max(v.Report.First, 2) // as if older entries were away
	}
	switch {
	case v.pos.n < m.Kept:
		v.Report.find("the files end with entry %d, the store gave them %d: entries are missing from the end", v.pos.n, m.Kept)
	case v.pos.n == m.Kept && v.pos.chain != m.KeptChain:
		v.Report.find("the chain of the files' last entry, %d, is not the one the store remembers", v.pos.n)
	case v.pos.n > m.Last:
		v.Report.find("the files end with entry %d, the store knows of %d only: entries without their writes", v.pos.n, m.Last)
	}
}

// Entry takes in an entry that the store still holds.
func (v *Verifier) Entry(e index.AuditEntry) {
	p := position{e.N, e.Chain}
	if e.N <= v.pos.n { // written to a file, and not dropped yet
		if e.N == v.pos.n && p != v.pos {
			v.Report.find("entry %d says one thing in the files and another in the store", e.N)
		}
		return
	}
	v.entry("store", p, e.Text)
}

// replay notes what an entry says of the things it is about.
func (v *Verifier) replay(d *doc) {
	switch d.Op {
	case "put_manifest":
		v.say(d, "m", "", "", true, 0)
	case "put_name":
		v.say(d, "n", "", fmt.Sprint(d.Seq, d.CID), true, 0)
	case "delete_name":
		v.say(d, "n", "", fmt.Sprint(d.Seq), true, 0)
	case "put_providers":
		for i, id := range d.IDs {
			v.say(d, "p", id, "", true, d.until(i))
		}
	case "delete_provider":
		for _, id := range d.IDs {
			v.say(d, "p", id, "", false, 0)
		}
	case "pin", "unpin":
		v.say(d, "x", "", "", d.Op == "pin", 0)
	case "reindex":
	default:
		v.Report.find("entry %d is of a kind this program does not know: %q", d.N, d.Op)
	}
}

// until returns when provider i may be gone. What the network had is kept only
// as far as there is room beside what clients put, and may be gone at any time.
func (d *doc) until(i int) int64 {
	switch {
	case d.Who == index.AuditNetwork:
		return 1
	case i < len(d.Each):
		return d.Each[i]
	}
	return d.Until
}

func sum(parts ...string) (s [16]byte) {
	text := ""
	for _, p := range parts {
		text += p + "\x00"
	}
	c := index.Sum([]byte(text))
	copy(s[:], c[:])
	return s
}

func (v *Verifier) say(d *doc, kind, id, value string, live bool, till int64) {
	v.claims[sum(kind, d.Key, id)] = &claim{n: d.N, sum: sum(value), live: live, till: till}
}

// Fact holds one thing of the store to what the entries say of it.
func (v *Verifier) Fact(f index.Fact) {
	v.Report.Facts++
	kind, value := "", ""
	switch f.Op {
	case index.PutManifest:
		kind = "m"
	case index.PutName:
		kind, value = "n", fmt.Sprint(f.Seq, f.CID.String())
	case index.DeleteName:
		kind, value = "n", fmt.Sprint(f.Seq)
	case index.PutProviders:
		kind = "p"
	case index.Pin:
		kind = "x"
	}
	c := v.claims[sum(kind, f.Key.String(), f.ID)]
	switch {
	case c == nil && v.Report.First > 1:
		// Its entry may be in a file that was moved away.
	case c == nil || !c.live:
		v.Report.find("%s %s %s: a write without its entry", f.Op, f.Key.String(), f.ID)
	case c.sum != sum(value):
		v.Report.find("%s %s: the store holds another state than entry %d says: a write without its entry, or an entry without its write", f.Op, f.Key.String(), c.n)
	}
	if c != nil {
		c.seen = true
	}
}

// End looks for entries whose writes are not there. It needs all facts before.
func (v *Verifier) End() {
	if v.Report.First > 1 {
		v.Report.Notes = append(v.Report.Notes, fmt.Sprintf("entries before %d are not here: writes that only they tell of were not judged", v.Report.First))
	}
	for _, c := range v.claims {
		if c.live && !c.seen && (c.till == 0 || c.till > v.now) {
			v.Report.find("entry %d: what it says was written is not in the store", c.n)
		}
	}
}
