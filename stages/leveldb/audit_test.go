package leveldb

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"

	"svcindex/index"
)

// audited commits one mutation and returns the entries that came of it.
func audited(t *testing.T, d *DB, m *index.Mutation) []index.AuditEntry {
	t.Helper()
	before := d.AuditMark().Last
	if err := d.Commit([]*index.Mutation{m}); err != nil {
		t.Fatal(err)
	}
	es, err := d.AuditAfter(before, 10)
	if err != nil {
		t.Fatal(err)
	}
	return es
}

func TestEachMutationMakesOneEntry(t *testing.T) {
	path := t.TempDir()
	d, err := Open(Options{Path: path, Sync: true, Audit: true})
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	name, err := index.ParseKey([]byte("name:a/b"))
	if err != nil {
		t.Fatal(err)
	}
	body := []byte("bytes")
	cid := index.Sum(body)
	key := index.CIDKey(cid)
	provider := index.Provider{ID: "p", Addr: "/ip4/192.0.2.1", LastSeen: 1, Expires: 1 << 40}
	n := uint64(0)
	for _, tt := range []struct {
		why  string
		m    index.Mutation
		want string // in the entry; empty: none is made
	}{
		{"a manifest", index.Mutation{Op: index.PutManifest, Key: key, Manifest: body, Who: "k.n"}, `"who":"k.n","op":"put_manifest","key":"` + cid.String() + `","size":5`},
		{"the same manifest", index.Mutation{Op: index.PutManifest, Key: key, Manifest: body}, ""},
		{"a name", index.Mutation{Op: index.PutName, Key: name, Name: index.NameRecord{CID: cid, Seq: 3}}, `"who":"node","op":"put_name","key":"name:a/b","seq":3,"cid":"` + cid.String()},
		{"the same name", index.Mutation{Op: index.PutName, Key: name, Name: index.NameRecord{CID: cid, Seq: 3}}, ""},
		{"a name that is refused", index.Mutation{Op: index.PutName, Key: name, Name: index.NameRecord{CID: cid, Seq: 2}}, ""},
		{"a deletion", index.Mutation{Op: index.DeleteName, Key: name}, `"op":"delete_name","key":"name:a/b","seq":4`},
		{"providers", index.Mutation{Op: index.PutProviders, Key: key, Providers: []index.Provider{provider}}, `"op":"put_providers"`},
		{"a provider less", index.Mutation{Op: index.DeleteProvider, Key: key, ProviderID: "p"}, `"ids":["p"]`},
		{"a provider that is not there", index.Mutation{Op: index.DeleteProvider, Key: key, ProviderID: "p"}, ""},
		{"a pin", index.Mutation{Op: index.Pin, Key: key}, `"op":"pin"`},
		{"the same pin", index.Mutation{Op: index.Pin, Key: key}, ""},
		{"no pin", index.Mutation{Op: index.Unpin, Key: key}, `"op":"unpin"`},
		{"a reindex", index.Mutation{Op: index.Reindex, Idem: index.Idempotency{TaskID: "T"}}, `"op":"reindex","task":"T"`},
		{"a reindex with a key", index.Mutation{Op: index.Reindex, Idem: index.Idempotency{Key: "i", TaskID: "U", Expires: 1 << 40}}, `"task":"U"`},
		{"the same again", index.Mutation{Op: index.Reindex, Idem: index.Idempotency{Key: "i", TaskID: "V", Expires: 1 << 40}}, ""},
	} {
		es := audited(t, d, &tt.m)
		if tt.want == "" {
			if len(es) != 0 {
				t.Errorf("%s: %d entries, want none: %s", tt.why, len(es), es[0].Text)
			}
			continue
		}
		n++
		if len(es) != 1 || es[0].N != n || !strings.Contains(string(es[0].Text), tt.want) {
			t.Errorf("%s: %v, want one entry with %s", tt.why, es, tt.want)
			continue
		}
		var doc map[string]any
		if err := json.Unmarshal(index.AppendAuditLine(nil, &es[0]), &doc); err != nil || doc["n"] != float64(n) || len(doc["chain"].(string)) != 64 {
			t.Errorf("%s: its line is %v, %v", tt.why, doc, err)
		}
	}
	if r := d.AuditMark(); r.Last != n || r.Unaudited || r.Kept != 0 {
		t.Errorf("the mark is %+v after %d entries", r, n)
	}
}

