package stages

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"
	"net/url"
	"strings"

	"svcindex/index"
)

// A Refusal is why a write was not taken, in constant words for the client.
type Refusal struct {
	Kind   index.Kind
	Reason string
}

// Reasons that others tell apart.
const (
	ReasonBody  = "the decoded body is over the limit on bodies"
	ReasonRatio = "the body inflates to more than the limit allows over its size on the wire"
)

func (r *Refusal) Error() string { return r.Reason }
func (r *Refusal) Unwrap() error { return r.Kind }

func invalid(reason string) error { return &Refusal{index.Invalid, reason} }

// A decoder reads bodies, knowing the limits and the time.
type decoder struct {
	limit  BodyLimit
	now    int64 // unix seconds
	verify func(*index.Key, *index.NameRecord) error
}

// decode turns the body of a write into j.Write.
func (d *decoder) decode(j *index.Job) error {
	body, err := d.body(j)
	if err != nil {
		return err
	}
	if j.Write == nil {
		j.Write = new(index.Mutation)
	}
	m := j.Write
	*m = index.Mutation{Op: j.Op, Key: j.Key, Who: j.Who}
	switch j.Op {
	case index.PutManifest:
		return d.manifest(m, body)
	case index.DeleteName:
		if len(body) == 0 {
			m.Name = index.NameRecord{Seq: j.Seq, Deleted: true}
			return d.believe(m)
		}
	case index.DeleteProvider:
		m.ProviderID = j.Text
		return checkProviderID(m.ProviderID)
	}
	if err := mustBeJSON(j); err != nil {
		return err
	}
	switch j.Op {
	case index.PutName, index.DeleteName:
		return d.name(m, body, j.Seq)
	case index.PutProviders:
		return d.providers(m, body)
	case index.Pin, index.Unpin:
		return d.pin(m, body)
	}
	return &Refusal{index.Unsupported, "no such write"}
}

// body returns the body without its coding.
func (d *decoder) body(j *index.Job) ([]byte, error) {
	if !j.Gzip {
		return j.Body, nil
	}
	return inflate(j.Body, d.limit)
}

func mustBeJSON(j *index.Job) error {
	if !j.IsJSON {
		return &Refusal{index.BadType, "the body has to be application/json"}
	}
	return nil
}

func (d *decoder) manifest(m *index.Mutation, body []byte) error {
	if len(body) == 0 {
		return invalid("a manifest is at least one byte")
	}
	if len(body) > index.ManifestMax {
		return &Refusal{index.TooLarge, ReasonBody}
	}
	m.Manifest = body
	m.Key = index.CIDKey(index.Sum(body))
	return nil
}

// aheadMax is how many seconds a publisher's clock may be ahead of ours.
const aheadMax = 600

// name reads what is put under a name, or the word that it is deleted. seq is what the query said, 0 for
// nothing.
func (d *decoder) name(m *index.Mutation, body []byte, seq uint64) error {
	in, err := readName(body)
	if err != nil {
		return err
	}
	gone := m.Op == index.DeleteName
	if in.CID == nil && gone {
		in.CID = new(index.CID)
	}
	switch {
	case in.CID == nil:
		return invalid("manifest_cid is missing: b3: and 64 lowercase hex digits")
	case (*in.CID == index.CID{}) != gone:
		return invalid("a manifest_cid of zeros means deleted: it is for DELETE, and no other is")
	case in.Seq == nil || *in.Seq < 1 || *in.Seq > index.SeqMax:
		return invalid("seq has to be 1 to 9007199254740991, one more than the present one")
	case seq != 0 && seq != *in.Seq:
		return invalid("seq in the query is not the one in the body")
	case in.IssuedAt < 0 || in.ExpiresAt < 0:
		return invalid("issued_at and expires_at are unix seconds, not negative")
	case in.ExpiresAt > index.SeqMax:
		return invalid("expires_at is at most 9007199254740991; 0, or left out, is never")
	case in.ExpiresAt != 0 && in.ExpiresAt <= d.now:
		return invalid("expires_at is in the past")
	case in.IssuedAt > d.now+aheadMax:
		return invalid("issued_at is more than ten minutes ahead of this server's clock")
	}
	m.Name = index.NameRecord{
		CID: *in.CID, Seq: *in.Seq, IssuedAt: in.IssuedAt, ExpiresAt: in.ExpiresAt, Deleted: gone,
	}
	var err1, err2 error
	m.Name.PubKey, err1 = unbase64(in.PubKey, index.PubKeySize)
	m.Name.Sig, err2 = unbase64(in.Sig, index.SigSize)
	if (in.PubKey == "") != (in.Sig == "") || err1 != nil || err2 != nil {
		return invalid("pubkey and sig go together: 32 and 64 bytes in base64url without padding")
	}
	return d.believe(m)
}

