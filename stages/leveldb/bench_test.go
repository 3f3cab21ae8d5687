package leveldb

import (
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"svcindex/index"
)

// benched is a store with names, each of a cid with five providers.
func benched(b *testing.B, names int) (*DB, []index.Key, []index.Key) {
	b.Helper()
	db, err := Open(Options{Path: b.TempDir(), Sync: true})
	must(b, err)
	b.Cleanup(func() { db.Close() })
	var keys, cids []index.Key
	for i := 0; i < names; i += 100 {
		var ms []*index.Mutation
		for n := i; n < i+100; n++ {
			name, content := fmt.Sprintf("name:bench/dir/%06d", n), fmt.Sprint(n)
			var ps []index.Provider
			for p := range 5 {
				ps = append(ps, index.Provider{ID: fmt.Sprintf("12D3KooWprovider%d", p), Addr: "/ip4/10.0.0.1/tcp/4001", Region: "eu-west", LastSeen: 1, Expires: 1 << 40})
			}
			ms = append(ms, putName(b, name, content, 1), putProviders(content, ps...), putManifest(content))
			keys, cids = append(keys, key_(b, name)), append(cids, index.CIDKey(cidOf(content)))
		}
		must(b, db.Commit(ms))
	}
	b.ReportAllocs()
	b.ResetTimer()
	return db, keys, cids
}

func BenchmarkGetName(b *testing.B) {
	db, keys, _ := benched(b, 10_000)
	j := &index.Job{Ask: index.AskResolve}
	for i := 0; b.Loop(); i++ {
		j.Key = keys[i%len(keys)]
		if err := db.Get(j); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkGetProviders(b *testing.B) {
	db, _, cids := benched(b, 10_000)
	j := &index.Job{Ask: index.AskProviders}
	for i := 0; b.Loop(); i++ {
		j.Key = cids[i%len(cids)]
		if err := db.Get(j); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkGetMiss(b *testing.B) {
	db, _, _ := benched(b, 10_000)
	j := &index.Job{Ask: index.AskResolve, Key: key_(b, "name:bench/dir/005000x")}
	for b.Loop() {
		if err := db.Get(j); err != index.Missing {
			b.Fatal(err)
		}
	}
}

func BenchmarkGetManifest(b *testing.B) {
	db, _, cids := benched(b, 10_000)
	j := &index.Job{Ask: index.AskManifest}
	for i := 0; b.Loop(); i++ {
		j.Key = cids[i%len(cids)]
		if err := db.Get(j); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkCommit is 32 writers of names, without an audit and with one whose
// entries are taken away once a second, as they are in a server.
func BenchmarkCommit(b *testing.B) {
	b.Run("plain", func(b *testing.B) { benchCommit(b, false) })
	b.Run("audit", func(b *testing.B) { benchCommit(b, true) })
}

func benchCommit(b *testing.B, audit bool) {
	db, keys, _ := benched(b, 100)
	db.opt.Audit = audit // nobody writes yet
	quit, gone := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(gone)
		for {
			select {
			case <-quit:
				return
			case <-time.After(time.Second):
				m := db.AuditMark()
				_ = db.AuditKept(index.AuditEntry{N: m.Last})
			}
		}
	}()
	defer func() { close(quit); <-gone }()
	var seq atomic.Uint64
	seq.Store(1)
	b.SetParallelism(32)
	b.RunParallel(func(pb *testing.PB) {
		m := &index.Mutation{Op: index.PutName, Name: index.NameRecord{CID: cidOf("x")}}
		ms := []*index.Mutation{m}
		for pb.Next() {
			m.Name.Seq = seq.Add(1)
			m.Key = keys[m.Name.Seq%uint64(len(keys))]
			if err := db.Commit(ms); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.ReportMetric(float64(b.N)/float64(db.Stats().Batches), "commits/batch")
}

// All but one of these are goleveldb's: a key, a snapshot's place in a list, a
// copy of the value.
func TestGetAllocatesLittle(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector makes pools forget")
	}
	h := open(t, t.TempDir())
	h.do(putName(t, "name:a", "a", 1))
	h.do(putProviders("a", h.provider("p", 1<<40), h.provider("q", 1<<40)))
	for _, tt := range []struct {
		why string
		ask index.Ask
		key string
		max float64
	}{
		{"a name and its hint are two reads", index.AskResolve, "name:a", 10},
		{"providers are one read, and their strings one copy", index.AskProviders, cidOf("a").String(), 7},
		{"a miss makes nothing", index.AskResolve, "name:b", 4},
	} {
		j := &index.Job{Ask: tt.ask, Key: key_(t, tt.key)}
		if n := testing.AllocsPerRun(100, func() { h.Get(j) }); n > tt.max {
			t.Errorf("%s: %v allocations, want at most %v", tt.why, n, tt.max)
		}
	}
}
