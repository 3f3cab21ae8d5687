package auth

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"flag"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"svcindex/index"
)

var update = flag.Bool("update", false, "write testdata/names.json anew")

const vectorsFile = "testdata/names.json"

// A vector is one signed name as every implementation must make and judge it.
type vector struct {
	Why       string `json:"why"`
	Seed      string `json:"seed,omitempty"` // hex, of the private key; none where the record was tampered with
	PubKey    string `json:"pubkey"`         // base64url
	Name      string `json:"name"`
	CID       string `json:"manifest_cid"` // zeros: deleted
	Seq       uint64 `json:"seq"`
	IssuedAt  int64  `json:"issued_at"`
	ExpiresAt int64  `json:"expires_at"`
	Signed    string `json:"signed"` // hex, the bytes under the signature
	Sig       string `json:"sig"`    // base64url
	DHT       string `json:"dht"`    // hex, the record as nodes send it to each other
	Valid     bool   `json:"valid"`
}

func (v *vector) record(t *testing.T) (index.Key, index.NameRecord) {
	t.Helper()
	name, err := index.ParseKey(v.Name)
	if err != nil {
		t.Fatalf("%s: %v", v.Why, err)
	}
	cid, err := index.ParseCID(v.CID)
	if err != nil {
		t.Fatalf("%s: %v", v.Why, err)
	}
	return name, index.NameRecord{
		CID: cid, Seq: v.Seq, IssuedAt: v.IssuedAt, ExpiresAt: v.ExpiresAt, Deleted: cid == index.CID{},
		PubKey: unbase64(v.PubKey), Sig: unbase64(v.Sig),
	}
}

func unbase64(s string) []byte {
	b, err := base64.RawURLEncoding.DecodeString(s)
	if err != nil {
		panic(err)
	}
	return b
}

// makeVectors signs the good ones and spoils copies of the first, a field each.
func makeVectors(t *testing.T) (vs []vector) {
	self := hex.EncodeToString(ed25519.NewKeyFromSeed(unhex(specSeed)).Public().(ed25519.PublicKey))
	good := []vector{
		{Why: "a name that expires", Name: "name:example/site", CID: index.Sum([]byte("hello")).String(), Seq: 1, IssuedAt: 1_790_000_000, ExpiresAt: 1_792_592_000},
		{Why: "one that does not, at the highest sequence", Name: "name:a", CID: index.Sum(nil).String(), Seq: index.SeqMax},
		{Why: "a deletion", Name: "name:example/site", CID: index.CID{}.String(), Seq: 2, IssuedAt: 1_790_000_001, ExpiresAt: 1_792_592_000},
		{Why: "a self-certifying name", Name: "name:@" + self + "/x", CID: index.Sum([]byte("hello")).String(), Seq: 7, IssuedAt: 1, ExpiresAt: 4_000_000_000},
		{Why: "the longest name", Name: "name:" + strings.Repeat("n", 200), CID: index.Sum([]byte("hello")).String(), Seq: 3},
	}
	for _, v := range good {
		key := ed25519.NewKeyFromSeed(unhex(specSeed))
		name, r := v.record(t)
		SignName(key, &name, &r)
		v.Seed, v.Valid = specSeed, true
		vs = append(vs, v.filled(t, &name, &r))
	}
	spoil := func(why string, change func(*vector)) {
		v := vs[0]
		v.Why, v.Seed, v.Valid = why, "", false
		change(&v)
		name, r := v.record(t)
		vs = append(vs, v.filled(t, &name, &r))
	}
	other := ed25519.NewKeyFromSeed(bytes.Repeat([]byte{7}, 32)).Public().(ed25519.PublicKey)
	spoil("another name", func(v *vector) { v.Name = "name:example/site2" })
	spoil("another manifest", func(v *vector) { v.CID = index.Sum([]byte("hullo")).String() })
	spoil("a later sequence", func(v *vector) { v.Seq++ })
	spoil("issued at another time", func(v *vector) { v.IssuedAt++ })
	spoil("expires later", func(v *vector) { v.ExpiresAt++ })
	spoil("under another key", func(v *vector) { v.PubKey = FormatPublicKey(other) })
	spoil("a bit of the signature is flipped", func(v *vector) {
		s := unbase64(v.Sig)
		s[10] ^= 1
		v.Sig = base64.RawURLEncoding.EncodeToString(s)
	})
	spoil("a key of small order, which anybody can sign for", func(v *vector) {
		neutral := append([]byte{1}, make([]byte, 31)...)
		v.PubKey = FormatPublicKey(neutral)
		v.Sig = base64.RawURLEncoding.EncodeToString(append(neutral, make([]byte, 32)...))
	})
	return vs
}

