package main

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	"svcindex/index"
)

const cidOfNothing = "b3:af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262"

func TestStringsAreWrittenAsRFC8785Says(t *testing.T) {
	for _, tt := range []struct{ why, in, want string }{
		{"the RFC's own example, 3.2.2.2", "\u20ac$\u000f\u000aA'\u0042\u0022\u005c\\\"/", `"€$\u000f\nA'B\"\\\\\"/"`},
		{"two-letter escapes where there are any", "\b\t\n\v\f\r", `"\b\t\n\u000b\f\r"`},
		{"hex digits are lowercase", "\x00\x1a\x1f", `"\u0000\u001a\u001f"`},
		{"nothing else is escaped", "<>&/\x7f\u2028\u2029é😀", "\"<>&/\x7f\u2028\u2029é😀\""},
		{"empty", "", `""`},
	} {
		if got := string(appendString(nil, tt.in)); got != tt.want {
			t.Errorf("%s: got %s, want %s", tt.why, got, tt.want)
		}
	}
}

// FuzzAppendString holds ours to encoding/json: what we write it must read back.
func FuzzAppendString(f *testing.F) {
	f.Add("a\"\\\x00é")
	f.Fuzz(func(t *testing.T, s string) {
		s = strings.ToValidUTF8(s, "")
		var back string
		if err := json.Unmarshal(appendString(nil, s), &back); err != nil || back != s {
			t.Errorf("%q came back as %q, %v", s, back, err)
		}
	})
}

func TestFacetsAreOrderedByUTF16(t *testing.T) {
	var fs []facet
	for _, k := range []string{"\u20ac", "\r", "\ufb33", "1", "\U0001F600", "\u0080", "\u00f6"} {
		fs = append(fs, facet{key: k})
	}
	sortFacets(fs)
	var got []string
	for _, f := range fs {
		got = append(got, f.key)
	}
	// RFC 8785, 3.2.3. In UTF-8, U+FB33 would come before U+1F600.
	want := []string{"\r", "1", "\u0080", "\u00f6", "\u20ac", "\U0001F600", "\ufb33"}
	if !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestManifestGolden(t *testing.T) {
	c := index.Sum(nil)
	for _, tt := range []struct {
		why         string
		dirs, files [][]byte
		facets      []facet
		want        string
	}{
		{"empty", nil, nil, nil, `{"dirs":[],"files":[],"v":1}`},
		{"all of it", [][]byte{dirEntry("ünder", c)}, [][]byte{fileEntry("a\n\"b", 0, c), fileEntry("日本", 9007199254740991, c)},
			[]facet{{"a", "1"}, {"lang", "go"}},
			`{"dirs":[{"cid":"` + cidOfNothing + `","name":"ünder"}],"facets":{"a":"1","lang":"go"},` +
				`"files":[{"b3":"` + cidOfNothing + `","path":"a\n\"b","size":0},` +
				`{"b3":"` + cidOfNothing + `","path":"日本","size":9007199254740991}],"v":1}`},
	} {
		pages := paginate(tt.dirs, tt.files, tt.facets, pageMax)
		if len(pages) != 1 || string(pages[0].text) != tt.want || pages[0].cid != index.Sum([]byte(tt.want)) {
			t.Errorf("%s: got %s, want %s", tt.why, pages[0].text, tt.want)
		}
	}
}

// manyEntries returns enough entries for several pages.
func manyEntries(dirs, files int) (ds, fs [][]byte) {
	for i := range dirs {
		ds = append(ds, dirEntry(fmt.Sprintf("dir-%06d", i), index.Sum([]byte{byte(i)})))
	}
	for i := range files {
		fs = append(fs, fileEntry(fmt.Sprintf("file-%06d", i), int64(i), index.Sum([]byte{byte(i)})))
	}
	return ds, fs
}

// A whole is what a reader makes of a manifest, with its parts put together.
type whole struct {
	Dirs   []struct{ Name string }
	Files  []struct{ Path string }
	Facets map[string]string
	Parts  []string
}

// read puts the manifest cid together from pages.
func read(t *testing.T, pages []page, cid string) (w whole) {
	t.Helper()
	i := slices.IndexFunc(pages, func(p page) bool { return p.cid.String() == cid })
	if i < 0 {
		t.Fatalf("no page %s", cid)
	}
	if err := json.Unmarshal(pages[i].text, &w); err != nil {
		t.Fatal(err)
	}
	for _, part := range w.Parts {
		p := read(t, pages, part)
		w.Dirs, w.Files = append(w.Dirs, p.Dirs...), append(w.Files, p.Files...)
	}
	return w
}

func TestLongManifestsAreSplit(t *testing.T) {
	for _, tt := range []struct {
		why         string
		dirs, files int
		limit       int
		pages       int // at least
	}{
		{"as the DHT wants it", 3000, 6000, pageMax, 4},
		{"only files", 0, 5000, pageMax, 3},
		{"a list of lists of parts", 40, 60, 400, 40},
	} {
		ds, fs := manyEntries(tt.dirs, tt.files)
		facets := []facet{{"lang", "go"}}
		pages := paginate(ds, fs, facets, tt.limit)
		if len(pages) < tt.pages {
			t.Errorf("%s: %d pages, want at least %d", tt.why, len(pages), tt.pages)
		}
		for _, p := range pages {
			if len(p.text) > tt.limit {
				t.Errorf("%s: a page of %d bytes, %d are the most", tt.why, len(p.text), tt.limit)
			}
		}
		again := paginate(ds, fs, facets, tt.limit)
		if !slices.EqualFunc(pages, again, func(a, b page) bool { return a.cid == b.cid }) {
			t.Errorf("%s: the same entries were split in two ways", tt.why)
		}
		w := read(t, pages, pages[len(pages)-1].cid.String())
		if len(w.Dirs) != tt.dirs || len(w.Files) != tt.files || w.Facets["lang"] != "go" {
			t.Errorf("%s: %d dirs, %d files, facets %v came back", tt.why, len(w.Dirs), len(w.Files), w.Facets)
		}
		if !slices.IsSortedFunc(w.Files, func(a, b struct{ Path string }) int { return strings.Compare(a.Path, b.Path) }) {
			t.Errorf("%s: the order was lost", tt.why)
		}
	}
}

func TestAManifestOfExactlyTheLimitIsNotSplit(t *testing.T) {
	ds, fs := manyEntries(2, 2)
	n := len(appendManifest(nil, ds, nil, fs))
	if got := len(paginate(ds, fs, nil, n)); got != 1 {
		t.Errorf("%d pages, want 1", got)
	}
	if got := len(paginate(ds, fs, nil, n-1)); got < 3 {
		t.Errorf("one byte less: %d pages, want two parts and their list", got)
	}
}

func BenchmarkPaginate(b *testing.B) {
	ds, fs := manyEntries(3000, 6000)
	b.ReportAllocs()
	for b.Loop() {
		paginate(ds, fs, nil, pageMax)
	}
}
