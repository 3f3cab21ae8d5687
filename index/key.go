package index

import (
	"encoding/hex"
	"errors"
)

// A CID is a content id: the BLAKE3-256 of the content. Its text is "b3:" and
// 64 lowercase hex digits.
type CID [32]byte

// CIDText is the length of a content id's text.
const CIDText = len("b3:") + 64

// NameMax is the longest text of a name in bytes, its "name:" included.
const NameMax = len("name:") + 200

// AppendText appends the text of c to dst.
func (c *CID) AppendText(dst []byte) []byte {
	return hex.AppendEncode(append(dst, "b3:"...), c[:])
}

func (c CID) String() string { return string(c.AppendText(nil)) }

// MarshalText implements encoding.TextMarshaler.
func (c CID) MarshalText() ([]byte, error) { return c.AppendText(nil), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (c *CID) UnmarshalText(b []byte) (err error) {
	*c, err = ParseCID(b)
	return err
}

// Errors of ParseCID and ParseKey. They say what was expected; they never
// repeat the key.
var (
	ErrCID      = errors.New("a content id is b3: and 64 lowercase hex digits")
	ErrName     = errors.New("a name is name: and 1 to 200 bytes of A-Z a-z 0-9 . _ ~ + - in segments split by /, none of them empty or only one or two dots")
	ErrKey      = errors.New("a key begins with b3: or name:, in lower case")
	ErrSelfName = errors.New("@ only opens a self-certifying name: name:@, 64 lowercase hex digits, and a path")
)

// ParseCID reads the text of a content id. Uppercase hex is malformed.
func ParseCID[T ~string | ~[]byte](s T) (c CID, err error) {
	if len(s) != CIDText || s[0] != 'b' || s[1] != '3' || s[2] != ':' {
		return c, ErrCID
	}
	for i := range c {
		hi, lo := unhex[s[3+2*i]], unhex[s[4+2*i]]
		if hi|lo > 15 {
			return CID{}, ErrCID
		}
		c[i] = hi<<4 | lo
	}
	return c, nil
}

// A Key is what can be asked for: a content id or a name. It is a value and
// can be compared; the zero Key names nothing.
type Key struct {
	isName bool
	n      uint8
	b      [NameMax]byte // a cid's 32 bytes, or a name's text with its "name:"
}

// CIDKey returns the key of a content id.
func CIDKey(c CID) (k Key) {
	k.n = uint8(copy(k.b[:], c[:]))
	return k
}

// ParseKey reads the text of a key: a content id or a name with its "name:".
func ParseKey[T ~string | ~[]byte](s T) (k Key, err error) {
	if len(s) >= 3 && s[0] == 'b' && s[1] == '3' && s[2] == ':' {
		c, err := ParseCID(s)
		if err != nil {
			return Key{}, err
		}
		return CIDKey(c), nil
	}
	if len(s) < 5 || string(s[:5]) != "name:" {
		return Key{}, ErrKey
	}
	if len(s) == 5 || len(s) > NameMax {
		return Key{}, ErrName
	}
	if err := checkName(s[5:]); err != nil {
		return Key{}, err
	}
	k.isName = true
	k.n = uint8(copy(k.b[:], s))
	return k, nil
}

// checkName holds a name, without its "name:", to the grammar.
func checkName[T ~string | ~[]byte](s T) error {
	start := 0
	for i := 0; i <= len(s); i++ {
		if i < len(s) && s[i] != '/' {
			switch c := s[i]; {
			case nameByte[c]:
			case c == '@' && i == 0:
				if len(s) < 67 || s[65] != '/' {
					return ErrSelfName
				}
				for j := 1; j < 65; j++ {
					if unhex[s[j]] > 15 {
						return ErrSelfName
					}
				}
			case c == '@':
				return ErrSelfName
			default:
				return ErrName
			}
			continue
		}
		switch seg := s[start:i]; {
		case len(seg) == 0, len(seg) == 1 && seg[0] == '.', len(seg) == 2 && seg[0] == '.' && seg[1] == '.':
			return ErrName
		}
		start = i + 1
	}
	return nil
}

// IsName reports whether k is a name.
func (k *Key) IsName() bool { return k.isName }

// IsSelfCertifying reports whether k is a name that carries its only
// publisher's key.
func (k *Key) IsSelfCertifying() bool { return k.isName && k.b[5] == '@' }

// IsZero reports whether k names nothing.
func (k *Key) IsZero() bool { return k.n == 0 }

// CID returns the content id of a key that is one.
func (k *Key) CID() CID { return CID(k.b[:32]) }

// Bytes returns the bytes that tell k from every other key of its kind: the 32
// of a content id, or the text of a name. They belong to k.
func (k *Key) Bytes() []byte { return k.b[:k.n] }

// AppendText appends the text of k to dst.
func (k *Key) AppendText(dst []byte) []byte {
	if k.isName {
		return append(dst, k.b[:k.n]...)
	}
	c := k.CID()
	return c.AppendText(dst)
}

func (k Key) String() string {
	if k.IsZero() {
		return ""
	}
	return string(k.AppendText(nil))
}

// nameByte tells the bytes a name may hold inside a segment.
var nameByte = func() (t [256]bool) {
	for c := range t {
		t[c] = c >= '0' && c <= '9' || c >= 'A' && c <= 'Z' || c >= 'a' && c <= 'z'
	}
	for _, c := range "._~+-" {
		t[c] = true
	}
	return t
}()

// unhex maps a lowercase hex digit to its value, every other byte to 255.
var unhex = func() (t [256]byte) {
	for c := range t {
		t[c] = 255
	}
	for i, c := range "0123456789abcdef" {
		t[c] = byte(i)
	}
	return t
}()
