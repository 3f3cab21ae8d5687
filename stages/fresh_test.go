package stages

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"svcindex/index"
)

// A nook is a database and a network whose contents a test decides, with the
// rules between them that the house has.
type nook struct {
	*bench
	t *testing.T

	mu     sync.Mutex
	stored map[index.Key]index.Answer
	net    map[index.Key]index.Answer
	err    error // of the network; nil: it answers
	away   error // of the database when a find is held against it
	asked  int   // the network
	kept   []*index.Mutation
}

// trusted is the rule of this nook: names below name:t.
func trusted(k *index.Key) bool { return len(k.Bytes()) > 6 && string(k.Bytes()[:6]) == "name:t" }

func newNook(t *testing.T, change func(*Config)) *nook {
	n := &nook{t: t, stored: map[index.Key]index.Answer{}, net: map[index.Key]index.Answer{}}
	holds := func(j *index.Job) bool { return !j.Key.IsName() || trusted(&j.Key) }
	rule := &Freshness{After: time.Minute, Holds: holds, Believe: func(k *index.Key, r *index.NameRecord) bool { return string(r.Sig) != "of somebody else" }}
	scout := Scout{Network: n, Intake: &Intake{
		Verify: func(_ *index.Key, r *index.NameRecord) error {
			if string(r.Sig) != "true" {
				return errors.New("false")
			}
			return nil
		},
		Stored: n, Integrity: new(index.IntegrityCounts), Keep: func(m *index.Mutation) { n.kept = append(n.kept, m) },
	}}
	n.bench = setUp(t, func(c *Config) {
		c.RefreshAfter = time.Minute
		c.Rooms[1].Holds, c.Rooms[1].LateIsNeutral = holds, true
		if change != nil {
			change(c)
		}
	}, Shelf{Store: n, Rule: rule}, scout)
	return n
}

// Get is the database.
func (n *nook) Get(j *index.Job) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	a, ok := n.stored[j.Key]
	if !ok {
		return index.Missing
	}
	j.Answer, j.Answer.From = a, index.FromDB
	return nil
}

// Discover is the network.
func (n *nook) Discover(_ context.Context, j *index.Job) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.asked++
	if n.err != nil {
		return n.err
	}
	a, ok := n.net[j.Key]
	if !ok {
		return index.Missing
	}
	j.Answer = a
	if a.Name.Deleted {
		return index.Missing
	}
	return nil
}

// Blend lets the higher sequence stand, and of providers the union.
func (n *nook) Blend(j *index.Job) (bool, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.away != nil {
		return false, n.away
	}
	was := n.stored[j.Key]
	if j.Key.IsName() {
		if was.Name.Seq >= j.Answer.Name.Seq {
			j.Answer.Name, j.Answer.From = was.Name, index.FromDB
			return false, nil
		}
		if j.Answer.Name.Deleted {
			return true, index.Missing
		}
		return true, nil
	}
	j.Answer.Providers = append(j.Answer.Providers, was.Providers...)
	return true, nil
}

func (n *nook) put(name string, seq uint64, checked time.Duration, found bool) {
	n.stored[key(n.t, name)] = index.Answer{Name: index.NameRecord{
		CID: index.Sum([]byte{byte(seq)}), Seq: seq, Checked: time.Now().Add(-checked).Unix(), Found: found, Sig: []byte("true"),
	}}
}

func (n *nook) announce(name string, seq uint64, sig string) {
	n.net[key(n.t, name)] = index.Answer{Name: index.NameRecord{
		CID: index.Sum([]byte{byte(seq)}), Seq: seq, Sig: []byte(sig), PubKey: []byte("key"), Deleted: false,
	}}
}

// fresh asks with fresh=true.
func (n *nook) fresh(name string) *index.Job {
	h := make(home, 1)
	j := n.job(key(n.t, name), h)
	j.Fresh = true
	if n.Push(0, []*index.Flight{{Jobs: []*index.Job{j}}}) != 1 {
		n.t.Fatal("the lane is full")
	}
	return h.wait(n.t)
}

