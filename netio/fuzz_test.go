package netio

import (
	"bufio"
	"bytes"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"

	"svcindex/index"
)

// FuzzHead holds our parser to net/http's: whatever we take for a whole head,
// it must take too, and read the same from it. We may refuse what it accepts;
// being stricter is not a bug, disagreeing is.
//
// What it may refuse or read otherwise, and we do not mind:
//   - empty lines before the request line: RFC 9112 2.2 has them skipped;
//   - a minor version above 1: we answer as 1.1, it remembers the number;
//   - a Trailer field that announces framing fields: we drop all trailers;
//   - a percent-encoded ASCII byte in the host of an absolute target, which
//     RFC 3986 3.2.2 allows and which changes nothing for us.
func FuzzHead(f *testing.F) {
	for _, c := range corpus(f) {
		if in := c.octets(); len(in) < 4<<10 {
			f.Add(in)
		}
	}
	f.Add([]byte(shortHead))
	f.Add([]byte(longHead))
	f.Add([]byte("GET http://[::1]:80/healthz?a=%20 HTTP/1.0\r\nConnection: a,keep-alive\r\nHost:b\r\n\r\n"))
	f.Fuzz(func(t *testing.T, in []byte) {
		var h head
		n, refused := parseHead(in, &h, headCap, targetCap)
		if refused != nil || n == 0 {
			return
		}
		var r request
		if refused := r.read(h.method, h.target); refused != nil && refused.status == 400 {
			return // it reads targets together with the head, we after it
		}
		text := bytes.TrimLeft(in[:n], "\r\n")
		elder, err := http.ReadRequest(bufio.NewReaderSize(bytes.NewReader(text), 2*headCap))
		if err != nil {
			if strings.Contains(err.Error(), "bad trailer key") ||
				h.target[0] != '/' && bytes.IndexByte(h.target, '%') >= 0 && strings.Contains(err.Error(), "invalid URL escape") {
				return
			}
			t.Fatalf("we accept %q; net/http does not: %v", text, err)
		}
		compare(t, text, &h, elder)
	})
}

func compare(t *testing.T, in []byte, h *head, elder *http.Request) {
	t.Helper()
	method := elder.Method
	if !slices.Contains([]string{"GET", "HEAD", "PUT", "POST", "DELETE", "OPTIONS"}, method) {
		method = "other"
	}
	length := h.length
	if h.chunked || length < 0 && elder.ContentLength == 0 {
		length = elder.ContentLength // it has one number for both
	}
	host := string(h.host)
	if h.target[0] != '/' && h.target[0] != '*' {
		host = elder.Host // the target's; ours is as sent
	}
	for _, v := range []struct {
		what        string
		ours, elder any
	}{
		{"method", h.method.String(), method},
		{"target", string(h.target), elder.RequestURI},
		{"minor version", int(h.minor), min(elder.ProtoMinor, 1)},
		{"host", host, elder.Host},
		{"length", length, elder.ContentLength},
		{"chunked", h.chunked, slices.Equal(elder.TransferEncoding, []string{"chunked"})},
		{"keepAlive", h.keepAlive, !elder.Close},
		{"content type", string(h.contentType), elder.Header.Get("Content-Type")},
		{"content coding", string(h.contentEncoding), elder.Header.Get("Content-Encoding")},
		{"authorization", string(h.authorization), elder.Header.Get("Authorization")},
		{"idempotency key", string(h.idempotencyKey), elder.Header.Get("Idempotency-Key")},
		{"accept", string(h.accept), elder.Header.Get("Accept")},
		{"several accepts", h.acceptMany, len(elder.Header["Accept"]) > 1},
		{"expectation", h.expect100, h.minor > 0 && strings.EqualFold(elder.Header.Get("Expect"), "100-continue")},
	} {
		if v.ours != v.elder {
			t.Fatalf("%q: we read %s %v, net/http %v", in, v.what, v.ours, v.elder)
		}
	}
	for _, v := range []struct {
		name string
		ours []byte
	}{{"X-Corr-Id", h.corrID}, {"If-None-Match", h.ifNoneMatch}} {
		if all := elder.Header[v.name]; len(all) == 1 && string(v.ours) != all[0] || len(all) != 1 && v.ours != nil {
			t.Fatalf("%q: we read %s %q, net/http %q", in, v.name, v.ours, all)
		}
	}
}

// FuzzSplit: how bytes arrive changes nothing. Of every beginning of the input
// parseHead says either that it needs more or what it says of the whole; the
// chunked reader does the same with the whole as byte by byte.
func FuzzSplit(f *testing.F) {
	for _, c := range corpus(f) {
		if in := c.octets(); len(in) < 1<<10 {
			f.Add(in)
			if _, body, ok := bytes.Cut(in, []byte("\r\n\r\n")); ok && len(body) > 0 {
				f.Add(body)
			}
		}
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		if len(in) > 2<<10 {
			return
		}
		const small, smaller = 700, 300 // caps of a head and a target that inputs reach
		var whole, part head
		n, err := parseHead(in, &whole, small, smaller)
		decided := false
		for i := range len(in) + 1 {
			k, kerr := parseHead(in[:i], &part, small, smaller)
			if k == 0 && kerr == nil {
				if decided {
					t.Fatalf("%q: decided, then not", in[:i])
				}
				continue
			}
			decided = true
			if k != n || kerr != err || n > i {
				t.Fatalf("%q of %q: %d, %v; the whole is %d, %v", in[:i], in, k, kerr, n, err)
			}
			if n > 0 && !same(&whole, &part) {
				t.Fatalf("%q: we read\n%+v, of the whole\n%+v", in[:i], part, whole)
			}
		}
		if !decided && (n > 0 || err != nil) {
			t.Fatalf("%q: %d, %v, but not of its parts", in, n, err)
		}

		out, n, done, err := dechunk(in, len(in)+1, 300)
		for _, step := range []int{1, 2, 7} {
			out1, n1, done1, err1 := dechunk(in, step, 300)
			if !bytes.Equal(out, out1) || n != n1 || done != done1 || err != err1 {
				t.Fatalf("chunked %q: whole %q, %d, %v, %v; %d at a time %q, %d, %v, %v", in, out, n, done, err, step, out1, n1, done1, err1)
			}
		}
	})
}

