package leveldb

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/syndtr/goleveldb/leveldb/iterator"
	"github.com/syndtr/goleveldb/leveldb/opt"
	"github.com/syndtr/goleveldb/leveldb/storage"
	"github.com/syndtr/goleveldb/leveldb/table"
	"github.com/syndtr/goleveldb/leveldb/util"

	"svcindex/index"
)

// findingsMax is how many findings a report lists; the rest are counted.
const findingsMax = 1000

// A Report is what Verify found.
type Report struct {
	Rows        uint64
	Manifests   uint64 // whose bytes match their cid
	Batch       uint64 // number of the last batch
	Batches     int    // in the journals
	Torn        int64  // bytes of torn tail; normal after a crash
	Tables      int
	Quarantined uint64
	Audit       index.AuditMark

	Findings []string // what is wrong, for people
	More     int      // findings beyond findingsMax
}

// Sound reports whether nothing is wrong.
func (r *Report) Sound() bool { return len(r.Findings) == 0 }

func (r *Report) add(where, what string) {
	if len(r.Findings) >= findingsMax {
		r.More++
		return
	}
	r.Findings = append(r.Findings, finding{where, what}.String())
}

// A Progress says how far Verify got.
type Progress struct {
	Table, Tables int    // tables read, of how many
	Rows          uint64 // rows looked at
}

// Verify reads everything under path and changes nothing. The store must not
// be open. Its error means that it could not look; what it saw is in the
// report. progress may be nil.
func Verify(ctx context.Context, path string, progress func(Progress)) (Report, error) {
	v := verifier{ctx: ctx, dir: filepath.Clean(path), progress: progress}
	if progress == nil {
		v.progress = func(Progress) {}
	}
	return v.verify()
}

// Audit is Verify that shows how far the audit goes, then the entries that no
// file has yet, then what the rows say, for the audit to be held against.
func Audit(ctx context.Context, path string, mark func(index.AuditMark), pending func(index.AuditEntry), facts func(index.Fact)) (Report, error) {
	v := verifier{ctx: ctx, dir: filepath.Clean(path), progress: func(Progress) {}, mark: mark, pending: pending, facts: facts}
	return v.verify()
}

func (v *verifier) verify() (Report, error) {
	if _, err := os.Stat(filepath.Join(v.dir, "LOCK")); err != nil {
		return v.report, fmt.Errorf("leveldb: %s holds no database (%w); db.path names the directory of one: %w", v.dir, err, index.Invalid)
	}
	stor, err := openFiles(v.dir, true)
	if err != nil {
		return v.report, err
	}
	defer stor.Close()
	in, err := inspect(v.dir)
	if err != nil {
		return v.report, explain(v.dir, err)
	}
	v.take(in)
	if in.fresh {
		return v.report, v.ctx.Err()
	}
	if err := v.tables(stor); err != nil {
		return v.report, err
	}
	return v.report, v.rows(stor, &in)
}

type verifier struct {
	ctx      context.Context
	dir      string
	progress func(Progress)
	report   Report
	done     Progress
	audit    auditWalk
	mark     func(index.AuditMark)
	facts    func(index.Fact) // nil: nobody wants them
	pending  func(index.AuditEntry)
}

func (v *verifier) take(in inspection) {
	v.report.Batch, v.report.Batches, v.report.Torn = in.last.Batch, in.batches, in.torn-in.blank
	for _, f := range slices.Concat(in.refuse, in.tables) {
		v.report.add(f.Where, f.What)
	}
}

// tables reads each table by itself: goleveldb's own walk stops at the first
// damaged block, this one names them all.
func (v *verifier) tables(stor storage.Storage) error {
	fds, err := stor.List(storage.TypeTable)
	if err != nil {
		return explain(v.dir, err)
	}
	v.report.Tables, v.done.Tables = len(fds), len(fds)
	for _, fd := range fds {
		if err := v.ctx.Err(); err != nil {
			return err
		}
		if err := v.table(stor, fd); err != nil {
			v.report.add(fd.String(), err.Error())
		}
		v.done.Table++
		v.progress(v.done)
	}
	return nil
}

func (v *verifier) table(stor storage.Storage, fd storage.FileDesc) error {
	r, err := stor.Open(fd)
	if err != nil {
		return err
	}
	defer r.Close()
	size, err := r.Seek(0, 2)
	if err != nil {
		return err
	}
	t, err := table.NewReader(r, size, fd, nil, nil, engineOptions(true))
	if err != nil {
		return err
	}
	defer t.Release()
	it := t.NewIterator(nil, &opt.ReadOptions{Strict: opt.StrictOverride, DontFillCache: true})
	defer it.Release()
	if s, ok := it.(iterator.ErrorCallbackSetter); ok {
		s.SetErrorCallback(func(err error) { v.report.add(fd.String(), err.Error()) })
	}
	for it.Next() {
	}
	return it.Error()
}

