package auth

import (
	"bytes"
	"crypto/rand"
	"encoding/base32"
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"gopkg.in/macaroon.v2"

	"svcindex/index"
)

// Limits of a capability.
const (
	tokenMax   = 4 << 10 // bytes, before base64
	caveatsMax = 32
	nonceBytes = 10

	// LifeDefault is how long a capability lives that nobody said more of. Who
	// has the root keys can mint another at any time.
	LifeDefault = 5 * time.Minute
	// LifeMax is the longest. Root keys should not grow older either.
	LifeMax = 30 * 24 * time.Hour
	// lifeSlack is how far the clock of whoever minted may be ahead.
	lifeSlack = time.Minute
)

var base32ids = base32.NewEncoding(idDigits).WithPadding(base32.NoPadding)

var (
	tokenText = base64.RawURLEncoding.Strict()

	keyIDLen = base32ids.EncodedLen(keyIDBytes)
	nonceLen = base32ids.EncodedLen(nonceBytes)
)

// A Wish is what a new capability is to allow.
type Wish struct {
	Scope   index.Scope
	Life    time.Duration
	Aud     string         // node id of the server it is for
	Methods []index.Method // none: any
	Paths   []string       // exact, or a prefix that ends in *; each must match; none: any
}

// Mint signs a capability. id names it in logs and in the audit.
func (k *Keyring) Mint(w Wish, now time.Time) (token, id string, err error) {
	if err := w.check(); err != nil {
		return "", "", err
	}
	key := k.now.Load().signer(now)
	var nonce [nonceBytes]byte
	if _, err := rand.Read(nonce[:]); err != nil {
		return "", "", err
	}
	id = key.id + "." + idText(nonce[:])
	m, err := macaroon.New(key.secret, []byte(id), "", macaroon.V2)
	if err != nil {
		return "", "", err
	}
	for _, c := range w.caveats(now) {
		if err := m.AddFirstPartyCaveat([]byte(c)); err != nil {
			return "", "", err
		}
	}
	token, err = encode(m)
	return token, id, err
}

func (w *Wish) check() error {
	switch {
	case w.Scope == 0:
		return fmt.Errorf("a capability needs a scope: %s", strings.Join(index.ScopeNames(), ", "))
	case w.Life < time.Second || w.Life > LifeMax:
		return fmt.Errorf("a capability lives for 1s to %v, not %v", LifeMax, w.Life)
	case w.Aud == "":
		return errors.New("a capability needs an aud: the node id of the server it is for")
	}
	for _, p := range w.Paths {
		if !strings.HasPrefix(p, "/") {
			return fmt.Errorf("path %q does not begin with a slash", p)
		}
	}
	return nil
}

func (w *Wish) caveats(now time.Time) []string {
	cs := []string{
		"scope=" + w.Scope.String(),
		"exp=" + strconv.FormatInt(now.Add(w.Life+time.Second-1).Unix(), 10), // whole seconds: rather a little longer
		"aud=" + w.Aud,
	}
	if len(w.Methods) > 0 {
		var names []string
		for _, m := range w.Methods {
			names = append(names, m.String())
		}
		cs = append(cs, "method="+strings.Join(names, ","))
	}
	for _, p := range w.Paths {
		cs = append(cs, "path="+p)
	}
	return cs
}

// Narrow returns token with more caveats: it takes no key, and only ever
// allows less.
func Narrow(token string, caveats ...string) (string, error) {
	m, err := decode([]byte(token))
	if err != nil {
		return "", err
	}
	var t terms
	for _, c := range conditions(m) {
		if err := t.take(c); err != nil {
			return "", err
		}
	}
	for _, c := range caveats {
		if err := t.take(c); err != nil {
			return "", err
		}
		if err := m.AddFirstPartyCaveat([]byte(c)); err != nil {
			return "", err
		}
	}
	if len(m.Caveats()) > caveatsMax {
		return "", errCaveats
	}
	return encode(m)
}

