package auth

import (
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
	"gopkg.in/macaroon.v2"

	"svcindex/index"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const node = "12D3KooWTest"

var noon = time.Unix(1_790_000_000, 0)

func newRing(t testing.TB) *Keyring {
	t.Helper()
	k, err := OpenKeyring(filepath.Join(t.TempDir(), KeysFile), true)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func (k *Keyring) mint(t testing.TB, w Wish, now time.Time) string {
	t.Helper()
	if w.Aud == "" {
		w.Aud = node
	}
	if w.Life == 0 {
		w.Life = LifeDefault
	}
	token, _, err := k.Mint(w, now)
	if err != nil {
		t.Fatal(err)
	}
	return token
}

// signed signs what Mint would not.
func (k *Keyring) signed(t testing.TB, id string, caveats ...string) string {
	t.Helper()
	key := &k.now.Load().live[0]
	m, err := macaroon.New(key.secret, []byte(id), "", macaroon.V2)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range caveats {
		_ = m.AddFirstPartyCaveat([]byte(c))
	}
	b, err := m.MarshalBinary()
	if err != nil {
		t.Fatal(err)
	}
	return tokenText.EncodeToString(b)
}

func (k *Keyring) goodID() string {
	return k.now.Load().live[0].id + "." + strings.Repeat("0", nonceLen)
}

// recoded takes a token apart and lets f put it together in another way.
func recoded(t testing.TB, token string, f func(*macaroon.Macaroon) []byte) string {
	t.Helper()
	b, err := tokenText.DecodeString(token)
	if err != nil {
		t.Fatal(err)
	}
	var m macaroon.Macaroon
	if err := m.UnmarshalBinary(b); err != nil {
		t.Fatal(err)
	}
	return tokenText.EncodeToString(f(&m))
}

func claim(token string, now time.Time) *index.Claim {
	return &index.Claim{Authorization: []byte("Bearer " + token), Method: index.MethodPut,
		Path: []byte("/names/name:go/x"), Want: index.ScopeWrite, Now: now}
}

func TestGuardJudges(t *testing.T) {
	ring := newRing(t)
	g := NewGuard(ring, node)
	write := Wish{Scope: index.ScopeWrite}
	good := ring.mint(t, write, noon)
	exp := fmt.Sprint("exp=", noon.Unix()+60)
	narrowed := func(caveats ...string) string {
		token, err := Narrow(good, caveats...)
		if err != nil {
			t.Fatal(err)
		}
		return token
	}
	// appended adds caveats without asking whether they narrow, as anybody can.
	appended := func(caveats ...string) string {
		return recoded(t, good, func(m *macaroon.Macaroon) []byte {
			for _, c := range caveats {
				_ = m.AddFirstPartyCaveat([]byte(c))
			}
			b, _ := m.MarshalBinary()
			return b
		})
	}
	raw, _ := tokenText.DecodeString(good)
	other := newRing(t)
	for _, tt := range []struct {
		why, token string
		want       index.Access
	}{
		{"as it was minted", good, index.Granted},
		{"with two scopes", ring.mint(t, Wish{Scope: index.ScopeWrite | index.ScopeAdmin}, noon), index.Granted},
		{"with another scope", ring.mint(t, Wish{Scope: index.ScopeRead}, noon), index.Unscoped},
		{"admin does not imply write", ring.mint(t, Wish{Scope: index.ScopeAdmin}, noon), index.Unscoped},
		{"for this method", ring.mint(t, Wish{Scope: index.ScopeWrite, Methods: []index.Method{index.MethodDelete, index.MethodPut}}, noon), index.Granted},
		{"for another method", ring.mint(t, Wish{Scope: index.ScopeWrite, Methods: []index.Method{index.MethodPost}}, noon), index.OutOfPlay},
		{"for this path", ring.mint(t, Wish{Scope: index.ScopeWrite, Paths: []string{"/names/name:go/x"}}, noon), index.Granted},
		{"for paths that begin so", ring.mint(t, Wish{Scope: index.ScopeWrite, Paths: []string{"/names/name:go/*"}}, noon), index.Granted},
		{"for another path", ring.mint(t, Wish{Scope: index.ScopeWrite, Paths: []string{"/names/name:go"}}, noon), index.OutOfPlay},
		{"all paths must match", ring.mint(t, Wish{Scope: index.ScopeWrite, Paths: []string{"/names/*", "/manifests"}}, noon), index.OutOfPlay},
		{"narrowed by whoever held it", narrowed("path=/names/*", "method=PUT", exp), index.Granted},
		{"narrowed too far", narrowed("path=/providers/*"), index.OutOfPlay},

		{"ended", ring.mint(t, write, noon.Add(-LifeDefault)), index.Denied},
		{"narrowed to an end that is past", narrowed(fmt.Sprint("exp=", noon.Unix())), index.Denied},
		{"longer than any may live", ring.signed(t, ring.goodID(), "scope=index.write", fmt.Sprint("exp=", noon.Add(LifeMax+2*lifeSlack).Unix()), "aud="+node), index.Denied},
		{"for another node", ring.mint(t, Wish{Scope: index.ScopeWrite, Aud: "other"}, noon), index.Denied},
		{"for two nodes", appended("aud=other"), index.Denied},
		{"under a key we have not got", other.mint(t, write, noon), index.Denied},
		{"under our key's id and another secret", recoded(t, other.mint(t, write, noon), func(m *macaroon.Macaroon) []byte {
			return []byte(strings.Replace(string(must(m.MarshalBinary())), string(m.Id()), ring.goodID(), 1))
		}), index.Denied},
		{"widened by another scope", appended("scope=index.admin,index.write"), index.Denied},
		{"widened by a later end", appended("exp=1890000000"), index.Denied},
		{"with an unknown caveat", appended("color=blue"), index.Denied},
		{"with a caveat that is no pair", appended("sesame"), index.Denied},
		{"with an empty caveat", appended(""), index.Denied},
		{"with a caveat of no value", appended("path="), index.Denied},
		{"with a caveat twice", appended("path=/names/*", "path=/names/*"), index.Denied},
		{"with a scope that is not one", appended("scope=index.everything"), index.Denied},
		{"with a number in another form", appended("exp=+1790000001"), index.Denied},
		{"without caveats", ring.signed(t, ring.goodID()), index.Denied},
		{"without a scope", ring.signed(t, ring.goodID(), exp, "aud="+node), index.Denied},
		{"without an end", ring.signed(t, ring.goodID(), "scope=index.write", "aud="+node), index.Denied},
		{"without a node", ring.signed(t, ring.goodID(), "scope=index.write", exp), index.Denied},
		{"under an id of another shape", ring.signed(t, ring.now.Load().live[0].id, "scope=index.write", exp, "aud="+node), index.Denied},
		{"with the last caveat cut off", recoded(t, narrowed("method=DELETE"), func(m *macaroon.Macaroon) []byte {
			return []byte(strings.Replace(string(must(m.MarshalBinary())), "\x02\rmethod=DELETE\x00", "", 1))
		}), index.Denied},
		{"with a bit flipped", good[:40] + flipped(good[40]) + good[41:], index.Denied},
		{"truncated", good[:len(good)-4], index.Denied},
		{"with something behind it", tokenText.EncodeToString(append(raw, 0)), index.Denied},
		{"twice", tokenText.EncodeToString(append(raw, raw...)), index.Denied},
		{"padded", base64.URLEncoding.EncodeToString(raw) + "=", index.Denied},
		{"broken over lines", good[:20] + "\n" + good[20:], index.Denied},
		{"with a location, which nobody signed", recoded(t, good, func(m *macaroon.Macaroon) []byte {
			m.SetLocation("http://x/")
			return must(m.MarshalBinary())
		}), index.Denied},
		{"with a third-party caveat", recoded(t, good, func(m *macaroon.Macaroon) []byte {
			_ = m.AddThirdPartyCaveat([]byte("k"), []byte("scope=index.write"), "x")
			return must(m.MarshalBinary())
		}), index.Denied},
		{"as V1", asV1(t, ring, noon), index.Denied},
		{"as JSON", recoded(t, good, func(m *macaroon.Macaroon) []byte { return must(m.MarshalJSON()) }), index.Denied},
		{"as bare JSON", string(mustJSON(t, good)), index.Denied},
		{"with 33 caveats", appended(numbered(30)...), index.Denied},
		{"with 32 caveats", appended(numbered(29)...), index.OutOfPlay},
		{"over 4 KiB", appended("path=/" + strings.Repeat("x", tokenMax)), index.Denied},
		{"nothing", "", index.Denied},
		{"a word", "wrong", index.Denied},
	} {
		for range 2 { // the second time it may be remembered
			c := claim(tt.token, noon)
			if got := g.Judge(c); got.Access != tt.want || (got.Who == "") != (tt.want == index.Denied) {
				t.Errorf("%s: %+v, want %v", tt.why, got, tt.want)
			}
		}
	}
	for _, field := range []string{good, "Basic " + good, "Bearer" + good, "Bearer  " + good, "bearer", ""} {
		if got := g.Judge(&index.Claim{Authorization: []byte(field), Want: index.ScopeWrite, Now: noon}); got.Access != index.Denied {
			t.Errorf("field %.12q: %+v", field, got)
		}
	}
	if got := g.Judge(&index.Claim{Authorization: []byte("bEARER " + good), Want: index.ScopeWrite, Now: noon}); got.Access != index.Granted {
		t.Errorf("a scheme has no case: %+v", got)
	}
}

func must(b []byte, err error) []byte {
	if err != nil {
		panic(err)
	}
	return b
}

func mustJSON(t *testing.T, token string) (b []byte) {
	recoded(t, token, func(m *macaroon.Macaroon) []byte { b = must(m.MarshalJSON()); return b })
	return b
}

func asV1(t *testing.T, k *Keyring, now time.Time) string {
	t.Helper()
	m, err := macaroon.New(k.now.Load().live[0].secret, []byte(k.goodID()), "", macaroon.V1)
	if err != nil {
		t.Fatal(err)
	}
	w := Wish{Scope: index.ScopeWrite, Life: time.Minute, Aud: node}
	for _, c := range w.caveats(now) {
		_ = m.AddFirstPartyCaveat([]byte(c))
	}
	return tokenText.EncodeToString(must(m.MarshalBinary()))
}

func flipped(c byte) string {
	if c == 'A' {
		return "B"
	}
	return "A"
}

func numbered(n int) (cs []string) {
	for i := range n {
		cs = append(cs, fmt.Sprintf("path=/%d", i))
	}
	return cs
}

// What was found good once is judged anew in everything that can change.
func TestATokenThatIsRememberedStillEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ring := newRing(t)
		g := NewGuard(ring, node)
		token := ring.mint(t, Wish{Scope: index.ScopeWrite, Life: time.Minute}, time.Now())
		access := func() index.Access { return g.Judge(claim(token, time.Now())).Access }
		if a := access(); a != index.Granted {
			t.Fatalf("at first: %v", a)
		}
		time.Sleep(59 * time.Second)
		if a := access(); a != index.Granted {
			t.Errorf("after 59 s: %v", a)
		}
		time.Sleep(time.Second)
		if a := access(); a != index.Denied {
			t.Errorf("after 60 s: %v", a)
		}
	})
	ring := newRing(t)
	g := NewGuard(ring, node)
	token := ring.mint(t, Wish{Scope: index.ScopeWrite}, noon)
	d, _ := Inspect(token)
	if a := g.Judge(claim(token, noon)); a.Access != index.Granted || a.Who != d.ID {
		t.Fatalf("at first: %+v", a)
	}
	if err := Revoke(ring.path, d.ID, noon, noon.Add(time.Hour)); err != nil {
		t.Fatal(err)
	}
	if a := g.Judge(claim(token, noon)); a.Access != index.Granted {
		t.Errorf("before the keys are reloaded: %+v", a)
	}
	if err := ring.Reload(); err != nil {
		t.Fatal(err)
	}
	if a := g.Judge(claim(token, noon)); a.Access != index.Denied {
		t.Errorf("revoked: %+v", a)
	}
	less, err := Narrow(token, "method=PUT")
	if err != nil {
		t.Fatal(err)
	}
	if a := g.Judge(claim(less, noon)); a.Access != index.Denied {
		t.Errorf("narrowed from one that is revoked: %+v", a)
	}
	if a := g.Judge(claim(ring.mint(t, Wish{Scope: index.ScopeWrite}, noon), noon)); a.Access != index.Granted {
		t.Errorf("another under the same key: %+v", a)
	}
}