func (v vector) filled(t *testing.T, name *index.Key, r *index.NameRecord) vector {
	t.Helper()
	b, err := index.MarshalSignedName(name, r)
	if err != nil {
		t.Fatal(err)
	}
	v.PubKey, v.Sig = FormatPublicKey(r.PubKey), base64.RawURLEncoding.EncodeToString(r.Sig)
	v.Signed, v.DHT = hex.EncodeToString(index.AppendSigned(nil, name, r)), hex.EncodeToString(b)
	return v
}

func TestVectorsAreWhatWeSignAndHowWeJudge(t *testing.T) {
	made := makeVectors(t)
	text, err := json.MarshalIndent(made, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	text = append(text, '\n')
	if *update {
		if err := os.WriteFile(vectorsFile, text, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	kept, err := os.ReadFile(vectorsFile)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(kept, text) {
		t.Errorf("what we make is not what %s holds: other implementations would no longer agree with us", vectorsFile)
	}
	var vs []vector
	if err := json.Unmarshal(kept, &vs); err != nil {
		t.Fatal(err)
	}
	for _, v := range vs {
		name, r := v.record(t)
		if err := VerifyName(&name, &r); (err == nil) != v.Valid {
			t.Errorf("%s: %v, want valid = %v", v.Why, err, v.Valid)
		}
		name2, r2, err := index.UnmarshalSignedName(unhex(v.DHT))
		if err != nil || name2 != name || !bytes.Equal(r2.Sig, r.Sig) || !bytes.Equal(r2.PubKey, r.PubKey) ||
			r2.CID != r.CID || r2.Seq != r.Seq || r2.IssuedAt != r.IssuedAt || r2.ExpiresAt != r.ExpiresAt || r2.Deleted != r.Deleted {
			t.Errorf("%s: the bytes between nodes say %v %+v (%v)", v.Why, name2, r2, err)
		}
	}
}

func TestTheSignedBytesAreThoseOfTheSpecification(t *testing.T) {
	name, _ := index.ParseKey("name:ab")
	r := index.NameRecord{CID: index.CID{31: 9}, Seq: 0x0102, IssuedAt: 3, ExpiresAt: 4}
	want := "svc-index/name/v1\x00" + "\x00\x07" + "name:ab" + strings.Repeat("\x00", 31) + "\x09" +
		"\x00\x00\x00\x00\x00\x00\x01\x02" + "\x00\x00\x00\x00\x00\x00\x00\x03" + "\x00\x00\x00\x00\x00\x00\x00\x04"
	if got := string(index.AppendSigned(nil, &name, &r)); got != want {
		t.Errorf("signed are %q, want %q", got, want)
	}
	r.Deleted = true
	if got := index.AppendSigned(nil, &name, &r); bytes.Contains(got, []byte{9}) {
		t.Error("a deletion is signed with the cid it had, want zeros")
	}
}

func TestAKeyThatAnybodyCanSignForIsNobodys(t *testing.T) {
	name, _ := index.ParseKey("name:a")
	for i, y := range smallOrder {
		for _, sign := range []byte{0, 0x80} {
			key := y
			key[31] |= sign
			if !everybodys(key[:]) {
				t.Errorf("point %d, sign %x, passes", i, sign)
			}
		}
	}
	// With the neutral element as key, S = 0 and R neutral satisfy the
	// equation whatever is signed: without our check the library says yes.
	neutral := append([]byte{1}, make([]byte, 31)...)
	r := index.NameRecord{Seq: 1, PubKey: neutral, Sig: append(bytes.Clone(neutral), make([]byte, 32)...)}
	if !ed25519.Verify(r.PubKey, index.AppendSigned(nil, &name, &r), r.Sig) {
		t.Error("the library refuses it now: our own check could go")
	}
	if VerifyName(&name, &r) == nil {
		t.Error("it is accepted")
	}
	for range 100 {
		pub, _, _ := ed25519.GenerateKey(rand.Reader)
		if everybodys(pub) {
			t.Fatalf("an honest key is refused: %x", pub)
		}
	}
}

var (
	keyA = ed25519.NewKeyFromSeed(bytes.Repeat([]byte{1}, 32))
	keyB = ed25519.NewKeyFromSeed(bytes.Repeat([]byte{2}, 32))
	keyC = ed25519.NewKeyFromSeed(bytes.Repeat([]byte{3}, 32))
)

func public(k ed25519.PrivateKey) ed25519.PublicKey { return k.Public().(ed25519.PublicKey) }

func hexKey(k ed25519.PrivateKey) string { return hex.EncodeToString(public(k)) }

func trust(t *testing.T) *Trust {
	t.Helper()
	tr, err := NewTrust(map[string][]string{
		"name:go":     {hexKey(keyA), FormatPublicKey(public(keyB))},
		"name:go/sub": {hexKey(keyC)},
	})
	if err != nil {
		t.Fatal(err)
	}
	return tr
}

func TestTheNearestPrefixSaysWhoIsTrusted(t *testing.T) {
	tr := trust(t)
	all, err := NewTrust(map[string][]string{"name:": {hexKey(keyB)}})
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		why   string
		trust *Trust
		name  string
		want  []ed25519.PrivateKey
	}{
		{"the prefix itself, in the order of the file", tr, "name:go", []ed25519.PrivateKey{keyA, keyB}},
		{"below it", tr, "name:go/x/y", []ed25519.PrivateKey{keyA, keyB}},
		{"a word that only begins alike", tr, "name:gopher", nil},
		{"the longer prefix counts alone", tr, "name:go/sub/x", []ed25519.PrivateKey{keyC}},
		{"and not for its neighbour", tr, "name:go/subs", []ed25519.PrivateKey{keyA, keyB}},
		{"nobody's", tr, "name:other", nil},
		{"case counts", tr, "name:Go", nil},
		{"a content id", tr, index.Sum(nil).String(), nil},
		{"a self-certifying name has the key it carries", tr, "name:@" + hexKey(keyC) + "/go", []ed25519.PrivateKey{keyC}},
		{"also when nobody is trusted", nil, "name:@" + hexKey(keyC) + "/go", []ed25519.PrivateKey{keyC}},
		{"and when all names are somebody's", all, "name:@" + hexKey(keyC) + "/go", []ed25519.PrivateKey{keyC}},
		{"name: alone is every other name", all, "name:x/y", []ed25519.PrivateKey{keyB}},
		{"trusting nobody", nil, "name:go", nil},
	} {
		k, err := index.ParseKey(tt.name)
		if err != nil {
			t.Fatal(err)
		}
		got := tt.trust.TrustedKeys(&k)
		ok := len(got) == len(tt.want)
		for i := range tt.want {
			ok = ok && got[i].Equal(public(tt.want[i]))
		}
		if !ok {
			t.Errorf("%s: %s may be signed by %x", tt.why, tt.name, got)
		}
		if tt.trust.Covers(&k) != (len(tt.want) > 0) {
			t.Errorf("%s: Covers(%s) is not what TrustedKeys says", tt.why, tt.name)
		}
		if n := testing.AllocsPerRun(10, func() { tt.trust.Covers(&k) }); n > 0 {
			t.Errorf("Covers allocates %v times", n)
		}
	}
}

func TestVerifyBelievesOnlyWhoMaySpeak(t *testing.T) {
	tr := trust(t)
	sign := func(key ed25519.PrivateKey) func(*index.Key, *index.NameRecord) {
		return func(k *index.Key, r *index.NameRecord) { SignName(key, k, r) }
	}
	for _, tt := range []struct {
		why, name string
		sign      func(*index.Key, *index.NameRecord)
		want      error
	}{
		{"a listed key", "name:go/x", sign(keyA), nil},
		{"the second listed key", "name:go/x", sign(keyB), nil},
		{"a key of another prefix", "name:go/x", sign(keyC), ErrUntrusted},
		{"the key of the prefix above", "name:go/sub/x", sign(keyA), ErrUntrusted},
		{"nobody's signature", "name:go/x", func(*index.Key, *index.NameRecord) {}, ErrUnsigned},
		{"a free name needs none", "name:free", func(*index.Key, *index.NameRecord) {}, nil},
		{"a free name may have one", "name:free", sign(keyC), nil},
		{"but not a false one", "name:free", func(k *index.Key, r *index.NameRecord) {
			SignName(keyC, k, r)
			r.Seq++
		}, ErrSignature},
		{"a signature cut short", "name:go/x", func(k *index.Key, r *index.NameRecord) {
			SignName(keyA, k, r)
			r.Sig = r.Sig[:63]
		}, ErrForm},
		{"a key without a signature", "name:go/x", func(k *index.Key, r *index.NameRecord) { r.PubKey = public(keyA) }, ErrForm},
		{"a self-certifying name by its key", "name:@" + hexKey(keyC) + "/x", sign(keyC), nil},
		{"by a listed key", "name:@" + hexKey(keyC) + "/x", sign(keyA), ErrUntrusted},
		{"by nobody", "name:@" + hexKey(keyC) + "/x", func(*index.Key, *index.NameRecord) {}, ErrUnsigned},
		{"signed for another name", "name:go/x", func(k *index.Key, r *index.NameRecord) {
			other, _ := index.ParseKey("name:go/y")
			SignName(keyA, &other, r)
		}, ErrSignature},
	} {
		k, err := index.ParseKey(tt.name)
		if err != nil {
			t.Fatal(err)
		}
		r := index.NameRecord{CID: index.Sum(nil), Seq: 3, IssuedAt: 1, ExpiresAt: 2}
		tt.sign(&k, &r)
		if err := tr.Verify(&k, &r); !errors.Is(err, tt.want) {
			t.Errorf("%s: %v, want %v", tt.why, err, tt.want)
		}
	}
}

func TestNewTrustSaysWhatIsWrongAndWhatToDo(t *testing.T) {
	good := hexKey(keyA)
	for _, tt := range []struct {
		why, prefix string
		keys        []string
		want        string
	}{
		{"no name", "go", []string{good}, "name:"},
		{"a content id", index.Sum(nil).String(), []string{good}, "its own proof"},
		{"a slash at the end", "name:go/", []string{good}, "leave out the slash"},
		{"a self-certifying name", "name:@" + good + "/x", []string{good}, "carries its key"},
		{"nobody", "name:go", nil, "found 0 keys, expected 1 to 4"},
		{"too many", "name:go", []string{good, good, good, good, good}, "found 5 keys"},
		{"one twice, in two spellings", "name:go", []string{good, FormatPublicKey(public(keyA))}, "listed twice"},
		{"hex cut short", "name:go", []string{good[:63]}, "43 characters"},
		{"not base64url", "name:go", []string{strings.Repeat("+", 43)}, "43 characters"},
		{"with padding", "name:go", []string{FormatPublicKey(public(keyA)) + "="}, "43 characters"},
		{"small order", "name:go", []string{"01" + strings.Repeat("00", 31)}, "small order"},
	} {
		if _, err := NewTrust(map[string][]string{tt.prefix: tt.keys}); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v, want it to say %q", tt.why, err, tt.want)
		}
	}
}

func FuzzParsePublicKey(f *testing.F) {
	f.Add(hexKey(keyA))
	f.Add(FormatPublicKey(public(keyA)))
	f.Add("01" + strings.Repeat("00", 31))
	f.Fuzz(func(t *testing.T, text string) {
		key, err := ParsePublicKey(text)
		if err != nil {
			return
		}
		if again, err := ParsePublicKey(FormatPublicKey(key)); err != nil || !again.Equal(key) {
			t.Errorf("%q is read as %x, which is written as something else (%v)", text, key, err)
		}
	})
}

func TestPublisherKeysAreMadeOnceAndReadBack(t *testing.T) {
	path := filepath.Join(t.TempDir(), "publisher.key")
	pub, err := NewPublisherKey(path)
	if err != nil {
		t.Fatal(err)
	}
	if m := mode(t, path); m != secretMode {
		t.Errorf("mode %04o, want %04o", m, secretMode)
	}
	key, err := PublisherKey(path)
	if err != nil || !public(key).Equal(pub) {
		t.Errorf("read back: %v", err)
	}
	if _, err := NewPublisherKey(path); !errors.Is(err, fs.ErrExist) || !strings.Contains(err.Error(), "another file") {
		t.Errorf("a second key in its place: %v", err)
	}
	again, err := PublisherKey(path)
	if err != nil || !again.Equal(key) {
		t.Errorf("the first key is gone: %v", err)
	}
	text, _ := os.ReadFile(path)
	spoilt := bytes.Replace(text, []byte(FormatPublicKey(pub)), []byte(FormatPublicKey(public(keyA))), 1)
	if err := os.WriteFile(path, spoilt, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := PublisherKey(path); err == nil || !strings.Contains(err.Error(), "another key") {
		t.Errorf("a key under another's line: %v", err)
	}
	if err := os.Chmod(path, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := PublisherKey(path); err == nil || !strings.Contains(err.Error(), "chmod 600") {
		t.Errorf("a key that others can read: %v", err)
	}
}
