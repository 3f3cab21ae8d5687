package auth

import (
	"bytes"
	"crypto/rand"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
)

const (
	tokenFile  = "admin.token"
	tokenBytes = 32
)

// AdminToken returns the bearer token of dir. With create, the first call in a
// directory makes one; without, a directory that has none is fs.ErrNotExist.
func AdminToken(dir string, create bool) (string, error) {
	path := filepath.Join(dir, tokenFile)
	token, err := readToken(path)
	if create && errors.Is(err, fs.ErrNotExist) {
		if err = createToken(path); err == nil || errors.Is(err, fs.ErrExist) {
			token, err = readToken(path)
		}
	}
	if err != nil {
		return "", fmt.Errorf("the admin token: %w", err)
	}
	return token, nil
}

func createToken(path string) error {
	var secret [tokenBytes]byte
	if _, err := rand.Read(secret[:]); err != nil {
		return err
	}
	text := base64.RawURLEncoding.AppendEncode(nil, secret[:])
	return createSecret(path, append(text, '\n'))
}

func readToken(path string) (string, error) {
	text, err := readSecret(path)
	if err != nil {
		return "", err
	}
	text = bytes.TrimSuffix(text, []byte("\n"))
	secret, err := base64.RawURLEncoding.Strict().DecodeString(string(text))
	if err != nil || len(secret) != tokenBytes {
		return "", fmt.Errorf("%s is damaged, it should hold %d base64url characters: "+
			"move it away and start the server again, which makes a new one",
			path, base64.RawURLEncoding.EncodedLen(tokenBytes))
	}
	return string(text), nil
}

// TokenEqual reports whether got is the token, in a time that tells nothing of
// how much of it was right. Nothing equals an empty token. It does not
// allocate, which comparing through a conversion of want would.
func TokenEqual(got []byte, want string) bool {
	if want == "" || len(got) != len(want) {
		return false // the length is no secret: all tokens have the same
	}
	var differ byte
	for i := range got {
		differ |= got[i] ^ want[i]
	}
	return subtle.ConstantTimeByteEq(differ, 0) == 1
}
