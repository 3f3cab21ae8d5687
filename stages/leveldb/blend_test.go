package leveldb

import (
	"bytes"
	"fmt"
	"testing"
	"time"

	"svcindex/index"
)

// found makes of a mutation what the network said.
func found(m *index.Mutation) *index.Mutation {
	m.Found = true
	return m
}

// signed puts a key and a signature into a name; here nobody looks at them.
func signed(m *index.Mutation) *index.Mutation {
	m.Name.PubKey, m.Name.Sig = bytes.Repeat([]byte{1}, 32), bytes.Repeat([]byte{2}, 64)
	return m
}

// told asks what may be given out of what the network said.
func (h *house) told(m *index.Mutation) (index.Answer, bool, error) {
	j := &index.Job{Ask: index.AskResolve, Key: m.Key}
	j.Answer.Name, j.Answer.Body = m.Name, m.Manifest
	if m.Op == index.PutProviders {
		j.Ask, j.Answer.Providers = index.AskProviders, m.Providers
	}
	j.Answer.From = index.FromDHT
	news, err := h.Blend(j)
	return j.Answer, news, err
}

func TestTheHighestSequenceStandsWhoeverSaidIt(t *testing.T) {
	h := open(t, t.TempDir())
	gone := func(seq uint64) *index.Mutation {
		m := signed(putName(t, "name:a", "", seq))
		m.Name.CID, m.Name.Deleted = index.CID{}, true
		return m
	}
	expired := signed(putName(t, "name:a", "five", 12))
	expired.Name.ExpiresAt = h.clock.in(-time.Second)
	for _, tt := range []struct {
		why    string
		m      *index.Mutation
		news   bool
		want   index.Kind
		stands string // content the answer points to
		seq    uint64
		from   index.Source
	}{
		{"the first word", signed(putName(t, "name:a", "one", 3)), true, index.OK, "one", 3, index.FromDHT},
		{"the same again", signed(putName(t, "name:a", "one", 3)), false, index.OK, "one", 3, index.FromDB},
		{"an older one, replayed", signed(putName(t, "name:a", "old", 2)), false, index.OK, "one", 3, index.FromDB},
		{"another of the same sequence", signed(putName(t, "name:a", "two", 3)), false, index.OK, "one", 3, index.FromDB},
		{"a newer one", signed(putName(t, "name:a", "two", 4)), true, index.OK, "two", 4, index.FromDHT},
		{"a deletion", gone(10), true, index.Missing, "", 10, index.FromDHT},
		{"what was before the deletion", signed(putName(t, "name:a", "two", 9)), false, index.Missing, "", 10, index.FromDB},
		{"the deletion again", gone(10), false, index.Missing, "", 10, index.FromDB},
		{"what came after it", signed(putName(t, "name:a", "four", 11)), true, index.OK, "four", 11, index.FromDHT},
		{"one that has expired counts, and is no answer", expired, true, index.Missing, "", 12, index.FromDHT},
		{"and does not let an older one back", signed(putName(t, "name:a", "four", 11)), false, index.Missing, "", 12, index.FromDB},
	} {
		a, news, err := h.told(tt.m)
		if news != tt.news || index.KindOf(err) != tt.want || err == nil && a.Name.CID != cidOf(tt.stands) || a.Name.Seq != tt.seq || a.From != tt.from {
			t.Errorf("%s: news %v, %v, seq %d from %v; want %v, %v, %d from %v", tt.why, news, err, a.Name.Seq, a.From, tt.news, tt.want, tt.seq, tt.from)
		}
		m := found(tt.m)
		if h.do(m); m.Err != nil || m.News != tt.news || m.Record.Seq != tt.seq {
			t.Errorf("%s, stored: %v, news %v, seq %d; want news %v, %d", tt.why, m.Err, m.News, m.Record.Seq, tt.news, tt.seq)
		}
	}
	h.reopen()
	if m := h.do(putName(t, "name:a", "x", 12)); m.Err != index.Conflict || m.Current != 12 {
		t.Errorf("after a restart a client's older word is met with %v, current %d", m.Err, m.Current)
	}
	m := h.do(putName(t, "name:a", "mine", 13))
	a, err := h.ask(index.AskResolve, "name:a")
	must(t, err)
	if m.Err != nil || a.Name.Found || a.Name.Checked != h.clock.in(0) {
		t.Errorf("a client's own word is kept as %+v (%v)", a.Name, m.Err)
	}
}