func TestWhatIsRememberedIsBounded(t *testing.T) {
	ring := newRing(t)
	g := NewGuard(ring, node)
	token := ring.mint(t, Wish{Scope: index.ScopeWrite}, noon)
	for i := range heldMost + 100 {
		less, err := Narrow(token, fmt.Sprintf("exp=%d", noon.Unix()+60+int64(i)%200), fmt.Sprintf("path=/%d*", i))
		if err != nil {
			t.Fatal(err)
		}
		g.Judge(claim(less, noon))
		g.Judge(claim(less[:len(less)-1]+flipped(less[len(less)-1]), noon))
	}
	if n := len(g.held); n != heldMost {
		t.Errorf("%d tokens are held, want %d", n, heldMost)
	}
}

func TestRotation(t *testing.T) {
	ring := newRing(t)
	g := NewGuard(ring, node)
	now := time.Now()
	write := Wish{Scope: index.ScopeWrite}
	first := ring.mint(t, write, now)
	rotate := func(at time.Time, force bool) (string, error) {
		_, dropped, err := Rotate(ring.path, at, RotateGrace, force)
		return dropped, err
	}
	if dropped, err := rotate(now, false); dropped != "" || err != nil {
		t.Fatalf("the first rotation dropped %q: %v", dropped, err)
	}
	if err := ring.Reload(); err != nil {
		t.Fatal(err)
	}
	early := ring.mint(t, write, now.Add(RotateGrace/2))
	late := ring.mint(t, write, now.Add(2*RotateGrace))
	keyOf := func(token string) string { d, _ := Inspect(token); return d.Key }
	if keyOf(early) != keyOf(first) || keyOf(late) == keyOf(first) {
		t.Errorf("keys %s, %s, %s: a new key signs only when its time has come", keyOf(first), keyOf(early), keyOf(late))
	}
	for _, token := range []string{first, early, late} {
		if a := g.Judge(claim(token, now.Add(time.Minute))); a.Access != index.Granted {
			t.Errorf("under %s: %+v", keyOf(token), a)
		}
	}
	if _, err := rotate(now.Add(time.Minute), false); err == nil || !strings.Contains(err.Error(), "--force") {
		t.Errorf("a second rotation at once: %v", err)
	}
	if dropped, err := rotate(now.Add(time.Hour), false); dropped != keyOf(first) || err != nil {
		t.Errorf("the second rotation dropped %q: %v", dropped, err)
	}
	if err := ring.Reload(); err != nil {
		t.Fatal(err)
	}
	if a := g.Judge(claim(first, now.Add(time.Minute))); a.Access != index.Denied {
		t.Errorf("under the key that was dropped: %+v", a)
	}
	if a := g.Judge(claim(late, now.Add(time.Minute))); a.Access != index.Granted {
		t.Errorf("under the one before the last: %+v", a)
	}
	if m := mode(t, ring.path); m != secretMode {
		t.Errorf("the file has mode %04o after all that", m)
	}
}

