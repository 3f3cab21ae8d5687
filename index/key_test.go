package index

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"strings"
	"testing"
)

const (
	hex64 = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
	selfy = "name:@" + hex64
)

func TestParseKey(t *testing.T) {
	for _, tt := range []struct {
		why, in string
		want    error
	}{
		{"a content id", "b3:" + hex64, nil},
		{"the content id of nothing but zeros is one, too", "b3:" + strings.Repeat("0", 64), nil},
		{"uppercase hex is malformed", "b3:" + strings.ToUpper(hex64), ErrCID},
		{"one uppercase digit is enough", "b3:" + hex64[:63] + "F", ErrCID},
		{"an uppercase scheme is no scheme", "B3:" + hex64, ErrKey},
		{"a digit short", "b3:" + hex64[:63], ErrCID},
		{"a digit long", "b3:" + hex64 + "0", ErrCID},
		{"g is no hex digit", "b3:" + hex64[:63] + "g", ErrCID},
		{"a space is no hex digit", "b3:" + hex64[:63] + " ", ErrCID},
		{"a byte over 127 is no hex digit", "b3:" + hex64[:63] + "\xff", ErrCID},
		{"a content id has a scheme", hex64, ErrKey},
		{"the scheme alone", "b3:", ErrCID},

		{"nothing", "", ErrKey},
		{"half a scheme", "name", ErrKey},
		{"another scheme", "b2:" + hex64, ErrKey},
		{"a scheme is case-sensitive", "Name:a", ErrKey},
		{"a name always carries its name:", "a/b", ErrKey},
		{"something before the scheme", " name:a", ErrKey},

		{"the shortest name", "name:a", nil},
		{"no name", "name:", ErrName},
		{"200 bytes are the most", "name:" + strings.Repeat("a", 200), nil},
		{"201 are too many", "name:" + strings.Repeat("a", 201), ErrName},
		{"and so are 300, which a byte cannot count", "name:" + strings.Repeat("a", 300), ErrName},
		{"the bytes of an honest name", "name:golang.org/x/tools~v1.2_3+incompatible-rc", nil},
		{"case matters, and both are allowed", "name:Ab", nil},

		{"segments", "name:a/b/c", nil},
		{"an empty first segment", "name:/a", ErrName},
		{"an empty last segment", "name:a/", ErrName},
		{"an empty segment between", "name:a//b", ErrName},
		{"nothing but a slash", "name:/", ErrName},
		{"one dot", "name:.", ErrName},
		{"two dots", "name:..", ErrName},
		{"three dots are a name", "name:...", nil},
		{"one dot first", "name:./a", ErrName},
		{"one dot between", "name:a/./b", ErrName},
		{"one dot last", "name:a/.", ErrName},
		{"two dots first", "name:../a", ErrName},
		{"two dots between", "name:a/../b", ErrName},
		{"two dots last", "name:a/..", ErrName},
		{"a dot and a letter", "name:.a/b..", nil},
		{"a name may look like a scheme, but for the colon", "name:name:a", ErrName},

		{"a self-certifying name", selfy + "/a", nil},
		{"with segments", selfy + "/a/b", nil},
		{"it fills a name to the last byte", selfy + "/" + strings.Repeat("a", 200-66), nil},
		{"and not one further", selfy + "/" + strings.Repeat("a", 200-65), ErrName},
		{"without a path", selfy, ErrSelfName},
		{"with an empty path", selfy + "/", ErrSelfName},
		{"with an empty segment in its path", selfy + "//a", ErrName},
		{"with two dots in its path", selfy + "/..", ErrName},
		{"its key is hex", "name:@" + hex64[:63] + "g/a", ErrSelfName},
		{"in lower case", "name:@" + strings.ToUpper(hex64) + "/a", ErrSelfName},
		{"of 64 digits, not 63", "name:@" + hex64[:63] + "/aa", ErrSelfName},
		{"nor 65", selfy + "0/a", ErrSelfName},
		{"@ alone", "name:@", ErrSelfName},
		{"@ opens the name, not a segment", "name:a/@" + hex64 + "/b", ErrSelfName},
		{"@ inside a segment", "name:a@b", ErrSelfName},
		{"@ last", "name:a@", ErrSelfName},
		{"a second @", selfy + "/a@b", ErrSelfName},
	} {
		k, err := ParseKey(tt.in)
		if !errors.Is(err, tt.want) {
			t.Errorf("%s: ParseKey(%.80q) says %v, want %v", tt.why, tt.in, err, tt.want)
		}
		b, berr := ParseKey([]byte(tt.in))
		if b != k || berr != err {
			t.Errorf("%s: ParseKey of the bytes differs from ParseKey of the string", tt.why)
		}
		if err != nil {
			if !k.IsZero() {
				t.Errorf("%s: a refused key is %q, want the zero Key", tt.why, k)
			}
			continue
		}
		if k.String() != tt.in {
			t.Errorf("%s: %q came back as %q", tt.why, tt.in, k)
		}
		if k.IsName() != strings.HasPrefix(tt.in, "name:") || k.IsSelfCertifying() != strings.HasPrefix(tt.in, "name:@") {
			t.Errorf("%s: %q is taken for the wrong kind of key", tt.why, tt.in)
		}
	}
}

