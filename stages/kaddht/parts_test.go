package kaddht

import (
	"crypto/ed25519"
	"encoding/base32"
	"fmt"
	"math/bits"
	"math/rand/v2"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	ds "github.com/ipfs/go-datastore"
	dsq "github.com/ipfs/go-datastore/query"
	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"

	"svcindex/index"
)

// index404 is what a look-up of what nobody has ends with when so many of 20
// answer and the others hang.
func index404(answering int) error {
	switch answering {
	case 0:
		return index.Down
	case 20:
		return index.Missing
	}
	return index.Late
}

func TestAddresses(t *testing.T) {
	for _, tt := range []struct {
		addr            string
		public, private bool
	}{
		{"/ip4/8.8.8.8/tcp/4001", true, true},
		{"/ip4/8.8.8.8/tcp/443/https", true, true},
		{"/ip4/8.8.8.8/tcp/80/http", true, true},
		{"/ip4/8.8.8.8/tcp/22", false, true},
		{"/ip4/8.8.8.8/tcp/0", false, false},
		{"/ip6/2606:4700::1/tcp/4001", true, true},
		{"/ip4/127.0.0.1/tcp/4001", false, true},
		{"/ip4/10.1.2.3/tcp/4001", false, true},
		{"/ip4/172.31.0.1/tcp/4001", false, true},
		{"/ip4/192.168.1.1/tcp/4001", false, true},
		{"/ip4/100.64.0.1/tcp/4001", false, true},
		{"/ip4/169.254.169.254/tcp/80/http", false, true},
		{"/ip6/fe80::1/tcp/4001", false, true},
		{"/ip6/fd00:ec2::254/tcp/80", false, true},
		{"/ip6/::1/tcp/4001", false, true},
		{"/ip4/0.0.0.0/tcp/4001", false, false},
		{"/ip4/224.0.0.1/tcp/4001", false, false},
		{"/ip4/255.255.255.255/tcp/4001", false, false},
		{"/ip6/::ffff:10.0.0.1/tcp/4001", false, false},
		{"/ip6/64:ff9b::a00:1/tcp/4001", false, false},
		{"/ip6/2002:a00:1::/tcp/4001", false, false},
		{"/dns4/metadata.internal/tcp/80/http", false, false},
		{"/dns4/example.com/tcp/443/https", false, false},
		{"/unix/tmp/s", false, false},
		{"/ip4/8.8.8.8/udp/4001/quic-v1", false, false},
		{"/ip4/8.8.8.8", false, false},
		{"/ip4/8.8.8.8/tcp/4001/p2p/12D3KooWNyQT8YHxXnHDvnXTftNpsAL82XxSNDrt81qS8oCBjmkR/p2p-circuit", false, false},
	} {
		a, err := ma.NewMultiaddr(tt.addr)
		if err != nil {
			t.Fatalf("%s: %v", tt.addr, err)
		}
		if got := (addrPolicy{}).allowed(a); got != tt.public {
			t.Errorf("%s in a public network: %v, want %v", tt.addr, got, tt.public)
		}
		if got := (addrPolicy{true}).allowed(a); got != tt.private {
			t.Errorf("%s in a private network: %v, want %v", tt.addr, got, tt.private)
		}
	}
}

func TestWhatAnAbsenceIsWorth(t *testing.T) {
	for _, tt := range []struct {
		why    string
		r      report
		partly bool // the network was there: it says nothing against it
	}{
		{"the nearest have answered", report{verdict: complete, Answered: 3}, false},
		{"many answered, and some of the nearest are silent", report{verdict: unsure, Answered: 10, Failed: 4}, true},
		{"all who were asked answered, and one was left alone", report{verdict: unsure, Answered: 2}, true},
		{"two answered, and one failed", report{verdict: unsure, Answered: 2, Failed: 1}, false},
		{"nobody answered", report{verdict: unreachable, Failed: 3}, false},
	} {
		if got := tt.r.partly(); got != tt.partly {
			t.Errorf("%s: %v", tt.why, got)
		}
	}
}

