package netio

import (
	"encoding/base64"
	"encoding/json"
	"os"
	"slices"
	"strings"
	"testing"

	"svcindex/index"
)

const (
	headCap   = 16 << 10
	targetCap = 8 << 10
	bodyCap   = 1 << 20
)

// parse is parseHead for tests.
func parse(in string) (h head, n int, err *refusal) {
	n, err = parseHead([]byte(in), &h, headCap, targetCap)
	return h, n, err
}

// TestParseHead is a table of heads written from the RFCs: what is refused,
// and by which refusal.
func TestParseHead(t *testing.T) {
	const host = "Host: a\r\n"
	get := func(fields string) string { return "GET / HTTP/1.1\r\n" + fields + "\r\n" }
	post := func(fields string) string { return "POST / HTTP/1.1\r\nHost: a\r\n" + fields + "\r\n" }
	for _, tt := range []struct {
		why  string
		in   string
		want *refusal
	}{
		{"9112 2.1: the plain case", get(host), nil},
		{"9112 2.2: an empty line before the request line is skipped", "\r\n" + get(host), nil},
		{"9112 2.2: more of them, but not for ever", "\r\n\r\n\r\n\r\n" + get(host), nil},
		{"9112 2.2: five are too many", "\r\n\r\n\r\n\r\n\r\n" + get(host), errEmptyLines},
		{"9112 2.2: an empty line is CRLF, not LF", "\n" + get(host), errBareLF},
		{"9112 2.2: an empty line is CRLF, not CR", "\r" + get(host), errBareCR},
		{"9112 2.2: no white space before the first field", "GET / HTTP/1.1\r\n " + host + "\r\n", errFold},
		{"9112 2.2: LF alone ends no request line", "GET / HTTP/1.1\n" + host + "\r\n", errBareLF},
		{"9112 2.2: LF alone ends no field line", get("Host: a\n"), errBareLF},
		{"9112 2.2: LF alone ends no head", "GET / HTTP/1.1\r\n" + host + "\n", errBareLF},
		{"9112 2.2: CR alone is no line end in a value", get(host + "A: b\rC: d\r\n"), errBareCR},
		{"9112 2.2: CR alone is no end of a head", "GET / HTTP/1.1\r\n" + host + "\rX", errBareCR},
		{"9112 2.2: CR CR LF is no line end", get("Host: a\r\r\n"), errBareCR},

		{"9110 9.1: a method is a token", "G(T / HTTP/1.1\r\n", errMethodByte},
		{"9112 3: a method there has to be", " / HTTP/1.1\r\n", errMethodByte},
		{"a TLS client is recognised by its first byte", "\x16\x03\x01", errMethodByte},
		{"9112 3: a method longer than any of ours is 501", strings.Repeat("M", 33), errMethodLong},
		{"9110 9.1: a method we do not know is still a method", "BREW / HTTP/1.1\r\n" + host + "\r\n", nil},
		{"9112 3: a method alone is no request line", "GET\r\n", errRequestLine},
		{"9112 3: one space, not two", "GET  / HTTP/1.1\r\n", errRequestLine},
		{"9112 3: one space, not two, before the version", "GET /  HTTP/1.1\r\n", errVersionForm},
		{"9112 3: a space, not a tab", "GET\t/ HTTP/1.1\r\n", errMethodByte},
		{"9112 3: a space, not a tab, before the version", "GET /\tHTTP/1.1\r\n", errTargetByte},
		{"9112 3.2: no white space in a target", "GET /a b HTTP/1.1\r\n", errVersionForm},
		{"9112 3.2: no fragment", "GET /#a HTTP/1.1\r\n", errTargetByte},
		{"3986 2: no DEL", "GET /\x7f HTTP/1.1\r\n", errTargetByte},
		{"3986 2: no NUL", "GET /\x00 HTTP/1.1\r\n", errTargetByte},
		{"3986 2: no raw UTF-8", "GET /caf\xc3\xa9 HTTP/1.1\r\n", errTargetByte},
		{"a bad byte is found in each place of a word", "GET /1234567\x80 HTTP/1.1\r\n", errTargetByte},
		{"9112 3: 8192 bytes of target are taken", "GET /" + strings.Repeat("a", targetCap-1) + " HTTP/1.1\r\n" + host + "\r\n", nil},
		{"9110 15.5.15: one more is 414", "GET /" + strings.Repeat("a", targetCap) + " HTTP/1.1\r\n", errURI},
		{"9110 15.5.15: and without waiting for the line", "GET /" + strings.Repeat("a", targetCap), errURI},

		{"9112 2.3: HTTP/0.9 is not spoken", "GET /\r\n", errRequestLine},
		{"9112 2.3: the name is in capitals", "GET / http/1.1\r\n", errVersionForm},
		{"9112 2.3: a version is two digits", "GET / HTTP/1.10\r\n", errVersionForm},
		{"9112 2.3: a major version is one digit", "GET / HTTP/11.1\r\n", errVersionForm},
		{"9112 2.3: a version has a minor part", "GET / HTTP/2\r\n", errVersionForm},
		{"9112 2.3: nothing after the version", "GET / HTTP/1.1 \r\n", errVersionForm},
		{"9110 15.6.6: another major version is 505", "GET / HTTP/2.0\r\n", errVersion},
		{"9113 3.4: so is the preface of HTTP/2", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", errVersion},
		{"9110 15.6.6: and HTTP/0.9 in words", "GET / HTTP/0.9\r\n", errVersion},
		{"9110 2.5: a later minor version is spoken to as 1.1", "GET / HTTP/1.9\r\n" + host + "\r\n", nil},
		{"9110 2.5: and has its duties", "GET / HTTP/1.9\r\n\r\n", errHostMissing},

		{"9112 5.1: no white space before the colon", get(host + "A : b\r\n"), errFieldName},
		{"9112 5.1: nor a tab", get(host + "A\t: b\r\n"), errFieldName},
		{"9112 5.2: no folding", get(host + "A: b\r\n c\r\n"), errFold},
		{"9112 5.2: no folding with a tab", get(host + "A: b\r\n\tc\r\n"), errFold},
		{"9112 5: a field line has a colon", get(host + "A\r\n"), errFieldName},
		{"9110 5.1: a field has a name", get(host + ": b\r\n"), errFieldName},
		{"9110 5.1: a name is a token", get(host + "A/B: c\r\n"), errFieldName},
		{"9110 5.5: no NUL in a value", get(host + "A: b\x00\r\n"), errFieldValue},
		{"9110 5.5: no DEL in a value", get(host + "A: 1234567\x7f\r\n"), errFieldValue},
		{"9110 5.5: no other control character", get(host + "A: \x1b[2J\r\n"), errFieldValue},
		{"9110 5.5: a tab is fine", get(host + "A: b\tc\t\td and a long tail\r\n"), nil},
		{"9110 5.5: obs-text is opaque", get(host + "A: \x80\xff caf\xc3\xa9\r\n"), nil},
		{"9110 5.5: an empty value is fine", get(host + "A:\r\nB: \t \r\n"), nil},
		{"9110 5.4: 100 fields are taken", get(host + strings.Repeat("A: b\r\n", 99)), nil},
		{"6585 5: 101 are not", get(host + strings.Repeat("A: b\r\n", 100)), errFields},
		{"6585 5: a head of 16 KiB is taken", get(host + "A: " + strings.Repeat("b", headCap-len(get(host+"A: \r\n"))) + "\r\n"), nil},
		{"6585 5: one more byte is not", get(host + "A: " + strings.Repeat("b", 1+headCap-len(get(host+"A: \r\n"))) + "\r\n"), errHeadCap},
		{"6585 5: nor is waited for its end", get(host + "A: " + strings.Repeat("b", headCap))[:headCap], errHeadCap},

		{"9112 3.2: 1.1 needs Host", get(""), errHostMissing},
		{"9112 3.2: also with an absolute target", "GET http://a/ HTTP/1.1\r\n\r\n", errHostMissing},
		{"9112 3.2: another spelling is another field", get("H_ost: a\r\n"), errHostMissing},
		{"9112 3.2: 1.0 does not", "GET / HTTP/1.0\r\n\r\n", nil},
		{"9112 3.2: one Host, even the same", get(host + host), errHostTwice},
		{"9112 3.2: one Host, in 1.0 too", "GET / HTTP/1.0\r\n" + host + "host: a\r\n\r\n", errHostTwice},
		{"9112 3.2: an invalid Host is refused in 1.0 too", "GET / HTTP/1.0\r\nHost: a b\r\n\r\n", errHost},

		{"9110 8.6: a length is digits", post("Content-Length: +5\r\n"), errLength},
		{"9110 8.6: a length is something", post("Content-Length:\r\n"), errLength},
		{"9110 8.6: a list of lengths is none", post("Content-Length: 5, 5\r\n"), errLength},
		{"9112 6.3: the same length twice is twice", post("Content-Length: 5\r\ncontent-length: 5\r\n"), errLengthTwice},
		{"9110 8.6: a length must not overflow", post("Content-Length: 9223372036854775808\r\n"), errBodyCap},
		{"9110 8.6: however long it is", post("Content-Length: 184467440737095516160000000000000000005\r\n"), errBodyCap},
		{"9110 8.6: too long and then no number is no number", post("Content-Length: 99999999999999999999x\r\n"), errLength},
		{"9112 6.1: one coding is known", post("Transfer-Encoding: gzip\r\n"), errTransferEncoding},
		{"9112 6.1: a list is not the word", post("Transfer-Encoding: gzip, chunked\r\n"), errTransferEncoding},
		{"9112 6.1: an empty element is not nothing", post("Transfer-Encoding: ,chunked\r\n"), errTransferEncoding},
		{"9112 7: chunked has no parameters", post("Transfer-Encoding: chunked;a=b\r\n"), errTransferEncoding},
		{"9112 7: only SP and HTAB are white space", post("Transfer-Encoding: chunked\xa0\r\n"), errTransferEncoding},
		{"9112 6.1: no coding is no coding", post("Transfer-Encoding:\r\n"), errTransferEmpty},
		{"9112 6.1: chunked is applied once", post("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n"), errTransferTwice},
		{"9112 6.1: with Content-Length it is an attack", post("Content-Length: 5\r\nTransfer-Encoding: chunked\r\n"), errTwoLengths},
		{"9112 6.1: in either order", post("Transfer-Encoding: chunked\r\nContent-Length: 5\r\n"), errTwoLengths},
		{"9112 6.1: 1.0 has no Transfer-Encoding", "POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n", errTransferOld},
		{"9110 5.1: another spelling is another field", post("Transfer_Encoding: chunked\r\nContent-Length: 5\r\n"), nil},

		{"9110 10.1.1: one expectation is known", post("Expect: 100-continued\r\n"), errExpect},
		{"9110 10.1.1: in any case", post("Expect: 100-CONTINUE\r\n"), nil},
		{"9110 10.1.1: not with a word before it", post("Expect: y 100-continue\r\n"), errExpect},
		{"9110 10.1.1: once is enough", post("Expect: 100-continue\r\nExpect: 100-continue\r\n"), errExpect},
		{"9110 10.1.1: 1.0 cannot expect", "POST / HTTP/1.0\r\nExpect: tea\r\nExpect: cake\r\n\r\n", nil},
		{"9110 7.6.1: an option is a token", get(host + "Connection: close;x\r\n"), errConnection},
		{"9110 7.6.1: two words are no option", get(host + "Connection: keep alive\r\n"), errConnection},
		{"9110 5.6.1: empty elements are allowed", get(host + "Connection: , ,close,\r\n"), nil},
		{"9110 11.6.2: two credentials are none", get(host + "Authorization: a\r\nAuthorization: a\r\n"), errAuthTwice},
		{"9110 11.6.2: even if the first is empty", get(host + "Authorization:\r\nAuthorization: a\r\n"), errAuthTwice},
		{"9110 8.3: one Content-Type", post("Content-Type: a/b\r\nContent-Type: a/b\r\n"), errTypeTwice},
		{"9110 8.4: one coding", post("Content-Encoding: gzip\r\nContent-Encoding: gzip\r\n"), errCodingTwice},
		{"one idempotency key", post("Idempotency-Key: a\r\nIdempotency-Key: b\r\n"), errIdemTwice},
		{"9110 14.5: PUT of a part would pass it off as the whole", "PUT / HTTP/1.1\r\n" + host + "Content-Range: bytes 0-1/2\r\n\r\n", errPartialPut},
		{"9110 14.4: in other requests it means nothing", post("Content-Range: bytes 0-1/2\r\n"), nil},

		{"the first fault decides", "GET / HTTP/1.1\r\nA b\r\nHost: a b\r\n\r\n", errFieldName},
	} {
		_, n, err := parse(tt.in)
		if err != tt.want {
			t.Errorf("%s: %.60q: %v, want %v", tt.why, tt.in, err, tt.want)
		}
		if want := len(tt.in); err == nil && n != want {
			t.Errorf("%s: %.60q: head of %d bytes, want %d", tt.why, tt.in, n, want)
		}
	}
}

func TestParseHeadReads(t *testing.T) {
	h, _, err := parse("PUT /names/name:a?b=c HTTP/1.1\r\nhOST:\tLocalhost:80 \r\n" +
		"Content-Type: application/json\r\ncontent-encoding: gzip\r\nCONTENT-LENGTH: 0012\r\n" +
		"Accept: a\r\nAuthorization:  Bearer x \t \r\nX-Corr-ID: 1\r\nIf-None-Match: \"e\"\r\n" +
		"Idempotency-Key: k\r\nExpect: 100-continue\r\nConnection: Foo , CLOSE\r\n\r\nbody")
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range []struct {
		what      string
		got, want any
	}{
		{"method", h.method, index.MethodPut},
		{"target", string(h.target), "/names/name:a?b=c"},
		{"host", string(h.host), "Localhost:80"},
		{"minor", h.minor, uint8(1)},
		{"length", h.length, int64(12)},
		{"chunked", h.chunked, false},
		{"keepAlive", h.keepAlive, false},
		{"expect100", h.expect100, true},
		{"contentType", string(h.contentType), "application/json"},
		{"contentEncoding", string(h.contentEncoding), "gzip"},
		{"accept", string(h.accept), "a"},
		{"authorization", string(h.authorization), "Bearer x"},
		{"corrID", string(h.corrID), "1"},
		{"ifNoneMatch", string(h.ifNoneMatch), `"e"`},
		{"idempotencyKey", string(h.idempotencyKey), "k"},
	} {
		if v.got != v.want {
			t.Errorf("%s is %v, want %v", v.what, v.got, v.want)
		}
	}
}

// TestParseHeadForgets: nothing of one request is left for the next.
func TestParseHeadForgets(t *testing.T) {
	var h head
	in := []byte("POST / HTTP/1.0\r\nHost: a\r\nContent-Length: 5\r\nAuthorization: a\r\nAccept: a\r\nAccept: b\r\nConnection: close\r\n\r\n")
	if _, err := parseHead(in, &h, headCap, targetCap); err != nil {
		t.Fatal(err)
	}
	if _, err := parseHead([]byte("GET / HTTP/1.1\r\nHost: a\r\n\r\n"), &h, headCap, targetCap); err != nil {
		t.Fatal(err)
	}
	if h.length != -1 || h.authorization != nil || h.accept != nil || h.acceptMany || !h.keepAlive || h.method != index.MethodGet {
		t.Errorf("the second head remembers the first: %+v", h)
	}
}

func TestKeepAlive(t *testing.T) {
	for _, tt := range []struct {
		why, in string
		want    bool
	}{
		{"9112 9.3: 1.1 persists", "GET / HTTP/1.1\r\nHost: a\r\n\r\n", true},
		{"9112 9.3: 1.0 does not", "GET / HTTP/1.0\r\n\r\n", false},
		{"9112 9.3: 1.0 may ask", "GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n", true},
		{"9112 C.2.2: but not of a proxy", "GET / HTTP/1.0\r\nProxy-Connection: keep-alive\r\n\r\n", false},
		{"9112 9.6: close wins", "GET / HTTP/1.1\r\nHost: a\r\nConnection: close, keep-alive\r\n\r\n", false},
		{"9112 9.6: in any line", "GET / HTTP/1.0\r\nConnection: keep-alive\r\nConnection: close\r\n\r\n", false},
		{"9110 7.6.1: a word is compared whole", "GET / HTTP/1.1\r\nHost: a\r\nConnection: closed, x-close\r\n\r\n", true},
	} {
		h, _, err := parse(tt.in)
		if err != nil || h.keepAlive != tt.want {
			t.Errorf("%s: %q: keepAlive %v, %v; want %v", tt.why, tt.in, h.keepAlive, err, tt.want)
		}
	}
}

func TestRepeatedFields(t *testing.T) {
	h, _, err := parse("GET / HTTP/1.1\r\nHost: a\r\nX-Corr-ID: 1\r\nX-Corr-ID: 2\r\nX-Corr-ID: 3\r\n" +
		"If-None-Match: \"a\"\r\nIf-None-Match: \"b\"\r\n\r\n")
	if err != nil || h.corrID != nil || h.ifNoneMatch != nil {
		t.Errorf("corrID %q, ifNoneMatch %q, %v; want none of them", h.corrID, h.ifNoneMatch, err)
	}
	for n, want := range []string{"", "v0", "v0 v1", "v0 v1 v2", "v0 v1 v2 v3", "", ""} {
		var in strings.Builder
		in.WriteString("GET / HTTP/1.1\r\nHost: a\r\n")
		for i := range n {
			in.WriteString("Accept: v" + string(rune('0'+i)) + "\r\n")
		}
		h, _, err := parse(in.String() + "\r\n")
		var got []string
		for _, v := range h.acceptValues(nil) {
			got = append(got, string(v))
		}
		if s := strings.Join(got, " "); err != nil || s != want || h.acceptMany != (n > 1) {
			t.Errorf("%d Accept fields: %q (many: %v), %v; want %q", n, s, h.acceptMany, err, want)
		}
	}
}

func TestValidHost(t *testing.T) {
	for _, good := range []string{
		"", "a", "localhost", "LOCALHOST:80", "a:", ":80", "127.0.0.1:8080", "a-b.c_d~e", "a%41b", "%c3%a9:1", "a!$&'()*+,;=",
		"[::]", "[::1]:8080", "[1::]", "[1:2:3:4:5:6:7:8]", "[1::8]", "[2001:db8::A:b]", "[::ffff:1.2.3.4]", "[1:2:3:4:5:6:1.2.3.4]", "[1:2:3:4:5:6:7::]",
	} {
		if !validHost([]byte(good)) {
			t.Errorf("%q is refused", good)
		}
	}
	for _, bad := range []string{
		"a b", "a/b", "a@b", "a#b", "a?b", "a\\b", "a:b", "a:-1", "a:80:80", "::1", "%", "a%4", "a%zz", "\"a\"", "a\x80", "<a>",
		"[", "[]", "[:]", "[::1", "[::1]x", "[::1]:x", "[::1]80", "[1]", "[1:2:3:4:5:6:7]", "[1:2:3:4:5:6:7:8:9]", "[1::2::3]", "[:::]", "[12345::]",
		"[1:2:3:4:5:6:7:8::]", "[::1:2:3:4:5:6:7:8]", "[::1:]", "[:1::]", "[::1.2.3]", "[::1.2.3.4.5]", "[::256.1.1.1]", "[::01.1.1.1]", "[1.2.3.4::]", "[::g]", "[fe80::1%25eth0]", "[v1.a]",
	} {
		if validHost([]byte(bad)) {
			t.Errorf("%q is taken", bad)
		}
	}
}

// A corpusCase is one conversation of the corpus; see its own meta.
type corpusCase struct {
	ID, Level string
	Raw       string
	RawB64    string `json:"raw_b64"`
	RawParts  []struct {
		S, Rep string
		N      int
	} `json:"raw_parts"`
	HalfClose bool `json:"half_close"`
	Expect    struct {
		Status    []int
		Close     *bool
		Responses json.RawMessage
		Statuses  [][]int
		Immediate bool
		NoInterim bool   `json:"no_interim"`
		On100     string `json:"on_100"`
		Then      *struct {
			Answered *bool
			Status   []int
			Raw      string
		}
	}
}

// corpus reads the cases that every HTTP/1 server of ours has to pass.
func corpus(t testing.TB) []corpusCase {
	t.Helper()
	b, err := os.ReadFile("../../shared/http1/cases.json")
	if err != nil {
		t.Fatal(err)
	}
	var file struct{ Cases []corpusCase }
	if err := json.Unmarshal(b, &file); err != nil {
		t.Fatal(err)
	}
	return file.Cases
}

// octets returns what the client of c sends.
func (c *corpusCase) octets() []byte {
	var b []byte
	for _, p := range c.RawParts {
		b = append(append(b, latin1(p.S)...), strings.Repeat(string(latin1(p.Rep)), p.N)...)
	}
	raw, _ := base64.StdEncoding.DecodeString(c.RawB64)
	b = append(append(b, raw...), latin1(c.Raw)...)
	if c.Expect.Then != nil {
		b = append(b, latin1(c.Expect.Then.Raw)...)
	}
	return b
}

func latin1(s string) []byte {
	b := make([]byte, 0, len(s))
	for _, r := range s {
		b = append(b, byte(r))
	}
	return b
}

// A talk is a server reduced to what can be judged without one: it reads what
// comes and notes the status of each answer.
type talk struct {
	in       []byte
	statuses []int
	interims int
	closed   bool

	head    head
	body    bool // in the body of head
	left    int64
	chunked chunked
	answer  int // of the request in hand
}

// hear takes more bytes and answers as far as they go.
func (s *talk) hear(b []byte) {
	s.in = append(s.in, b...)
	for !s.closed && s.turn() {
	}
}

// turn takes one step; false: more bytes are needed.
func (s *talk) turn() bool {
	if s.body {
		return s.readBody()
	}
	n, err := parseHead(s.in, &s.head, headCap, targetCap)
	if err != nil {
		s.refuse(err)
		return false
	}
	if n == 0 {
		return false
	}
	var r request
	switch err := readTarget(s.head.method, s.head.target, &r); {
	case err != nil && err.close, s.head.length > bodyCap:
		if err == nil {
			err = errBodyCap
		}
		s.refuse(err)
		return false
	case err != nil:
		s.answer = err.status
	case r.local != 0:
		s.answer = 200
	default:
		s.answer = 401
	}
	s.in = append([]byte(nil), s.in[n:]...)
	s.body, s.left, s.chunked = true, max(s.head.length, 0), chunked{}
	if s.head.expect100 && len(s.in) == 0 {
		s.interims++
	}
	return true
}

func (s *talk) readBody() bool {
	if s.head.chunked {
		_, n, done, err := s.chunked.decode(nil, s.in, bodyCap)
		s.in = s.in[n:]
		if err != nil {
			s.refuse(err)
			return false
		}
		if !done {
			return false
		}
	} else {
		k := min(s.left, int64(len(s.in)))
		s.in, s.left = s.in[k:], s.left-k
		if s.left > 0 {
			return false
		}
	}
	s.body = false
	s.statuses = append(s.statuses, s.answer)
	s.closed = !s.head.keepAlive
	return true
}

func (s *talk) refuse(err *refusal) {
	s.statuses = append(s.statuses, err.status)
	s.closed = true
}

// TestCorpusHeads holds parseHead, readTarget and the chunked reader together
// to the corpus, whole and byte by byte.
func TestCorpusHeads(t *testing.T) {
	for _, c := range corpus(t) {
		in := c.octets()
		for split, step := range map[string]int{"whole": len(in), "byte": 1 + len(in)/4096} {
			s := &talk{}
			for i := 0; i < len(in); i += step {
				s.hear(in[i:min(i+step, len(in))])
			}
			if s.interims > 0 && len(s.statuses) == 0 {
				s.hear([]byte(c.Expect.On100))
			}
			if c.HalfClose && !s.closed {
				s.closed = true
				if len(s.statuses) == 0 {
					s.statuses = []int{0}
				}
			}
			judge(t, &c, split, s)
		}
	}
}

func judge(t *testing.T, c *corpusCase, split string, s *talk) {
	t.Helper()
	fail := func(what string) {
		t.Errorf("%s (%s, %s): %s: answers %v, closed %v; want %v, closed %s", c.ID, c.Level, split, what, s.statuses, s.closed, c.Expect.Status, flag(c.Expect.Close))
	}
	if len(s.statuses) == 0 {
		fail("no answer")
		return
	}
	if !slices.Contains(c.Expect.Status, s.statuses[0]) {
		fail("status")
	}
	if c.Expect.Close != nil && *c.Expect.Close != s.closed {
		fail("close")
	}
	for i, want := range c.Expect.Statuses {
		if i >= len(s.statuses) || !slices.Contains(want, s.statuses[i]) {
			fail("statuses")
			break
		}
	}
	least, most := 1, 1
	switch then := c.Expect.Then; {
	case c.Expect.Responses != nil:
		var pair []int
		if json.Unmarshal(c.Expect.Responses, &pair) == nil {
			least, most = pair[0], pair[1]
		} else if json.Unmarshal(c.Expect.Responses, &least) == nil {
			most = least
		}
	case then == nil:
	case then.Answered == nil:
		most = 2
	case *then.Answered:
		least, most = 2, 2
	}
	if n := len(s.statuses); n < least || n > most {
		fail("number of answers")
	}
	if then := c.Expect.Then; then != nil && len(s.statuses) == 2 && !slices.Contains(then.Status, s.statuses[1]) {
		fail("second answer")
	}
	if then := c.Expect.Then; then != nil && len(s.statuses) == 1 && !s.closed {
		fail("the follow-up was swallowed")
	}
	if c.Expect.NoInterim && s.interims > 0 {
		fail("100 sent")
	}
}

func flag(b *bool) string {
	switch {
	case b == nil:
		return "or not"
	case *b:
		return "true"
	}
	return "false"
}

// TestParseHeadIsEarly: a fault is reported by the byte that makes it, not by
// the end of the line or head it is in.
func TestParseHeadIsEarly(t *testing.T) {
	for _, in := range []string{
		" ", "\x00", "\n", "(", "GE(", "GET\r", "GET  ", "GET /\x01", "GET / X", "GET / HTTP/1.1x", "GET / HTTP/1.1\n", "GET / HTTP/2.0\r\n",
		"GET / HTTP/1.1\r\n ", "GET / HTTP/1.1\r\nA ", "GET / HTTP/1.1\r\nA: \x00", "GET / HTTP/1.1\r\nA: b\n", "GET / HTTP/1.1\r\nA: b\rc",
		"GET / HTTP/1.1\r\nHost: a b\r\n", "GET / HTTP/1.1\r\nContent-Length: x\r\n",
	} {
		if _, _, err := parse(in[:len(in)-1]); err != nil {
			t.Errorf("%q: already %v", in[:len(in)-1], err)
		}
		if _, _, err := parse(in); err == nil {
			t.Errorf("%q: not yet refused", in)
		}
	}
}

// TestEndsEightAtATime holds the functions that look at eight bytes at once to
// the tables that look at one: every pair of bytes, at every place of a word.
func TestEndsEightAtATime(t *testing.T) {
	end := func(in []byte, ok func(c byte) bool) int {
		i := slices.IndexFunc(in, func(c byte) bool { return !ok(c) })
		if i < 0 {
			return len(in)
		}
		return i
	}
	token := func(c byte) bool { return class[c]&isToken != 0 }
	value := func(c byte) bool { return class[c]&isValue != 0 }
	target := func(c byte) bool { return c > ' ' && c < 0x7f && c != '#' }
	in := []byte("aaaaaaaaaaaaa") // a word and a tail
	for at := range len(in) - 1 {
		for pair := range 1 << 16 {
			in[at], in[at+1] = byte(pair), byte(pair>>8)
			if got, want := tokenEnd(in, 0), end(in, token); got != want {
				t.Fatalf("tokenEnd(%q) = %d, want %d", in, got, want)
			}
			if got, want := valueEnd(in, 0), end(in, value); got != want {
				t.Fatalf("valueEnd(%q) = %d, want %d", in, got, want)
			}
			if got, want := targetEnd(in, 0), end(in, target); got != want {
				t.Fatalf("targetEnd(%q) = %d, want %d", in, got, want)
			}
		}
		in[at], in[at+1] = 'a', 'a'
	}
}

const (
	shortHead = "GET /resolve/b3:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef HTTP/1.1\r\nHost: 127.0.0.1:8080\r\n\r\n"
	nameHead  = "GET /resolve/name:go/src/net/http/httputil HTTP/1.1\r\nHost: 127.0.0.1:8080\r\n\r\n"
	longHead  = "GET /providers/b3:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef?region=eu-west&limit=8 HTTP/1.1\r\n" +
		"Host: index.example.org:8080\r\nUser-Agent: curl/8.5.0\r\nAccept: application/cbor, application/json;q=0.5\r\n" +
		"Accept-Encoding: gzip, deflate, br\r\nX-Corr-ID: 01HZX3J8Q0V7W6Y5Z4A3B2C1D0\r\nIf-None-Match: \"b3:0123456789abcdef\"\r\n" +
		"X-Forwarded-For: 10.1.2.3\r\nConnection: keep-alive\r\n\r\n"
)

func TestParseHeadDoesNotAllocate(t *testing.T) {
	var h head
	for _, in := range []string{shortHead, longHead, longHead[:200], "GET / HTTP/1.1\r\nHost: [::1]\r\nExpect: x\r\n"} {
		b := []byte(in)
		if n := testing.AllocsPerRun(100, func() { parseHead(b, &h, headCap, targetCap) }); n != 0 {
			t.Errorf("parseHead(%.30q) allocates %v times, want 0", in, n)
		}
	}
}

func BenchmarkParseHead(b *testing.B) {
	for _, bb := range []struct{ name, in string }{{"short", shortHead}, {"name", nameHead}, {"long", longHead}} {
		b.Run(bb.name, func(b *testing.B) {
			in, h := []byte(bb.in), new(head)
			b.ReportAllocs()
			b.SetBytes(int64(len(in)))
			for b.Loop() {
				if n, err := parseHead(in, h, headCap, targetCap); n != len(in) || err != nil {
					b.Fatal(n, err)
				}
			}
		})
	}
}