func TestANameHoldsTheBytesOfTheGrammarAndNoOthers(t *testing.T) {
	const inside = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._~+/-"
	for c := range 256 {
		in := append(append([]byte("name:a"), byte(c)), 'z')
		if _, err := ParseKey(in); (err == nil) != (strings.IndexByte(inside, byte(c)) >= 0) {
			t.Errorf("byte %#x inside a segment: %v", c, err)
		}
		in = append([]byte("name:"), byte(c), 'z')
		if _, err := ParseKey(in); (err == nil) != (c != '/' && strings.IndexByte(inside, byte(c)) >= 0) {
			t.Errorf("byte %#x first: %v", c, err)
		}
	}
}

func TestACIDHoldsLowercaseHexAndNothingElse(t *testing.T) {
	for c := range 256 {
		for _, at := range []int{3, 4, CIDText - 1} {
			in := []byte("b3:" + hex64)
			in[at] = byte(c)
			if _, err := ParseCID(in); (err == nil) != (strings.IndexByte("0123456789abcdef", byte(c)) >= 0) {
				t.Errorf("byte %#x at %d: %v", c, at, err)
			}
		}
	}
}

func TestAnErrorNeverRepeatsTheKey(t *testing.T) {
	for _, in := range []string{"secretsecret", "b3:secretsecret", "name:secret secret", "name:@secretsecret"} {
		if _, err := ParseKey(in); err == nil || strings.Contains(err.Error(), "secret") {
			t.Errorf("ParseKey(%q) says %v", in, err)
		}
	}
}

func TestANameOf32BytesIsNotTheCIDOfThoseBytes(t *testing.T) {
	name, err := ParseKey("name:" + strings.Repeat("x", 32-len("name:")))
	if err != nil {
		t.Fatal(err)
	}
	cid := CIDKey(CID(name.Bytes()))
	if !bytes.Equal(cid.Bytes(), name.Bytes()) {
		t.Fatal("the test is wrong: the two should have the same bytes")
	}
	if cid == name {
		t.Error("the keys are equal")
	}
	if g := NewGenerations(); g.Hash(&cid) == g.Hash(&name) {
		t.Error("the keys have one hash")
	}
}

func TestKeysAreValues(t *testing.T) {
	for _, s := range []string{"b3:" + hex64, "name:a", selfy + "/a"} {
		a, _ := ParseKey(s)
		b, _ := ParseKey([]byte(s))
		if a != b || (map[Key]bool{a: true})[b] != true {
			t.Errorf("two keys of the text %q are not equal", s)
		}
	}
	long, _ := ParseKey("name:abc")
	short, _ := ParseKey("name:ab")
	if long == short {
		t.Error("a name equals its prefix")
	}
	var zero Key
	if !zero.IsZero() || zero.String() != "" || zero.IsName() || zero.IsSelfCertifying() {
		t.Errorf("the zero Key is %q, name %v; want nothing at all", zero, zero.IsName())
	}
	if k := CIDKey(CID{}); k.IsZero() || k == zero {
		t.Error("the content id of zeros is taken for no key")
	}
}

func TestACIDIsTextInJSON(t *testing.T) {
	c := Sum([]byte("abc"))
	const want = `"b3:6437b3ac38465133ffb63b75273a8db548c558465d79db03fd359c6cd5bd9d85"`
	b, err := json.Marshal(c)
	if err != nil || string(b) != want {
		t.Errorf("marshalled as %s, %v; want %s", b, err, want)
	}
	var back CID
	if err := json.Unmarshal(b, &back); err != nil || back != c {
		t.Errorf("came back as %v, %v", back, err)
	}
	if err := json.Unmarshal([]byte(strings.ToUpper(want)), &back); err == nil {
		t.Error("uppercase is accepted")
	}
	if back.UnmarshalText([]byte("b3:"+hex64[:62]+"zz")) == nil || back != (CID{}) {
		t.Error("a refused text leaves half a content id behind")
	}
}

