package leveldb

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"svcindex/index"
)

func TestNames(t *testing.T) {
	h := open(t, t.TempDir())
	for _, tt := range []struct {
		why     string
		m       *index.Mutation
		want    index.Kind
		stands  uint64 // seq of the record that stands; 0: refused
		current uint64 // of a conflict
	}{
		{"a name begins at any seq", putName(t, "name:a/b", "one", 5), index.OK, 5, 0},
		{"the same again changes nothing", putName(t, "name:a/b", "one", 5), index.OK, 5, 0},
		{"the same seq with another cid is a conflict", putName(t, "name:a/b", "two", 5), index.Conflict, 0, 5},
		{"an older seq is a conflict", putName(t, "name:a/b", "two", 4), index.Conflict, 0, 5},
		{"a newer one replaces", putName(t, "name:a/b", "two", 6), index.OK, 6, 0},
		{"0 is no seq", putName(t, "name:a/b", "two", 0), index.Invalid, 0, 0},
		{"2^53 is past the last", putName(t, "name:a/b", "two", index.SeqMax+1), index.Invalid, 0, 0},
		{"deleting without a seq takes the next", deleteName(t, "name:a/b", 0), index.OK, 7, 0},
		{"deleting again takes the next again", deleteName(t, "name:a/b", 0), index.OK, 8, 0},
		{"a deletion must be newer too", deleteName(t, "name:a/b", 8), index.Conflict, 0, 8},
		{"a tombstone keeps its seq", putName(t, "name:a/b", "one", 8), index.Conflict, 0, 8},
		{"a name comes back with a newer seq", putName(t, "name:a/b", "one", 9), index.OK, 9, 0},
		{"deleting what never was leaves a tombstone", deleteName(t, "name:never", 0), index.OK, 1, 0},
		{"the last seq is usable", putName(t, "name:end", "one", index.SeqMax), index.OK, index.SeqMax, 0},
		{"and nothing comes after it", deleteName(t, "name:end", 0), index.Invalid, 0, 0},
		{"a cid is no name", &index.Mutation{Op: index.PutName, Key: index.CIDKey(cidOf("x")), Name: index.NameRecord{Seq: 1}}, index.Invalid, 0, 0},
	} {
		h.do(tt.m)
		if got := index.KindOf(tt.m.Err); got != tt.want || tt.m.Record.Seq != tt.stands || tt.m.Current != tt.current {
			t.Errorf("%s: %v, stands %d, current %d; want %v, %d, %d", tt.why, tt.m.Err, tt.m.Record.Seq, tt.m.Current, tt.want, tt.stands, tt.current)
		}
	}
}

func TestResolveOfAName(t *testing.T) {
	h := open(t, t.TempDir())
	m := putName(t, "name:short", "one", 1)
	m.Name.ExpiresAt = h.clock.in(time.Minute)
	m.Name.Sig, m.Name.PubKey, m.Name.IssuedAt = []byte("sig"), []byte("key"), 7
	h.do(m)
	h.do(putProviders("one", h.provider("p1", time.Hour), h.provider("p2", time.Hour), h.provider("p3", time.Second)))
	h.do(deleteName(t, "name:gone", 0))
	h.clock.move(2 * time.Second)

	a, err := h.ask(index.AskResolve, "name:short")
	must(t, err)
	r := a.Name
	if r.CID != cidOf("one") || r.Seq != 1 || r.IssuedAt != 7 || string(r.Sig) != "sig" || string(r.PubKey) != "key" {
		t.Errorf("the record came back as %+v", r)
	}
	if a.Hint != 2 || a.From != index.FromDB || !a.Until.Equal(time.Unix(m.Name.ExpiresAt, 0)) {
		t.Errorf("hint %d, from %v, until %v", a.Hint, a.From, a.Until)
	}
	h.clock.move(time.Minute)
	for _, tt := range []struct{ why, name string }{
		{"an expired name is missing", "name:short"},
		{"a deleted name is missing", "name:gone"},
		{"a name never put is missing", "name:never"},
	} {
		if _, err := h.ask(index.AskResolve, tt.name); err != index.Missing {
			t.Errorf("%s: %v", tt.why, err)
		}
	}
}

