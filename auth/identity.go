package auth

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"path/filepath"
	"slices"
)

const (
	identityFile = "identity.key"
	identityType = "PRIVATE KEY" // PKCS#8
	identityNote = "peer id "    // opens the line before the PEM block
)

// Identity returns the node's key and its peer id. The first call in a
// directory creates the key.
func Identity(dir string) (ed25519.PrivateKey, string, error) {
	path := filepath.Join(dir, identityFile)
	key, err := readIdentity(path)
	if errors.Is(err, fs.ErrNotExist) {
		if err = createIdentity(path); err == nil || errors.Is(err, fs.ErrExist) {
			key, err = readIdentity(path)
		}
	}
	if err != nil {
		return nil, "", fmt.Errorf("the node's identity: %w", err)
	}
	return key, PeerID(key.Public().(ed25519.PublicKey)), nil
}

// NodeID returns the peer id of a directory that has a key, and makes none.
func NodeID(dir string) (string, error) {
	key, err := readIdentity(filepath.Join(dir, identityFile))
	if err != nil {
		return "", fmt.Errorf("the node's identity: %w", err)
	}
	return PeerID(key.Public().(ed25519.PublicKey)), nil
}

// createIdentity writes a new key. The line before the PEM block, which every
// PEM reader skips, tells people whose key it is, and lets readIdentity notice
// a flipped bit: any 32 bytes are an Ed25519 seed.
func createIdentity(path string) error {
	pub, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return err
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return err
	}
	text := append([]byte(identityNote+PeerID(pub)+"\n"),
		pem.EncodeToMemory(&pem.Block{Type: identityType, Bytes: der})...)
	return createSecret(path, text)
}

func readIdentity(path string) (ed25519.PrivateKey, error) {
	text, err := readSecret(path)
	if err != nil {
		return nil, err
	}
	key, err := parseKey(text, identityNote, PeerID)
	if err != nil {
		return nil, fmt.Errorf("%s is damaged (%w): restore it from a backup, or move it away "+
			"to start as a new node, under which the old provider rows are not renewed", path, err)
	}
	return key, nil
}

// parseKey reads a PKCS#8 PEM Ed25519 key, with or without our line before it,
// so that a key made by openssl is as good. The line is note and what name
// makes of the public key.
func parseKey(text []byte, note string, name func(ed25519.PublicKey) string) (ed25519.PrivateKey, error) {
	block, rest := pem.Decode(text)
	if block == nil || block.Type != identityType || len(bytes.TrimSpace(rest)) > 0 {
		return nil, errors.New("not one PKCS#8 PEM block")
	}
	parsed, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, errors.New("the block is not PKCS#8")
	}
	key, ok := parsed.(ed25519.PrivateKey)
	if !ok {
		return nil, errors.New("not an Ed25519 key")
	}
	said, noted := bytes.CutPrefix(text, []byte(note))
	said, _, _ = bytes.Cut(said, []byte("\n"))
	if noted && string(bytes.TrimSpace(said)) != name(key.Public().(ed25519.PublicKey)) {
		return nil, errors.New("its first line names another key than it holds")
	}
	return key, nil
}

// PeerID returns the libp2p peer id of an Ed25519 key: the base58btc text of
// the identity multihash of the key's protobuf. libp2p hashes only keys whose
// protobuf is over 42 bytes; this one has 36.
func PeerID(key ed25519.PublicKey) string {
	return base58(append([]byte{
		0x00, 36, // multihash: identity, length
		0x08, 0x01, // field 1, Type: Ed25519
		0x12, ed25519.PublicKeySize, // field 2, Data
	}, key...))
}

const base58Digits = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"

// base58 returns b in base58btc: the digits of one big number, after a 1 for
// each leading zero byte.
func base58(b []byte) string {
	var text []byte
	for n, radix, digit := new(big.Int).SetBytes(b), big.NewInt(58), new(big.Int); n.Sign() > 0; {
		n.DivMod(n, radix, digit)
		text = append(text, base58Digits[digit.Int64()])
	}
	for i := 0; i < len(b) && b[i] == 0; i++ {
		text = append(text, base58Digits[0])
	}
	slices.Reverse(text)
	return string(text)
}
