package leveldb

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	goleveldb "github.com/syndtr/goleveldb/leveldb"

	"svcindex/index"
)

// filled is a closed store with a journal of some 60 batches over several
// blocks.
func filled(t *testing.T) string {
	t.Helper()
	h := open(t, t.TempDir())
	for i := range 60 {
		h.do(putName(t, fmt.Sprintf("name:n%d", i), "c", uint64(i+1)))
		h.do(putManifest(strings.Repeat(fmt.Sprint("bytes of ", i), 200)))
	}
	must(t, h.DB.Close())
	return h.disk.dir
}

func TestDamageInTheJournalIsNeverSilent(t *testing.T) {
	dir := filled(t)
	length := size(t, journalOf(t, dir))
	refused := 0
	const trials = 60
	for i := range int64(trials) {
		broken := copyDir(t, dir)
		at := (i*7919*31 + 13) % length
		flip(t, journalOf(t, broken), at)
		db, err := Open(options(broken, newClock(), nil))
		if err == nil {
			db.Close()
			t.Errorf("a flipped bit at %d of %d went unnoticed", at, length)
			continue
		}
		if index.KindOf(err) != index.Broken || !contains(err, ".log", "offset", "records follow", "db verify", "backup") {
			t.Errorf("the refusal does not say enough: %v", err)
		}
		refused++
	}
	t.Logf("%d of %d refused", refused, trials)
}

func TestAZeroedPageInTheJournalIsDamage(t *testing.T) {
	dir := filled(t)
	f, err := os.OpenFile(journalOf(t, dir), os.O_RDWR, 0)
	must(t, err)
	_, err = f.WriteAt(make([]byte, 4096), 8192)
	must(t, errors.Join(err, f.Close()))
	if _, err := Open(options(dir, newClock(), nil)); index.KindOf(err) != index.Broken {
		t.Errorf("opened, or %v", err)
	}
	r, err := Verify(t.Context(), dir, nil)
	if err != nil || r.Sound() {
		t.Errorf("verify: %+v, %v", r, err)
	}
}

func TestATornTailIsNormalAfterACrash(t *testing.T) {
	dir := filled(t)
	cut := func(n int64) func(string) {
		return func(j string) { must(t, os.Truncate(j, size(t, j)-n)) }
	}
	for _, tt := range []struct {
		why  string
		tear func(journal string)
	}{
		{"one byte short", cut(1)},
		{"7 bytes short", cut(7)},
		{"32 bytes short", cut(32)},
		{"64 bytes short", cut(64)},
		{"a page of zeros", func(j string) { appendTo(t, j, make([]byte, 4096)) }},
		{"a block and more of zeros", func(j string) { appendTo(t, j, make([]byte, 40<<10)) }},
		{"short and zero-filled", func(j string) { cut(700)(j); appendTo(t, j, make([]byte, 700)) }},
	} {
		torn := copyDir(t, dir)
		tt.tear(journalOf(t, torn))
		if _, err := Open(options(torn, newClock(), nil)); index.KindOf(err) != index.Broken || !contains(err, cleanMark, "db verify") {
			t.Errorf("%s, after closing in good order: %v, want a refusal", tt.why, err)
		}
		must(t, os.Remove(filepath.Join(torn, cleanMark))) // as if it had crashed
		db, err := Open(options(torn, newClock(), nil))
		if err != nil {
			t.Errorf("%s: %v", tt.why, err)
			continue
		}
		j := &index.Job{Ask: index.AskResolve, Key: key_(t, "name:n58")}
		if err := db.Get(j); err != nil || j.Answer.Name.Seq != 59 {
			t.Errorf("%s: an earlier write: %+v, %v", tt.why, j.Answer.Name, err)
		}
		db.Close()
	}
}

func TestTheMarkOfAGoodEndIsThereOnlyWhileClosed(t *testing.T) {
	dir := filled(t)
	mark := filepath.Join(dir, cleanMark)
	if _, err := os.Stat(mark); err != nil {
		t.Fatalf("a store closed in good order has no mark: %v", err)
	}
	for range 3 { // opening and closing again changes nothing
		db, err := Open(options(dir, newClock(), nil))
		must(t, err)
		if _, err := os.Stat(mark); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("an open store is marked as closed: %v", err)
		}
		must(t, db.Close())
	}
}

