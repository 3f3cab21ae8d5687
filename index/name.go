package index

import (
	"encoding/binary"
	"encoding/hex"
	"errors"
)

// Sizes of what signs a name, in bytes.
const (
	PubKeySize = 32 // an Ed25519 public key
	SigSize    = 64 // an Ed25519 signature
	SignedMax  = 4 << 10
)

// signedDomain opens the bytes a publisher signs, so that no signature made
// for something else is one of a name.
const signedDomain = "svc-index/name/v1\x00"

// AppendSigned appends the bytes that a publisher signs to say what name points
// to. Integers are big-endian:
//
//	"svc-index/name/v1" 0x00 | u16 length of name | name, with its "name:"
//	cid (32 bytes; zeros: deleted) | u64 seq | u64 issued_at | u64 expires_at
func AppendSigned(dst []byte, name *Key, r *NameRecord) []byte {
	be := binary.BigEndian
	dst = append(dst, signedDomain...)
	dst = be.AppendUint16(dst, uint16(len(name.Bytes())))
	dst = append(dst, name.Bytes()...)
	cid := r.signedCID()
	dst = append(dst, cid[:]...)
	dst = be.AppendUint64(dst, r.Seq)
	dst = be.AppendUint64(dst, uint64(r.IssuedAt))
	return be.AppendUint64(dst, uint64(r.ExpiresAt))
}

// signedCID is the content id that stands in the signed bytes.
func (r *NameRecord) signedCID() CID {
	if r.Deleted {
		return CID{}
	}
	return r.CID
}

// Publisher returns the Ed25519 public key that a self-certifying name carries.
func (k *Key) Publisher() (pub [PubKeySize]byte, ok bool) {
	if !k.IsSelfCertifying() {
		return pub, false
	}
	_, err := hex.Decode(pub[:], k.b[len("name:@"):len("name:@")+2*PubKeySize])
	return pub, err == nil
}

// cborName is a signed name as it travels between nodes.
type cborName struct {
	CID       []byte `cbor:"cid"`
	ExpiresAt uint64 `cbor:"expires_at"`
	IssuedAt  uint64 `cbor:"issued_at"`
	Name      string `cbor:"name"`
	PubKey    []byte `cbor:"pubkey"`
	Seq       uint64 `cbor:"seq"`
	Sig       []byte `cbor:"sig"`
}

// MarshalSignedName encodes a signed record for other nodes: a map of the
// signed fields, the key and the signature in deterministic CBOR.
func MarshalSignedName(name *Key, r *NameRecord) ([]byte, error) {
	cid := r.signedCID()
	return MarshalCBOR(cborName{
		CID: cid[:], ExpiresAt: uint64(r.ExpiresAt), IssuedAt: uint64(r.IssuedAt),
		Name: string(name.Bytes()), PubKey: r.PubKey, Seq: r.Seq, Sig: r.Sig,
	})
}

// ErrSignedName says that bytes are not a signed name in the one form there is
// of it.
var ErrSignedName = errors.New("not a signed name: a deterministic CBOR map of cid, expires_at, issued_at, name, pubkey, seq and sig is expected")

// UnmarshalSignedName reads what MarshalSignedName wrote, and nothing else. It
// does not verify the signature: that takes somebody who knows whom to trust.
func UnmarshalSignedName(b []byte) (name Key, r NameRecord, err error) {
	var in cborName
	if len(b) > SignedMax || UnmarshalCBOR(b, &in) != nil {
		return Key{}, NameRecord{}, ErrSignedName
	}
	name, err = ParseKey(in.Name)
	switch {
	case err != nil, !name.IsName(),
		len(in.CID) != len(CID{}), len(in.PubKey) != PubKeySize, len(in.Sig) != SigSize,
		in.Seq < 1, in.Seq > SeqMax, in.IssuedAt > SeqMax, in.ExpiresAt > SeqMax:
		return Key{}, NameRecord{}, ErrSignedName
	}
	r = NameRecord{
		CID: CID(in.CID), Seq: in.Seq, IssuedAt: int64(in.IssuedAt), ExpiresAt: int64(in.ExpiresAt),
		PubKey: in.PubKey, Sig: in.Sig,
	}
	r.Deleted = r.CID == CID{}
	return name, r, nil
}
