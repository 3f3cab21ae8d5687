package kaddht

import (
	"bytes"
	"crypto/ed25519"
	"encoding/hex"
	"errors"
	"math"
	"strings"
	"time"

	record "github.com/libp2p/go-libp2p-record"
	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"

	"svcindex/index"
)

// Namespaces of values.
const (
	nsName     = "svcn" // /svcn/<hex b3(public key)>/<hex b3(name)>
	nsManifest = "svcm" // /svcm/<hex of the content id>
	nsProvider = "svcp" // /svcp/<peer id>
)

// Sizes of values.
const (
	ManifestMax = 256 << 10 // bytes of a manifest that the network carries
	profileMax  = 4 << 10
	regionMax   = index.RegionMax
	clockSkew   = 10 * time.Minute // how far ahead another node's clock may be
)

// Why a value is not taken.
var (
	errNotHash   = errors.New("dht: the bytes are not those of the content id")
	errNotKey    = errors.New("dht: the value belongs to another key")
	errExpired   = errors.New("dht: the value is past its time")
	errTooLarge  = errors.New("dht: the value is too large")
	errSignature = errors.New("dht: the signature is not the provider's")
	errProfile   = errors.New("dht: not a provider's own record")
	errNoneValid = errors.New("dht: no valid value to choose")
)

// providerKey returns the key under which providers of c are known: the
// multihash, so that a CID of any codec over these bytes finds the same ones.
func providerKey(c *index.CID) []byte {
	return append([]byte{0x1e, 0x20}, c[:]...) // BLAKE3, 32 bytes
}

func manifestKey(c *index.CID) string { return "/" + nsManifest + "/" + hex.EncodeToString(c[:]) }

func nameKey(pub []byte, name *index.Key) string {
	owner, what := index.Sum(pub), index.Sum(name.Bytes())
	return "/" + nsName + "/" + hex.EncodeToString(owner[:]) + "/" + hex.EncodeToString(what[:])
}

func profileKey(p peer.ID) string { return "/" + nsProvider + "/" + p.String() }

// validators returns who judges the values that others want us to keep.
func (n *Node) validators() record.Validator {
	return record.NamespacedValidator{
		nsName: nameJudge{n}, nsManifest: manifestJudge{n}, nsProvider: profileJudge{n},
	}
}

// A nameJudge holds names to their signature. Which keys to trust is for
// whoever asks; a server stores any name that its own key signed.
type nameJudge struct{ n *Node }

func (v nameJudge) Validate(key string, value []byte) error {
	_, _, err := v.n.readName(key, value)
	return err
}

// readName returns the name and the record of a value that is valid now.
func (n *Node) readName(key string, value []byte) (name index.Key, r index.NameRecord, err error) {
	if name, r, err = index.UnmarshalSignedName(value); err != nil {
		return name, r, err
	}
	switch now := n.now(); {
	case nameKey(r.PubKey, &name) != key:
		return name, r, errNotKey
	case r.ExpiresAt != 0 && now.Unix() >= r.ExpiresAt, r.IssuedAt > now.Add(clockSkew).Unix():
		return name, r, errExpired
	}
	return name, r, n.opt.Verify(&name, &r)
}

// Select implements record.Validator. It never looks at the clock, or two
// nodes could each replace the other's choice for ever.
func (nameJudge) Select(_ string, values [][]byte) (int, error) {
	best := -1
	var won index.NameRecord
	for i, v := range values {
		_, r, err := index.UnmarshalSignedName(v)
		if err != nil {
			continue
		}
		if best < 0 || newer(&r, &won) > 0 || newer(&r, &won) == 0 && bytes.Compare(v, values[best]) > 0 {
			best, won = i, r
		}
	}
	if best < 0 {
		return 0, errNoneValid
	}
	return best, nil
}

// newer compares two records of one name: the higher sequence, then the later
// end.
func newer(a, b *index.NameRecord) int {
	end := func(r *index.NameRecord) int64 {
		if r.ExpiresAt == 0 {
			return math.MaxInt64
		}
		return r.ExpiresAt
	}
	switch {
	case a.Seq != b.Seq:
		return compare(a.Seq, b.Seq)
	default:
		return compare(end(a), end(b))
	}
}

func compare[T int64 | uint64](a, b T) int {
	switch {
	case a > b:
		return 1
	case a < b:
		return -1
	}
	return 0
}

// A manifestJudge holds manifests to their hash.
type manifestJudge struct{ n *Node }