func TestManifests(t *testing.T) {
	h := open(t, t.TempDir())
	cid := cidOf("the bytes").String()
	if _, err := h.ask(index.AskResolve, cid); err != index.Missing {
		t.Errorf("a cid resolves before its bytes are here: %v", err)
	}
	h.do(putProviders("the bytes", h.provider("p", time.Hour)))
	if _, err := h.ask(index.AskResolve, cid); err != index.Missing {
		t.Errorf("a cid resolves because it has providers: %v", err)
	}
	if m := h.do(putManifest("the bytes")); m.Err != nil || !m.Created {
		t.Errorf("the first put: %v, created %v", m.Err, m.Created)
	}
	if m := h.do(putManifest("the bytes")); m.Err != nil || m.Created {
		t.Errorf("the second put: %v, created %v", m.Err, m.Created)
	}
	a, err := h.ask(index.AskResolve, cid)
	if err != nil || a.Hint != 1 {
		t.Errorf("resolve: %v, hint %d", err, a.Hint)
	}
	if a, err := h.ask(index.AskManifest, cid); err != nil || string(a.Body) != "the bytes" {
		t.Errorf("manifest: %q, %v", a.Body, err)
	}
	if m := h.do(putManifest("")); m.Err != nil || !m.Created {
		t.Errorf("no bytes are bytes too: %v", m.Err)
	}
	if a, err := h.ask(index.AskManifest, cidOf("").String()); err != nil || len(a.Body) != 0 {
		t.Errorf("the empty manifest: %q, %v", a.Body, err)
	}
	if m := h.do(putManifest(strings.Repeat("x", index.ManifestMax+1))); index.KindOf(m.Err) != index.TooLarge {
		t.Errorf("a manifest over the cap: %v", m.Err)
	}
}

func TestProviders(t *testing.T) {
	h := open(t, t.TempDir())
	h.do(putProviders("c", h.provider("b", time.Hour), h.provider("a", time.Minute)))
	m := h.do(putProviders("c", h.provider("c", 2*time.Hour)))
	if m.Err != nil || m.Stored != 1 {
		t.Fatalf("stored %d, %v", m.Stored, m.Err)
	}
	a, err := h.ask(index.AskProviders, cidOf("c").String())
	must(t, err)
	if got := ids(a.Providers); got != "a b c" {
		t.Errorf("got %s, want all, sorted by id", got)
	}
	if want := time.Unix(h.clock.in(time.Minute), 0); !a.Until.Equal(want) {
		t.Errorf("until %v, want the first to expire, %v", a.Until, want)
	}
	if p := a.Providers[1]; p != h.provider("b", time.Hour) {
		t.Errorf("the row came back as %+v", p)
	}
	h.clock.move(time.Minute)
	h.want("c", "b c", "a row ends with its time")
	h.clock.move(-time.Minute)
	h.want("c", "a b c", "a clock that goes back finds it again, until it is purged")
	h.clock.move(time.Minute)
	h.do(putProviders("c", h.provider("d", time.Hour)))
	h.clock.move(-time.Minute)
	h.want("c", "b c d", "a write purges what is past its time")
	h.clock.move(48 * time.Hour)
	h.want("c", "", "when none is live, the cid is missing")
}

func TestProviderLimits(t *testing.T) {
	h := open(t, t.TempDir())
	var all []index.Provider
	for i := range index.ProvidersMax {
		all = append(all, h.provider(fmt.Sprintf("p%02d", i), time.Hour))
	}
	h.do(putProviders("c", all...))
	for _, tt := range []struct {
		why  string
		p    index.Provider
		want index.Kind
	}{
		{"one more than the most", h.provider("z", time.Hour), index.Invalid},
		{"one that is there may be renewed", h.provider("p07", 2*time.Hour), index.OK},
		{"an id is needed", h.provider("", time.Hour), index.Invalid},
		{"an id has an end", h.provider(strings.Repeat("i", index.ProviderIDMax+1), time.Hour), index.Invalid},
	} {
		if m := h.do(putProviders("c", tt.p)); index.KindOf(m.Err) != tt.want {
			t.Errorf("%s: %v, want %v", tt.why, m.Err, tt.want)
		}
	}
	a, err := h.ask(index.AskProviders, cidOf("c").String())
	if err != nil || len(a.Providers) != index.ProvidersMax {
		t.Fatalf("%d rows, %v", len(a.Providers), err)
	}
	h.do(putManifest("c"))
	if a, _ = h.ask(index.AskResolve, cidOf("c").String()); a.Hint != index.HintMax {
		t.Errorf("hint %d, want it to stop at %d", a.Hint, index.HintMax)
	}
}

