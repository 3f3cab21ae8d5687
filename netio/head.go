package netio

import (
	"encoding/binary"
	"math"
	"math/bits"

	"svcindex/index"
)

// Limits of a request head.
const (
	fieldsMax = 100 // fields; more are 431
	methodMax = 32  // bytes of a method; a longer one is none of ours (RFC 9112 3)
	emptyMax  = 4   // empty lines before a request line; one would do (RFC 9112 2.2)
	acceptMax = 4   // Accept fields that are looked at
)

// A head is a view of a request head. Its slices point into the input and are
// dead after it moves.
type head struct {
	method    index.Method // MethodOther for a token we do not know
	minor     uint8        // HTTP/1.minor: 0 or 1; what is later than 1.1 is spoken to as 1.1
	keepAlive bool         // the connection may carry another request
	chunked   bool
	expect100 bool // the client waits for 100 before it sends the body
	length    int64
	// length is Content-Length, -1 for none. At most one of it and chunked is
	// given.

	target []byte // as sent: visible ASCII without '#'
	host   []byte // as sent, valid; of an absolute target it is to be ignored

	// Values of fields, without the white space around them. nil: absent.
	contentType     []byte
	contentEncoding []byte
	authorization   []byte
	idempotencyKey  []byte
	corrID          []byte // also nil when there were several: none of them can be echoed
	ifNoneMatch     []byte // also nil when there were several: that costs a copy, never a wrong answer
	accept          []byte // the first; see acceptValues

	acceptMany bool // more than one Accept came
	accepts    uint8
	acceptRest [acceptMax - 1][]byte // valid iff acceptMany

	seen field // fields met so far
}

// acceptValues appends the values of all Accept fields, which together are one
// list, to dst. There are none if the client takes anything: it sent no
// Accept, or more of them than anybody needs.
func (h *head) acceptValues(dst [][]byte) [][]byte {
	if h.accepts == 0 || h.accepts > acceptMax {
		return dst
	}
	return append(append(dst, h.accept), h.acceptRest[:h.accepts-1]...)
}

// A field is a set of fields that were met.
type field uint16

const (
	fieldHost field = 1 << iota
	fieldLength
	fieldClose     // Connection: close
	fieldKeepAlive // Connection: keep-alive
	fieldExpect
	fieldCorrID
	fieldIfNoneMatch
	fieldIfMatch
	fieldContentRange
)

// parseHead reads one request head from the start of in. Three things might
// happen:
//
//   - n > 0: in begins with a whole head of n bytes, empty lines before it
//     included, and h is a view of it.
//   - n == 0 and err == nil: the head is not whole yet.
//   - err != nil: a refusal, after which the connection must close.
//
// It reads from left to right and judges each byte when it meets it, so a
// fault is found as soon as it has arrived, and how the bytes arrived changes
// nothing. Only what a field means waits for the end of its line.
func parseHead(in []byte, h *head, maxHead, maxTarget int) (n int, err *refusal) {
	var short *refusal // what it means to run out of bytes
	if len(in) >= maxHead {
		in, short = in[:maxHead], errHeadCap
	}
	*h = head{length: -1}
	i, err := h.requestLine(in, maxTarget)
	for fields := 0; i > 0; fields++ {
		if i == len(in) {
			return 0, short
		}
		if in[i] == '\r' {
			if i, err = lineEnd(in, i); i == 0 {
				break
			}
			if err = h.finish(); err != nil {
				return 0, err
			}
			return i, nil
		}
		if fields == fieldsMax {
			return 0, errFields
		}
		i, err = h.fieldLine(in, i)
	}
	if err == nil {
		err = short
	}
	return 0, err
}

// The parts of parseHead return the index after what they read, or 0 if they
// refuse it (err) or ran out of bytes (no err).

// lineEnd reads the CRLF that in[i], a byte that can only end a line, begins.
func lineEnd(in []byte, i int) (int, *refusal) {
	switch {
	case i == len(in):
		return 0, nil
	case in[i] == '\n':
		return 0, errBareLF
	case i+1 == len(in):
		return 0, nil
	case in[i+1] != '\n':
		return 0, errBareCR
	}
	return i + 2, nil
}