func encode(m *macaroon.Macaroon) (string, error) {
	b, err := m.MarshalBinary()
	if err != nil {
		return "", err
	}
	if len(b) > tokenMax {
		return "", errTokenSize
	}
	return tokenText.EncodeToString(b), nil
}

// What is wrong with the form of a token. For people who inspect one: a server
// gives one answer to all.
var (
	errTokenSize  = fmt.Errorf("a capability has at most %d bytes", tokenMax)
	errTokenText  = errors.New("a capability is base64url without padding")
	errTokenForm  = errors.New("a capability is one macaroon in the V2 binary format, in its one form, and nothing behind it")
	errTokenID    = errors.New("the id of a capability is that of a root key, a dot and a nonce")
	errCaveats    = fmt.Errorf("a capability has 1 to %d caveats", caveatsMax)
	errThirdParty = errors.New("third-party caveats are not taken")
)

// decode reads a token, and takes it in one form only: the library would also
// take V1, what follows the macaroon, and numbers longer than they need be.
func decode(text []byte) (*macaroon.Macaroon, error) {
	if len(text) > tokenText.EncodedLen(tokenMax) {
		return nil, errTokenSize
	}
	b := make([]byte, tokenText.DecodedLen(len(text)))
	n, err := tokenText.Decode(b, text)
	if err != nil || bytes.ContainsAny(text, "\r\n") {
		return nil, errTokenText
	}
	b = b[:n]
	if len(b) == 0 || b[0] != 2 {
		return nil, errTokenForm
	}
	m := new(macaroon.Macaroon)
	if err := m.UnmarshalBinary(b); err != nil {
		return nil, errTokenForm
	}
	again, err := m.MarshalBinary()
	if err != nil || !bytes.Equal(again, b) || m.Location() != "" {
		return nil, errTokenForm
	}
	if n := len(m.Caveats()); n == 0 || n > caveatsMax {
		return nil, errCaveats
	}
	for _, c := range m.Caveats() {
		if len(c.VerificationId) > 0 || c.Location != "" {
			return nil, errThirdParty
		}
	}
	if _, _, ok := cutID(string(m.Id())); !ok {
		return nil, errTokenID
	}
	return m, nil
}

func conditions(m *macaroon.Macaroon) (cs []string) {
	for _, c := range m.Caveats() {
		cs = append(cs, string(c.Id))
	}
	return cs
}

// cutID takes the id of a capability apart.
func cutID(id string) (key, nonce string, ok bool) {
	key, nonce, ok = strings.Cut(id, ".")
	return key, nonce, ok && validKeyID(key) && len(nonce) == nonceLen && allIDDigits(nonce)
}

func validKeyID(s string) bool { return len(s) == keyIDLen && allIDDigits(s) }

func allIDDigits(s string) bool {
	return strings.Trim(s, idDigits) == ""
}

// terms are what the caveats of a capability amount to.
type terms struct {
	said    []string // every caveat so far
	scope   index.Scope
	scoped  bool
	exp     int64 // unix seconds; 0: not said
	aud     string
	methods uint16 // bits by index.Method; 0: any
	paths   []string
}

var (
	errUnknownCaveat = errors.New("a caveat that is not known here: nothing is allowed")
	errTwice         = errors.New("the same caveat twice")
	errWidens        = errors.New("a caveat that would allow more than one before it")
	errLacks         = errors.New("a capability says scope, exp and aud")
)

// take adds a caveat. Each may only narrow what those before it left.
func (t *terms) take(caveat string) error {
	if slices.Contains(t.said, caveat) {
		return errTwice
	}
	t.said = append(t.said, caveat)
	name, value, ok := strings.Cut(caveat, "=")
	if !ok || value == "" {
		return errUnknownCaveat
	}
	switch name {
	case "scope":
		return t.takeScope(value)
	case "exp":
		return t.takeExp(value)
	case "aud":
		if t.aud != "" {
			return errWidens
		}
		t.aud = value
		return nil
	case "method":
		return t.takeMethods(value)
	case "path":
		if value[0] != '/' {
			return errUnknownCaveat
		}
		t.paths = append(t.paths, value)
		return nil
	}
	return errUnknownCaveat
}

