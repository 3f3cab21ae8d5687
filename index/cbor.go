package index

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"

	"github.com/fxamacker/cbor/v2"
)

// The CBOR bodies have the fields of the JSON ones, in core deterministic
// encoding (RFC 8949, section 4.2.1).
var cborMode = func() cbor.EncMode {
	m, err := cbor.CoreDetEncOptions().EncMode()
	if err != nil {
		panic(fmt.Sprintf("index: cbor options: %v", err)) // constant input: cannot fail
	}
	return m
}()

// MarshalCBOR encodes a document that has cbor or json field tags.
func MarshalCBOR(v any) ([]byte, error) { return cborMode.Marshal(v) }

// cborStrict takes nothing that the encoder would not have written: no unknown
// or repeated field, no tag, no indefinite length.
var cborStrict = func() cbor.DecMode {
	m, err := cbor.DecOptions{
		DupMapKey: cbor.DupMapKeyEnforcedAPF, IndefLength: cbor.IndefLengthForbidden, TagsMd: cbor.TagsForbidden,
		ExtraReturnErrors: cbor.ExtraDecErrorUnknownField, UTF8: cbor.UTF8RejectInvalid,
		MaxNestedLevels: 8, MaxArrayElements: 1024, MaxMapPairs: 64, FieldNameMatching: cbor.FieldNameMatchingCaseSensitive,
	}.DecMode()
	if err != nil {
		panic(fmt.Sprintf("index: cbor options: %v", err)) // constant input: cannot fail
	}
	return m
}()

var errCBOR = errors.New("not the deterministic CBOR of what is expected here")

// UnmarshalCBOR reads what MarshalCBOR wrote into v, a pointer to the same
// type. Bytes that say the same in another way are refused, so that what is
// signed or compared has one form.
func UnmarshalCBOR(b []byte, v any) error {
	if err := cborStrict.Unmarshal(b, v); err != nil {
		return errors.Join(errCBOR, err)
	}
	again, err := cborMode.Marshal(v)
	if err != nil || !bytes.Equal(again, b) {
		return errCBOR
	}
	return nil
}

type cborIntegrity struct {
	Algo   string `cbor:"algo"`
	Digest string `cbor:"digest"`
}

type cborResolve struct {
	Key           string        `cbor:"key"`
	Kind          string        `cbor:"kind"`
	ManifestCID   string        `cbor:"manifest_cid"`
	Integrity     cborIntegrity `cbor:"integrity"`
	ProvidersHint int           `cbor:"providers_hint"`
	Seq           uint64        `cbor:"seq,omitempty"`
	ExpiresAt     int64         `cbor:"expires_at,omitempty"`
	Signed        bool          `cbor:"signed,omitempty"`
}

// AppendResolveCBOR appends what AppendResolveJSON does, as CBOR.
func AppendResolveCBOR(dst []byte, j *Job) ([]byte, error) {
	cid := j.ManifestCID()
	r := cborResolve{
		Key: j.Key.String(), Kind: kindOfKey(&j.Key), ManifestCID: cid.String(),
		Integrity:     cborIntegrity{"blake3", hex.EncodeToString(cid[:])},
		ProvidersHint: j.Answer.Hint,
	}
	if n := &j.Answer.Name; j.Key.IsName() {
		r.Seq, r.ExpiresAt, r.Signed = n.Seq, n.ExpiresAt, n.Signed()
	}
	b, err := cborMode.Marshal(r)
	return append(dst, b...), err
}

type cborProvider struct {
	ID       string  `cbor:"id"`
	Addr     string  `cbor:"addr"`
	Region   string  `cbor:"region"`
	Class    string  `cbor:"class"`
	Score    float64 `cbor:"score"`
	LastSeen int64   `cbor:"last_seen"`
}

type cborProviders struct {
	CID       string         `cbor:"cid"`
	Providers []cborProvider `cbor:"providers"`
	Truncated bool           `cbor:"truncated"`
}

// AppendProvidersCBOR appends what AppendProvidersJSON does, as CBOR.
func AppendProvidersCBOR(dst []byte, j *Job, vs []Ranked) ([]byte, error) {
	shown := vs[:min(len(vs), j.Query.Limit)]
	r := cborProviders{
		CID: j.Key.String(), Truncated: len(vs) > j.Query.Limit,
		Providers: make([]cborProvider, len(shown)),
	}
	for i, v := range shown {
		r.Providers[i] = cborProvider{v.ID, v.Addr, v.Region, v.Class, v.Score, v.LastSeen}
	}
	b, err := cborMode.Marshal(r)
	return append(dst, b...), err
}