// requestLine reads the request line and the empty lines before it. A target
// that is too long is told without waiting for its end.
func (h *head) requestLine(in []byte, maxTarget int) (i int, err *refusal) {
	for lines := 0; i < len(in) && (in[i] == '\r' || in[i] == '\n'); lines++ {
		if lines == emptyMax {
			return 0, errEmptyLines
		}
		if i, err = lineEnd(in, i); i == 0 {
			return 0, err
		}
	}
	if len(in)-i >= 4 && string(in[i:i+4]) == "GET " {
		h.method = index.MethodGet
		i += 4
	} else if i, err = h.readMethod(in, i); i == 0 {
		return 0, err
	}

	start := i
	i = targetEnd(in, i)
	switch {
	case i-start > maxTarget:
		return 0, errURI
	case i == len(in):
		return 0, nil
	case i == start, in[i] == '\r', in[i] == '\n':
		return 0, errRequestLine
	case in[i] != ' ':
		return 0, errTargetByte
	}
	h.target = in[start:i]
	return h.readVersion(in, i+1)
}

// readMethod reads a method and the space after it.
func (h *head) readMethod(in []byte, start int) (int, *refusal) {
	i := start
	for i < len(in) && class[in[i]]&isToken != 0 {
		i++
	}
	switch {
	case i-start > methodMax:
		return 0, errMethodLong
	case i == len(in):
		return 0, nil
	case i > start && (in[i] == '\r' || in[i] == '\n'):
		return 0, errRequestLine
	case in[i] != ' ' || i == start:
		return 0, errMethodByte
	}
	switch string(in[start:i]) {
	case "GET":
		h.method = index.MethodGet
	case "HEAD":
		h.method = index.MethodHead
	case "PUT":
		h.method = index.MethodPut
	case "POST":
		h.method = index.MethodPost
	case "DELETE":
		h.method = index.MethodDelete
	case "OPTIONS":
		h.method = index.MethodOptions
	}
	return i + 1, nil
}

// readVersion reads the version and the end of the request line.
func (h *head) readVersion(in []byte, i int) (int, *refusal) {
	const form = "HTTP/1.1\r\n"
	if len(in)-i >= len(form) && string(in[i:i+len(form)]) == form {
		h.minor = 1
		return i + len(form), nil
	}
	for j := range len(form) {
		if i+j == len(in) {
			return 0, nil
		}
		c := in[i+j]
		digit := j == 5 || j == 7
		switch {
		case digit && c >= '0' && c <= '9', c == form[j]:
		case c == '\n' && j == 8:
			return 0, errBareLF
		default:
			return 0, errVersionForm
		}
	}
	if in[i+5] != '1' {
		return 0, errVersion
	}
	h.minor = min(in[i+7]-'0', 1)
	return i + len(form), nil
}

// fieldLine reads one field line.
func (h *head) fieldLine(in []byte, start int) (int, *refusal) {
	i := tokenEnd(in, start)
	if i == len(in) {
		return 0, nil
	}
	if in[i] != ':' || i == start {
		return 0, nameFault(in[i], i == start)
	}
	name := in[start:i]
	for i++; i < len(in) && (in[i] == ' ' || in[i] == '\t'); i++ {
	}
	from := i
	i = valueEnd(in, i)
	if i < len(in) && in[i] != '\r' && in[i] != '\n' {
		return 0, errFieldValue
	}
	end, err := lineEnd(in, i)
	if end == 0 {
		return 0, err
	}
	for i > from && (in[i-1] == ' ' || in[i-1] == '\t') {
		i--
	}
	if err := h.take(name, in[from:i]); err != nil {
		return 0, err
	}
	return end, nil
}

// nameFault says what is wrong with a field line that has c where it cannot
// be.
func nameFault(c byte, first bool) *refusal {
	switch {
	case first && (c == ' ' || c == '\t'):
		return errFold
	case first && c == '\n':
		return errBareLF
	}
	return errFieldName
}