func TestTheLostAreBoundedAndForgottenInTheEnd(t *testing.T) {
	var l lostList
	now := time.Unix(1_800_000_000, 0)
	a, _ := ma.NewMultiaddr("/ip4/127.0.0.1/tcp/4001")
	at := func(i int) peer.AddrInfo { return peer.AddrInfo{ID: junk(i), Addrs: []ma.Multiaddr{a}} }
	for i := range 2 * lostMax {
		l.add(at(i), now)
	}
	l.add(peer.AddrInfo{ID: "nowhere"}, now)
	if got := l.list(now); len(got) != lostMax {
		t.Errorf("%d are remembered, want %d", len(got), lostMax)
	}
	last := at(2*lostMax - 1)
	l.add(last, now.Add(lostFor)) // who is lost again is not lost for longer
	if got := l.list(now.Add(lostFor + 1)); len(got) != 0 {
		t.Errorf("%d are remembered past their time", len(got))
	}
	l.add(last, now)
	l.remove(last.ID)
	if got := l.list(now); len(got) != 0 {
		t.Error("who is back is still lost")
	}
}

func TestAPeerOnParoleIsAskedAgainUntilItFailsOnceMore(t *testing.T) {
	m := newMemory()
	now := time.Unix(1_800_000_000, 0)
	for range tripAfter {
		m.failed("p", now)
	}
	if rest := m.resting(now); len(rest) != 1 || m.grade("p", now, time.Second) != broken {
		t.Errorf("%d rest, want the one that failed", len(rest))
	}
	m.parole("p")
	m.parole("nobody")
	if rest := m.resting(now); len(rest) != 0 || m.grade("p", now, time.Second) != slow {
		t.Errorf("on parole, and %d still rest", len(rest))
	}
	m.failed("p", now)
	if rest := m.resting(now.Add(2*restMin - 1)); len(rest) != 1 {
		t.Error("it failed again, and does not rest for twice as long")
	}
}

func TestProvidersOfOneSubnetAreNotAllThereIs(t *testing.T) {
	n := &Node{now: time.Now}
	in := make(map[netip.Prefix]int)
	for _, tt := range []struct {
		addr string
		want bool
	}{
		{"/ip4/8.8.8.8/tcp/443/https", true}, {"/ip4/8.8.8.9/tcp/443/https", true}, {"/ip4/8.8.8.10/tcp/443/https", false},
		{"/ip4/8.8.9.8/tcp/443/https", true}, {"/ip6/2606:4700:1::1/tcp/443/https", true},
	} {
		if got := n.roomIn(in, tt.addr); got != tt.want {
			t.Errorf("%s: %v, want %v", tt.addr, got, tt.want)
		}
	}
}

func TestAPeerThatFailsRestsAndIsTriedAgain(t *testing.T) {
	m := newMemory()
	at := time.Unix(1_800_000_000, 0)
	for i := range tripAfter {
		if g := m.grade("p", at, 150*time.Millisecond); g == broken {
			t.Fatalf("it rests after %d failures", i)
		}
		m.failed("p", at)
	}
	if g := m.grade("p", at, 150*time.Millisecond); g != broken {
		t.Errorf("after %d failures in a row it is %v", tripAfter, g)
	}
	at = at.Add(restMin + time.Second)
	if g := m.grade("p", at, 150*time.Millisecond); g != slow {
		t.Errorf("after its rest it is %v, want slow until it proves itself", g)
	}
	m.failed("p", at)
	if g := m.grade("p", at.Add(restMin+time.Second), 150*time.Millisecond); g != broken {
		t.Errorf("the second rest is as short as the first")
	}
	m.answered("p", time.Millisecond, at)
	if g := m.grade("p", at, 150*time.Millisecond); g != good {
		t.Errorf("after an answer it is %v", g)
	}
	for i := range 2 * peersMax {
		m.failed(peer.ID(fmt.Sprint(i)), at)
	}
	if known, _ := m.count(at); known != peersMax {
		t.Errorf("%d peers are remembered, at most %d should be", known, peersMax)
	}
}

func TestTheBudgetIsAShareOfAMinute(t *testing.T) {
	b := &budget{share: .1}
	at := time.Unix(1_800_000_000, 0)
	for range budgetFloor / 2 {
		if !b.allow(2, at) {
			t.Fatal("the first hedges of a quiet minute are refused")
		}
		b.charge(0, 2, at)
	}
	if b.allow(2, at) {
		t.Error("more than the floor, of no requests at all")
	}
	b.charge(1000, 0, at)
	if !b.allow(80, at) || b.allow(81, at) {
		t.Error("a tenth of 1,000 is not what fits")
	}
	at = at.Add(61 * time.Second)
	if !b.allow(budgetFloor, at) || b.allow(budgetFloor+1, at) {
		t.Error("a minute later it remembers the minute before")
	}
}

