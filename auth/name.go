package auth

import (
	"crypto/ed25519"
	"errors"

	"svcindex/index"
)

// Why a name is not accepted. Constant texts: a client reads them.
var (
	ErrUnsigned  = errors.New("this name is under a trusted prefix: it needs pubkey and sig of a listed key")
	ErrForm      = errors.New("pubkey has to be 32 bytes and sig 64, in base64url without padding")
	ErrSignature = errors.New("the signature does not match the name, cid, seq, issued_at and expires_at under this key")
	ErrUntrusted = errors.New("the key is not one that is trusted for this name")
)

// SignName signs what r says of name, and notes key and signature in r.
func SignName(key ed25519.PrivateKey, name *index.Key, r *index.NameRecord) {
	r.PubKey = key.Public().(ed25519.PublicKey)
	r.Sig = ed25519.Sign(key, index.AppendSigned(nil, name, r))
}

// VerifyName reports whether r is signed for name by the key it carries. It
// does not say whether that key may speak for name: Trust does.
func VerifyName(name *index.Key, r *index.NameRecord) error {
	if len(r.PubKey) != ed25519.PublicKeySize || len(r.Sig) != ed25519.SignatureSize || r.IssuedAt < 0 || r.ExpiresAt < 0 {
		return ErrForm
	}
	if everybodys(r.PubKey) || !ed25519.Verify(r.PubKey, index.AppendSigned(nil, name, r), r.Sig) {
		return ErrSignature
	}
	return nil
}

// everybodys reports whether a public key is a point of small order, or not in
// its one form. To such a key signatures can be made without a private key.
func everybodys(key []byte) bool {
	var k [ed25519.PublicKeySize]byte
	copy(k[:], key)
	k[31] &^= 0x80 // the sign of x
	if k[31] == 0x7f && k[0] >= 0xed {
		rest := byte(0xff)
		for _, b := range k[1:31] {
			rest &= b
		}
		if rest == 0xff {
			return true // y is not below p
		}
	}
	for i := range smallOrder {
		if k == smallOrder[i] {
			return true
		}
	}
	return false
}

// smallOrder holds the y of every point of edwards25519 whose order divides 8.
var smallOrder = [...][32]byte{
	{},  // order 4
	{1}, // the neutral element
	{0xec, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
		0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f}, // order 2
	{0x26, 0xe8, 0x95, 0x8f, 0xc2, 0xb2, 0x27, 0xb0, 0x45, 0xc3, 0xf4, 0x89, 0xf2, 0xef, 0x98, 0xf0,
		0xd5, 0xdf, 0xac, 0x05, 0xd3, 0xc6, 0x33, 0x39, 0xb1, 0x38, 0x02, 0x88, 0x6d, 0x53, 0xfc, 0x05}, // order 8
	{0xc7, 0x17, 0x6a, 0x70, 0x3d, 0x4d, 0xd8, 0x4f, 0xba, 0x3c, 0x0b, 0x76, 0x0d, 0x10, 0x67, 0x0f,
		0x2a, 0x20, 0x53, 0xfa, 0x2c, 0x39, 0xcc, 0xc6, 0x4e, 0xc7, 0xfd, 0x77, 0x92, 0xac, 0x03, 0x7a}, // order 8
}