// rows opens the store for reading and looks at each row, and then whether the
// rows are as many as the last batch said.
func (v *verifier) rows(stor storage.Storage, in *inspection) error {
	db, err := openSafely(joinJournals(stor, in.journals), engineOptions(true))
	if err != nil {
		v.report.add(v.dir, "goleveldb does not open it: "+err.Error())
		return nil
	}
	defer db.Close()
	e := &engine{db: db, found: *in}
	said, err := e.checkTally(v.dir)
	if err != nil {
		v.report.add(v.dir, err.Error())
	}
	if said.Batch > 0 {
		v.report.Batch = said.Batch
	}
	mark, err := e.readMark(&said)
	if err != nil {
		v.report.add(keyAudit, err.Error())
	}
	v.report.Audit = mark
	v.audit.begin(mark)
	if v.mark != nil {
		v.mark(mark)
	}
	var found tally
	strict := e.iterate(nil, nil)
	defer strict.Release()
	last, err := v.walk(strict, &found, nil)
	if err != nil {
		return err
	}
	if damage := strict.Error(); damage != nil {
		v.report.add("after key "+show(last), damage.Error())
		rest := db.NewIterator(&util.Range{Start: append(last, 0)}, &opt.ReadOptions{Strict: opt.StrictOverride | opt.StrictBlockChecksum, DontFillCache: true})
		defer rest.Release()
		if _, err := v.walk(rest, &found, last); err != nil {
			return err
		}
	}
	if fault := v.audit.end(); fault != "" {
		v.report.add(v.dir, fault)
	}
	v.compare(said, found)
	v.report.Manifests, v.report.Quarantined = found.Manifests, found.Quarantined
	return nil
}

// walk looks at each row of it and returns the last key.
func (v *verifier) walk(it iterator.Iterator, found *tally, last []byte) ([]byte, error) {
	for it.Next() {
		key := it.Key()
		last = append(last[:0], key...)
		v.row(found, key, it.Value())
		v.report.Rows++
		if v.done.Rows = v.report.Rows; v.done.Rows%1024 == 0 {
			if err := v.ctx.Err(); err != nil {
				return last, err
			}
			v.progress(v.done)
		}
	}
	return last, nil
}

func (v *verifier) row(found *tally, key, value []byte) {
	payload, sound := unframe(key, value)
	if !sound {
		v.report.add(show(key), "the value does not match its digest")
	}
	ok := true
	switch key[0] {
	case rowContent:
		if sound {
			found.Manifests++
		}
	case rowName:
		var r index.NameRecord
		if r, ok = parseName(payload); r.Deleted {
			found.Tombstones++
		} else {
			found.Names++
		}
	case rowProviders:
		_, ok = countLive(payload, 0, index.ProvidersMax)
		found.Sets++
	case rowIdem:
		_, ok = parseIdem(payload)
	case rowPin:
		found.Pins++
	case rowQuarantine:
		found.Quarantined++
		v.report.add(show(key), "its bytes were found damaged and are in quarantine; put the manifest again")
	case rowAudit:
		var es []index.AuditEntry
		if es, ok = v.audit.row(key, bytes.Clone(payload)); ok && sound && v.pending != nil {
			for _, e := range es {
				v.pending(e)
			}
		}
	case rowGone, rowHeld, rowOwn:
	default:
		ok = false
	}
	if sound && ok && v.facts != nil {
		facts(key, payload, v.facts)
	}
	if sound && !ok {
		v.report.add(show(key), "a row of a shape this program does not know")
	}
}

// compare finds rows that are gone without a trace: the last batch says how
// many there were. Providers are left out, since a damaged set that was
// replaced took its count with it.
func (v *verifier) compare(said, found tally) {
	for _, c := range [...]struct {
		what        string
		said, found uint64
	}{
		{"names", said.Names, found.Names},
		{"tombstones", said.Tombstones, found.Tombstones},
		{"manifests", said.Manifests, found.Manifests},
		{"provider sets", said.Sets, found.Sets},
		{"pins", said.Pins, found.Pins},
		{"quarantined manifests", said.Quarantined, found.Quarantined},
	} {
		if c.said != c.found {
			v.report.add(v.dir, fmt.Sprintf("%d sound %s were found, the last batch says %d", c.found, c.what, c.said))
		}
	}
}

// show makes a key readable.
func show(key []byte) string {
	if len(key) == 0 {
		return "(the beginning)"
	}
	kind, rest := key[0], key[1:]
	switch {
	case kind == rowName:
		return "name:" + strings.ToValidUTF8(string(rest), "?")
	case len(rest) >= 32 && bytes.IndexByte([]byte{rowContent, rowHeld, rowProviders, rowQuarantine, rowPin, rowGone}, kind) >= 0:
		c := index.CID(rest[:32])
		return fmt.Sprintf("%c %s%s", kind, c, rest[32:])
	}
	return fmt.Sprintf("%q", key)
}