// A find that a client puts again, as it is, becomes the client's own: it is told
// to others, and does not hang on who is trusted to find names.
func TestAFoundNameThatAClientPutsIsTheClients(t *testing.T) {
	h := open(t, t.TempDir())
	h.do(found(signed(putName(t, "name:a", "one", 3))))
	m := h.do(signed(putName(t, "name:a", "one", 3)))
	a, err := h.ask(index.AskResolve, "name:a")
	must(t, err)
	if m.Err != nil || m.Record.Found || a.Name.Found || a.Name.Seq != 3 {
		t.Errorf("%v, answered found %v, kept as %+v", m.Err, m.Record.Found, a.Name)
	}
	batch := h.tally.Load().Batch
	if m := h.do(signed(putName(t, "name:a", "one", 3))); m.Err != nil || h.tally.Load().Batch != batch {
		t.Errorf("the same once more: %v, and it was written", m.Err)
	}
}

func TestWhatTheNetworkSaysOfProviders(t *testing.T) {
	h := open(t, t.TempDir())
	p := func(id string, seen time.Duration, addr string) index.Provider {
		return index.Provider{ID: id, Addr: addr, LastSeen: h.clock.in(seen), Expires: h.clock.in(time.Hour)}
	}
	h.do(putProviders("c", p("mine", 0, "/mine"), p("gone", -time.Hour, "/gone")))
	h.clock.move(time.Minute)
	h.do(deleteProvider("c", "gone"))
	for _, tt := range []struct {
		why  string
		find []index.Provider
		news bool
		want string // what is given out, and then stands
	}{
		{"a stranger comes in", []index.Provider{p("far", -time.Minute, "/far")}, true, "far=/far mine=/mine"},
		{"the same again", []index.Provider{p("far", -time.Minute, "/far")}, false, "far=/far mine=/mine"},
		{"seen later, elsewhere", []index.Provider{p("far", 0, "/moved")}, true, "far=/moved mine=/mine"},
		{"what he said before", []index.Provider{p("far", -time.Minute, "/far")}, false, "far=/moved mine=/mine"},
		{"a client's row stands", []index.Provider{p("mine", time.Second, "/not-mine")}, false, "far=/moved mine=/mine"},
		{"one deleted here, seen before that", []index.Provider{p("gone", -time.Second, "/gone")}, false, "far=/moved mine=/mine"},
		{"one that has expired", []index.Provider{{ID: "late", Addr: "/l", Expires: h.clock.in(0)}}, false, "far=/moved mine=/mine"},
		{"one deleted here, seen since", []index.Provider{p("gone", time.Second, "/back")}, true, "far=/moved gone=/back mine=/mine"},
	} {
		m := found(putProviders("c", tt.find...))
		a, news, err := h.told(m)
		if news != tt.news || err != nil || addrs(a.Providers) != tt.want {
			t.Errorf("%s: %s, news %v (%v); want %s, %v", tt.why, addrs(a.Providers), news, err, tt.want, tt.news)
		}
		if h.do(m); m.Err != nil || m.News != tt.news {
			t.Errorf("%s, stored: news %v (%v)", tt.why, m.News, m.Err)
		}
		if a, err := h.ask(index.AskProviders, cidOf("c").String()); err != nil || addrs(a.Providers) != tt.want {
			t.Errorf("%s: then %s (%v), want %s", tt.why, addrs(a.Providers), err, tt.want)
		}
	}
	h.do(deleteProvider("c", "far"))
	h.do(putProviders("c", p("far", 0, "/put")))
	if h.remembers("c", "far") {
		t.Error("a local put did not clear the deletion")
	}
}

func addrs(ps []index.Provider) (s string) {
	for i, p := range ps {
		if i > 0 {
			s += " "
		}
		s += p.ID + "=" + p.Addr
	}
	return s
}

// Strangers may fill half of a set and no more, and they give way to clients.
func TestStrangersLeaveRoom(t *testing.T) {
	h := open(t, t.TempDir())
	var far []index.Provider
	for i := range 2 * index.FoundMax {
		far = append(far, index.Provider{ID: fmt.Sprintf("far%02d", i), Addr: "/far", LastSeen: h.clock.in(0) - int64(i), Expires: h.clock.in(time.Hour)})
	}
	if m := h.do(found(putProviders("c", far...))); m.Err != nil || !m.News {
		t.Fatal(m.Err, m.News)
	}
	a, _ := h.ask(index.AskProviders, cidOf("c").String())
	if len(a.Providers) != index.FoundMax || a.Providers[0].ID != "far00" || a.Providers[index.FoundMax-1].ID != "far31" {
		t.Errorf("%d rows stand, from %s; want the %d seen last", len(a.Providers), a.Providers[0].ID, index.FoundMax)
	}
	if m := h.do(found(putProviders("c", far...))); m.News {
		t.Error("what did not fit before is news again: each look-up would write")
	}
	for i := range index.ProvidersMax {
		if m := h.do(putProviders("c", h.provider(fmt.Sprintf("own%02d", i), time.Hour))); m.Err != nil {
			t.Fatalf("a client's row %d: %v", i, m.Err)
		}
	}
	a, _ = h.ask(index.AskProviders, cidOf("c").String())
	if len(a.Providers) != index.ProvidersMax || a.Providers[0].ID != "own00" {
		t.Errorf("%d rows, the first %s; want the clients' 64", len(a.Providers), a.Providers[0].ID)
	}
}