// A key that was made while the clock was ahead does not make the file one that
// nobody reads when the next is added, nor keep that from signing.
func TestRotationAfterTheClockWasAhead(t *testing.T) {
	ring := newRing(t)
	now := time.Now()
	first := ring.now.Load().live[0]
	ahead := strings.Replace(string(must(os.ReadFile(ring.path))), first.from.Format(time.RFC3339), "2099-01-01T00:00:00Z", 1)
	if err := os.WriteFile(ring.path, []byte(ahead), 0o600); err != nil {
		t.Fatal(err)
	}
	added, _, err := Rotate(ring.path, now, RotateGrace, false)
	if err != nil {
		t.Fatal(err)
	}
	if err := ring.Reload(); err != nil {
		t.Fatal(err)
	}
	if k := ring.now.Load().signer(now.Add(2 * RotateGrace)); k.id != added {
		t.Errorf("key %s signs, want %s", k.id, added)
	}
	if k := ring.now.Load().signer(now); k.id != first.id {
		t.Errorf("before its time key %s signs, want %s", k.id, first.id)
	}
}

func TestAnEditedFileIsReadWithinASecondAndABadOneIsNot(t *testing.T) {
	ring := newRing(t)
	ring.Watch(slog.New(slog.DiscardHandler))
	defer ring.Close()
	good := must(os.ReadFile(ring.path))
	changed := make(chan struct{}, 8)
	ring.OnChange(func() { changed <- struct{}{} })
	if err := os.WriteFile(ring.path, []byte("nonsense"), 0o600); err != nil {
		t.Fatal(err)
	}
	until := time.Now().Add(20 * time.Second)
	for ring.Faults.Load() == 0 {
		if time.Now().After(until) {
			t.Fatal("a bad file is never noticed")
		}
		time.Sleep(20 * time.Millisecond)
	}
	if n := len(ring.now.Load().live); n != 1 {
		t.Errorf("%d keys are live after a bad file, want the one there was", n)
	}
	if err := os.WriteFile(ring.path, append(good, "revoked 00000000.0000000000000000 until 2099-01-01T00:00:00Z\n"...), 0o600); err != nil {
		t.Fatal(err)
	}
	select {
	case <-changed:
	case <-time.After(20 * time.Second):
		t.Fatal("a good file is never read")
	}
}