func TestQuotas(t *testing.T) {
	q, at := newQuotas(), time.Unix(1_800_000_000, 0)
	n := 0
	for q.take("p", at) {
		n++
	}
	if n != quotaBurst {
		t.Errorf("%d records at once, want %d", n, quotaBurst)
	}
	if !q.take("other", at) {
		t.Error("one peer spends another's")
	}
	n = 0
	for q.take("p", at.Add(time.Second)) {
		n++
	}
	if n != quotaRate {
		t.Errorf("%d a second later, want %d", n, quotaRate)
	}
}

func provRow(key, who string) ds.Key {
	enc := base32.StdEncoding.WithPadding(base32.NoPadding)
	return ds.RawKey("/providers/" + enc.EncodeToString([]byte(key)) + "/" + enc.EncodeToString([]byte(who)))
}

func valueRow(full string) ds.Key {
	ns := full[1:5]
	return ds.RawKey("/" + ns + "/" + base32.StdEncoding.WithPadding(base32.NoPadding).EncodeToString([]byte(full)))
}

func TestAVaultIsBoundedAndFair(t *testing.T) {
	ctx := t.Context()
	v := newVault()
	for i := range rowsPerKey {
		if err := v.Put(ctx, provRow("k", fmt.Sprint(i)), []byte("t")); err != nil {
			t.Fatal(err)
		}
	}
	if err := v.Put(ctx, provRow("k", "0"), []byte("u")); err != nil {
		t.Errorf("a provider that is there cannot say so again: %v", err)
	}
	if err := v.Put(ctx, provRow("k", "one more"), []byte("t")); err != nil {
		t.Errorf("a newcomer to a key that is full: %v", err)
	}
	rows, err := v.Query(ctx, dsq.Query{Prefix: parent(provRow("k", "x").String())})
	if err != nil {
		t.Fatal(err)
	}
	if all, _ := rows.Rest(); len(all) != rowsPerKey {
		t.Errorf("%d rows of the key are found, want %d", len(all), rowsPerKey)
	}
	// A greedy publisher fills the values; a modest one still finds room.
	big := make([]byte, 200<<10)
	for i := range valueBytesMax/len(big) + 50 {
		_ = v.Put(ctx, valueRow(fmt.Sprintf("/svcn/%064d/%d", 1, i)), big)
	}
	if _, _, bytes := v.counts(); bytes > valueBytesMax {
		t.Errorf("%d bytes of values, at most %d", bytes, valueBytesMax)
	}
	if err := v.Put(ctx, valueRow(fmt.Sprintf("/svcn/%064d/%d", 2, 0)), []byte("modest")); err != nil {
		t.Errorf("who has nothing finds no room beside who has all: %v", err)
	}
	if v.Put(ctx, valueRow("/svcm/x"), make([]byte, valueMax+1)) == nil {
		t.Error("a value over the limit is kept")
	}
	if v.Put(ctx, ds.RawKey("/elsewhere/x"), nil) == nil {
		t.Error("a record of no namespace of ours is kept")
	}
}

func TestAFloodOfProvidersDoesNotKeepOthersOut(t *testing.T) {
	ctx := t.Context()
	v := newVault()
	v.where = func(who string) string {
		b, _ := base32.StdEncoding.WithPadding(base32.NoPadding).DecodeString(who)
		net, _, _ := strings.Cut(string(b), " ")
		return net
	}
	holds := func(who string) bool {
		ok, _ := v.Has(ctx, provRow("k", who))
		return ok
	}
	honest := []string{"198.51.100.0/24 a", "192.0.2.0/24 a", "192.0.2.0/24 b"}
	for _, who := range honest[:2] {
		_ = v.Put(ctx, provRow("k", who), []byte("t"))
	}
	for i := range 40 * rowsPerKey {
		_ = v.Put(ctx, provRow("k", fmt.Sprintf("203.0.113.0/24 %d", i)), []byte("t"))
		if i == 20*rowsPerKey {
			_ = v.Put(ctx, provRow("k", honest[2]), []byte("t"))
		}
	}
	for _, who := range honest {
		if !holds(who) {
			t.Errorf("%s has no place beside thousands of one network", who)
		}
	}
	if n, _, _ := v.counts(); n != rowsPerKey {
		t.Errorf("%d providers of one key, at most %d", n, rowsPerKey)
	}
	// All of one network, as on a private one: a newcomer is let in, and who
	// leaves is left to chance, so that renewing one's own does not help.
	v.where = func(string) string { return "" }
	stayed := 0
	for try := range 40 {
		key := fmt.Sprint("k", try)
		for i := range rowsPerKey + 1 {
			_ = v.Put(ctx, provRow(key, fmt.Sprint(i)), []byte("t"))
		}
		if ok, _ := v.Has(ctx, provRow(key, fmt.Sprint(rowsPerKey))); !ok {
			t.Error("a newcomer is not let in")
		}
		if ok, _ := v.Has(ctx, provRow(key, "0")); ok {
			stayed++
		}
	}
	if stayed < 20 {
		t.Errorf("the first of a key made way in %d of 40 keys: it is not left to chance", 40-stayed)
	}
}