// take notes what a field says. Fields we do not know say nothing, whatever
// other servers read into them (H_ost, Proxy-Connection, X-Forwarded-For).
func (h *head) take(name, value []byte) *refusal {
	switch len(name) {
	case 4:
		if fold(name, "host") {
			return h.takeHost(value)
		}
	case 6:
		if fold(name, "accept") {
			h.takeAccept(value)
		} else if fold(name, "expect") {
			return h.takeExpect(value)
		}
	case 8:
		if fold(name, "if-match") {
			h.seen |= fieldIfMatch
		}
	case 9:
		if fold(name, "x-corr-id") {
			h.corrID = value
			if h.again(fieldCorrID) {
				h.corrID = nil
			}
		}
	case 10:
		if fold(name, "connection") {
			return h.takeConnection(value)
		}
	case 12:
		if fold(name, "content-type") {
			return once(&h.contentType, value, errTypeTwice)
		}
	case 13:
		switch {
		case fold(name, "authorization"):
			return once(&h.authorization, value, errAuthTwice)
		case fold(name, "if-none-match"):
			h.ifNoneMatch = value
			if h.again(fieldIfNoneMatch) {
				h.ifNoneMatch = nil
			}
		case fold(name, "content-range"):
			h.seen |= fieldContentRange
		}
	case 14:
		if fold(name, "content-length") {
			return h.takeLength(value)
		}
	case 15:
		if fold(name, "idempotency-key") {
			return once(&h.idempotencyKey, value, errIdemTwice)
		}
	case 16:
		if fold(name, "content-encoding") {
			return once(&h.contentEncoding, value, errCodingTwice)
		}
	case 17:
		if fold(name, "transfer-encoding") {
			return h.takeTransfer(value)
		}
	}
	return nil
}

// again marks f as met and reports whether it had been before.
func (h *head) again(f field) bool {
	was := h.seen&f != 0
	h.seen |= f
	return was
}

// once keeps the value of a field that means one thing: of two, neither is
// picked.
func once(to *[]byte, value []byte, twice *refusal) *refusal {
	if *to != nil {
		return twice
	}
	*to = value
	return nil
}

func (h *head) takeHost(value []byte) *refusal {
	if h.again(fieldHost) {
		return errHostTwice
	}
	if !validHost(value) {
		return errHost
	}
	h.host = value
	return nil
}

func (h *head) takeAccept(value []byte) {
	switch n := h.accepts; {
	case n == 0:
		h.accept = value
	case n < acceptMax:
		h.acceptRest[n-1] = value
	}
	h.acceptMany = h.accepts > 0
	h.accepts = min(h.accepts+1, acceptMax+1)
}

// takeExpect: a client of 1.0 cannot mean it (RFC 9110 10.1.1).
func (h *head) takeExpect(value []byte) *refusal {
	if h.minor == 0 {
		return nil
	}
	if h.again(fieldExpect) || !fold(value, "100-continue") {
		return errExpect
	}
	h.expect100 = true
	return nil
}

// takeConnection reads a list of tokens; empty elements are allowed (RFC 9110
// 5.6.1). What else is no token leaves doubt whether the client means to close.
func (h *head) takeConnection(value []byte) *refusal {
	for i := 0; ; i++ {
		for i < len(value) && (value[i] == ' ' || value[i] == '\t') {
			i++
		}
		start := i
		for i < len(value) && class[value[i]]&isToken != 0 {
			i++
		}
		switch option := value[start:i]; {
		case fold(option, "close"):
			h.seen |= fieldClose
		case fold(option, "keep-alive"):
			h.seen |= fieldKeepAlive
		}
		for i < len(value) && (value[i] == ' ' || value[i] == '\t') {
			i++
		}
		if i == len(value) {
			return nil
		}
		if value[i] != ',' {
			return errConnection
		}
	}
}

// takeLength reads Content-Length. The same length twice could be taken for
// one (RFC 9110 8.6), but no honest client sends it.
func (h *head) takeLength(value []byte) *refusal {
	switch {
	case h.again(fieldLength):
		return errLengthTwice
	case h.chunked:
		return errTwoLengths
	case len(value) == 0:
		return errLength
	}
	var n int64
	for _, c := range value {
		if c < '0' || c > '9' {
			return errLength
		}
		if d := int64(c - '0'); n > (math.MaxInt64-d)/10 {
			n = math.MaxInt64 // and there it stays
		} else {
			n = n*10 + d
		}
	}
	if n == math.MaxInt64 {
		return errBodyCap
	}
	h.length = n
	return nil
}