// Entries are chained, number without a gap over many batches and a restart,
// go when they are kept elsewhere, and verify misses none.
func TestEntriesSurviveUntilTheyAreKept(t *testing.T) {
	path := t.TempDir()
	open := func() *DB {
		t.Helper()
		d, err := Open(Options{Path: path, Sync: true, Audit: true})
		if err != nil {
			t.Fatal(err)
		}
		return d
	}
	put := func(d *DB, i int) {
		t.Helper()
		body := fmt.Append(nil, "m", i)
		m := &index.Mutation{Op: index.PutManifest, Key: index.CIDKey(index.Sum(body)), Manifest: body}
		if err := d.Commit([]*index.Mutation{m}); err != nil || m.Err != nil {
			t.Fatal(err, m.Err)
		}
	}
	d := open()
	for i := range 20 {
		put(d, i)
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	d = open()
	for i := range 20 {
		put(d, 20+i)
	}
	es, err := d.AuditAfter(0, 100)
	if err != nil || len(es) != 40 {
		t.Fatalf("%d entries, %v", len(es), err)
	}
	chain := index.CID{}
	for i := range es {
		if chain = index.ChainAudit(chain, es[i].Text); chain != es[i].Chain || es[i].N != uint64(i+1) {
			t.Errorf("entry %d is number %d, chained %v, want %v", i+1, es[i].N, es[i].Chain, chain)
		}
	}
	if err := d.AuditKept(es[29]); err != nil {
		t.Fatal(err)
	}
	if err := d.AuditKept(es[9]); err != nil { // again, and older: nothing
		t.Fatal(err)
	}
	if m := d.AuditMark(); m.Kept != 30 || m.KeptChain != es[29].Chain || m.Last != 40 || m.Head != chain {
		t.Errorf("the mark is %+v", m)
	}
	if es, err = d.AuditAfter(30, 100); len(es) != 10 || err != nil {
		t.Errorf("%d entries wait, %v", len(es), err)
	}
	if _, err := d.AuditAfter(29, 100); err == nil {
		t.Error("an entry that is gone is not missed")
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	facts, pending := 0, 0
	r, err := Audit(t.Context(), path, func(index.AuditMark) {}, func(index.AuditEntry) { pending++ }, func(f index.Fact) { facts++ })
	if err != nil || !r.Sound() || r.Audit.Kept != 30 || facts != 40 || pending != 10 {
		t.Errorf("%+v, %v, %d facts, %d pending", r, err, facts, pending)
	}
}

// A store that was filled without an audit says so for good.
func TestUnauditedWritesLeaveAMark(t *testing.T) {
	path := t.TempDir()
	for i, on := range []bool{false, true} {
		d, err := Open(Options{Path: path, Sync: true, Audit: on})
		if err != nil {
			t.Fatal(err)
		}
		body := fmt.Append(nil, i)
		if err := d.Commit([]*index.Mutation{{Op: index.PutManifest, Key: index.CIDKey(index.Sum(body)), Manifest: body}}); err != nil {
			t.Fatal(err)
		}
		if m := d.AuditMark(); !m.Unaudited || m.Last != uint64(i) {
			t.Errorf("audit %v: the mark is %+v", on, m)
		}
		if err := d.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// While somebody writes, what is kept elsewhere is dropped along with his
// batches, and no entry is lost or dropped before its time.
func TestEntriesAreDroppedWhileOthersWrite(t *testing.T) {
	path := t.TempDir()
	d, err := Open(Options{Path: path, Audit: true})
	if err != nil {
		t.Fatal(err)
	}
	stop, wrote := make(chan struct{}), make(chan error)
	go func() {
		for i := 0; ; i++ {
			body := fmt.Append(nil, i)
			m := &index.Mutation{Op: index.PutManifest, Key: index.CIDKey(index.Sum(body)), Manifest: body}
			if err := d.Commit([]*index.Mutation{m}); err != nil || m.Err != nil {
				wrote <- errors.Join(err, m.Err)
				return
			}
			select {
			case <-stop:
				wrote <- nil
				return
			default:
			}
		}
	}()
	for kept := uint64(0); kept < 200; {
		es, err := d.AuditAfter(kept, 100)
		if err != nil {
			t.Fatal(err)
		}
		if len(es) == 0 {
			continue
		}
		last := es[len(es)-1]
		if err := d.AuditKept(last); err != nil {
			t.Fatal(err)
		}
		if m := d.AuditMark(); m.Kept != last.N || m.KeptChain != last.Chain {
			t.Fatalf("the mark is %+v, want kept up to %d", m, last.N)
		}
		kept = last.N
	}
	close(stop)
	if err := <-wrote; err != nil {
		t.Fatal(err)
	}
	mark := d.AuditMark()
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	pending := uint64(0)
	r, err := Audit(t.Context(), path, func(index.AuditMark) {}, func(index.AuditEntry) { pending++ }, func(index.Fact) {})
	if err != nil || !r.Sound() || pending != mark.Last-mark.Kept {
		t.Errorf("%+v, %v, %d pending; the mark was %+v", r, err, pending, mark)
	}
}

// audits opens a store by hand and fills it with a batch of n entries.
func audits(t *testing.T, n int) (d *DB, e *engine, add func(n int)) {
	t.Helper()
	d, e = byHand(t)
	d.opt.Audit = true
	made := 0
	add = func(n int) {
		t.Helper()
		var ms []*index.Mutation
		for range n {
			ms = append(ms, putManifest(fmt.Sprint("entry ", made)))
			made++
		}
		done := committing(t, d, ms...)
		settle(t, d, e)
		must(t, <-done)
	}
	add(n)
	return d, e, add
}

func settle(t *testing.T, d *DB, e *engine) {
	t.Helper()
	made(t, d, d.take(e, nil))
}

// numbers are those of the entries after n, which have to be chained.
func numbers(t *testing.T, d *DB, n uint64, most int) (first, last uint64) {
	t.Helper()
	es, err := d.AuditAfter(n, most)
	must(t, err)
	for i := range es {
		if i > 0 && index.ChainAudit(es[i-1].Chain, es[i].Text) != es[i].Chain {
			t.Errorf("entry %d is not chained to the one before", es[i].N)
		}
	}
	if len(es) == 0 {
		return 0, 0
	}
	return es[0].N, es[len(es)-1].N
}

// entryRows counts the rows of entries.
func entryRows(t *testing.T, e *engine) (n int) {
	t.Helper()
	it := e.iterate([]byte{rowAudit}, []byte{rowAudit + 1})
	defer it.Release()
	for it.Next() {
		n++
	}
	return n
}

func TestEntriesOfABatchShareARow(t *testing.T) {
	d, e, add := audits(t, 10)
	add(1)
	add(500) // of some 300 bytes each
	if n, least := entryRows(t, e), 2+500*200/rowBytes; n < least || n > 2*least {
		t.Errorf("511 entries in three batches take %d rows, want about %d", n, least)
	}
	for _, tt := range []struct {
		why         string
		after       uint64
		most        int
		first, last uint64
	}{
		{"all", 0, 1000, 1, 511},
		{"whole rows, though fewer were asked for", 0, 3, 1, 10},
		{"from within a row, as after a torn line", 4, 3, 5, 10},
		{"from the end of a row", 10, 1, 11, 11},
		{"nothing is left", 511, 10, 0, 0},
		{"nor behind that", 600, 10, 0, 0},
	} {
		if first, last := numbers(t, d, tt.after, tt.most); first != tt.first || last != tt.last {
			t.Errorf("%s: after %d come %d to %d, want %d to %d", tt.why, tt.after, first, last, tt.first, tt.last)
		}
	}
}

// What is kept elsewhere goes by whole rows: one of which only a part is kept
// stays, and nobody waits for its end.
func TestRowsOfEntriesGoWhole(t *testing.T) {
	d, e, add := audits(t, 10)
	add(10)
	add(10)
	for _, tt := range []struct{ kept, want uint64 }{{3, 0}, {10, 10}, {25, 20}, {25, 20}, {30, 30}} {
		k := keeping{index.AuditEntry{N: tt.kept}, make(chan error, 1)}
		d.keeping = k
		for range 3 {
			must(t, d.turn(e, func(t *txn) { d.dropKept(t, auditDrop) }))
		}
		if len(k.done) == 0 {
			t.Errorf("whoever has kept entry %d is not answered", tt.kept)
		}
		if m := d.AuditMark(); m.Kept != tt.want {
			t.Errorf("entries up to %d are elsewhere: dropped up to %d, want %d", tt.kept, m.Kept, tt.want)
		}
	}
	if n := entryRows(t, e); n != 0 || d.AuditMark().KeptChain != d.AuditMark().Head {
		t.Errorf("%d rows are left of entries that all are elsewhere: %+v", n, d.AuditMark())
	}
}

// Entries that an earlier version wrote, each in a row of its own, are read and
// dropped before those that follow.
func TestLoneEntriesOfAnEarlierVersion(t *testing.T) {
	d, e := byHand(t)
	d.opt.Audit = true
	must(t, d.turn(e, func(t *txn) {
		for n := uint64(1); n <= 3; n++ {
			text := fmt.Appendf(nil, `{"n":%d`, n)
			chain := index.ChainAudit(t.mark.Head, text)
			t.put(lone(n), append(chain[:], text...))
			t.mark.Last, t.mark.Head = n, chain
		}
	}))
	done := committing(t, d, putManifest("a"), putManifest("b"))
	settle(t, d, e)
	must(t, <-done)
	for after, want := range []uint64{1, 2, 3, 4, 5} {
		if first, last := numbers(t, d, uint64(after), 10); first != want || last != 5 {
			t.Errorf("after %d come %d to %d", after, first, last)
		}
	}
	d.keeping = keeping{index.AuditEntry{N: 5}, make(chan error, 1)}
	must(t, d.turn(e, func(t *txn) { d.dropKept(t, auditDrop) }))
	if m := d.AuditMark(); m.Kept != 5 || m.KeptChain != m.Head || entryRows(t, e) != 0 {
		t.Errorf("%+v, and %d rows are left", m, entryRows(t, e))
	}
}

// When as much of the audit waits as may, every write is refused; what is
// exported then has to end with those refusals, for a moment without any may
// never come.
func TestAFullAuditEndsThoughRefusedWritesKeepComing(t *testing.T) {
	d, e := byHand(t)
	d.opt.Audit = true
	must(t, d.turn(e, func(t *txn) {
		for n := uint64(1); n <= 3; n++ {
			text := fmt.Appendf(nil, `{"n":%d`, n)
			t.mark.Head = index.ChainAudit(t.mark.Head, text)
			t.put(lone(n), append(t.mark.Head[:len(t.mark.Head):len(t.mark.Head)], text...))
		}
		t.mark.Last = auditBehind + 1
	}))
	d.keeping = keeping{index.AuditEntry{N: 3}, make(chan error, 1)}
	for _, want := range []error{errAuditBehind, nil} {
		m := putManifest("a")
		done := committing(t, d, m)
		must(t, d.commit())
		must(t, <-done)
		if !errors.Is(m.Err, want) {
			t.Errorf("%v, want %v", m.Err, want)
		}
	}
}

// Or nobody would write it down with the writes that follow.
func TestABatchWithoutRowsLeavesNoMark(t *testing.T) {
	d, e := byHand(t)
	g := d.opened(e)
	g.calls, g.txn.mark.Unaudited = 1, true
	if g = d.take(e, nil); g == nil || g.txn.mark != g.txn.marked {
		t.Errorf("%+v", g)
	}
	made(t, d, g)
}

func FuzzParseAudit(f *testing.F) {
	chain := make([]byte, 32)
	f.Add(true, append(chain, `{"n":1`...))
	f.Add(false, append(append([]byte{34, 0, 0, 0}, chain...), "ab"...))
	f.Fuzz(func(t *testing.T, old bool, b []byte) {
		key := auditKey(1)
		if old {
			key = lone(1)
		}
		es, ok := parseAudit(key, b, nil)
		size := 0
		for i, e := range es {
			if size += len(e.Chain) + len(e.Text); e.N != uint64(i+1) {
				t.Errorf("entry %d is number %d", i+1, e.N)
			}
			if !old {
				size += 4
			}
		}
		if ok && size != len(b) {
			t.Errorf("%d of %d bytes were read, and all is well", size, len(b))
		}
	})
}