func TestHowLongWhatIsStoredIsAnAnswer(t *testing.T) {
	for _, tt := range []struct {
		why     string
		name    string
		checked time.Duration // ago
		stored  uint64        // seq; 0: nothing
		net     uint64
		sig     string
		err     error
		fresh   bool

		want  index.Kind
		seq   uint64
		from  index.Source
		stale bool
		asked int
	}{
		{why: "an untrusted name is asked for nowhere else", name: "name:x", checked: time.Hour, stored: 1, want: index.OK, seq: 1, from: index.FromDB},
		{why: "nor when it is absent: the network counts as asked", name: "name:x", want: index.Missing},
		{why: "nor when it has to be fresh", name: "name:x", checked: time.Hour, stored: 1, err: index.Down, fresh: true, want: index.OK, seq: 1, from: index.FromDB},
		{why: "a trusted one within its time", name: "name:t1", checked: 59 * time.Second, stored: 1, net: 2, sig: "true", want: index.OK, seq: 1, from: index.FromDB},
		{why: "past it, and the network has a newer one", name: "name:t1", checked: time.Minute, stored: 1, net: 2, sig: "true", want: index.OK, seq: 2, from: index.FromDHT, asked: 1},
		{why: "past it, and the network has an older one", name: "name:t1", checked: time.Minute, stored: 3, net: 2, sig: "true", want: index.OK, seq: 3, from: index.FromDB, asked: 1},
		{why: "past it, and the network has none", name: "name:t1", checked: time.Minute, stored: 1, want: index.OK, seq: 1, from: index.FromDB, asked: 1},
		{why: "past it, and the network is away", name: "name:t1", checked: time.Minute, stored: 1, err: index.Down, want: index.OK, seq: 1, from: index.FromDB, stale: true, asked: 1},
		{why: "past it, and the network is too slow", name: "name:t1", checked: time.Minute, stored: 1, err: index.Late, want: index.OK, seq: 1, from: index.FromDB, stale: true, asked: 1},
		{why: "past it, and the network lies", name: "name:t1", checked: time.Minute, stored: 1, net: 9, sig: "false", want: index.OK, seq: 1, from: index.FromDB, stale: true, asked: 1},
		{why: "fresh asks within its time", name: "name:t1", stored: 1, net: 2, sig: "true", fresh: true, want: index.OK, seq: 2, from: index.FromDHT, asked: 1},
		{why: "fresh is never stale", name: "name:t1", stored: 1, err: index.Down, fresh: true, want: index.Down, asked: 1},
		{why: "only the network has it", name: "name:t1", net: 2, sig: "true", want: index.OK, seq: 2, from: index.FromDHT, asked: 1},
		{why: "nobody has it", name: "name:t1", want: index.Missing, asked: 1},
		{why: "nobody here, and the network is away: never 404", name: "name:t1", err: index.Down, want: index.Down, asked: 1},
		{why: "a lie proves nothing either", name: "name:t1", net: 9, sig: "false", want: index.Down, asked: 1},
	} {
		synctest.Test(t, func(t *testing.T) {
			n := newNook(t, nil)
			if tt.stored > 0 {
				n.put(tt.name, tt.stored, tt.checked, false)
			}
			if tt.net > 0 {
				n.announce(tt.name, tt.net, tt.sig)
			}
			n.err = tt.err
			ask := n.ask
			if tt.fresh {
				ask = n.fresh
			}
			j := ask(tt.name)
			a := &j.Answer
			if j.Result != tt.want || a.Name.Seq != tt.seq || a.From != tt.from || a.Stale != tt.stale || a.Partial != tt.stale || n.asked != tt.asked {
				t.Errorf("%s: %v, seq %d from %v, stale %v, partial %v, asked %d; want %v, %d from %v, %v, asked %d",
					tt.why, j.Result, a.Name.Seq, a.From, a.Stale, a.Partial, n.asked, tt.want, tt.seq, tt.from, tt.stale, tt.asked)
			}
			if news := tt.from == index.FromDHT; news != (len(n.kept) == 1) {
				t.Errorf("%s: %d finds are kept", tt.why, len(n.kept))
			}
		})
	}
}

func TestAStoredNameOfSomebodyNoLongerTrustedIsNoAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNook(t, nil)
		n.put("name:t1", 5, 0, false)
		a := n.stored[key(t, "name:t1")]
		a.Name.Sig = []byte("of somebody else")
		n.stored[key(t, "name:t1")] = a
		if j := n.ask("name:t1"); j.Result != index.Missing || n.asked != 1 {
			t.Errorf("got %v, the network asked %d times; want missing, once", j.Result, n.asked)
		}
	})
}

// Whoever held a key that is out could have signed any sequence: the network's
// word under a key that is in is given out all the same, and is not stored.
func TestAStoredNameOfSomebodyNoLongerTrustedOutbidsNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNook(t, nil)
		n.put("name:t1", 1000, 0, true)
		a := n.stored[key(t, "name:t1")]
		a.Name.Sig = []byte("of somebody else")
		n.stored[key(t, "name:t1")] = a
		n.announce("name:t1", 5, "true")
		if j := n.ask("name:t1"); j.Result != index.OK || j.Answer.Name.Seq != 5 || j.Answer.From != index.FromDHT {
			t.Errorf("got %v, seq %d from %v; want the network's 5", j.Result, j.Answer.Name.Seq, j.Answer.From)
		}
	})
}