func TestDeletedProviders(t *testing.T) {
	h := open(t, t.TempDir())
	h.do(putProviders("c", h.provider("a", time.Hour), h.provider("b", time.Minute)))
	if m := h.do(deleteProvider("c", "x")); m.Err != index.Missing {
		t.Errorf("deleting who was never there: %v", m.Err)
	}
	if m := h.do(deleteProvider("c", "a")); m.Err != nil {
		t.Fatal(m.Err)
	}
	h.want("c", "b", "a deleted provider is gone")
	if !h.remembers("c", "a") {
		t.Error("the deletion is not remembered")
	}
	h.do(putProviders("c", h.provider("a", time.Hour)))
	h.want("c", "a b", "a local put brings it back")
	if h.remembers("c", "a") {
		t.Error("a local put did not clear the deletion")
	}
	h.clock.move(time.Minute)
	if m := h.do(deleteProvider("c", "b")); m.Err != index.Missing {
		t.Errorf("deleting who has expired: %v", m.Err)
	}
}

func (h *house) remembers(content, id string) bool {
	c := cidOf(content)
	_, err := h.engine.Load().read(goneKey(&c, id))
	return err == nil
}

func TestPins(t *testing.T) {
	h := open(t, t.TempDir())
	h.do(putProviders("c", h.provider("a", time.Minute)))
	for range 2 { // a second pin is the same as one
		if m := h.do(on(index.Pin, "c")); m.Err != nil {
			t.Fatal(m.Err)
		}
	}
	h.do(on(index.Pin, "nobody"))
	h.clock.move(time.Hour)
	a, err := h.ask(index.AskProviders, cidOf("c").String())
	if err != nil || ids(a.Providers) != "a" || !a.Until.IsZero() {
		t.Errorf("a pinned row: %v, %v, until %v", ids(a.Providers), err, a.Until)
	}
	h.want("nobody", "", "a pin is no provider")
	if n := h.Stats().Pins; n != 2 {
		t.Errorf("%d pins, want 2", n)
	}
	h.do(on(index.Unpin, "c"))
	h.do(on(index.Unpin, "c"))
	h.want("c", "", "without its pin the row is past its time")
	if n := h.Stats().Pins; n != 1 {
		t.Errorf("%d pins, want 1", n)
	}
}

func TestReindexIsIdempotent(t *testing.T) {
	h := open(t, t.TempDir())
	ask := func(key, body, task string) *index.Mutation {
		return h.do(&index.Mutation{Op: index.Reindex, Idem: index.Idempotency{
			Key: key, Body: cidOf(body), TaskID: task, Expires: h.clock.in(time.Hour)}})
	}
	for _, tt := range []struct {
		why             string
		key, body, task string
		want            string
		kind            index.Kind
	}{
		{"the first", "k", "body", "t1", "t1", index.OK},
		{"the same again is the first", "k", "body", "t2", "t1", index.OK},
		{"another body is a conflict", "k", "other", "t3", "", index.Conflict},
		{"another key is another task", "k2", "body", "t4", "t4", index.OK},
		{"without a key nothing is remembered", "", "body", "t5", "t5", index.OK},
		{"nor found", "", "other", "t6", "t6", index.OK},
	} {
		if m := ask(tt.key, tt.body, tt.task); m.TaskID != tt.want || index.KindOf(m.Err) != tt.kind {
			t.Errorf("%s: %q, %v; want %q, %v", tt.why, m.TaskID, m.Err, tt.want, tt.kind)
		}
	}
	h.clock.move(time.Hour)
	if m := ask("k", "other", "t7"); m.TaskID != "t7" || m.Err != nil {
		t.Errorf("an expired key is free again: %q, %v", m.TaskID, m.Err)
	}
}

