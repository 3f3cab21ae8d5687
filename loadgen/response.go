package loadgen

import (
	"bytes"
	"errors"
)

const (
	headMax   = 16 << 10 // longest head of an answer; longer is malformed
	digitsMax = 15       // of a Content-Length: a petabyte
)

// What a reader of answers can object to. Each is constant text, so that
// refusing costs nothing.
var (
	errStatusLine = errors.New("malformed status line")
	errHeaderLine = errors.New("malformed header line")
	errLength     = errors.New("malformed or repeated Content-Length")
	errNoLength   = errors.New("no Content-Length")
	errCoding     = errors.New("a Transfer-Encoding, which was not asked for")
	errSwitch     = errors.New("a 101, which was not asked for")
	errHeadMax    = errors.New("a head of more than 16 KiB")
)

// An answer is a view of an answer's head. source points into the buffer that
// was read and is dead when that is.
type answer struct {
	status int
	length int64 // bytes of body to follow
	close  bool  // the server will close after it
	source []byte
}

// interim reports whether another answer to the same request follows.
func (a *answer) interim() bool { return a.status < 200 }

// readAnswer reads the head of an answer at the start of b and returns its
// length, or 0 if b does not hold all of it yet. headless says that the request
// was a HEAD; field names the header to keep as source, in lower case.
//
// It is strict: what it takes means the same to everyone. It knows no chunked
// coding and no body that ends with the connection.
func readAnswer(b []byte, headless bool, field string) (a answer, n int, err error) {
	line, n := cutLine(b)
	if n == 0 {
		return a, 0, tooLong(b)
	}
	if a.status, a.close, err = readStatus(line); err != nil {
		return a, 0, err
	}
	length := int64(-1)
	for {
		line, size := cutLine(b[n:])
		if size == 0 {
			return a, 0, tooLong(b)
		}
		n += size
		if len(line) == 0 {
			break
		}
		if err := a.field(line, field, &length); err != nil {
			return a, 0, err
		}
	}
	return a, n, a.setLength(length, headless)
}

func tooLong(b []byte) error {
	if len(b) > headMax {
		return errHeadMax
	}
	return nil
}

// cutLine returns the first line of b without its end, and its size with it;
// 0 if it has no end yet. A line that does not end in CR LF comes back with its
// LF, which no field may hold.
func cutLine(b []byte) (line []byte, size int) {
	i := bytes.IndexByte(b, '\n')
	switch {
	case i < 0:
		return nil, 0
	case i == 0 || b[i-1] != '\r':
		return b[:i+1], i + 1
	}
	return b[:i-1], i + 1
}

// readStatus reads "HTTP/1.1 200 OK". An HTTP/1.0 server closes.
func readStatus(line []byte) (status int, close bool, err error) {
	if len(line) < len("HTTP/1.1 200") || string(line[:7]) != "HTTP/1." || line[8] != ' ' ||
		(line[7] != '0' && line[7] != '1') || len(line) > 12 && line[12] != ' ' || line[len(line)-1] == '\n' {
		return 0, false, errStatusLine
	}
	for _, c := range line[9:12] {
		if c < '0' || c > '9' {
			return 0, false, errStatusLine
		}
		status = 10*status + int(c-'0')
	}
	switch {
	case status == 101:
		return 0, false, errSwitch
	case status < 100 || status > 599:
		return 0, false, errStatusLine
	}
	return status, line[7] == '0', nil
}

// field takes in one header line.
func (a *answer) field(line []byte, source string, length *int64) error {
	colon := 0
	for colon < len(line) && tokenByte[line[colon]] {
		colon++
	}
	if colon == 0 || colon == len(line) || line[colon] != ':' || line[len(line)-1] == '\n' {
		return errHeaderLine
	}
	name := line[:colon]
	switch len(name) {
	case len("connection"):
		if fold(name, "connection") {
			for part := range bytes.SplitSeq(line[colon+1:], []byte(",")) {
				a.close = a.close || fold(trim(part), "close")
			}
		}
	case len("content-length"):
		if fold(name, "content-length") {
			return readLength(trim(line[colon+1:]), length)
		}
	case len("transfer-encoding"):
		if fold(name, "transfer-encoding") {
			return errCoding
		}
	}
	if len(name) == len(source) && fold(name, source) {
		a.source = trim(line[colon+1:])
	}
	return nil
}

func readLength(v []byte, length *int64) error {
	if *length >= 0 || len(v) == 0 || len(v) > digitsMax {
		return errLength
	}
	var n int64
	for _, c := range v {
		if c < '0' || c > '9' {
			return errLength
		}
		n = 10*n + int64(c-'0')
	}
	*length = n
	return nil
}

// setLength decides how much body follows.
func (a *answer) setLength(length int64, headless bool) error {
	switch {
	case headless, a.interim(), a.status == 204, a.status == 304:
		a.length = 0
	case length < 0:
		return errNoLength
	default:
		a.length = length
	}
	return nil
}

// fold reports whether b is s, which is in lower case, whatever b's case.
func fold(b []byte, s string) bool {
	if len(b) != len(s) {
		return false
	}
	for i, c := range b {
		if c >= 'A' && c <= 'Z' {
			c |= 0x20
		}
		if c != s[i] {
			return false
		}
	}
	return true
}

func trim(b []byte) []byte { return bytes.Trim(b, " \t") }

// tokenByte tells the bytes that a header's name may hold.
var tokenByte = func() (t [256]bool) {
	for c := range t {
		t[c] = c >= '0' && c <= '9' || c >= 'A' && c <= 'Z' || c >= 'a' && c <= 'z'
	}
	for _, c := range "!#$%&'*+-.^_`|~" {
		t[c] = true
	}
	return t
}()