// A deletion that the network knows of ends what is stored, also when it is
// past its time and would be served while the network is away.
func TestADeletionInTheNetworkCounts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNook(t, nil)
		n.put("name:t1", 5, time.Hour, true)
		n.net[key(t, "name:t1")] = index.Answer{Name: index.NameRecord{Seq: 6, Deleted: true, Sig: []byte("true")}}
		if j := n.ask("name:t1"); j.Result != index.Missing || len(n.kept) != 1 || !n.kept[0].Name.Deleted || n.kept[0].Name.Seq != 6 {
			t.Errorf("got %v, kept %v; want missing, and the tombstone kept", j.Result, n.kept)
		}
	})
}

func TestSetsOfProvidersMerge(t *testing.T) {
	mine := index.Provider{ID: "mine", Addr: "/mine"}
	far := index.Provider{ID: "far", Addr: "/far", Expires: 1 << 40}
	was := index.Provider{ID: "was", Addr: "/was", Found: true}
	for _, tt := range []struct {
		why     string
		stored  []index.Provider
		checked time.Duration // ago; 0: never
		net     []index.Provider
		err     error
		fresh   bool

		want           index.Kind
		rows           int
		stale, partial bool
		asked          int
	}{
		{why: "rows of clients alone, and the network has more", stored: []index.Provider{mine}, net: []index.Provider{far}, want: index.OK, rows: 2, asked: 1},
		{why: "and it has none", stored: []index.Provider{mine}, want: index.OK, rows: 1, asked: 1},
		{why: "and it is away: they are not stale, but not all", stored: []index.Provider{mine}, err: index.Down, want: index.OK, rows: 1, partial: true, asked: 1},
		{why: "the network told of the set just now", stored: []index.Provider{mine, was}, checked: time.Second, net: []index.Provider{far}, want: index.OK, rows: 2},
		{why: "it did long ago, and is away", stored: []index.Provider{mine, was}, checked: time.Hour, err: index.Down, want: index.OK, rows: 2, stale: true, partial: true, asked: 1},
		{why: "and fresh is never stale", stored: []index.Provider{mine, was}, checked: time.Second, err: index.Down, fresh: true, want: index.Down, asked: 1},
		{why: "junk is nothing", net: []index.Provider{{ID: "a b", Addr: "/x", Expires: 1 << 40}}, want: index.Missing, asked: 1},
	} {
		synctest.Test(t, func(t *testing.T) {
			n := newNook(t, nil)
			c := index.CIDKey(index.Sum([]byte("c")))
			if tt.stored != nil {
				a := index.Answer{Providers: tt.stored}
				if tt.checked != 0 {
					a.Checked = time.Now().Add(-tt.checked).Unix()
				}
				n.stored[c] = a
			}
			if tt.net != nil {
				n.net[c] = index.Answer{Providers: tt.net}
			}
			n.err = tt.err
			h := make(home, 1)
			j := n.job(c, h)
			j.Ask, j.Fresh = index.AskProviders, tt.fresh
			n.Push(0, []*index.Flight{{Jobs: []*index.Job{j}}})
			j = h.wait(t)
			a := &j.Answer
			if j.Result != tt.want || j.Result == index.OK && len(a.Providers) != tt.rows || a.Stale != tt.stale || a.Partial != tt.partial || n.asked != tt.asked {
				t.Errorf("%s: %v, %d rows, stale %v, partial %v, asked %d; want %+v", tt.why, j.Result, len(a.Providers), a.Stale, a.Partial, n.asked, tt)
			}
		})
	}
}

func TestContentDoesNotAge(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNook(t, nil)
		c := index.CIDKey(index.Sum([]byte("c")))
		n.stored[c] = index.Answer{Body: []byte("c")}
		n.err = index.Down
		h := make(home, 1)
		j := n.job(c, h)
		j.Ask, j.Fresh = index.AskManifest, true
		n.Push(0, []*index.Flight{{Jobs: []*index.Job{j}}})
		if j = h.wait(t); j.Result != index.OK || n.asked != 0 {
			t.Errorf("got %v, the network asked %d times; its id is its proof", j.Result, n.asked)
		}
	})
}

// An asker whose own time is up gets what is stored, not a 504.
func TestWhoCannotWaitGetsWhatIsStored(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNook(t, func(c *Config) {
			c.Rooms[1].Slice = 10 * time.Second
			c.Rooms[1].Step = fakeStep(func(*index.Job) error { time.Sleep(2 * time.Second); return index.Down })
		})
		n.put("name:t1", 5, time.Hour, false)
		h := make(home, 1)
		j := n.job(key(t, "name:t1"), h)
		j.Deadline = time.Now().Add(300 * time.Millisecond)
		n.Push(0, []*index.Flight{{Jobs: []*index.Job{j}}})
		if j = h.wait(t); j.Result != index.OK || !j.Answer.Stale || j.Answer.Name.Seq != 5 {
			t.Errorf("got %v, stale %v, seq %d; want the stored one, stale", j.Result, j.Answer.Stale, j.Answer.Name.Seq)
		}
	})
}