// takeTransfer reads Transfer-Encoding. It takes only what every server on the
// way must read alike: the one word chunked.
func (h *head) takeTransfer(value []byte) *refusal {
	switch {
	case h.minor == 0:
		return errTransferOld
	case h.chunked:
		return errTransferTwice
	case h.seen&fieldLength != 0:
		return errTwoLengths
	case len(value) == 0:
		return errTransferEmpty
	case !fold(value, "chunked"):
		return errTransferEncoding
	}
	h.chunked = true
	return nil
}

// finish judges the head as a whole.
func (h *head) finish() *refusal {
	if h.seen&fieldHost == 0 && h.minor > 0 {
		return errHostMissing
	}
	if h.seen&fieldContentRange != 0 && h.method == index.MethodPut {
		return errPartialPut // RFC 9110 14.5
	}
	h.keepAlive = h.seen&fieldClose == 0 && (h.minor > 0 || h.seen&fieldKeepAlive != 0)
	return nil
}

// fold reports whether b is word, which is lower case, in any case.
func fold(b []byte, word string) bool {
	if len(b) != len(word) {
		return false
	}
	for i := range b {
		if lower[b[i]] != word[i] {
			return false
		}
	}
	return true
}

// validHost holds b to uri-host [":" port] (RFC 9110 4.2, RFC 3986 3.2.2). It
// may be empty.
func validHost(b []byte) bool {
	i := 0
	if len(b) > 0 && b[0] == '[' {
		if i = ipv6End(b); i == 0 {
			return false
		}
	} else {
		for i < len(b) && (class[b[i]]&isRegName != 0 || b[i] == '%') {
			if b[i] == '%' && !pctEncoded(b[i:]) {
				return false
			}
			i++
		}
	}
	if i == len(b) {
		return true
	}
	if b[i] != ':' {
		return false
	}
	for i++; i < len(b); i++ {
		if b[i] < '0' || b[i] > '9' {
			return false
		}
	}
	return true
}

// ipv6End returns the length of the bracketed IPv6 address that b begins with,
// or 0. Nobody has defined another kind of literal yet.
func ipv6End(b []byte) int {
	i, groups, gap := 1, 0, false
	if i+1 < len(b) && b[i] == ':' && b[i+1] == ':' {
		i, gap = i+2, true
	}
	for {
		if i < len(b) && b[i] == ']' {
			break // after "::", or too early, which the count of groups shows
		}
		start := i
		for i < len(b) && i-start < 4 && class[b[i]]&isHex != 0 {
			i++
		}
		if i == start || i == len(b) {
			return 0
		}
		if b[i] == '.' {
			if i = ipv4End(b, start); i == 0 || i == len(b) || b[i] != ']' {
				return 0
			}
			groups += 2
			break
		}
		groups++
		if b[i] == ']' {
			break
		}
		if b[i] != ':' {
			return 0
		}
		if i++; i < len(b) && b[i] == ':' {
			if gap {
				return 0
			}
			i, gap = i+1, true
		} else if i < len(b) && b[i] == ']' {
			return 0 // a single colon at the end
		}
	}
	if gap && groups > 7 || !gap && groups != 8 {
		return 0
	}
	return i + 1
}

// ipv4End returns the index after the dotted address that begins at b[i], or
// 0.
func ipv4End(b []byte, i int) int {
	for part := range 4 {
		if part > 0 {
			if i == len(b) || b[i] != '.' {
				return 0
			}
			i++
		}
		start, n := i, 0
		for i < len(b) && i-start < 3 && b[i] >= '0' && b[i] <= '9' {
			n = n*10 + int(b[i]-'0')
			i++
		}
		if i == start || n > 255 || b[start] == '0' && i-start > 1 {
			return 0
		}
	}
	return i
}

