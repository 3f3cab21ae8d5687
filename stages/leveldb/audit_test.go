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
