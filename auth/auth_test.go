package auth

import (
	"crypto/ed25519"
	"encoding/hex"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

// The Ed25519 key of libp2p's specification (peer-ids/peer-ids.md, test
// vectors); its peer id is what libp2p's implementations print for it.
const (
	specSeed   = "7e0830617c4a7de83925dfb2694556b12936c477a0e1feb2e148ec9da60fee7d"
	specPublic = "1ed1e8fae2c4a144b8be8fd4b47bf3d3b34b871c3cacf6010f0e42d474fce27e"
	specPeerID = "12D3KooWBtg3aaRMjxwedh83aGiUkwSxDwUZkzuJcfaqUmo7R3pq"
)

func unhex(s string) []byte {
	b, err := hex.DecodeString(s)
	if err != nil {
		panic(err)
	}
	return b
}

func ExamplePeerID() {
	fmt.Println(PeerID(unhex(specPublic)))
	// Output: 12D3KooWBtg3aaRMjxwedh83aGiUkwSxDwUZkzuJcfaqUmo7R3pq
}

func TestPeerIDFollowsFromTheSeed(t *testing.T) {
	key := ed25519.NewKeyFromSeed(unhex(specSeed))
	if got := PeerID(key.Public().(ed25519.PublicKey)); got != specPeerID {
		t.Errorf("PeerID = %s, want %s", got, specPeerID)
	}
}

func TestBase58(t *testing.T) {
	// The first three are from draft-msporny-base58.
	for _, tt := range []struct{ why, in, want string }{
		{"a sentence", hex.EncodeToString([]byte("Hello World!")), "2NEpo7TZRRrLZSi2U"},
		{"a longer one", hex.EncodeToString([]byte("The quick brown fox jumps over the lazy dog.")),
			"USm3fpXnKG5EUBx2ndxBDMPVciP5hGey2Jh4NDv6gmeo1LkMeiKrLJUUBk6Z"},
		{"leading zeros count", "0000287fb4cd", "11233QC4"},
		{"nothing", "", ""},
		{"only zeros", "0000", "11"},
	} {
		if got := base58(unhex(tt.in)); got != tt.want {
			t.Errorf("%s: base58(%s) = %s, want %s", tt.why, tt.in, got, tt.want)
		}
	}
}

func mode(t *testing.T, path string) fs.FileMode {
	t.Helper()
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	return info.Mode().Perm()
}

func TestIdentityIsMadeOnceAndKept(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data")
	key, id, err := Identity(dir)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(id, "12D3KooW") {
		t.Errorf("peer id %s does not look like an Ed25519 one", id)
	}
	if m := mode(t, filepath.Join(dir, identityFile)); m != secretMode {
		t.Errorf("the key has mode %04o, want %04o", m, secretMode)
	}
	if m := mode(t, dir); m != 0o700 {
		t.Errorf("the directory has mode %04o, want 0700", m)
	}
	again, id2, err := Identity(dir)
	if err != nil || !key.Equal(again) || id != id2 {
		t.Errorf("the second start has another identity: %s then %s, %v", id, id2, err)
	}
	onlyFile(t, dir, identityFile)
}

// onlyFile fails if a temporary file was left behind.
func onlyFile(t *testing.T, dir, name string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 1 || entries[0].Name() != name {
		t.Errorf("the directory holds %v, want only %s (%v)", entries, name, err)
	}
}

func TestStartersThatRaceAgreeOnOneIdentity(t *testing.T) {
	dir := t.TempDir()
	var wg sync.WaitGroup
	ids := make([]string, 16)
	for i := range ids {
		wg.Go(func() {
			var err error
			if _, ids[i], err = Identity(dir); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	for _, id := range ids {
		if id != ids[0] {
			t.Fatalf("two identities: %s and %s", ids[0], id)
		}
	}
	onlyFile(t, dir, identityFile)
}

func TestIdentityRefusesWhatItCannotTrust(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, identityFile)
	if _, _, err := Identity(dir); err != nil {
		t.Fatal(err)
	}
	good, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	other := ed25519.NewKeyFromSeed(unhex(specSeed)).Public().(ed25519.PublicKey)
	_, block, _ := strings.Cut(string(good), "\n")
	for _, tt := range []struct {
		why, content string
		mode         fs.FileMode
		want         string // in the error; empty: accepted
	}{
		{"as it was", string(good), 0o600, ""},
		{"a stricter mode is fine", string(good), 0o400, ""},
		{"a key made elsewhere has no line before it", block, 0o600, ""},
		{"the group can read it", string(good), 0o640, "chmod 600"},
		{"the world can read it", string(good), 0o604, "chmod 600"},
		{"empty", "", 0o600, "backup"},
		{"cut short", string(good[:len(good)/2]), 0o600, "backup"},
		{"two keys", string(good) + block, 0o600, "backup"},
		{"another key under our line", identityNote + PeerID(other) + "\n" + block, 0o600, "another key"},
		{"not a key", "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n", 0o600, "backup"},
		{"far too long", strings.Repeat("x", secretMax+1), 0o600, "move it away"},
	} {
		os.Remove(path)
		if err := os.WriteFile(path, []byte(tt.content), tt.mode); err != nil {
			t.Fatal(err)
		}
		_, _, err := Identity(dir)
		if tt.want == "" && err != nil {
			t.Errorf("%s: %v", tt.why, err)
		}
		if tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
			t.Errorf("%s: error %v, want it to say %q", tt.why, err, tt.want)
		}
		if now, err := os.ReadFile(path); err != nil || string(now) != tt.content {
			t.Errorf("%s: the file was changed (%v)", tt.why, err)
		}
	}
}

func TestADirectoryInPlaceOfASecretIsRefused(t *testing.T) {
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, identityFile), 0o700); err != nil {
		t.Fatal(err)
	}
	if _, _, err := Identity(dir); err == nil || !strings.Contains(err.Error(), "not a regular file") {
		t.Errorf("error %v", err)
	}
}
