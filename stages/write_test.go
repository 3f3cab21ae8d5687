package stages

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"svcindex/index"
)

// fakeWriter is a store whose commits a test decides.
type fakeWriter func([]*index.Mutation) error

func (f fakeWriter) Commit(ms []*index.Mutation) error { return f(ms) }

// stored takes every write.
func stored([]*index.Mutation) error { return nil }

// forgetting notes which keys were forgotten.
type forgetting struct {
	index.Cache

	mu     sync.Mutex
	forgot []index.Key
}

func (f *forgetting) Forget(hash uint64, k *index.Key) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.forgot = append(f.forgot, *k)
	f.Cache.Forget(hash, k)
}

func (f *forgetting) forgotten(k index.Key) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Contains(f.forgot, k)
}

// An office is a scribe and what a test needs to see him work.
type office struct {
	*Scribe
	t     *testing.T
	cache *forgetting
	told  []string // what Changed heard
}

func newOffice(t *testing.T, w fakeWriter) *office {
	t.Helper()
	g := index.NewGenerations()
	o := &office{t: t, cache: &forgetting{Cache: newFakeCache(g)}}
	o.Scribe = &Scribe{
		Writer: w, Gens: g, Cache: o.cache, Tasks: NewTasks(g, o.cache), Counts: new(index.LookupCounts),
		Changed: func(kind string, k *index.Key) { o.told = append(o.told, kind+" "+k.String()) },
	}
	o.Tasks.lookup = func(j *index.Job) { j.Finish(index.Missing) }
	t.Cleanup(o.Tasks.Close)
	return o
}

// Do is the scribe's, under the usual tuning, as the pipeline would have it.
func (o *office) Do(j *index.Job) error {
	j.Tuning = &usual
	return o.Scribe.Do(j)
}

// pin is a write whose body is right.
func (o *office) pin(content string) *index.Job {
	c := index.Sum([]byte(content))
	return &index.Job{Ask: index.AskWrite, Op: index.Pin, IsJSON: true, Body: fmt.Appendf(nil, `{"cid":%q}`, c)}
}

func (o *office) putName(name string, seq int) *index.Job {
	return &index.Job{
		Ask: index.AskWrite, Op: index.PutName, Key: key(o.t, name), IsJSON: true,
		Body: fmt.Appendf(nil, `{"manifest_cid":%q,"seq":%d}`, aCID, seq),
	}
}

// write prepares jobs and settles them, as a room does.
func (o *office) write(js ...*index.Job) []index.Kind {
	o.t.Helper()
	for _, j := range js {
		if err := o.Do(j); err != nil {
			o.t.Fatalf("preparing: %v (%s)", err, j.Answer.Reason)
		}
	}
	kinds := make([]index.Kind, len(js))
	o.Settle(js, kinds)
	return kinds
}

func (o *office) generation(j *index.Job) index.Generation {
	return o.Gens.Note(o.Gens.Hash(&j.Write.Key))
}

func TestAPreparedWriteCarriesTheHashOfItsKey(t *testing.T) {
	o := newOffice(t, stored)
	j := o.pin("x") // only the body tells the key
	if err := o.Do(j); err != nil {
		t.Fatal(err)
	}
	if k := index.CIDKey(index.Sum([]byte("x"))); j.Hash != o.Gens.Hash(&k) {
		t.Error("the job carries another hash: the wrong stripe would be bumped")
	}
}

func TestARefusedBodyLeavesItsReason(t *testing.T) {
	o := newOffice(t, stored)
	j := &index.Job{Ask: index.AskWrite, Op: index.Pin, IsJSON: true, Body: []byte("{}")}
	if err := o.Do(j); err != index.Invalid || j.Answer.Reason == "" {
		t.Errorf("%v, reason %q; want invalid and a reason", err, j.Answer.Reason)
	}
}

func TestTheGenerationMovesAfterTheCommitAndBeforeAnybodyIsTold(t *testing.T) {
	var o *office
	var j *index.Job
	var before index.Generation
	o = newOffice(t, func([]*index.Mutation) error {
		if o.generation(j) != before || o.cache.forgotten(j.Write.Key) {
			t.Error("the generation moved before the commit: a look-up begun in between may keep what is old")
		}
		return nil
	})
	told := false
	o.Changed = func(string, *index.Key) {
		told = true
		if o.generation(j) == before || !o.cache.forgotten(j.Write.Key) {
			t.Error("somebody was told of a change that a look-up may not see yet")
		}
	}
	j = o.putName("name:a", 1)
	j.Write = &index.Mutation{Key: j.Key}
	before = o.generation(j)
	if ks := o.write(j); ks[0] != index.OK || o.generation(j) == before || !told {
		t.Errorf("%v, told %v", ks, told)
	}
}