func TestKeyringRefusesWhatItCannotTrust(t *testing.T) {
	if _, err := OpenKeyring(filepath.Join(t.TempDir(), KeysFile), false); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("without create: %v", err)
	}
	ring := newRing(t)
	if m := mode(t, ring.path); m != secretMode {
		t.Errorf("mode %04o, want %04o", m, secretMode)
	}
	good := string(must(os.ReadFile(ring.path)))
	line := good[strings.Index(good, "\nkey ")+1:]
	secret := strings.Fields(line)[4]
	another := func(id, from string) string { return "key " + id + " from " + from + " " + secret + "\n" }
	for _, tt := range []struct {
		why, content string
		mode         fs.FileMode
		want         string // in the error; empty: accepted
	}{
		{"as it was", good, 0o600, ""},
		{"only the line that counts", line, 0o600, ""},
		{"two keys", line + another("00000000", "2099-01-01T00:00:00Z"), 0o600, ""},
		{"with a revocation", line + "revoked 00000000.0000000000000000 until 2099-01-01T00:00:00Z\n", 0o600, ""},
		{"others can read it", good, 0o644, "chmod 600"},
		{"empty", "", 0o600, "no key"},
		{"three keys", line + another("00000000", "2099-01-01T00:00:00Z") + another("00000001", "2099-01-01T00:00:00Z"), 0o600, "at once"},
		{"one id twice", line + line, 0o600, "line 2"},
		{"the older key last", line + another("00000000", "2001-01-01T00:00:00Z"), 0o600, "line 2"},
		{"a secret cut short", line[:len(line)-3] + "\n", 0o600, "line 1"},
		{"a word too many", strings.TrimSpace(line) + " x\n", 0o600, "line 1"},
		{"an id of another shape", strings.Replace(line, "key ", "key x", 1), 0o600, "line 1"},
		{"a line of another kind", good + "secret x\n", 0o600, "line"},
	} {
		os.Remove(ring.path)
		if err := os.WriteFile(ring.path, []byte(tt.content), tt.mode); err != nil {
			t.Fatal(err)
		}
		_, err := OpenKeyring(ring.path, true)
		if tt.want == "" && err != nil || tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
			t.Errorf("%s: error %v, want it to say %q", tt.why, err, tt.want)
		}
		if err != nil && strings.Contains(err.Error(), secret[:20]) {
			t.Errorf("%s: the error repeats the secret", tt.why)
		}
	}
}

