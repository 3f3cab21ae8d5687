package auth

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
)

// publisherNote opens the line before the PEM block of a publisher's key.
const publisherNote = "public key "

// NewPublisherKey makes a key that names can be signed with and puts it at
// path. What is there already stands, and is fs.ErrExist.
func NewPublisherKey(path string) (ed25519.PublicKey, error) {
	pub, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, err
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	text := append([]byte(publisherNote+FormatPublicKey(pub)+"\n"),
		pem.EncodeToMemory(&pem.Block{Type: identityType, Bytes: der})...)
	if err := createSecret(path, text); errors.Is(err, fs.ErrExist) {
		return nil, fmt.Errorf("%s is there already, and names may hang on it: choose another file: %w", path, fs.ErrExist)
	} else if err != nil {
		return nil, err
	}
	return pub, nil
}

// PublisherKey reads what NewPublisherKey wrote, or any PKCS#8 PEM of an
// Ed25519 key, such as openssl makes.
func PublisherKey(path string) (ed25519.PrivateKey, error) {
	text, err := readSecret(path)
	if err != nil {
		return nil, fmt.Errorf("the publisher's key: %w", err)
	}
	key, err := parseKey(text, publisherNote, FormatPublicKey)
	if err != nil {
		return nil, fmt.Errorf("the publisher's key: %s: %w; restore it from a backup", path, err)
	}
	return key, nil
}