func TestARecordThatDoesNotFitLeavesTheOldOne(t *testing.T) {
	ctx := t.Context()
	v := newVault()
	// One publisher has half of all there is, in few large records; another a
	// little less, in one that would outgrow it.
	big := make([]byte, 256<<10)
	mine := func(i int) ds.Key { return valueRow(fmt.Sprintf("/svcn/%064d/%d", 1, i)) }
	for i := range valueBytesMax / len(big) {
		if err := v.Put(ctx, mine(i), big[:len(big)-1024]); err != nil {
			t.Fatal(err)
		}
	}
	_, values, bytes := v.counts()
	grown := append(big, make([]byte, valueMax-len(big))...)
	var refused error
	tried := 0
	for ; tried < values && refused == nil; tried++ {
		refused = v.Put(ctx, mine(tried), grown)
	}
	if refused == nil {
		t.Fatal("everything fits: the test says nothing")
	}
	if b, err := v.Get(ctx, mine(tried-1)); err != nil || len(b) != len(big)-1024 {
		t.Errorf("the record that stood is gone: %d bytes, %v", len(b), err)
	}
	if _, n, after := v.counts(); n != values || after < bytes {
		t.Errorf("%d records of %d bytes, before it was refused there were %d of %d", n, after, values, bytes)
	}
}

func TestWhatAFullVaultLooksAtDoesNotGrowWithItsOwners(t *testing.T) {
	ctx := t.Context()
	v := newVault()
	for i := range valuesMax { // each a publisher of his own
		_ = v.Put(ctx, valueRow(fmt.Sprintf("/svcn/%064d/x", i)), []byte("v"))
	}
	_ = v.Put(ctx, valueRow(fmt.Sprintf("/svcn/%064d/y", 0)), []byte("v")) // no room: nobody has two
	p := &v.kinds[kindValue]
	if len(p.owners) != valuesMax || len(p.ranks.of) != valuesMax {
		t.Fatalf("%d owners, %d of them ranked, want %d", len(p.owners), len(p.ranks.of), valuesMax)
	}
	const puts = 1000
	before := p.ranks.looks
	for i := range puts {
		_ = v.Put(ctx, valueRow(fmt.Sprintf("/svcn/%064d/x", i)), []byte("renewed"))
		_ = v.Put(ctx, valueRow(fmt.Sprintf("/svcn/%064d/new", valuesMax+i)), []byte("v"))
	}
	if looks := (p.ranks.looks - before) / (2 * puts); looks > 8*bits.Len(valuesMax) {
		t.Errorf("a record looks at %d of %d owners, at most %d", looks, valuesMax, 8*bits.Len(valuesMax))
	}
}

// The heap is the only thing that says who takes most: it has to be right after
// any order of puts and deletes.
func TestTheHeaviestOwnerIsTheHeaviest(t *testing.T) {
	ctx := t.Context()
	r := rand.New(rand.NewPCG(1, 2))
	v := newVault()
	for step := range 4000 {
		key := valueRow(fmt.Sprintf("/svcn/%064d/%d", r.IntN(20), r.IntN(20)))
		if r.IntN(3) == 0 {
			_ = v.Delete(ctx, key)
		} else {
			_ = v.Put(ctx, key, make([]byte, r.IntN(2000)))
		}
		p, most := &v.kinds[kindValue], 0
		for _, o := range p.owners {
			most = max(most, o.weight())
		}
		if h := p.heaviest(); len(p.owners) != len(p.ranks.of) || h == nil && most > 0 || h != nil && h.weight() != most {
			t.Fatalf("after %d steps the heaviest of %d (%d ranked) is %+v, want one of %d", step, len(p.owners), len(p.ranks.of), h, most)
		}
	}
}