func TestNewHashEndsWhereSumDoes(t *testing.T) {
	content := bytes.Repeat([]byte("0123456789"), 1000)
	h := NewHash()
	for len(content) > 0 {
		n := min(len(content), 777)
		h.Write(content[:n])
		content = content[n:]
	}
	want := Sum(bytes.Repeat([]byte("0123456789"), 1000))
	if got := h.Sum(nil); !bytes.Equal(got, want[:]) {
		t.Errorf("in pieces %x, at once %x", got, want)
	}
	if empty := Sum(nil); hex.EncodeToString(empty[:]) != "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262" {
		t.Errorf("the digest of nothing is %x, which is not BLAKE3's", empty)
	}
}

// FuzzParseKey holds the parser to its own printer: what it takes, it gives
// back unchanged; and to a grammar written down a second time, slowly.
func FuzzParseKey(f *testing.F) {
	for _, s := range []string{
		"b3:" + hex64, "name:a/b", selfy + "/a", "name:..", "name:a//b", "name:a@b", "name:", "b3:", "", "name:" + strings.Repeat("a", 201),
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		k, err := ParseKey(in)
		if (err == nil) != plainly(string(in)) {
			t.Fatalf("%q: ParseKey says %v, the grammar %v", in, err, plainly(string(in)))
		}
		if err != nil {
			return
		}
		if got := k.AppendText(nil); !bytes.Equal(got, in) {
			t.Fatalf("%q came back as %q", in, got)
		}
		if again, err := ParseKey(k.String()); err != nil || again != k {
			t.Fatalf("%q is not read as itself: %v", in, err)
		}
	})
}

// plainly is the grammar of section 1, in the most boring way.
func plainly(s string) bool {
	isHex := func(s string) bool {
		return len(s) == 64 && strings.Trim(s, "0123456789abcdef") == ""
	}
	if c, ok := strings.CutPrefix(s, "b3:"); ok {
		return isHex(c)
	}
	n, ok := strings.CutPrefix(s, "name:")
	if !ok || len(n) < 1 || len(n) > 200 {
		return false
	}
	segs := strings.Split(n, "/")
	if key, ok := strings.CutPrefix(segs[0], "@"); ok {
		if !isHex(key) || len(segs) < 2 {
			return false
		}
		segs = segs[1:]
	}
	for _, seg := range segs {
		if seg == "" || seg == "." || seg == ".." {
			return false
		}
		for _, c := range []byte(seg) {
			if !strings.Contains("._~+-0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz", string(rune(c))) {
				return false
			}
		}
	}
	return true
}

func TestParseKeyDoesNotAllocate(t *testing.T) {
	for _, s := range []string{"b3:" + hex64, "name:golang.org/x/tools", selfy + "/a", "name:a//b", "b3:no"} {
		text := []byte(s)
		if n := testing.AllocsPerRun(100, func() { _, _ = ParseKey(text) }); n != 0 {
			t.Errorf("ParseKey(%.20q) allocates %v times, want 0", s, n)
		}
	}
}

func TestAppendTextIntoRoomDoesNotAllocate(t *testing.T) {
	buf := make([]byte, 0, NameMax)
	for _, s := range []string{"b3:" + hex64, "name:golang.org/x/tools"} {
		k, _ := ParseKey(s)
		if n := testing.AllocsPerRun(100, func() { _ = k.AppendText(buf) }); n != 0 {
			t.Errorf("AppendText of %.20q allocates %v times, want 0", s, n)
		}
	}
}

func BenchmarkParseKey(b *testing.B) {
	for _, bb := range []struct{ name, text string }{
		{"cid", "b3:" + hex64},
		{"name", "name:golang.org/x/tools/gopls"},
		{"self-certifying", selfy + "/golang.org/x/tools"},
	} {
		b.Run(bb.name, func(b *testing.B) {
			b.ReportAllocs()
			text := []byte(bb.text)
			for b.Loop() {
				if _, err := ParseKey(text); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkSum(b *testing.B) {
	for _, bb := range []struct {
		name string
		size int
	}{{"300B", 300}, {"64KiB", 64 << 10}} {
		b.Run(bb.name, func(b *testing.B) {
			b.ReportAllocs()
			b.SetBytes(int64(bb.size))
			content := make([]byte, bb.size)
			for b.Loop() {
				Sum(content)
			}
		})
	}
}