func TestAMarkThatDoesNotFitSaysNothing(t *testing.T) {
	dir := filled(t)
	for why, mark := range map[string]string{
		"empty, as a crash may leave it": "",
		"cut short":                      "closed in good or",
		"of another journal":             fmt.Sprintf(cleanForm, 999999, 1000),
		"older than the store":           fmt.Sprintf(cleanForm, 1, 1),
	} {
		d := copyDir(t, dir)
		must(t, os.WriteFile(filepath.Join(d, cleanMark), []byte(mark), 0o600))
		db, err := Open(options(d, newClock(), nil))
		if err != nil {
			t.Errorf("%s: %v", why, err)
			continue
		}
		must(t, db.Close())
	}
}

func TestLostFilesAreNamed(t *testing.T) {
	dir := filled(t)
	for _, tt := range []struct {
		why  string
		harm func(dir string)
		says []string
	}{
		{"no CURRENT", func(d string) { must(t, os.Remove(filepath.Join(d, "CURRENT"))) }, []string{"CURRENT", "missing"}},
		{"CURRENT is rubbish", func(d string) { must(t, os.WriteFile(filepath.Join(d, "CURRENT"), []byte("x"), 0o600)) }, []string{"CURRENT"}},
		{"CURRENT names nothing", func(d string) {
			must(t, os.WriteFile(filepath.Join(d, "CURRENT"), []byte("MANIFEST-009999\n"), 0o600))
		}, []string{"MANIFEST-009999"}},
		{"no journal", func(d string) { must(t, os.Remove(journalOf(t, d))) }, []string{".log", "missing"}},
		{"a damaged MANIFEST", func(d string) {
			ms, _ := filepath.Glob(filepath.Join(d, "MANIFEST-*"))
			flip(t, ms[0], 10)
		}, []string{"MANIFEST", "offset"}},
	} {
		broken := copyDir(t, dir)
		tt.harm(broken)
		_, err := Open(options(broken, newClock(), nil))
		if index.KindOf(err) != index.Broken || !contains(err, append(tt.says, "db verify", "backup")...) {
			t.Errorf("%s: %v", tt.why, err)
		}
		if r, err := Verify(t.Context(), broken, nil); err != nil || r.Sound() {
			t.Errorf("%s: verify finds nothing: %+v, %v", tt.why, r, err)
		}
	}
}

// tabled is a closed store whose rows are in tables.
func tabled(t *testing.T) string {
	t.Helper()
	h := open(t, filled(t))
	h.reopen() // each opening turns the journal into a table
	must(t, h.DB.Close())
	return h.disk.dir
}

func TestADamagedTableNeverLies(t *testing.T) {
	dir := tabled(t)
	opened, right := 0, 0
	for i := range int64(24) {
		broken := copyDir(t, dir)
		table := tablesOf(t, broken)[0]
		flip(t, table, (i*104729+5)%size(t, table))
		db, err := Open(options(broken, newClock(), nil))
		if err != nil {
			if k := index.KindOf(err); k != index.Broken && k != index.Down {
				t.Errorf("refused for another reason: %v", err)
			}
			continue
		}
		opened++
		for n := range 60 {
			right += checkRead(t, db, n)
		}
		db.Close()
	}
	t.Logf("24 damaged stores: %d opened, %d of %d reads answered, none wrong", opened, right, opened*120)
}

// checkRead reads what filled put as number n: right, or not at all.
func checkRead(t *testing.T, db *DB, n int) (right int) {
	t.Helper()
	j := &index.Job{Ask: index.AskResolve, Key: key_(t, fmt.Sprintf("name:n%d", n))}
	switch err := db.Get(j); index.KindOf(err) {
	case index.OK:
		if j.Answer.Name.Seq != uint64(n+1) || j.Answer.Name.CID != cidOf("c") {
			t.Errorf("a wrong record: %+v", j.Answer.Name)
		}
		right++
	case index.Broken, index.Down:
	default:
		t.Errorf("a damaged table turned into %v", err)
	}
	want := strings.Repeat(fmt.Sprint("bytes of ", n), 200)
	j = &index.Job{Ask: index.AskManifest, Key: index.CIDKey(cidOf(want))}
	switch err := db.Get(j); index.KindOf(err) {
	case index.OK:
		if string(j.Answer.Body) != want {
			t.Error("wrong bytes")
		}
		right++
	case index.Broken, index.Down:
	default:
		t.Errorf("a damaged table turned into %v", err)
	}
	return right
}