// believe refuses a name that somebody else would have had to sign, or that
// carries a false signature.
func (d *decoder) believe(m *index.Mutation) error {
	if d.verify == nil {
		if m.Name.Signed() {
			return &Refusal{index.Unsupported, "this server cannot judge signatures: leave out pubkey and sig"}
		}
		return nil
	}
	if err := d.verify(&m.Key, &m.Name); err != nil {
		return &Refusal{index.Forbidden, err.Error()} // constant, by the rule on error messages
	}
	return nil
}

var errBase64 = errors.New("not base64url without padding, or not as long as it has to be")

// unbase64 reads size bytes, or none from an empty text.
func unbase64(text string, size int) ([]byte, error) {
	if text == "" {
		return nil, nil
	}
	b, err := base64.RawURLEncoding.Strict().DecodeString(text)
	if err != nil || len(b) != size {
		return nil, errBase64
	}
	return b, nil
}

func (d *decoder) providers(m *index.Mutation, body []byte) error {
	in, err := readProviders(body)
	if err != nil {
		return err
	}
	if len(in.Providers) == 0 || len(in.Providers) > index.ProvidersMax {
		return invalid("providers has to be a list of 1 to 64")
	}
	seen := make(map[string]bool, len(in.Providers))
	m.Providers = make([]index.Provider, 0, len(in.Providers))
	for _, p := range in.Providers {
		ttl := int64(index.TTLDefault)
		if p.TTL != nil {
			ttl = *p.TTL
		}
		if ttl < index.TTLMin || ttl > index.TTLMax {
			return invalid("ttl_s has to be 60 to 172800 seconds")
		}
		if err := checkProvider(p.ID, p.Addr, p.Region); err != nil {
			return err
		}
		if seen[p.ID] {
			return invalid("an id stands twice in the list")
		}
		seen[p.ID] = true
		m.Providers = append(m.Providers, index.Provider{
			ID: p.ID, Addr: p.Addr, Region: p.Region, LastSeen: d.now, Expires: d.now + ttl,
		})
	}
	return nil
}

func (d *decoder) pin(m *index.Mutation, body []byte) error {
	var in struct {
		CID *index.CID `json:"cid"`
	}
	if err := strict(body, &in); err != nil {
		return err
	}
	if in.CID == nil {
		return invalid("cid is missing: b3: and 64 lowercase hex digits")
	}
	m.Key = index.CIDKey(*in.CID)
	return nil
}

func checkProvider(id, addr, region string) error {
	if err := checkProviderID(id); err != nil {
		return err
	}
	if len(region) > index.RegionMax || !all(region, tokenByte) || strings.ContainsRune(region, '~') {
		return invalid("a region is up to 64 of A-Z a-z 0-9 . _ -")
	}
	if len(addr) == 0 || len(addr) > index.ProviderAddrMax || !all(addr, func(c byte) bool { return c > ' ' && c < 0x7f }) {
		return invalid("addr is 1 to 512 visible ASCII bytes")
	}
	if strings.HasPrefix(addr, "/") && len(addr) > 1 {
		return nil // a multiaddr; returned verbatim, never dialled here
	}
	u, err := url.Parse(addr)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "" {
		return invalid("addr has to be a multiaddr (/ip4/..) or an http(s) URL")
	}
	return nil
}

func checkProviderID(id string) error {
	if len(id) == 0 || len(id) > index.ProviderIDMax || !all(id, tokenByte) {
		return invalid("a provider id is 1 to 128 of A-Z a-z 0-9 . _ ~ -")
	}
	return nil
}

func tokenByte(c byte) bool {
	return c >= '0' && c <= '9' || c >= 'A' && c <= 'Z' || c >= 'a' && c <= 'z' ||
		c == '.' || c == '_' || c == '~' || c == '-'
}

func all[T ~string | ~[]byte](s T, ok func(byte) bool) bool {
	for i := range len(s) {
		if !ok(s[i]) {
			return false
		}
	}
	return true
}

var errUnknownField = invalid("the body has a field this version does not know")

func fieldByte(c byte) bool { return c >= 'a' && c <= 'z' || c == '_' }