func (t *terms) takeScope(value string) error {
	var all index.Scope
	for name := range strings.SplitSeq(value, ",") {
		s, ok := index.ParseScope(name)
		if !ok || all&s != 0 {
			return errUnknownCaveat
		}
		all |= s
	}
	if t.scoped && all&^t.scope != 0 {
		return errWidens
	}
	t.scope, t.scoped = all, true
	return nil
}

func (t *terms) takeExp(value string) error {
	exp, err := strconv.ParseInt(value, 10, 64)
	if err != nil || exp <= 0 || strconv.FormatInt(exp, 10) != value {
		return errUnknownCaveat
	}
	if t.exp != 0 && exp > t.exp {
		return errWidens
	}
	t.exp = exp
	return nil
}

func (t *terms) takeMethods(value string) error {
	var all uint16
	for name := range strings.SplitSeq(value, ",") {
		m, ok := ParseMethod(name)
		if !ok || all&(1<<m) != 0 {
			return errUnknownCaveat
		}
		all |= 1 << m
	}
	if t.methods != 0 && all&^t.methods != 0 {
		return errWidens
	}
	t.methods = all
	return nil
}

// ParseMethod returns the method of a name.
func ParseMethod(name string) (index.Method, bool) {
	for m := index.MethodGet; m < index.Methods; m++ {
		if m.String() == name {
			return m, true
		}
	}
	return 0, false
}

// whole reports whether all that must be said was.
func (t *terms) whole() error {
	if !t.scoped || t.exp == 0 || t.aud == "" {
		return errLacks
	}
	return nil
}

// covers reports whether a request is within the method and path caveats. Who
// may GET may ask for the head of what he would get.
func (t *terms) covers(m index.Method, path []byte) bool {
	if m == index.MethodHead && t.methods&(1<<index.MethodHead) == 0 {
		m = index.MethodGet
	}
	if t.methods != 0 && t.methods&(1<<m) == 0 {
		return false
	}
	for _, p := range t.paths {
		if !pathMatches(p, path) {
			return false
		}
	}
	return true
}

// pathMatches compares as bytes, as they were sent: a path that is encoded in
// another way than the caveat is another path, and not allowed.
func pathMatches(caveat string, path []byte) bool {
	if prefix, ok := strings.CutSuffix(caveat, "*"); ok {
		return len(path) >= len(prefix) && string(path[:len(prefix)]) == prefix
	}
	return string(path) == caveat
}

// Details is what a token says, for people.
type Details struct {
	ID      string
	Key     string
	Caveats []string
	Scope   index.Scope
	Expires time.Time
	Aud     string
	Methods []string
	Paths   []string
	Fault   string // why no server would take it, whatever its keys; "": nothing
}

// Inspect reads a token without judging it. It takes no key.
func Inspect(token string) (Details, error) {
	m, err := decode([]byte(strings.TrimSpace(token)))
	if err != nil {
		return Details{}, err
	}
	d := Details{ID: string(m.Id()), Caveats: conditions(m)}
	d.Key, _, _ = cutID(d.ID)
	var t terms
	for _, c := range d.Caveats {
		if err := t.take(c); err != nil {
			d.Fault = fmt.Sprintf("%q: %v", c, err)
			break
		}
	}
	if err := t.whole(); err != nil && d.Fault == "" {
		d.Fault = err.Error()
	}
	d.Scope, d.Aud, d.Paths = t.scope, t.aud, t.paths
	if t.exp != 0 {
		d.Expires = time.Unix(t.exp, 0)
	}
	for m := index.MethodGet; m < index.Methods; m++ {
		if t.methods&(1<<m) != 0 {
			d.Methods = append(d.Methods, m.String())
		}
	}
	return d, nil
}