// same reports whether two heads say the same.
func same(a, b *head) bool {
	fields := func(h *head) [][]byte {
		return append(h.acceptValues(nil), h.target, h.host, h.contentType, h.contentEncoding, h.authorization, h.idempotencyKey, h.corrID, h.ifNoneMatch)
	}
	return a.method == b.method && a.minor == b.minor && a.keepAlive == b.keepAlive && a.chunked == b.chunked &&
		a.expect100 == b.expect100 && a.length == b.length && slices.EqualFunc(fields(a), fields(b), bytes.Equal)
}

// FuzzChunked holds our chunked reader to net/http's: what we take for a whole
// body it must take too, end it at the same byte and find the same content.
//
// Its trailer section may hold lines we refuse, and it knows no white space
// before the ";" of an extension, which RFC 9112 7.1.1 has us take.
func FuzzChunked(f *testing.F) {
	for _, c := range corpus(f) {
		if _, body, ok := bytes.Cut(c.octets(), []byte("\r\n\r\n")); ok && len(body) > 0 && len(body) < 4<<10 {
			f.Add(body)
		}
	}
	f.Add(chunks(1, 20))
	f.Add([]byte("5;a=\"b\\\"\";c=d\r\nhello\r\n0;e\r\nX: y\r\n\r\nrest"))
	f.Fuzz(func(t *testing.T, in []byte) {
		ours, n, done, refused := dechunk(in, len(in)+1, bodyCap)
		if refused != nil || !done {
			return
		}
		const head = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
		wire := bufio.NewReaderSize(io.MultiReader(strings.NewReader(head), bytes.NewReader(in)), 64<<10)
		r, err := http.ReadRequest(wire)
		if err != nil {
			t.Fatal(err)
		}
		content, err := io.ReadAll(r.Body)
		if err != nil {
			if bytes.Contains(in, []byte(" ;")) || bytes.Contains(in, []byte("\t;")) {
				return
			}
			t.Fatalf("we accept %q; net/http does not: %v", in[:n], err)
		}
		rest, err := io.ReadAll(wire)
		if err != nil || !bytes.Equal(content, ours) || !bytes.Equal(rest, in[n:]) {
			t.Fatalf("%q: we read %q, then %q; net/http %q, then %q, %v", in, ours, in[n:], content, rest, err)
		}
	})
}

// FuzzTarget: whatever is asked, the answer is in order; a key we read is the
// one that was sent, and is found again under its own text.
func FuzzTarget(f *testing.F) {
	for _, c := range corpus(f) {
		if fields := bytes.Fields(c.octets()); len(fields) > 1 && len(fields[1]) < 1<<10 {
			f.Add(uint8(index.MethodGet), fields[1])
		}
	}
	for m := range index.Methods {
		for _, target := range targets {
			f.Add(uint8(m), []byte(target))
		}
	}
	f.Add(uint8(index.MethodDelete), []byte("/providers/"+cid+"/%61"))
	f.Add(uint8(index.MethodDelete), []byte("/names/name:a?seq=7"))
	f.Fuzz(func(t *testing.T, method uint8, target []byte) {
		m := index.Method(method % uint8(index.Methods))
		sent := bytes.Clone(target)
		var r request
		err := readTarget(m, target, &r)
		if !bytes.Equal(sent, target) {
			t.Fatalf("%q was changed to %q", sent, target)
		}
		if err != nil {
			if err.status < 400 || err.message == "" || (err.status == 405) != (err.allow != "") {
				t.Fatalf("%s %q: a refusal %+v", m, target, err)
			}
			return
		}
		if r.route == index.RouteOther || (r.ask == 0) == (r.local == 0) || (r.ask == index.AskWrite) != (r.op != 0) {
			t.Fatalf("%s %q: nobody can answer %+v", m, target, r)
		}
		if q := r.query; q.Limit < 1 || q.Limit > 32 || q.MinFreshness < 0 || q.MinFreshness > 1<<31 || r.seq > index.SeqMax || len(r.region) > index.RegionMax {
			t.Fatalf("%s %q: out of range: %+v", m, target, r)
		}
		if r.key.IsZero() || r.ask != index.AskResolve {
			return
		}
		key := r.key
		if err := readTarget(m, key.AppendText([]byte("/resolve/")), &r); err != nil || r.key != key {
			t.Fatalf("%s %q: key %s, found again as %s, %v", m, target, key, r.key, err)
		}
	})
}