// FuzzDecode holds the decoder to its promise: what it takes has one form, is
// within the caps, and is never good under a key that did not sign it.
func FuzzDecode(f *testing.F) {
	ring := newRing(f)
	g := NewGuard(ring, node)
	good := ring.mint(f, Wish{Scope: index.ScopeWrite, Paths: []string{"/a*"}, Methods: []index.Method{index.MethodPut}}, noon)
	for _, s := range []string{good, good[:len(good)-1], good + "AA", "", "AgEC", string(must(tokenText.DecodeString(good)))} {
		f.Add([]byte(s))
	}
	signers := map[string]bool{good: true}
	f.Fuzz(func(t *testing.T, in []byte) {
		m, err := decode(in)
		if got := g.Judge(claim(string(in), noon)); got.Access != index.Denied && !signers[string(in)] {
			// Narrowing is open to all: what was added must be at the end.
			if m == nil || !strings.HasPrefix(strings.Join(conditions(m), "\n"), strings.Join(conditions(mustDecode(t, good)), "\n")) {
				t.Fatalf("%q was let in: %+v", in, got)
			}
		}
		if err != nil {
			return
		}
		if n := len(m.Caveats()); n == 0 || n > caveatsMax || len(in) > tokenText.EncodedLen(tokenMax) {
			t.Fatalf("%q is over a cap", in)
		}
		if again, err := encode(m); err != nil || again != string(in) {
			t.Fatalf("%q has another form: %q, %v", in, again, err)
		}
		if _, err := Inspect(string(in)); err != nil {
			t.Fatalf("%q can be decoded and not inspected: %v", in, err)
		}
	})
}

