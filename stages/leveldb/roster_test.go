package leveldb

import (
	"fmt"
	"strings"
	"testing"

	"svcindex/index"
)

func nameKey(i int) []byte { return fmt.Appendf(nil, "%cdir/%d", rowName, i) }

func TestTheRosterNeverLacksWhatWasPutDown(t *testing.T) {
	const known, asked = 100_000, 10_000
	r := newRoster()
	for i := range known {
		r.add(nameKey(i))
	}
	if r.lacks(nameKey(known)) {
		t.Error("a roster that is not whole swears to something")
	}
	r.whole.Store(true)
	for i := range known {
		if r.lacks(nameKey(i)) {
			t.Fatalf("row %d was put down, and is lacking", i)
		}
	}
	wrong := 0
	for i := range asked {
		if !r.lacks(nameKey(known + i)) {
			wrong++
		}
	}
	if wrong > asked/1000 {
		t.Errorf("of %d rows that are not there %d may be", asked, wrong)
	}
	for _, key := range []string{keyAudit, keyBatch, string(auditKey(1)), string(idemKey("x")), string(goneKey(new(index.CID), "p"))} {
		if r.lacks([]byte(key)) {
			t.Errorf("%q is of no kind that is put down", key)
		}
	}
}

// opened opens a store that nobody else works on, neither writer nor keeper.
func opened(t *testing.T, dir string) (*DB, *engine) {
	t.Helper()
	d, err := newDB(options(dir, newClock(), nil))
	must(t, err)
	e, last, err := d.openEngine(false)
	must(t, err)
	t.Cleanup(func() { _ = e.retire(nil) })
	must(t, d.adopt(e, last))
	return d, e
}

func TestANewStoreLacksAllThatNobodyWrote(t *testing.T) {
	d, e := byHand(t)
	if !e.roster.lacks(nameKey(1)) {
		t.Error("a new store does not know that it is empty")
	}
	done := committing(t, d, putName(t, "name:a", "one", 1))
	if e.roster.lacks([]byte("na")) {
		t.Error("what is in a batch is lacking before it is durable")
	}
	made(t, d, d.take(e, nil))
	must(t, <-done)
}

// What was there before is learnt in stretches; until then nothing is said to
// be lacking, and afterwards the rules hold as they did.
func TestAnOldStoreLacksNothingUntilItIsLearnt(t *testing.T) {
	dir := t.TempDir()
	h := open(t, dir)
	var ms []*index.Mutation
	for i := range learnRows + 1 {
		ms = append(ms, putName(t, fmt.Sprintf("name:n%d", i), "c", 5))
	}
	must(t, h.Commit(ms))
	h.do(putManifest("held"))
	must(t, h.DB.Close())

	d, e := opened(t, dir)
	rules := func(when string) {
		t.Helper()
		old, fresh := putName(t, fmt.Sprintf("name:n%d", learnRows), "other", 5), putName(t, "name:"+when, "c", 1)
		held := putManifest("held")
		done := committing(t, d, old, fresh, held)
		made(t, d, d.take(e, nil))
		must(t, <-done)
		if old.Err != index.Conflict || old.Current != 5 || fresh.Err != nil || held.Created {
			t.Errorf("%s: an old sequence: %v (current %d), a new name: %v, a manifest that is held: created %v", when, old.Err, old.Current, fresh.Err, held.Created)
		}
	}
	rules("before")
	rounds := 0
	for ; !d.roster.whole.Load(); rounds++ {
		if e.roster.lacks(nameKey(1)) || rounds > 10 {
			t.Fatalf("after %d rounds it is not learnt, but something is lacking", rounds)
		}
		d.roster.learn(e)
	}
	if rounds != 4 {
		t.Errorf("learnt in %d rounds, want one of manifests, two of names and one of providers", rounds)
	}
	if !e.roster.lacks(nameKey(1)) || e.roster.lacks([]byte("nn7")) {
		t.Error("it was learnt wrong")
	}
	rules("after")
}

// Rows that cannot be walked may be any: wherever a table is damaged, what was
// in it is not lacking afterwards.
func TestADamagedTableHidesNothingFromTheRoster(t *testing.T) {
	dir := tabled(t)
	learnt := 0
	for i := range int64(24) {
		broken := copyDir(t, dir)
		table := tablesOf(t, broken)[0]
		flip(t, table, (i*104729+5)%size(t, table))
		d, err := newDB(options(broken, newClock(), nil))
		must(t, err)
		e, last, err := d.openEngine(false)
		if err != nil {
			continue
		}
		if err := d.adopt(e, last); err == nil {
			for range 10 {
				d.roster.learn(e)
			}
		}
		if d.roster.whole.Load() {
			learnt++
		}
		for n := range 60 {
			manifest := cidOf(strings.Repeat(fmt.Sprint("bytes of ", n), 200))
			if e.roster.lacks(fmt.Appendf(nil, "%cn%d", rowName, n)) || e.roster.lacks(cidKey(rowHeld, &manifest)) {
				t.Errorf("flipped bit %d: what was put as number %d is said not to be there", i, n)
			}
		}
		_ = e.retire(nil)
	}
	if learnt == 24 {
		t.Error("no damage was in the way of any walk")
	}
	t.Logf("24 damaged stores: %d learnt", learnt)
}
