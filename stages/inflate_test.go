package stages

import (
	"bytes"
	"compress/gzip"
	"io"
	"math/rand/v2"
	"runtime"
	"strings"
	"testing"

	"svcindex/index"
)

// gzipped returns parts as a gzip body, a member each.
func gzipped(t testing.TB, parts ...string) []byte {
	t.Helper()
	var b bytes.Buffer
	for _, p := range parts {
		w := gzip.NewWriter(&b)
		if _, err := io.WriteString(w, p); err != nil {
			t.Fatal(err)
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
	}
	return b.Bytes()
}

// noise returns n bytes that do not compress.
func noise(n int) string {
	b := make([]byte, n)
	r := rand.NewChaCha8([32]byte{1})
	r.Read(b)
	return string(b)
}

// damaged returns b with one byte changed, counted from the end when at < 0.
func damaged(b []byte, at int) []byte {
	b = bytes.Clone(b)
	if at < 0 {
		at += len(b)
	}
	b[at] ^= 0xff
	return b
}

func TestInflate(t *testing.T) {
	usual := BodyLimit{Bytes: 1 << 20, Ratio: 10}
	zeros := func(n int) string { return strings.Repeat("\x00", n) }
	whole := gzipped(t, "hello")
	for _, tt := range []struct {
		why    string
		in     []byte
		lim    BodyLimit
		want   string
		kind   index.Kind
		reason string
	}{
		{"plain", whole, usual, "hello", index.OK, ""},
		{"nothing, well packed", gzipped(t, ""), usual, "", index.OK, ""},
		{"two members are one body", gzipped(t, "hel", "lo"), usual, "hello", index.OK, ""},
		{"an empty member between", gzipped(t, "hel", "", "lo"), usual, "hello", index.OK, ""},
		{"what does not compress", gzipped(t, noise(100_000)), usual, noise(100_000), index.OK, ""},

		{"a small body may grow over the ratio", gzipped(t, zeros(ratioFloor)), usual, zeros(ratioFloor), index.OK, ""},
		{"but not for ever", gzipped(t, zeros(ratioFloor+1)), usual, "", index.TooLarge, ReasonRatio},
		{"a bomb", gzipped(t, zeros(1<<20)), usual, "", index.TooLarge, ReasonRatio},
		{"a bomb without a ratio", gzipped(t, zeros(1<<20+1)), BodyLimit{Bytes: 1 << 20}, "", index.TooLarge, ReasonBody},
		{"to the byte", gzipped(t, zeros(1<<20)), BodyLimit{Bytes: 1 << 20}, zeros(1 << 20), index.OK, ""},
		{"what is over both limits is over the lower", gzipped(t, noise(2000), noise(2000)), BodyLimit{Bytes: 3000, Ratio: 10}, "", index.TooLarge, ReasonBody},
		{"no limit at all", gzipped(t, zeros(2<<20)), BodyLimit{}, zeros(2 << 20), index.OK, ""},
		{"a ratio alone", gzipped(t, zeros(2<<20)), BodyLimit{Ratio: 10}, "", index.TooLarge, ReasonRatio},
		{"members count together", gzipped(t, zeros(3000), zeros(3000)), usual, "", index.TooLarge, ReasonRatio},
		{"members count together for the body, too", gzipped(t, noise(600), noise(600)), BodyLimit{Bytes: 1000}, "", index.TooLarge, ReasonBody},
		{"damage behind the limit is not reached", damaged(gzipped(t, zeros(1<<20)), -1), usual, "", index.TooLarge, ReasonRatio},

		{"no bytes", nil, usual, "", index.Invalid, "not"},
		{"not gzip", []byte("hello"), usual, "", index.Invalid, "not"},
		{"a header cut short", whole[:9], usual, "", index.Invalid, "not"},
		{"a header alone", whole[:10], usual, "", index.Invalid, "cut short"},
		{"cut short inside", whole[:len(whole)-9], usual, "", index.Invalid, "cut short"},
		{"no trailer", whole[:len(whole)-8], usual, "", index.Invalid, "cut short"},
		{"half a trailer", whole[:len(whole)-1], usual, "", index.Invalid, "cut short"},
		{"a wrong checksum", damaged(whole, -8), usual, "", index.Invalid, "damaged"},
		{"a wrong length", damaged(whole, -1), usual, "", index.Invalid, "damaged"},
		{"a wrong checksum at exactly the limit", damaged(gzipped(t, zeros(5000)), -8), BodyLimit{Bytes: 5000}, "", index.Invalid, "damaged"},
		{"damage inside", damaged(gzipped(t, noise(1000)), 11), usual, "", index.Invalid, "damaged"},
		{"another method of compression", damaged(whole, 2), usual, "", index.Invalid, "not"},
		{"garbage behind", append(bytes.Clone(whole), "garbage"...), usual, "", index.Invalid, "damaged"},
		{"one byte behind", append(bytes.Clone(whole), 0), usual, "", index.Invalid, "damaged"},
		{"a damaged second member", append(bytes.Clone(whole), damaged(whole, -8)...), usual, "", index.Invalid, "damaged"},
		{"a second member cut short", append(bytes.Clone(whole), whole[:12]...), usual, "", index.Invalid, "cut short"},
	} {
		got, err := inflate(tt.in, tt.lim)
		if tt.kind != index.OK {
			checkRefusal(t, tt.why, err, tt.kind, tt.reason)
			if got != nil {
				t.Errorf("%s: refused, and yet %d bytes are given out", tt.why, len(got))
			}
			continue
		}
		if err != nil || string(got) != tt.want {
			t.Errorf("%s: %d bytes, %v; want %d", tt.why, len(got), err, len(tt.want))
		}
	}
}

// took returns how many bytes f allocates, whatever else of the process does
// meanwhile included: the least of a few.
func took(f func()) uint64 {
	least := ^uint64(0)
	for range 5 {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		f()
		runtime.ReadMemStats(&after)
		least = min(least, after.TotalAlloc-before.TotalAlloc)
	}
	return least
}

func TestABombCostsNoMoreThanItsLimit(t *testing.T) {
	const (
		window = 100 << 10 // compress/gzip's own
		start  = 64 << 10
	)
	bomb := gzipped(t, strings.Repeat("\x00", 4<<20))
	for _, tt := range []struct {
		why    string
		lim    BodyLimit
		reason string
		most   uint64
	}{
		{"a limit below the first buffer", BodyLimit{Bytes: 32 << 10}, ReasonBody, 32<<10 + window},
		{"as large as the first buffer", BodyLimit{Bytes: start}, ReasonBody, 2*start + window},
		{"the default, but the ratio", BodyLimit{Bytes: 1 << 20}, ReasonBody, start + 1<<20 + window},
		{"the default", BodyLimit{Bytes: 1 << 20, Ratio: 10}, ReasonRatio, 4*uint64(len(bomb)) + 10*uint64(len(bomb)) + window},
	} {
		n := took(func() {
			_, err := inflate(bomb, tt.lim)
			checkRefusal(t, tt.why, err, index.TooLarge, tt.reason)
		})
		if n > tt.most {
			t.Errorf("%s: refusing 4 MiB of zeros takes %d bytes, want at most %d", tt.why, n, tt.most)
		}
	}
}

// FuzzInflate holds inflate to compress/gzip: within the limits they take the
// same bodies and read the same bytes from them.
func FuzzInflate(f *testing.F) {
	f.Add(gzipped(f, "hello"), int64(1<<16), int64(10))
	f.Add(gzipped(f, "hel", "lo"), int64(4), int64(0))
	f.Add(gzipped(f, strings.Repeat("\x00", 10_000)), int64(0), int64(10))
	f.Add([]byte("no gzip"), int64(100), int64(2))
	f.Fuzz(func(t *testing.T, in []byte, most, ratio int64) {
		lim := BodyLimit{Bytes: 1 + most&0xffff, Ratio: ratio & 15}
		allowed := lim.Bytes
		if lim.Ratio > 0 {
			allowed = min(allowed, max(lim.Ratio*int64(len(in)), ratioFloor))
		}
		got, err := inflate(in, lim)
		want, wantErr := plainInflate(in, allowed+1)
		_, damage := plainInflate(in, 1<<26)
		switch {
		case int64(len(want)) > allowed:
			// What is damaged behind the limit may be called either.
			if k := index.KindOf(err); k != index.TooLarge && !(k == index.Invalid && damage != nil) {
				t.Fatalf("%x inflates to more than %d: %v", in, allowed, err)
			}
		case wantErr != nil:
			if index.KindOf(err) != index.Invalid {
				t.Fatalf("compress/gzip does not take %x (%v); we say %v", in, wantErr, err)
			}
		case err != nil || !bytes.Equal(got, want):
			t.Fatalf("%x: %d bytes, %v; compress/gzip reads %d", in, len(got), err, len(want))
		}
	})
}

func plainInflate(in []byte, most int64) ([]byte, error) {
	r, err := gzip.NewReader(bytes.NewReader(in))
	if err != nil {
		return nil, err
	}
	return io.ReadAll(io.LimitReader(r, most))
}

func BenchmarkInflate(b *testing.B) {
	b.ReportAllocs()
	body := gzipped(b, manyProviders(64))
	for b.Loop() {
		if _, err := inflate(body, BodyLimit{Bytes: 1 << 20, Ratio: 100}); err != nil {
			b.Fatal(err)
		}
	}
}
