package auth

import (
	"bytes"
	"cmp"
	"crypto/ed25519"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"

	"svcindex/index"
)

// TrustMax is how many keys may be trusted for one prefix: each is one more
// question to the network for every look-up of a name under it.
const TrustMax = 4

// A Trust says whose signature a name needs. It does not change once made, and
// a nil *Trust trusts nobody but self-certifying names.
type Trust struct {
	prefixes []prefix // longest first, so that the first that fits is the nearest
}

type prefix struct {
	name string // with its "name:"; "name:" alone is every name
	keys []ed25519.PublicKey
}

// NewTrust reads trust.publishers: for each name prefix the public keys, in
// base64url or hex, that may sign names under it. A prefix covers itself and
// what follows it after a slash; of several that cover a name the longest
// counts, alone.
func NewTrust(publishers map[string][]string) (*Trust, error) {
	t := &Trust{}
	var bad []error
	for name, texts := range publishers {
		p := prefix{name: name}
		if err := checkPrefix(name); err != nil {
			bad = append(bad, fmt.Errorf("trust.publishers: %q: %w", name, err))
		}
		if len(texts) == 0 || len(texts) > TrustMax {
			bad = append(bad, fmt.Errorf("trust.publishers: %q: found %d keys, expected 1 to %d", name, len(texts), TrustMax))
		}
		for _, text := range texts {
			key, err := ParsePublicKey(text)
			switch {
			case err != nil:
				bad = append(bad, fmt.Errorf("trust.publishers: %q: %w", name, err))
			case slices.ContainsFunc(p.keys, func(k ed25519.PublicKey) bool { return k.Equal(key) }):
				bad = append(bad, fmt.Errorf("trust.publishers: %q: a key is listed twice; remove one", name))
			}
			p.keys = append(p.keys, key)
		}
		t.prefixes = append(t.prefixes, p)
	}
	slices.SortFunc(bad, func(a, b error) int { return strings.Compare(a.Error(), b.Error()) })
	slices.SortFunc(t.prefixes, func(a, b prefix) int {
		return cmp.Or(cmp.Compare(len(b.name), len(a.name)), strings.Compare(a.name, b.name))
	})
	if err := errors.Join(bad...); err != nil {
		return nil, err
	}
	return t, nil
}

// checkPrefix holds a prefix to the grammar of names.
func checkPrefix(p string) error {
	switch {
	case p == "name:":
		return nil
	case strings.HasPrefix(p, "name:@"):
		return errors.New("a self-certifying name carries its key: no other can be trusted for it; remove the line")
	case strings.HasPrefix(p, "name:") && strings.HasSuffix(p, "/"):
		return errors.New("leave out the slash at the end: a prefix covers itself and what follows it after a slash")
	}
	k, err := index.ParseKey(p)
	if err == nil && !k.IsName() {
		err = errors.New("a content id needs no trust: it is its own proof")
	}
	return err
}

// ParsePublicKey reads an Ed25519 public key: 43 characters of base64url
// without padding, or 64 hex digits.
func ParsePublicKey(text string) (ed25519.PublicKey, error) {
	var key []byte
	var err error
	if len(text) == 2*ed25519.PublicKeySize {
		key, err = hex.DecodeString(text)
	} else {
		key, err = base64.RawURLEncoding.Strict().DecodeString(text)
	}
	switch {
	case err != nil || len(key) != ed25519.PublicKeySize:
		return nil, errors.New("a public key is 43 characters of base64url without padding, or 64 hex digits, as svc-index key new prints it")
	case everybodys(key):
		return nil, errors.New("this public key is a point of small order, for which anybody can sign; make one with svc-index key new")
	}
	return key, nil
}

// FormatPublicKey returns the text of a public key, in base64url.
func FormatPublicKey(key ed25519.PublicKey) string { return base64.RawURLEncoding.EncodeToString(key) }

// TrustedKeys returns the keys that may sign name, in the order of the
// configuration: the one it carries, or those of the nearest prefix. None: the
// name needs no signature, and the network is not asked for it. The keys are
// the Trust's.
func (t *Trust) TrustedKeys(name *index.Key) []ed25519.PublicKey {
	if pub, ok := name.Publisher(); ok {
		return []ed25519.PublicKey{pub[:]}
	}
	if t == nil || !name.IsName() {
		return nil
	}
	for i := range t.prefixes {
		if t.prefixes[i].covers(name.Bytes()) {
			return t.prefixes[i].keys
		}
	}
	return nil
}

func (p *prefix) covers(name []byte) bool {
	rest, ok := bytes.CutPrefix(name, []byte(p.name))
	return ok && (len(rest) == 0 || rest[0] == '/' || p.name == "name:")
}

// Covers reports whether name is accepted only with a signature. It allocates
// nothing.
func (t *Trust) Covers(name *index.Key) bool {
	if name.IsSelfCertifying() {
		return true
	}
	if t == nil || !name.IsName() {
		return false
	}
	return slices.ContainsFunc(t.prefixes, func(p prefix) bool { return p.covers(name.Bytes()) })
}

// Believes reports whether a stored record, whose signature was verified before
// it was stored, may be given out: trust may have changed since, and what only
// the network said needs somebody who is trusted for it.
func (t *Trust) Believes(name *index.Key, r *index.NameRecord) bool {
	if !t.Covers(name) {
		return !r.Found
	}
	return slices.ContainsFunc(t.TrustedKeys(name), func(k ed25519.PublicKey) bool { return bytes.Equal(k, r.PubKey) })
}

// Proven is Verify for what a stranger says: nil only for a record signed by
// somebody who is trusted for the name.
func (t *Trust) Proven(name *index.Key, r *index.NameRecord) error {
	if !t.Covers(name) {
		return ErrUntrusted
	}
	return t.Verify(name, r)
}

// Verify reports whether r may be believed of name: nil, or the reason why not.
// A name that needs no signature may do without one, but not carry a false one.
func (t *Trust) Verify(name *index.Key, r *index.NameRecord) error {
	keys := t.TrustedKeys(name)
	if len(r.PubKey) == 0 && len(r.Sig) == 0 {
		if len(keys) > 0 {
			return ErrUnsigned
		}
		return nil
	}
	if len(keys) > 0 && !slices.ContainsFunc(keys, func(k ed25519.PublicKey) bool { return bytes.Equal(k, r.PubKey) }) {
		return ErrUntrusted
	}
	return VerifyName(name, r)
}