func TestSettleTellsTheJobsOfOneBatchApart(t *testing.T) {
	o := newOffice(t, func(ms []*index.Mutation) error {
		if len(ms) != 4 {
			t.Errorf("a batch of %d mutations, want 4: a question about a task is no write", len(ms))
		}
		ms[1].Err, ms[1].Current = &Refusal{index.Conflict, "seq is not newer"}, 41
		ms[2].Err = index.Full
		ms[3].Err = errors.New("row: disk on fire")
		return nil
	})
	js := []*index.Job{o.pin("ok"), o.putName("name:old", 1), o.pin("full"), o.pin("hurt")}
	before := make([]index.Generation, len(js))
	for i, j := range js {
		if err := o.Do(j); err != nil {
			t.Fatal(err)
		}
		before[i] = o.generation(j)
	}
	task := &index.Job{Ask: index.AskTask}
	all := append(js, task)
	kinds := make([]index.Kind, len(all))
	o.Settle(all, kinds)
	if want := []index.Kind{index.OK, index.Conflict, index.Full, index.Down, index.OK}; !slices.Equal(kinds, want) {
		t.Errorf("they ended as %v, want %v", kinds, want)
	}
	for i, j := range js {
		durable := i == 0
		if moved := o.generation(j) != before[i]; moved != durable || o.cache.forgotten(j.Write.Key) != durable {
			t.Errorf("write %d (%v): generation moved %v, forgotten %v; want %v", i, kinds[i], moved, o.cache.forgotten(j.Write.Key), durable)
		}
		if (j.Answer.Doc != nil) != durable {
			t.Errorf("write %d (%v) is answered with %v", i, kinds[i], j.Answer.Doc)
		}
	}
	if a := js[1].Answer; a.Seq != 41 || a.Reason != "seq is not newer" {
		t.Errorf("the conflict says seq %d, %q", a.Seq, a.Reason)
	}
	if r := js[2].Answer.Reason; r != "" {
		t.Errorf("a bare kind has the reason %q; it has nothing to say", r)
	}
	if len(o.told) != 1 || o.told[0] != "pin "+js[0].Write.Key.String() {
		t.Errorf("told of %q, want the durable write alone", o.told)
	}
}

func TestACommitThatFailsFailsEverybody(t *testing.T) {
	for _, tt := range []struct {
		why  string
		err  error
		want index.Kind
	}{
		{"a full disk", fmt.Errorf("journal: %w", index.Full), index.Full},
		{"a store that is read-only", index.Down, index.Down},
		{"one that says nothing", errors.New("input/output error"), index.Down},
		{"damage", index.Broken, index.Broken},
	} {
		o := newOffice(t, func([]*index.Mutation) error { return tt.err })
		js := []*index.Job{o.pin("a"), o.pin("b")}
		for i, k := range o.write(js...) {
			if k != tt.want || js[i].Answer.Doc != nil {
				t.Errorf("%s: write %d ended as %v with %v, want %v", tt.why, i, k, js[i].Answer.Doc, tt.want)
			}
			// It may turn out to be stored when the store has healed.
			if !o.cache.forgotten(js[i].Write.Key) || o.generation(js[i]) == 0 {
				t.Errorf("%s: what was known of the key is taken for certain still", tt.why)
			}
		}
		if len(o.told) != 0 {
			t.Errorf("%s: told of %q, which nobody can vouch for", tt.why, o.told)
		}
	}
}

func TestABatchWithoutWritesDoesNotBotherTheStore(t *testing.T) {
	o := newOffice(t, func([]*index.Mutation) error { t.Error("a commit of nothing"); return nil })
	kinds := []index.Kind{index.Down}
	o.Settle([]*index.Job{{Ask: index.AskTask}}, kinds)
	if kinds[0] != index.OK {
		t.Errorf("a question about a task ended as %v", kinds[0])
	}
}

func TestOnlyChangesOfProviderSetsAreCountedAsSuch(t *testing.T) {
	o := newOffice(t, stored)
	put := &index.Job{Ask: index.AskWrite, Op: index.PutProviders, Key: cidKey(t), IsJSON: true, Body: []byte(manyProviders(1))}
	del := &index.Job{Ask: index.AskWrite, Op: index.DeleteProvider, Key: cidKey(t), Text: "p0"}
	o.write(put, del, o.pin("x"), o.putName("name:a", 1))
	if n := o.Counts.ProviderSetChanges.Load(); n != 2 {
		t.Errorf("counted %d changes of provider sets, want 2", n)
	}
	want := []string{"provider_set " + aCID, "provider_set " + aCID, "pin " + index.Sum([]byte("x")).String(), "name name:a"}
	if !slices.Equal(o.told, want) {
		t.Errorf("told of %q, want %q", o.told, want)
	}
	o.Changed = nil // nobody listens
	if ks := o.write(o.pin("y")); ks[0] != index.OK {
		t.Errorf("without a listener: %v", ks[0])
	}
}