func TestAVaultSurvivesARestartAndDamageIsLeftOut(t *testing.T) {
	ctx := t.Context()
	path := filepath.Join(t.TempDir(), "dht", "records")
	v := newVault()
	_ = v.Put(ctx, provRow("k", "p"), []byte("t"))
	_ = v.Put(ctx, valueRow("/svcm/abc"), []byte("value"))
	if err := v.save(path); err != nil {
		t.Fatal(err)
	}
	w := newVault()
	if err := w.load(path); err != nil {
		t.Fatal(err)
	}
	if got, err := w.Get(ctx, valueRow("/svcm/abc")); err != nil || string(got) != "value" {
		t.Errorf("%q, %v", got, err)
	}
	if r, n, _ := w.counts(); r != 1 || n != 1 {
		t.Errorf("%d provider records and %d values came back, want 1 and 1", r, n)
	}
	flipFile(t, path)
	if err := newVault().load(path); err == nil {
		t.Error("a damaged file is believed")
	}
	if err := newVault().load(path + ".none"); err != nil {
		t.Errorf("no file is no fault: %v", err)
	}
}

// freely is a disk that looks, at each write, whether others may go on.
type freely struct {
	v    *vault
	held int
}

func (w *freely) Write(p []byte) (int, error) {
	if w.v.mu.TryLock() {
		w.v.mu.Unlock()
	} else {
		w.held++
	}
	return len(p), nil
}

func TestADiskThatHangsDoesNotHoldUpThoseWhoAsk(t *testing.T) {
	v := newVault()
	for i := range 8 { // more than the buffer
		if err := v.Put(t.Context(), valueRow(fmt.Sprint("/svcm/", i)), make([]byte, 200<<10)); err != nil {
			t.Fatal(err)
		}
	}
	w := &freely{v: v}
	if err := v.write(w); err != nil || w.held > 0 {
		t.Errorf("%v; %d writes to the disk held the records", err, w.held)
	}
}