// A database that is gone by the time the network has answered might have had
// more: what is given out says so, and is not kept.
func TestAFindThatCouldNotBeHeldAgainstWhatIsStoredIsPartial(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNook(t, nil)
		cid := index.Sum([]byte("x")).String()
		k := key(t, cid)
		n.net[k] = index.Answer{Providers: []index.Provider{{ID: "far", Addr: "/ip4/192.0.2.1/tcp/8080/http", LastSeen: 1, Expires: time.Now().Unix() + 600}}}
		ask := func() *index.Job {
			h := make(home, 1)
			j := n.job(k, h)
			j.Ask = index.AskProviders
			n.Push(0, []*index.Flight{{Jobs: []*index.Job{j}}})
			return h.wait(t)
		}
		n.away = index.Down
		for range 2 {
			if j := ask(); j.Result != index.OK || !j.Answer.Partial || j.Answer.From != index.FromDHT || len(j.Answer.Providers) != 1 {
				t.Errorf("%v from %v, partial %v, %d providers; want the network's one, partial", j.Result, j.Answer.From, j.Answer.Partial, len(j.Answer.Providers))
			}
		}
		n.away = nil
		if j := ask(); j.Result != index.OK || j.Answer.Partial {
			t.Errorf("when the database is back: %v, partial %v", j.Result, j.Answer.Partial)
		}
	})
}

// A key that nobody has may take all the time there is: that the network is
// away is another matter, and only that opens its breaker.
func TestRunningOutOfTimeSaysNothingAboutTheNetwork(t *testing.T) {
	for err, want := range map[error]int{index.Late: 0, index.Down: 2} {
		synctest.Test(t, func(t *testing.T) {
			n := newNook(t, nil)
			n.err = err
			for i := range 40 {
				if j := n.ask("name:t" + string(rune('a'+i%26)) + string(rune('a'+i/26))); j.Result == index.Missing {
					t.Fatalf("%v became an absence", err)
				}
			}
			for _, r := range n.Stats() {
				if r.Name == "room1" && int(r.Breaker) != want {
					t.Errorf("after 40 times %v the breaker is %d, want %d", err, r.Breaker, want)
				}
			}
			if want == 0 && n.asked != 40 {
				t.Errorf("the network was asked %d times, want 40", n.asked)
			}
		})
	}
}

// What ends while the network is asked is not served, stale or not.
func TestWhatEndsMeanwhileIsNoAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, err := range []error{index.Down, index.Missing} {
			n := newNook(t, func(c *Config) {
				c.Rooms[1].Slice = 10 * time.Second
				c.Rooms[1].Step = fakeStep(func(*index.Job) error { time.Sleep(300 * time.Millisecond); return err })
			})
			n.put("name:t1", 5, time.Hour, false)
			a := n.stored[key(t, "name:t1")]
			a.Until = time.Now().Add(200 * time.Millisecond)
			n.stored[key(t, "name:t1")] = a
			if j := n.ask("name:t1"); j.Result != err {
				t.Errorf("got %v, stale %v; want %v", j.Result, j.Answer.Stale, err)
			}
		}
	})
}

// What the network was just asked for is kept for as long as its word is good,
// and no longer.
func TestTheNetworksWordBoundsTheCache(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNook(t, nil)
		n.announce("name:t1", 2, "true")
		n.put("name:t2", 2, 40*time.Second, true)
		n.ask("name:t1")
		n.ask("name:t2")
		for name, want := range map[string]time.Duration{"name:t1": time.Minute, "name:t2": 20 * time.Second} {
			kept := n.cache.kept[subject{index.AskResolve, key(t, name)}]
			if left := time.Until(kept.Answer.FreshUntil); left < want-time.Second || left > want {
				t.Errorf("%s is fresh for %v, want %v", name, left, want)
			}
		}
	})
}

func TestTheMemoryOfLookUpsIsBoundedAndTells(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNook(t, nil)
		n.put("name:t1", 5, time.Hour, true)
		n.err = index.Down
		n.ask("name:t1")
		k := key(t, "name:t1")
		ps := n.Recall(k)
		if len(ps) != 1 || ps[0].Result != "down" || !ps[0].Stale || len(ps[0].Legs) != 2 ||
			ps[0].Legs[0].Outcome != "past its time" || ps[0].Legs[1].Outcome != "down" {
			t.Errorf("remembered is %+v", ps)
		}
		n.err = nil
		for i := range 4 * rowsKept * placesOf {
			name := fmt.Sprint("name:x", i)
			n.ask(name)
			if len(n.Recall(key(t, name))) != 1 {
				t.Fatal("the last look-up of all is not remembered")
			}
		}
		if len(n.Recall(k)) != 0 {
			t.Error("the oldest was not forgotten")
		}
	})
}