// strict reads one JSON object into v: no unknown field, no field twice,
// nothing behind it.
func strict(body []byte, v any) error {
	usual := isUsual(body)
	if !usual {
		if err := noDuplicates(json.NewDecoder(bytes.NewReader(body))); err != nil {
			return err
		}
	}
	d := json.NewDecoder(bytes.NewReader(body))
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		if r, ok := errors.AsType[*json.UnmarshalTypeError](err); ok && r.Field != "" {
			return invalid("a field has a value of the wrong type")
		}
		if strings.Contains(err.Error(), "unknown field") {
			return errUnknownField
		}
		if errors.Is(err, index.ErrCID) {
			return invalid("a content id is b3: and 64 lowercase hex digits")
		}
		return invalid("the body is not the JSON object expected here")
	}
	if usual {
		return nil
	}
	if _, err := d.Token(); err != io.EOF {
		return invalid("something follows the JSON object")
	}
	return nil
}

// isUsual reports whether a body is what clients send: one JSON object, with
// names that need no second look and none of them twice. Nearly all are, and
// this takes a tenth of the time in which noDuplicates says what is wrong with
// one that is not.
func isUsual(body []byte) bool {
	if !json.Valid(body) {
		return false
	}
	b := trimSpace(body)
	if b[0] != '{' {
		return false
	}
	_, ok := usualValue(b, 0)
	return ok
}

// usualNames is how many fields an object has, at most, to be usual.
const usualNames = 8

// usualValue walks over the value at the front of b, which is valid JSON, and
// returns what follows it.
func usualValue(b []byte, depth int) (rest []byte, ok bool) {
	if depth > maxDepth {
		return nil, false
	}
	open := b[0]
	switch open {
	case '"':
		return pastText(b), true
	case '{', '[':
	default: // a number or a word
		i := bytes.IndexAny(b, ",]} \t\r\n")
		return b[i:], i > 0
	}
	var seen [usualNames][]byte
	n := 0
	for b = trimSpace(b[1:]); b[0] != '}' && b[0] != ']'; {
		if open == '{' {
			rest := pastText(b)
			name := b[1 : len(b)-len(rest)-1]
			if n == len(seen) || !all(name, fieldByte) {
				return nil, false
			}
			for _, s := range seen[:n] {
				if bytes.Equal(s, name) {
					return nil, false
				}
			}
			seen[n] = name
			n++
			b = trimSpace(trimSpace(rest)[1:]) // the colon
		}
		if b, ok = usualValue(b, depth+1); !ok {
			return nil, false
		}
		if b = trimSpace(b); b[0] == ',' {
			b = trimSpace(b[1:])
		}
	}
	return b[1:], true
}

// pastText returns what follows the text at the front of b.
func pastText(b []byte) []byte {
	for i := 1; ; i++ {
		switch b[i] {
		case '\\':
			i++
		case '"':
			return b[i+1:]
		}
	}
}

func trimSpace(b []byte) []byte {
	for len(b) > 0 && (b[0] == ' ' || b[0] == '\n' || b[0] == '\r' || b[0] == '\t') {
		b = b[1:]
	}
	return b
}

// maxDepth is how deep a body may nest; none of ours nests over three.
const maxDepth = 16

// noDuplicates walks one JSON value and refuses an object with one name twice.
// Names that differ only in case count as one, because encoding/json matches
// them so: upper case first, for the long s and the Kelvin sign are s and k to
// it.
func noDuplicates(d *json.Decoder) error { return walk(d, 0) }

func walk(d *json.Decoder, depth int) error {
	t, err := d.Token()
	if err != nil || depth > maxDepth {
		return invalid("the body is not well-formed JSON")
	}
	delim, _ := t.(json.Delim)
	if depth == 0 && delim != '{' {
		return invalid("the body has to be a JSON object")
	}
	switch delim {
	case '{':
		seen := make(map[string]bool, 8)
		for d.More() {
			t, err := d.Token()
			name, ok := t.(string)
			if err != nil || !ok {
				return invalid("the body is not well-formed JSON")
			}
			folded := strings.ToLower(strings.ToUpper(name))
			if seen[folded] {
				return invalid("a field stands twice in the body")
			}
			seen[folded] = true
			if !all(name, fieldByte) {
				return errUnknownField // encoding/json would take SEQ for seq
			}
			if err := walk(d, depth+1); err != nil {
				return err
			}
		}
	case '[':
		for d.More() {
			if err := walk(d, depth+1); err != nil {
				return err
			}
		}
	default:
		return nil
	}
	if _, err := d.Token(); err != nil {
		return invalid("the body is not well-formed JSON")
	}
	return nil
}
