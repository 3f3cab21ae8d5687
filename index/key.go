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

func (c CID) String() string {
	var room [CIDText]byte
	return string(c.AppendText(room[:0]))
}

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
	err = ReadKey(&k, s)
	return k, err
}

// ReadKey is ParseKey in place: a Key is large, and to hand one over costs as
// much as to read it. After an error k is zero.
func ReadKey[T ~string | ~[]byte](k *Key, s T) error {
	k.clear()
	if len(s) >= 3 && s[0] == 'b' && s[1] == '3' && s[2] == ':' {
		c, err := ParseCID(s)
		if err == nil {
			k.n = uint8(copy(k.b[:], c[:]))
		}
		return err
	}
	if len(s) < 5 || string(s[:5]) != "name:" {
		return ErrKey
	}
	if len(s) == 5 || len(s) > NameMax {
		return ErrName
	}
	if err := checkName(s[5:]); err != nil {
		return err
	}
	k.isName = true
	k.n = uint8(copy(k.b[:], s))
	return nil
}

// CopyFrom makes k another's equal, and copies no more than there is.
func (k *Key) CopyFrom(o *Key) {
	if k.n > o.n {
		clear(k.b[o.n:k.n])
	}
	k.isName, k.n = o.isName, o.n
	copy(k.b[:k.n], o.b[:k.n])
}

// clear makes k name nothing. What lies behind its bytes is zero already.
func (k *Key) clear() {
	clear(k.b[:k.n])
	k.isName, k.n = false, 0
}

// checkName holds a name, without its "name:", to the grammar.
func checkName[T ~string | ~[]byte](s T) error {
	for i := 0; ; i++ {
		start := i
		for i < len(s) && nameByte[s[i]] {
			i++
		}
		if i < len(s) && s[i] == '@' {
			if i != 0 || len(s) < 67 || s[65] != '/' {
				return ErrSelfName
			}
			for i = 1; i < 65; i++ {
				if unhex[s[i]] > 15 {
					return ErrSelfName
				}
			}
		}
		if i < len(s) && s[i] != '/' {
			return ErrName
		}
		switch n := i - start; {
		case n == 0, n == 1 && s[start] == '.', n == 2 && s[start] == '.' && s[start+1] == '.':
			return ErrName
		}
		if i == len(s) {
			return nil
		}
	}
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
	var room [NameMax]byte
	return string(k.AppendText(room[:0]))
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