func TestFoundManifestsAreNotOurs(t *testing.T) {
	h := open(t, t.TempDir())
	if m := h.do(found(putManifest("x"))); m.Err != nil || !m.News {
		t.Fatal(m.Err)
	}
	c := cidOf("x")
	size := func() int {
		v, err := h.engine.Load().read(cidKey(rowHeld, &c))
		must(t, err)
		return len(v)
	}
	if size() == heldOwn {
		t.Error("a manifest of the network counts as a client's")
	}
	if a, err := h.ask(index.AskManifest, c.String()); err != nil || string(a.Body) != "x" {
		t.Errorf("it reads as %q, %v", a.Body, err)
	}
	h.do(putManifest("x"))
	if size() != heldOwn {
		t.Error("a client put it, too, and it still counts as the network's")
	}
	h.do(found(putManifest("x")))
	if size() != heldOwn {
		t.Error("found again it is no longer the client's")
	}
}

// Rows as a program of format 1 wrote them.
func TestRowsOfTheOldFormatAreRead(t *testing.T) {
	name := append([]byte{nameDeleted}, make([]byte, 32)...)
	name = appendU64(appendU64(appendU64(name, 7), 8), 9)
	name = append(name, 0, 0, 0, 0)
	r, ok := parseName(name)
	if !ok || !r.Deleted || r.Seq != 7 || r.IssuedAt != 8 || r.ExpiresAt != 9 || r.Checked != 0 || r.Found {
		t.Errorf("an old name is read as %+v, %v", r, ok)
	}
	old := append(appendU64([]byte{setPinned}, 5), 1, 0)
	old = appendU64(appendU64(old, 11), 12)
	old = append(old, 1, 2, 0, 1)
	old = append(old, "p/ar"...)
	s, _, ok := parseSet(old, 0, nil)
	want := index.Provider{ID: "p", Addr: "/a", Region: "r", LastSeen: 11, Expires: 12}
	if !ok || !s.pinned || s.gone != 5 || len(s.rows) != 1 || s.rows[0] != want {
		t.Errorf("an old set is read as %+v, %v", s, ok)
	}
	if n, ok := countLive(old, 0, 9); n != 1 || !ok {
		t.Errorf("%d live in it, %v", n, ok)
	}
	again := appendSet(nil, &s)
	if n, ok := countLive(again, 0, 9); n != 1 || !ok {
		t.Errorf("written anew it has %d live, %v", n, ok)
	}
	if s2, _, ok := parseSet(again, 0, nil); !ok || s2.rows[0] != want || s2.gone != 5 || !s2.pinned {
		t.Errorf("written anew it is %+v, %v", s2, ok)
	}
}

// A store of format 1 opens, and is of the present one with its next write.
func TestAnOldStoreIsTakenOver(t *testing.T) {
	dir := t.TempDir()
	d, err := newDB(options(dir, newClock(), &disk{}))
	must(t, err)
	e, last, err := d.openEngine(false)
	must(t, err)
	must(t, d.adopt(e, last))
	must(t, d.turn(e, func(t *txn) { t.put([]byte(keyFormat), []byte{formatMin}) }))
	must(t, e.retire(nil))

	h := open(t, dir)
	if was := h.engine.Load().format; was != format {
		t.Errorf("it opened as format %d; its canary should have made it %d", was, format)
	}
	h.do(putName(t, "name:b", "b", 1))
	payload, err := h.engine.Load().read([]byte(keyFormat))
	if err != nil || payload[0] != format {
		t.Errorf("after a write it is of format %v (%v), want %d", payload, err, format)
	}
}

func FuzzParseRows(f *testing.F) {
	f.Add(appendSet(nil, &set{pinned: true, checked: 3, rows: []index.Provider{{ID: "a", Addr: "/a", Found: true}, {ID: "b"}}}))
	f.Add(appendName(nil, &index.NameRecord{Seq: 1, Found: true, Checked: 2, PubKey: make([]byte, 32), Sig: make([]byte, 64)}))
	f.Add([]byte{0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		if s, _, ok := parseSet(b, -1, nil); ok {
			if n, ok := countLive(b, -1, 1<<16); !ok || n != len(s.rows) {
				t.Errorf("%x has %d rows, and %d are counted (%v)", b, len(s.rows), n, ok)
			}
		}
		if r, ok := parseName(b); ok {
			if r2, ok := parseName(appendName(nil, &r)); !ok || r2.Seq != r.Seq || r2.Found != r.Found || r2.Deleted != r.Deleted || r2.Checked != r.Checked {
				t.Errorf("%x is read as %+v, and written as another", b, r)
			}
		}
	})
}