func TestATableCutShort(t *testing.T) {
	dir := tabled(t)
	table := tablesOf(t, dir)[0]
	must(t, os.Truncate(table, size(t, table)/2))
	h := open(t, dir)
	if err := h.Ready(); index.KindOf(err) != index.Broken || !contains(err, ".ldb", "MANIFEST says") {
		t.Errorf("ready: %v", err)
	}
	for n := range 60 {
		checkRead(t, h.DB, n)
	}
}

func TestDamagedBytesAreQuarantinedUntilPutAgain(t *testing.T) {
	h := open(t, t.TempDir())
	h.do(putManifest("good"))
	h.do(putManifest("other"))
	c := cidOf("good")
	h.tamper(cidKey(rowContent, &c), []byte("\x02evil"))
	cid := c.String()
	if _, err := h.ask(index.AskManifest, cid); index.KindOf(err) != index.Broken {
		t.Fatalf("damaged bytes: %v", err)
	}
	if n := h.DB.integrity.DB.Load(); n != 1 {
		t.Errorf("counted %d times, want 1", n)
	}
	for _, a := range []index.Ask{index.AskManifest, index.AskResolve} {
		if _, err := h.ask(a, cid); index.KindOf(err) != index.Broken {
			t.Errorf("ask %d of quarantined bytes: %v", a, err)
		}
	}
	eventually(t, "the mark is durable", func() bool { return h.Stats().Quarantined == 1 })
	must(t, h.Ready()) // the damage is known and out of the way
	h.reopen()
	if _, err := h.ask(index.AskResolve, cid); index.KindOf(err) != index.Broken {
		t.Errorf("after a restart: %v", err)
	}
	if r := verify(t, h); r.Sound() || !strings.Contains(strings.Join(r.Findings, "\n"), cid) {
		t.Errorf("verify does not list it: %+v", r)
	}
	if m := h.do(putManifest("good")); m.Err != nil || !m.Created {
		t.Fatalf("putting it again: %v, created %v", m.Err, m.Created)
	}
	if a, err := h.ask(index.AskManifest, cid); err != nil || string(a.Body) != "good" {
		t.Errorf("healed: %q, %v", a.Body, err)
	}
	if r := verify(t, h); !r.Sound() || r.Manifests != 2 {
		t.Errorf("verify after healing: %+v", r)
	}
}

// verify closes, verifies and opens again.
func verify(t *testing.T, h *house) Report {
	t.Helper()
	must(t, h.DB.Close())
	calls := 0
	r, err := Verify(t.Context(), h.disk.dir, func(Progress) { calls++ })
	must(t, err)
	h.reopenClosed()
	return r
}

func (h *house) reopenClosed() { h.openWith(options(h.disk.dir, h.clock, h.disk)) }

// tamper writes a value, or nothing for nil, as a bug would: in a batch like
// any other.
func (h *house) tamper(key, value []byte) {
	h.t.Helper()
	next := *h.DB.tally.Load()
	next.Batch, next.Rows = next.Batch+1, 2
	var b goleveldb.Batch
	if value == nil {
		b.Delete(key)
	} else {
		b.Put(key, value)
	}
	b.Put([]byte(keyBatch), appendFrame(nil, []byte(keyBatch), appendTally(nil, next)))
	must(h.t, h.engine.Load().write(&b, true))
	h.DB.tally.Store(&next)
}