func (manifestJudge) Validate(key string, value []byte) error {
	if len(value) > ManifestMax {
		return errTooLarge
	}
	c := index.Sum(value)
	if manifestKey(&c) != key {
		return errNotHash
	}
	return nil
}

// Select implements record.Validator: all that are valid are the same.
func (manifestJudge) Select(string, [][]byte) (int, error) { return 0, nil }

// A profile is what a provider says of itself, under its own signature: where
// it serves, in which region, and when it last was there. Provider records
// themselves carry a peer id that anybody could have written; a provider
// without a profile is not believed in.
type profile struct {
	Addrs    []string `cbor:"addrs"`
	Expires  uint64   `cbor:"expires_at"`
	LastSeen uint64   `cbor:"last_seen"`
	Peer     string   `cbor:"peer"`
	Region   string   `cbor:"region"`
	Seq      uint64   `cbor:"seq"`
	Sig      []byte   `cbor:"sig,omitempty"` // over profileDomain and all of the above
}

// profileDomain opens the bytes a provider signs.
const profileDomain = "svc-index/provider/v1\x00"

func sealProfile(key ed25519.PrivateKey, p profile) ([]byte, error) {
	b, err := p.signed()
	if err != nil {
		return nil, err
	}
	p.Sig = ed25519.Sign(key, b)
	return index.MarshalCBOR(p)
}

// signed returns the bytes under the signature.
func (p profile) signed() ([]byte, error) {
	p.Sig = nil
	b, err := index.MarshalCBOR(p)
	return append([]byte(profileDomain), b...), err
}

// openProfile returns the profile in a value, if it is the one of the peer
// that key names.
func openProfile(key string, value []byte) (p profile, err error) {
	if len(value) > profileMax {
		return p, errTooLarge
	}
	if index.UnmarshalCBOR(value, &p) != nil {
		return p, errProfile
	}
	id, err := peer.Decode(p.Peer)
	switch {
	case err != nil, len(p.Addrs) == 0, len(p.Addrs) > addrsPerPeer, len(p.Region) > regionMax,
		p.LastSeen > index.SeqMax, p.Expires > index.SeqMax, p.Seq > index.SeqMax, !printable(p.Region):
		return p, errProfile
	case profileKey(id) != key:
		return p, errNotKey
	}
	pub, err := id.ExtractPublicKey()
	if err != nil {
		return p, errProfile
	}
	b, err := p.signed()
	if err != nil {
		return p, errProfile
	}
	if ok, err := pub.Verify(b, p.Sig); err != nil || !ok {
		return p, errSignature
	}
	return p, nil
}

func printable(s string) bool {
	for _, c := range []byte(s) {
		if c < ' ' || c > '~' {
			return false
		}
	}
	return true
}

// A profileJudge holds profiles to their signature.
type profileJudge struct{ n *Node }

func (v profileJudge) Validate(key string, value []byte) error {
	_, err := v.n.readProfile(key, value)
	return err
}

// readProfile returns a profile that is valid now.
func (n *Node) readProfile(key string, value []byte) (profile, error) {
	p, err := openProfile(key, value)
	if now := n.now(); err == nil && (int64(p.Expires) <= now.Unix() || int64(p.LastSeen) > now.Add(clockSkew).Unix()) {
		err = errExpired
	}
	return p, err
}

// Select implements record.Validator.
func (profileJudge) Select(key string, values [][]byte) (int, error) {
	best, seq := -1, uint64(0)
	for i, v := range values {
		if p, err := openProfile(key, v); err == nil && (best < 0 || p.Seq > seq) {
			best, seq = i, p.Seq
		}
	}
	if best < 0 {
		return 0, errNoneValid
	}
	return best, nil
}

// provider returns the row that p makes, or false if it has no address that
// clients may be sent to.
func (n *Node) provider(p *profile) (index.Provider, bool) {
	addr := ""
	for _, text := range p.Addrs {
		a, err := ma.NewMultiaddr(text)
		if err != nil || len(text) > index.ProviderAddrMax || !n.policy.allowed(a) {
			continue
		}
		web := strings.HasSuffix(text, "/http") || strings.HasSuffix(text, "/https")
		if addr == "" || web {
			addr = text
		}
		if web {
			break
		}
	}
	now := n.now().Unix()
	return index.Provider{
		ID: p.Peer, Addr: addr, Region: p.Region,
		LastSeen: min(int64(p.LastSeen), now), Expires: min(int64(p.Expires), now+index.TTLMax),
	}, addr != ""
}