func TestMutationsOfOneBatchMeetEachOther(t *testing.T) {
	h := open(t, t.TempDir())
	ms := []*index.Mutation{
		putName(t, "name:a", "one", 1),
		putName(t, "name:a", "two", 1), // the first is in the way
		putName(t, "name:a", "two", 2),
		deleteName(t, "name:a", 0),
		putName(t, "name:a", "three", 4),
		putManifest("m"),
		putManifest("m"),
		putProviders("m", h.provider("a", time.Hour)),
		putProviders("m", h.provider("b", time.Hour)),
		deleteProvider("m", "a"),
		deleteProvider("m", "a"),
	}
	must(t, h.Commit(ms))
	var got []string
	for _, m := range ms {
		got = append(got, index.KindOf(m.Err).String())
	}
	want := "ok conflict ok ok ok ok ok ok ok ok missing"
	if s := strings.Join(got, " "); s != want {
		t.Errorf("got  %s\nwant %s", s, want)
	}
	if ms[1].Current != 1 || ms[3].Record.Seq != 3 || !ms[5].Created || ms[6].Created {
		t.Errorf("current %d, tombstone %d, created %v then %v", ms[1].Current, ms[3].Record.Seq, ms[5].Created, ms[6].Created)
	}
	h.want("m", "b", "the last word counts")
}

func TestARefusedGetLeavesTheAnswer(t *testing.T) {
	h := open(t, t.TempDir())
	for _, a := range []index.Ask{index.AskResolve, index.AskProviders, index.AskManifest, index.AskWrite} {
		j := &index.Job{Ask: a, Key: index.CIDKey(cidOf("never")), Answer: index.Answer{Hint: 7, Body: []byte("mine"), Reason: "why"}}
		if h.Get(j) == nil || j.Answer.Hint != 7 || string(j.Answer.Body) != "mine" || j.Answer.From != index.FromNowhere {
			t.Errorf("ask %d changed the answer: %+v", a, j.Answer)
		}
	}
}

func TestClosedMeansDown(t *testing.T) {
	h := open(t, t.TempDir())
	must(t, h.DB.Close())
	must(t, h.DB.Close()) // twice is fine
	if _, err := h.ask(index.AskResolve, "name:a"); index.KindOf(err) != index.Down {
		t.Errorf("Get: %v", err)
	}
	if err := h.Commit([]*index.Mutation{putManifest("x")}); index.KindOf(err) != index.Down {
		t.Errorf("Commit: %v", err)
	}
	if index.KindOf(h.Ready()) != index.Down {
		t.Errorf("Ready: %v", h.Ready())
	}
}

func TestSweep(t *testing.T) {
	h := open(t, t.TempDir())
	h.do(putProviders("dies", h.provider("a", time.Minute)))
	h.do(putProviders("lives", h.provider("a", time.Minute), h.provider("b", 100*time.Hour)))
	h.do(putProviders("pinned", h.provider("a", time.Minute)))
	h.do(on(index.Pin, "pinned"))
	h.do(putProviders("left", h.provider("a", time.Minute)))
	h.do(deleteProvider("left", "a"))
	h.do(deleteName(t, "name:deleted", 0))
	h.do(&index.Mutation{Op: index.Reindex, Idem: index.Idempotency{Key: "k", TaskID: "t", Expires: h.clock.in(time.Hour)}})
	must(t, h.DB.Close())

	h.clock.move(index.GoneFor*time.Second + time.Second)
	d, err := newDB(options(h.disk.dir, h.clock, h.disk))
	must(t, err)
	e, ty, err := d.openEngine(false)
	must(t, err)
	must(t, d.adopt(e, ty))
	for range len(swept) {
		must(t, d.sweep()) // there is no writer: this is it
	}
	h.DB = d
	defer d.Close()
	s := d.Stats()
	if s.Sets != 2 || s.Providers != 2 || s.Pins != 1 || s.Tombstones != 1 {
		t.Errorf("left: %+v", s)
	}
	if h.remembers("left", "a") {
		t.Error("the deletion outlives its time")
	}
	if _, err := e.read(idemKey("k")); err != index.Missing {
		t.Errorf("the idempotency key outlives its time: %v", err)
	}
	h.want("lives", "b", "the sweep takes only what is past its time")
	h.want("pinned", "a", "a pin stops the clock")
}

func (h *house) want(content, want, why string) {
	h.t.Helper()
	a, err := h.ask(index.AskProviders, cidOf(content).String())
	if err != nil && !(want == "" && errors.Is(err, index.Missing)) || ids(a.Providers) != want {
		h.t.Errorf("%s: got %q, %v; want %q", why, ids(a.Providers), err, want)
	}
}

func ids(ps []index.Provider) string {
	var all []string
	for _, p := range ps {
		all = append(all, p.ID)
	}
	if !slices.IsSorted(all) {
		return "unsorted"
	}
	return strings.Join(all, " ")
}