func TestADamagedRowIsBroken(t *testing.T) {
	h := open(t, t.TempDir())
	h.do(putName(t, "name:a", "a", 5))
	h.do(putProviders("a", h.provider("p", time.Hour)))
	c := cidOf("a")
	key := key_(t, "name:a")
	h.tamper(appendNameKey(nil, &key), appendFrame(nil, []byte("nother"), []byte("row")))
	h.tamper(cidKey(rowProviders, &c), []byte("rubbish"))
	if _, err := h.ask(index.AskResolve, "name:a"); index.KindOf(err) != index.Broken {
		t.Errorf("a name: %v", err)
	}
	if _, err := h.ask(index.AskProviders, c.String()); index.KindOf(err) != index.Broken {
		t.Errorf("providers: %v", err)
	}
	if index.KindOf(h.Ready()) != index.Broken {
		t.Errorf("ready: %v", h.Ready())
	}
	if m := h.do(putName(t, "name:a", "a", 9)); index.KindOf(m.Err) != index.Broken {
		t.Errorf("a name whose sequence is lost must not be replaced: %v", m.Err)
	}
	if m := h.do(putProviders("a", h.provider("q", time.Hour))); m.Err != nil {
		t.Errorf("providers heal themselves: %v", m.Err)
	}
	h.want("a", "q", "a damaged set is replaced")
}

func TestReadinessReturnsAfterAProof(t *testing.T) {
	h := open(t, t.TempDir())
	h.do(putName(t, "name:a", "a", 1))
	key := key_(t, "name:a")
	k := appendNameKey(nil, &key)
	value, err := h.engine.Load().db.Get(k, nil)
	must(t, err)
	h.tamper(k, []byte("rubbish"))
	h.ask(index.AskResolve, "name:a")
	if h.Ready() == nil {
		t.Fatal("ready with a row that cannot be trusted")
	}
	before := h.Stats().Batch
	h.tamper(k, value)
	eventually(t, "ready again", func() bool { return h.Ready() == nil })
	if h.Stats().Batch == before {
		t.Error("ready again without a canary written")
	}
}

func TestALostCanaryClosesTheStore(t *testing.T) {
	h := open(t, t.TempDir())
	h.tamper([]byte(keyCanary), nil)
	eventually(t, "healed", func() bool { return h.Stats().Heals == 1 })
	must(t, h.Ready())
}

func TestVerifyOfASoundStore(t *testing.T) {
	h := open(t, tabled(t))
	h.do(putProviders("c", h.provider("p", time.Hour)))
	h.do(on(index.Pin, "c"))
	h.do(deleteName(t, "name:n3", 0))
	r := verify(t, h)
	if !r.Sound() || r.Manifests != 60 || r.Batches == 0 || r.Tables == 0 {
		t.Errorf("%+v", r)
	}
	if s := h.Stats(); s.Names != 59 || s.Tombstones != 1 || s.Manifests != 60 || s.Bytes == 0 || s.Free == 0 {
		t.Errorf("%+v", s)
	}
}

func TestVerifyNamesADamagedTable(t *testing.T) {
	dir := tabled(t)
	table := tablesOf(t, dir)[0]
	flip(t, table, 100)
	before, err := os.ReadFile(table)
	must(t, err)
	r, err := Verify(t.Context(), dir, nil)
	if err != nil || r.Sound() || !strings.Contains(strings.Join(r.Findings, "\n"), filepath.Base(table)) {
		t.Errorf("%+v, %v", r.Findings, err)
	}
	after, err := os.ReadFile(table)
	if err != nil || !bytes.Equal(before, after) {
		t.Error("verify changed what it looked at")
	}
}

func FuzzScanRecords(f *testing.F) {
	f.Add([]byte{}, 0)
	f.Add(bytes.Repeat([]byte{1}, 100), 50)
	f.Fuzz(func(t *testing.T, b []byte, at int) {
		s := scanRecords(b, func([]byte) error { return nil })
		if s.Good < 0 || s.Good > int64(len(b)) || s.Good+s.Torn > int64(len(b)) && s.Torn > 0 {
			t.Fatalf("%+v of %d bytes", s, len(b))
		}
		readBatch(b)
		(&contents{tables: map[int64]int64{}}).apply(b)
		parseName(b)
		parseSet(b, 0, nil)
		parseIdem(b)
		countLive(b, 0, 1)
	})
}
