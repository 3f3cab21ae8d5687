package flame

import (
	"bytes"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"runtime/pprof"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/pprof/profile"
)

// A made stack is outermost first, with what it cost.
type made struct {
	stack        string // a>b>c
	stage, route string
	v            int64
}

// encode makes a profile of stacks.
func encode(t testing.TB, all ...made) []byte {
	t.Helper()
	p := &profile.Profile{
		SampleType: []*profile.ValueType{{Type: "samples", Unit: "count"}, {Type: "cpu", Unit: "nanoseconds"}},
		PeriodType: &profile.ValueType{Type: "cpu", Unit: "nanoseconds"}, Period: 1,
	}
	locations := map[string]*profile.Location{}
	for _, m := range all {
		s := &profile.Sample{Value: []int64{1, m.v}, Label: map[string][]string{}}
		if m.stage != "" {
			s.Label["stage"] = []string{m.stage}
		}
		if m.route != "" {
			s.Label["route"] = []string{m.route}
		}
		names := strings.Split(m.stack, ">")
		for i := len(names) - 1; i >= 0; i-- {
			l := locations[names[i]]
			if l == nil {
				id := uint64(len(locations) + 1)
				f := &profile.Function{ID: id, Name: names[i]}
				l = &profile.Location{ID: id, Line: []profile.Line{{Function: f}}}
				p.Function, p.Location = append(p.Function, f), append(p.Location, l)
				locations[names[i]] = l
			}
			s.Location = append(s.Location, l)
		}
		p.Sample = append(p.Sample, s)
	}
	var b bytes.Buffer
	if err := p.Write(&b); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func read(t testing.TB, b []byte, how How) *Tree {
	t.Helper()
	tree, err := Read(bytes.NewReader(b), how)
	if err != nil {
		t.Fatal(err)
	}
	return tree
}

// show renders rows as name own/with, a line each.
func show(rows []Row) (s string) {
	for _, r := range rows {
		s += fmt.Sprintf("%s %g/%g\n", r.Name, r.Self, r.Sum)
	}
	return s
}

func TestTopCountsAFunctionThatCallsItselfOnce(t *testing.T) {
	b := encode(t, made{stack: "main.a>main.b>main.a", v: 3}, made{stack: "main.a>x/y/z.c", v: 4})
	if d := cmp.Diff("z.c 4/4\nmain.a 3/7\n", show(read(t, b, How{Of: "cpu"}).Top(9))); d != "" {
		t.Error(d)
	}
}

func TestStagesComeFromLabelsAndElseFromRules(t *testing.T) {
	b := encode(t,
		made{stack: "a>b", stage: "db", route: "resolve", v: 5}, made{stack: "a>c", stage: "db", v: 1},
		made{stack: "runtime.gcBgMarkWorker>d", v: 4}, made{stack: "e", v: 2})
	tree := read(t, b, How{Of: "cpu", ByStage: true, Rules: []Rule{{"runtime.gc", "gc"}}})
	if d := cmp.Diff("stage db 0/6\nstage gc 0/4\nstage (none) 0/2\n", show(tree.Stages())); d != "" {
		t.Error(d)
	}
	var svg bytes.Buffer
	if err := tree.Draw(&svg, "x"); err != nil || !strings.Contains(svg.String(), "<title>route resolve (") {
		t.Errorf("the route is not drawn: %v", err)
	}
}

func TestEachRequestsShare(t *testing.T) {
	tree := read(t, encode(t, made{stack: "a", v: 100}), How{Of: "cpu", Per: 50})
	if tree.Total != 2 || tree.Unit != "nanoseconds" {
		t.Errorf("%v %s, want 2 nanoseconds", tree.Total, tree.Unit)
	}
}

func TestAProfileThatHasNoSuchValueSaysWhatItHas(t *testing.T) {
	if _, err := Read(bytes.NewReader(encode(t)), How{Of: "delay"}); err == nil || !strings.Contains(err.Error(), "samples, cpu") {
		t.Errorf("error %v", err)
	}
	if _, err := Read(strings.NewReader("<html>"), How{}); err == nil {
		t.Error("a page was taken for a profile")
	}
}

func TestSubtractLeavesWhatCameBetween(t *testing.T) {
	before := encode(t, made{stack: "a>b", v: 5}, made{stack: "a>c", v: 1})
	after := encode(t, made{stack: "a>b", v: 7}, made{stack: "a>c", v: 1}, made{stack: "a>d", v: 4})
	d, err := Subtract(after, before)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff("d 4/4\nb 2/2\n", show(read(t, d, How{Of: "cpu"}).Top(9))); d != "" {
		t.Error(d)
	}
}

func TestTheDifferenceNamesWhatGrewWhatShrankAndWhatIsGone(t *testing.T) {
	before := read(t, encode(t, made{stack: "a>b", v: 5000}, made{stack: "a>gone", v: 3000}), How{Of: "cpu"})
	after := read(t, encode(t, made{stack: "a>b", v: 1000}, made{stack: "a>new", v: 9000}), How{Of: "cpu"})
	var table, svg bytes.Buffer
	WriteDiff(&table, before, after, TopDiff(before, after, 9))
	want := "all cpu: 8µs before, 10µs after: +25.0 %\n\n" +
		"  own change       before        after   with calls\n" +
		"        +9µs           0s          9µs         +9µs  new\n" +
		"        -4µs          5µs          1µs         -4µs  b\n" +
		"        -3µs          3µs           0s         -3µs  gone\n"
	if d := cmp.Diff(want, table.String()); d != "" {
		t.Error(d)
	}
	if err := DrawDiff(&svg, before, after, "x"); err != nil {
		t.Fatal(err)
	}
	for why, part := range map[string]string{
		"what grew most is red":        `<title>new (9µs, was 0s: +9µs)</title><rect x="120.0" y="78" width="1080.0" height="16" fill="rgb(245,95,95)"/>`,
		"what shrank is blue":          `<title>b (1µs, was 5µs: -4µs)</title><rect x="0.0" y="78" width="120.0" height="16" fill="rgb(145,145,245)"/>`,
		"what both have keeps its sum": `<title>all (10µs, was 8µs: +2µs)</title>`,
	} {
		if !strings.Contains(svg.String(), part) {
			t.Errorf("%s: no %s in\n%s", why, part, svg.String())
		}
	}
}

// wellFormed fails the test if b is not XML, or asks for anything outside.
func wellFormed(t testing.TB, b []byte) {
	t.Helper()
	d := xml.NewDecoder(bytes.NewReader(b))
	for {
		tok, err := d.Token()
		if errors.Is(err, io.EOF) {
			return
		}
		if err != nil {
			t.Fatalf("not XML: %v\n%.400s", err, b)
		}
		if e, ok := tok.(xml.StartElement); ok {
			for _, a := range e.Attr {
				if a.Name.Local == "href" || a.Name.Local == "src" {
					t.Errorf("<%s> asks for %s: a graph needs nothing but itself", e.Name.Local, a.Value)
				}
			}
		}
	}
}

func TestAGraphIsAPictureByItself(t *testing.T) {
	for _, tt := range []struct {
		why string
		all []made
	}{
		{"nothing was counted", nil},
		{"names that mean something to XML", []made{{stack: "a<b>&]]>", v: 1}, {stack: "é\x01>\"", v: 2}}},
		{"thousands of frames too narrow to see", func() (all []made) {
			for i := range 5000 {
				all = append(all, made{stack: fmt.Sprintf("main.f%d>g", i), v: 1})
			}
			return append(all, made{stack: "wide", v: 1e6})
		}()},
	} {
		var svg bytes.Buffer
		if err := read(t, encode(t, tt.all...), How{Of: "cpu", ByStage: true}).Draw(&svg, "<&>"); err != nil {
			t.Fatal(err)
		}
		wellFormed(t, svg.Bytes())
		if n := svg.Len(); n > 16<<10 {
			t.Errorf("%s: %d bytes", tt.why, n)
		}
	}
}

func TestAmountsAreShort(t *testing.T) {
	for _, tt := range []struct {
		v    float64
		unit string
		want string
	}{
		{0, "nanoseconds", "0s"}, {.25, "nanoseconds", "0.2ns"}, {12_345_678, "nanoseconds", "12.35ms"},
		{-90e9, "nanoseconds", "-1m30s"}, {1536, "bytes", "1.50KiB"}, {12, "count", "12"}, {4_200_000, "count", "4.20M"},
	} {
		if got := Amount(tt.v, tt.unit); got != tt.want {
			t.Errorf("%v %s is %q, want %q", tt.v, tt.unit, got, tt.want)
		}
	}
}

// TestARealProfile reads what the runtime itself writes.
func TestARealProfile(t *testing.T) {
	defer func(was int) { runtime.MemProfileRate = was }(runtime.MemProfileRate)
	runtime.MemProfileRate = 1
	kept = make([]byte, 1<<20)
	runtime.GC()
	var b, svg bytes.Buffer
	if err := pprof.Lookup("heap").WriteTo(&b, 0); err != nil {
		t.Fatal(err)
	}
	tree := read(t, b.Bytes(), How{Of: "inuse_space"})
	found := false
	for _, r := range tree.Top(5) {
		found = found || strings.HasPrefix(r.Name, "flame.TestARealProfile") && r.Self >= 1<<20
	}
	if !found {
		tree.WriteTop(os.Stderr, tree.Top(5))
		t.Error("the mebibyte held here is not among what is held most")
	}
	if err := tree.Draw(&svg, "heap"); err != nil {
		t.Fatal(err)
	}
	wellFormed(t, svg.Bytes())
}

var kept []byte

// FuzzRead holds that whatever a server sends for a profile is drawn or
// refused.
func FuzzRead(f *testing.F) {
	f.Add(encode(f, made{stack: "a>b", stage: "db", v: 1}))
	f.Add([]byte("--- heapprofile: 1: 2 [3: 4] @"))
	f.Fuzz(func(t *testing.T, in []byte) {
		tree, err := Read(bytes.NewReader(in), How{ByStage: true})
		if err != nil {
			return
		}
		var svg bytes.Buffer
		if err := tree.Draw(&svg, "x"); err != nil {
			t.Fatal(err)
		}
		wellFormed(t, svg.Bytes())
	})
}

func ExampleRead() {
	var t testing.T
	b := encode(&t, made{stack: "main.main>main.work", v: 3e6}, made{stack: "main.main>main.rest", v: 1e6})
	tree, err := Read(bytes.NewReader(b), How{Of: "cpu"})
	if err != nil {
		panic(err)
	}
	tree.WriteTop(os.Stdout, tree.Top(1))
	// Output:
	//          own          with calls         of 4ms cpu
	//          3ms  75.0%          3ms  75.0%  main.work
}