// pctEncoded reports whether b, which begins with '%', begins with a
// percent-encoded byte.
func pctEncoded(b []byte) bool {
	return len(b) >= 3 && class[b[1]]&isHex != 0 && class[b[2]]&isHex != 0
}

// Eight bytes at a time: in stop, the high bit of a byte says that a run may end
// there. Sums and differences carry into the next byte only from one that is
// itself a stop, so the lowest stop, the one that counts, is never missed.
const (
	each = 0x0101010101010101
	high = 0x8080808080808080
)

// targetEnd returns the index of the first byte from i on that is not visible
// ASCII or is '#'.
func targetEnd(in []byte, i int) int {
	for ; i+8 <= len(in); i += 8 {
		v := binary.LittleEndian.Uint64(in[i:])
		// In turn: not ASCII; DEL; up to SP; '#'.
		if stop := (v | (v + each) | (v - 0x21*each) | ((v ^ '#'*each) - each)) & high; stop != 0 {
			return i + bits.TrailingZeros64(stop)/8
		}
	}
	for i < len(in) && in[i] > ' ' && in[i] < 0x7f && in[i] != '#' {
		i++
	}
	return i
}

// valueEnd returns the index of the first byte from i on that a field value
// cannot hold: a control character other than HTAB.
func valueEnd(in []byte, i int) int {
	for i+8 <= len(in) {
		v := binary.LittleEndian.Uint64(in[i:])
		// DEL; below SP; neither if not ASCII. A carry out of 0xff may stop at
		// a byte that is fine, so each is looked at.
		stop := ((v + each) | (v - ' '*each)) &^ v & high
		if stop == 0 {
			i += 8
			continue
		}
		i += bits.TrailingZeros64(stop) / 8
		if class[in[i]]&isValue == 0 {
			return i
		}
		i++
	}
	for i < len(in) && class[in[i]]&isValue != 0 {
		i++
	}
	return i
}

// tokenEnd returns the index of the first byte from i on that is not of a
// token. Letters and '-' are most of any field name.
func tokenEnd(in []byte, i int) int {
	for i+8 <= len(in) {
		v := binary.LittleEndian.Uint64(in[i:])
		small := v | 0x20*each
		letter := (small + (0x80-'a')*each) &^ (small + (0x7f-'z')*each)
		noDash := (v ^ '-'*each) + 0x7f*each
		stop := (noDash&^letter | v) & high
		if stop == 0 {
			i += 8
			continue
		}
		i += bits.TrailingZeros64(stop) / 8
		if class[in[i]]&isToken == 0 {
			return i
		}
		i++
	}
	for i < len(in) && class[in[i]]&isToken != 0 {
		i++
	}
	return i
}

// What a byte may be part of.
const (
	isToken   = 1 << iota // tchar (RFC 9110 5.6.2)
	isHex                 // HEXDIG, in either case
	isRegName             // unreserved and sub-delims (RFC 3986 3.2.2)
	isURL                 // path or query: pchar, '/', '?'; without '%' (RFC 3986 3.3, 3.4)
	isID                  // an id of ours: unreserved
	isRegion              // a region: unreserved without '~'
	isValue               // in a field value (RFC 9110 5.5)
)

var class = func() (t [256]uint8) {
	mark := func(set string, as uint8) {
		for i := range len(set) {
			t[set[i]] |= as
		}
	}
	const alnum = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
	mark(alnum+"!#$%&'*+-.^_`|~", isToken)
	mark("0123456789ABCDEFabcdef", isHex)
	mark(alnum+"-._~!$&'()*+,;=", isRegName)
	mark(alnum+"-._~!$&'()*+,;=:@/?", isURL)
	mark(alnum+"-._~", isID)
	mark(alnum+"-._", isRegion)
	for c := range t {
		if c == '\t' || c >= ' ' && c != 0x7f {
			t[c] |= isValue
		}
	}
	return t
}()

// lower maps capital letters to small ones.
var lower = func() (t [256]byte) {
	for c := range t {
		t[c] = byte(c)
		if c >= 'A' && c <= 'Z' {
			t[c] |= 0x20
		}
	}
	return t
}()
