package index

import (
	"bytes"
	"strings"
	"testing"
)

func signedExample() (Key, NameRecord) {
	name, _ := ParseKey("name:example/site")
	return name, NameRecord{
		CID: Sum([]byte("hello")), Seq: 7, IssuedAt: 1, ExpiresAt: 2,
		PubKey: bytes.Repeat([]byte{1}, PubKeySize), Sig: bytes.Repeat([]byte{2}, SigSize),
	}
}

func TestSignedNamesHaveOneForm(t *testing.T) {
	name, r := signedExample()
	good, err := MarshalSignedName(&name, &r)
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := UnmarshalSignedName(good); err != nil {
		t.Fatalf("our own: %v", err)
	}
	type loose struct {
		CID       []byte `cbor:"cid"`
		ExpiresAt uint64 `cbor:"expires_at"`
		IssuedAt  uint64 `cbor:"issued_at"`
		Name      string `cbor:"name"`
		PubKey    []byte `cbor:"pubkey"`
		Seq       uint64 `cbor:"seq"`
		Sig       []byte `cbor:"sig"`
		More      int    `cbor:"more,omitempty"`
	}
	base := loose{r.CID[:], 2, 1, "name:example/site", r.PubKey, 7, r.Sig, 0}
	for _, tt := range []struct {
		why    string
		change func(*loose)
	}{
		{"a field nobody knows", func(l *loose) { l.More = 1 }},
		{"a cid cut short", func(l *loose) { l.CID = l.CID[:31] }},
		{"a key cut short", func(l *loose) { l.PubKey = l.PubKey[:31] }},
		{"a signature that goes on", func(l *loose) { l.Sig = append(bytes.Clone(l.Sig), 0) }},
		{"no sequence", func(l *loose) { l.Seq = 0 }},
		{"a sequence past the highest", func(l *loose) { l.Seq = SeqMax + 1 }},
		{"a time that would wrap", func(l *loose) { l.ExpiresAt = 1 << 63 }},
		{"a content id for a name", func(l *loose) { l.Name = r.CID.String() }},
		{"no name at all", func(l *loose) { l.Name = "" }},
		{"a name that is none", func(l *loose) { l.Name = "name:a//b" }},
	} {
		l := base
		tt.change(&l)
		b, err := MarshalCBOR(l)
		if err != nil {
			t.Fatal(err)
		}
		if _, _, err := UnmarshalSignedName(b); err == nil {
			t.Errorf("%s: it is taken", tt.why)
		}
	}
	for why, b := range map[string][]byte{
		"nothing":             nil,
		"cut short":           good[:len(good)-1],
		"something behind it": append(bytes.Clone(good), 0),
		"seq in two bytes":    bytes.Replace(good, []byte("\x63seq\x07"), []byte("\x63seq\x18\x07"), 1),
		"too long":            []byte(strings.Repeat("x", SignedMax+1)),
	} {
		if _, _, err := UnmarshalSignedName(b); err == nil {
			t.Errorf("%s: it is taken", why)
		}
	}
}

func TestPublisherIsTheKeyInTheName(t *testing.T) {
	self, _ := ParseKey("name:@" + strings.Repeat("0a", 32) + "/x")
	if pub, ok := self.Publisher(); !ok || pub != [32]byte(bytes.Repeat([]byte{10}, 32)) {
		t.Errorf("Publisher = %x, %v", pub, ok)
	}
	for _, s := range []string{"name:x", Sum(nil).String()} {
		k, _ := ParseKey(s)
		if _, ok := k.Publisher(); ok {
			t.Errorf("%s has a publisher", s)
		}
	}
}

func FuzzUnmarshalSignedName(f *testing.F) {
	name, r := signedExample()
	good, _ := MarshalSignedName(&name, &r)
	f.Add(good)
	r.Deleted = true
	gone, _ := MarshalSignedName(&name, &r)
	f.Add(gone)
	f.Add([]byte{0xa0})
	f.Fuzz(func(t *testing.T, b []byte) {
		name, r, err := UnmarshalSignedName(b)
		if err != nil {
			return
		}
		if again, err := MarshalSignedName(&name, &r); err != nil || !bytes.Equal(again, b) {
			t.Errorf("%x is taken, and written as %x (%v)", b, again, err)
		}
	})
}
