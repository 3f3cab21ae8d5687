package ram

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"svcindex/index"
)

func TestAnEntryComesBackWhole(t *testing.T) {
	for _, tt := range []struct {
		why string
		e   entry
	}{
		{"nothing in it", entry{}},
		{"everything in it", entry{
			flags: flagNegative | flagName, gen: 1<<32 - 1, filledAt: 1, freshUntil: 1 << 60, staleUntil: 1<<63 - 1,
			key: make([]byte, index.NameMax), page: []byte("page"), set: []byte("set"),
		}},
		{"a page and no set", entry{key: []byte("k"), page: []byte("page")}},
		{"a set and no page", entry{key: []byte("k"), set: []byte("set")}},
	} {
		b := tt.e.append(nil)
		got, ok := parse(b)
		if diff := cmp.Diff(tt.e, got, cmp.AllowUnexported(entry{}), cmpopts.EquateEmpty()); !ok || diff != "" {
			t.Errorf("%s: %v, %s", tt.why, ok, diff)
		}
		for n := range len(b) - len(tt.e.set) {
			if _, ok := parse(b[:n]); ok {
				t.Errorf("%s: the first %d bytes pass for an entry", tt.why, n)
			}
		}
	}
}

func TestAProviderSetComesBackWhole(t *testing.T) {
	for _, set := range [][]index.Provider{nil, someSet[:1], someSet} {
		b := encodeSet(nil, set)
		got, err := decodeSet(nil, b)
		if diff := cmp.Diff(set, got, cmpopts.EquateEmpty()); err != nil || diff != "" {
			t.Errorf("%d rows: %v, %s", len(set), err, diff)
		}
		for n := range len(b) {
			if _, err := decodeSet(nil, b[:n]); err == nil {
				t.Errorf("%d rows: the first %d of %d bytes pass for a set", len(set), n, len(b))
			}
		}
	}
}

// FuzzEntry: bytes that are no entry are refused, not read past.
func FuzzEntry(f *testing.F) {
	whole := entry{key: []byte("name:a"), page: []byte("page"), set: encodeSet(nil, someSet)}
	f.Add(whole.append(nil))
	f.Add([]byte{})
	f.Add(encodeSet(nil, someSet))
	f.Fuzz(func(t *testing.T, in []byte) {
		if e, ok := parse(in); ok {
			if again := e.append(nil); string(again) != string(in) {
				t.Fatalf("%x came back as %x", in, again)
			}
			_, _ = decodeSet(nil, e.set)
		}
		if set, err := decodeSet(nil, in); err == nil {
			if again, err := decodeSet(nil, encodeSet(nil, set)); err != nil || !cmp.Equal(set, again, cmpopts.EquateEmpty()) {
				t.Fatalf("%x is not read as itself: %v", in, err)
			}
		}
	})
}