func mustDecode(t testing.TB, token string) *macaroon.Macaroon {
	m, err := decode([]byte(token))
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// FuzzKeys: a file of keys that is taken reads back as it was.
func FuzzKeys(f *testing.F) {
	ring := newRing(f)
	f.Add(must(os.ReadFile(ring.path)))
	f.Add([]byte("key 00000000 from 2026-01-01T00:00:00Z " + strings.Repeat("A", 43) + "\nrevoked 00000000.0000000000000000 until 2026-01-01T00:00:00Z\n"))
	f.Fuzz(func(t *testing.T, in []byte) {
		k, err := parseKeys(in)
		if err != nil {
			return
		}
		again, err := parseKeys(k.text())
		if err != nil || len(again.live) != len(k.live) || len(again.revoked) != len(k.revoked) {
			t.Fatalf("%q reads back as %+v, %v", in, again, err)
		}
	})
}

func TestJudgingARememberedTokenDoesNotAllocate(t *testing.T) {
	g, c := benchGuard(t)
	g.Judge(c)
	if n := testing.AllocsPerRun(100, func() { g.Judge(c) }); n != 0 {
		t.Errorf("Judge allocates %v times, want 0", n)
	}
}

func benchGuard(t testing.TB) (*Guard, *index.Claim) {
	ring := newRing(t)
	token := ring.mint(t, Wish{Scope: index.ScopeWrite | index.ScopeRead, Paths: []string{"/names/*"}, Methods: []index.Method{index.MethodPut}}, noon)
	return NewGuard(ring, node), claim(token, noon)
}

// A remembered token, one met for the first time, and one under a key that
// nobody has.
func BenchmarkJudge(b *testing.B) {
	g, c := benchGuard(b)
	b.Run("held", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			g.Judge(c)
		}
	})
	b.Run("first", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			clear(g.held)
			g.Judge(c)
		}
	})
	bad, _ := benchGuard(b)
	b.Run("unknown", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			bad.Judge(c)
		}
	})
}