func TestEveryWriteHasItsDocument(t *testing.T) {
	content := index.CIDKey(index.Sum([]byte("content"))).String()
	fill := func(ms []*index.Mutation) error {
		for _, m := range ms {
			switch m.Op {
			case index.PutManifest:
				m.Created = true
			case index.PutName:
				m.Record = m.Name
			case index.DeleteName:
				m.Record = index.NameRecord{Seq: 8, Deleted: true}
			case index.PutProviders:
				m.Stored = len(m.Providers)
			case index.Reindex:
				m.TaskID = m.Idem.TaskID
			}
		}
		return nil
	}
	zeros := index.CID{}.String()
	for _, tt := range []struct {
		why            string
		j              *index.Job
		want, location string
		created        bool
	}{
		{"a manifest", &index.Job{Op: index.PutManifest, Body: []byte("content")},
			`{"cid":"` + content + `","size":7,"announced":false}`, "/manifests/" + content, true},
		{"a name", &index.Job{Op: index.PutName, Key: key(t, "name:a"), IsJSON: true, Body: []byte(`{"manifest_cid":"` + aCID + `","seq":7}`)},
			`{"name":"name:a","manifest_cid":"` + aCID + `","seq":7}`, "", false},
		{"a deleted name", &index.Job{Op: index.DeleteName, Key: key(t, "name:a")},
			`{"name":"name:a","manifest_cid":"` + zeros + `","seq":8,"deleted":true}`, "", false},
		{"providers", &index.Job{Op: index.PutProviders, Key: cidKey(t), IsJSON: true, Body: []byte(manyProviders(3))}, `{"stored":3}`, "", false},
		{"a provider less", &index.Job{Op: index.DeleteProvider, Key: cidKey(t), Text: "p"}, `{"ok":true}`, "", false},
		{"a pin", &index.Job{Op: index.Pin, IsJSON: true, Body: []byte(`{"cid":"` + aCID + `"}`)}, `{"ok":true}`, "", false},
		{"a pin less", &index.Job{Op: index.Unpin, IsJSON: true, Body: []byte(`{"cid":"` + aCID + `"}`)}, `{"ok":true}`, "", false},
	} {
		o := newOffice(t, fill)
		tt.j.Ask = index.AskWrite
		if ks := o.write(tt.j); ks[0] != index.OK {
			t.Errorf("%s: %v", tt.why, ks[0])
		}
		doc, err := json.Marshal(tt.j.Answer.Doc)
		if err != nil || string(doc) != tt.want || tt.j.Answer.Location != tt.location || tt.j.Answer.Created != tt.created {
			t.Errorf("%s: %s at %q, created %v, %v; want %s at %q", tt.why, doc, tt.j.Answer.Location, tt.j.Answer.Created, err, tt.want, tt.location)
		}
	}
}

func TestAWriteThroughTheHouseIsSeenByWhoeverAsksNext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		var seq uint64
		var b *bench
		var tasks *Tasks
		b = setUp(t, func(c *Config) {
			tasks = NewTasks(c.Gens, c.Cache.Cache)
			c.Write.Step = &Scribe{
				Writer: fakeWriter(func(ms []*index.Mutation) error {
					time.Sleep(10 * time.Millisecond)
					mu.Lock()
					defer mu.Unlock()
					for _, m := range ms {
						seq, m.Record = m.Name.Seq, m.Name
					}
					return nil
				}),
				Gens: c.Gens, Cache: c.Cache.Cache, Tasks: tasks, Counts: c.Counts,
			}
		}, fakeStep(func(j *index.Job) error {
			mu.Lock()
			defer mu.Unlock()
			if seq == 0 {
				return index.Missing
			}
			j.Answer.Name.Seq = seq
			return nil
		}))
		for n := range 5 {
			want := index.Missing
			if n > 0 {
				want = index.OK
			}
			if j := b.ask("name:a"); j.Result != want || j.Answer.Name.Seq != uint64(n) {
				t.Fatalf("after %d writes: %v with seq %d", n, j.Result, j.Answer.Name.Seq)
			}
			h := make(home, 1)
			j := b.job(key(t, "name:a"), h)
			j.Ask, j.Op, j.IsJSON = index.AskWrite, index.PutName, true
			j.Body = fmt.Appendf(nil, `{"manifest_cid":%q,"seq":%d}`, aCID, n+1)
			if !b.Write(j) {
				t.Fatal("the write was refused")
			}
			if j = h.wait(t); j.Result != index.OK {
				t.Fatalf("the write ended as %v (%s)", j.Result, j.Answer.Reason)
			}
		}
		tasks.Close()
	})
}