func flipFile(t *testing.T, path string) {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	b[len(b)/2] ^= 1
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestProfilesSpeakOnlyForWhoSignedThem(t *testing.T) {
	pub, key, _ := ed25519.GenerateKey(nil)
	id, err := peer.IDFromBytes([]byte("\x00\x24\x08\x01\x12\x20" + string(pub)))
	if err != nil {
		t.Fatal(err)
	}
	n, err := newNode(Options{})
	if err != nil {
		t.Fatal(err)
	}
	now := uint64(time.Now().Unix())
	good := profile{Addrs: []string{"/ip4/8.8.8.8/tcp/443/https"}, Peer: id.String(), Seq: 1, LastSeen: now, Expires: now + 60, Region: "eu"}
	for _, tt := range []struct {
		why    string
		change func(*profile)
		ok     bool
	}{
		{"as it should be", func(*profile) {}, true},
		{"past its time", func(p *profile) { p.Expires = now - 1 }, false},
		{"seen in the future", func(p *profile) { p.LastSeen = now + 3600 }, false},
		{"of another peer", func(p *profile) { p.Peer = junk(1).String() }, false},
		{"without an address", func(p *profile) { p.Addrs = nil }, false},
		{"with a region that is no text", func(p *profile) { p.Region = "\x00" }, false},
	} {
		p := good
		tt.change(&p)
		v, err := sealProfile(key, p)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := n.readProfile(profileKey(id), v); (err == nil) != tt.ok {
			t.Errorf("%s: %v", tt.why, err)
		}
	}
	inside := good
	inside.Addrs = []string{"/ip4/169.254.169.254/tcp/80/http", "/dns4/x/tcp/80/http"}
	if row, ok := n.provider(&inside); ok {
		t.Errorf("clients would be sent to %s", row.Addr)
	}
	if row, ok := n.provider(&good); !ok || row.Addr != good.Addrs[0] || row.Region != "eu" || row.ID != id.String() {
		t.Errorf("%+v", row)
	}
}

func FuzzReadProfile(f *testing.F) {
	_, key, _ := ed25519.GenerateKey(nil)
	v, _ := sealProfile(key, profile{Addrs: []string{"/ip4/8.8.8.8/tcp/443/https"}, Peer: junk(0).String(), Seq: 1})
	f.Add(v)
	f.Fuzz(func(t *testing.T, b []byte) {
		if p, err := openProfile(profileKey(junk(0)), b); err == nil {
			t.Errorf("a profile is believed whose key nobody has: %+v", p)
		}
	})
}

func TestNamesAreChosenWithoutAClock(t *testing.T) {
	_, key, _ := ed25519.GenerateKey(nil)
	name, _ := index.ParseKey("name:a")
	v := func(seq uint64, expires int64) []byte {
		r := index.NameRecord{CID: index.Sum(nil), Seq: seq, ExpiresAt: expires}
		signName(key, &name, &r)
		b, _ := index.MarshalSignedName(&name, &r)
		return b
	}
	for _, tt := range []struct {
		why  string
		in   [][]byte
		want int
	}{
		{"the higher sequence", [][]byte{v(1, 0), v(2, 5)}, 1},
		{"of equals the later end", [][]byte{v(1, 5), v(1, 9)}, 1},
		{"never ends last", [][]byte{v(1, 5), v(1, 0)}, 1},
		{"of the same the first", [][]byte{v(1, 5), v(1, 5)}, 0},
		{"what is no record is passed over", [][]byte{[]byte("x"), v(1, 5)}, 1},
		{"also one that has expired", [][]byte{v(2, 1), v(1, 0)}, 0},
	} {
		if got, err := (nameJudge{}).Select("", tt.in); err != nil || got != tt.want {
			t.Errorf("%s: %d, %v, want %d", tt.why, got, err, tt.want)
		}
	}
	if _, err := (nameJudge{}).Select("", [][]byte{[]byte("x")}); err == nil {
		t.Error("nothing valid, and one was chosen")
	}
}

// shelf is a store for an announcer.
type shelf map[index.Key]index.Holding

func (s shelf) Walk(from []byte, _ string, visit func(index.Holding)) ([]byte, error) {
	for _, h := range s {
		visit(h)
	}
	return nil, nil
}
func (s shelf) Held(k *index.Key, _ string) (index.Holding, error) { return s[*k], nil }
func (s shelf) Get(j *index.Job) error {
	j.Answer.Body = []byte("manifest")
	return nil
}

func TestAnAnnouncerTellsWhatIsHeld(t *testing.T) {
	d := openDevnet(t, 5)
	_, key, _ := ed25519.GenerateKey(nil)
	a := openNode(t, d, func(o *Options) { o.Key = key })
	b := openNode(t, d)
	c := index.Sum([]byte("manifest"))
	k := index.CIDKey(c)
	store := shelf{k: {Key: k, Manifest: 8, Provider: index.Provider{ID: a.ID(), Region: "eu"}}}
	an, err := NewAnnouncer(AnnouncerOptions{Node: a, Store: store, Key: key, Addrs: []string{"/ip4/127.0.0.1/tcp/8080/http"}})
	if err != nil {
		t.Fatal(err)
	}
	defer an.Close()
	an.Changed(&k)
	settle(t, "the manifest is found", func() bool { return discover(b, askFor(index.AskManifest, c.String())) == nil })
	j := askFor(index.AskProviders, c.String())
	settle(t, "the provider is found", func() bool { return discover(b, j) == nil })
	if p := j.Answer.Providers; len(p) != 1 || p[0].ID != a.ID() || p[0].Addr != "/ip4/127.0.0.1/tcp/8080/http" || p[0].Region != "eu" {
		t.Errorf("%+v", p)
	}
	if _, err := NewAnnouncer(AnnouncerOptions{Node: a, Store: store, Key: key, Addrs: []string{"nowhere"}}); err == nil {
		t.Error("an address that is none is announced")
	}
}

func TestAnAnnouncerWithNobodyToTellTriesAgain(t *testing.T) {
	_, key, _ := ed25519.GenerateKey(nil)
	a := openNode(t, nil, func(o *Options) { o.Key = key })
	k := index.CIDKey(index.Sum([]byte("manifest")))
	an, err := NewAnnouncer(AnnouncerOptions{Node: a, Store: shelf{k: {Key: k, Manifest: 8}}, Key: key})
	if err != nil {
		t.Fatal(err)
	}
	defer an.Close()
	an.Changed(&k)
	settle(t, "it notes that nobody took it", func() bool { return an.Counts().Nobody.Load() == 1 && an.missed.Load() })
}