// Root rotates the keys of a server that runs as somebody else, who has to be
// able to read them afterwards.
func TestRootLeavesTheKeysToTheirOwner(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can give a file away")
	}
	const other = 12345
	dir := t.TempDir()
	path := filepath.Join(dir, KeysFile)
	if _, err := OpenKeyring(path, true); err != nil {
		t.Fatal(err)
	}
	for _, p := range []string{dir, path} {
		if err := os.Chown(p, other, other); err != nil {
			t.Fatal(err)
		}
	}
	if _, _, err := Rotate(path, time.Now(), time.Second, true); err != nil {
		t.Fatal(err)
	}
	files, err := os.ReadDir(dir)
	if err != nil || len(files) < 2 {
		t.Fatalf("%d files, %v; want the keys and their lock", len(files), err)
	}
	for _, f := range files {
		info, err := f.Info()
		if err != nil {
			t.Fatal(err)
		}
		if uid := info.Sys().(*syscall.Stat_t).Uid; uid != other || info.Mode().Perm() != 0o600 {
			t.Errorf("%s is of user %d with mode %v, want %d and 0600", f.Name(), uid, info.Mode().Perm(), other)
		}
	}
}

// Who owns the directory may have put a link in it: what it leads to is not
// his, and does not become his when root edits the keys.
func TestRootFollowsNoLinkInADirectoryOfOthers(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can give a file away")
	}
	const other = 12345
	dir, elsewhere := t.TempDir(), t.TempDir()
	path, victim := filepath.Join(dir, KeysFile), filepath.Join(elsewhere, "victim")
	if _, err := OpenKeyring(path, true); err != nil {
		t.Fatal(err)
	}
	for _, p := range []string{dir, path} {
		if err := os.Chown(p, other, other); err != nil {
			t.Fatal(err)
		}
	}
	lock := filepath.Join(dir, "."+KeysFile+".lock")
	if err := os.Symlink(victim, lock); err != nil {
		t.Fatal(err)
	}
	if _, _, err := Rotate(path, time.Now(), time.Second, true); err == nil {
		t.Error("a lock that is a link to nothing was taken")
	}
	if _, err := os.Lstat(victim); err == nil {
		t.Error("a file was made where the link leads")
	}
	if err := os.WriteFile(victim, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, _, err := Rotate(path, time.Now(), time.Second, true); err == nil {
		t.Error("a lock that is a link was taken")
	}
	info, err := os.Stat(victim)
	if err != nil {
		t.Fatal(err)
	}
	if info.Sys().(*syscall.Stat_t).Uid != 0 {
		t.Error("what the link leads to was given away")
	}
}

// A revocation that could not be read is read as soon as it can be, though
// neither a chmod nor a chown changes a file's time.
func TestAKeyFileThatBecomesReadableIsRead(t *testing.T) {
	ring := newRing(t)
	ring.Watch(slog.New(slog.DiscardHandler))
	defer ring.Close()
	changed := make(chan struct{}, 8)
	ring.OnChange(func() { changed <- struct{}{} })
	next := ring.path + ".next"
	text := append(must(os.ReadFile(ring.path)), "revoked 00000000.0000000000000000 until 2099-01-01T00:00:00Z\n"...)
	if err := errors.Join(os.WriteFile(next, text, 0o600), os.Chmod(next, 0o644), os.Rename(next, ring.path)); err != nil {
		t.Fatal(err)
	}
	for until := time.Now().Add(20 * time.Second); ring.Faults.Load() == 0; time.Sleep(20 * time.Millisecond) {
		if time.Now().After(until) {
			t.Fatal("a file that others can read is never noticed")
		}
	}
	if err := os.Chmod(ring.path, 0o600); err != nil {
		t.Fatal(err)
	}
	select {
	case <-changed:
	case <-time.After(20 * time.Second):
		t.Fatal("it was mended, and is never read")
	}
}
