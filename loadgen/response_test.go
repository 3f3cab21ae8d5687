package loadgen

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
)

const sourceField = "x-index-source"

func TestReadAnswer(t *testing.T) {
	const ok = "HTTP/1.1 200 OK\r\n"
	for _, tt := range []struct {
		why, in string
		head    bool
		want    answer
		err     error
	}{
		{"the plain case", ok + "Content-Length: 12\r\n\r\n", false, answer{status: 200, length: 12}, nil},
		{"names have no case, values are trimmed", ok + "CONTENT-LENGTH:\t 3 \r\nx-INDEX-source:  cache\r\n\r\n", false,
			answer{status: 200, length: 3, source: []byte("cache")}, nil},
		{"a reason may be missing", "HTTP/1.1 404\r\ncontent-length: 0\r\n\r\n", false, answer{status: 404}, nil},
		{"an answer to HEAD has no body", ok + "Content-Length: 12\r\n\r\n", true, answer{status: 200}, nil},
		{"nor has a 304, even with a length", "HTTP/1.1 304 Not Modified\r\nContent-Length: 12\r\n\r\n", false, answer{status: 304}, nil},
		{"nor a 204", "HTTP/1.1 204 No Content\r\n\r\n", false, answer{status: 204}, nil},
		{"an interim answer has none", "HTTP/1.1 100 Continue\r\n\r\n", false, answer{status: 100}, nil},
		{"close is close", ok + "Connection: Close\r\nContent-Length: 0\r\n\r\n", false, answer{status: 200, close: true}, nil},
		{"close among others", ok + "Connection: keep-alive,close\r\nContent-Length: 0\r\n\r\n", false, answer{status: 200, close: true}, nil},
		{"HTTP/1.0 closes", "HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n", false, answer{status: 200, close: true}, nil},
		{"without a length nobody knows where it ends", ok + "\r\n", false, answer{}, errNoLength},
		{"two lengths are one too many", ok + "Content-Length: 1\r\nContent-Length: 1\r\n\r\n", false, answer{}, errLength},
		{"a signed length", ok + "Content-Length: +1\r\n\r\n", false, answer{}, errLength},
		{"chunks were not asked for", ok + "Transfer-Encoding: chunked\r\n\r\n", false, answer{}, errCoding},
		{"nor was another protocol", "HTTP/1.1 101 Switching\r\n\r\n", false, answer{}, errSwitch},
		{"a bare LF", "HTTP/1.1 200 OK\nContent-Length: 1\r\n\r\n", false, answer{}, errStatusLine},
		{"a bare LF in a field", ok + "Content-Length: 1\n\r\n", false, answer{}, errHeaderLine},
		{"a bare LF at the end", ok + "Content-Length: 1\r\n\n", false, answer{}, errHeaderLine},
		{"a space before the colon", ok + "Content-Length : 1\r\n\r\n", false, answer{}, errHeaderLine},
		{"a folded line", ok + "A: b\r\n c\r\n\r\n", false, answer{}, errHeaderLine},
		{"another protocol", "SSH-2.0-OpenSSH\r\n", false, answer{}, errStatusLine},
		{"a status that is none", "HTTP/1.1 2x0 OK\r\n", false, answer{}, errStatusLine},
		{"a head without end", ok + strings.Repeat("A: b\r\n", 4000), false, answer{}, errHeadMax},
	} {
		got, n, err := readAnswer([]byte(tt.in), tt.head, sourceField)
		if !errors.Is(err, tt.err) {
			t.Errorf("%s: error %v, want %v", tt.why, err, tt.err)
			continue
		}
		if err != nil {
			continue
		}
		if n != len(tt.in) || got.status != tt.want.status || got.length != tt.want.length || got.close != tt.want.close ||
			!bytes.Equal(got.source, tt.want.source) {
			t.Errorf("%s: %+v of %d bytes, want %+v of %d", tt.why, got, n, tt.want, len(tt.in))
		}
		for cut := range len(tt.in) {
			if _, n, err := readAnswer([]byte(tt.in[:cut]), tt.head, sourceField); n != 0 || err != nil {
				t.Errorf("%s: after %d bytes: %d, %v; want to be asked for more", tt.why, cut, n, err)
			}
		}
	}
}

// FuzzReadAnswer holds our reader to net/http's: whatever we take for a head,
// it must take too, and see the same status, the same body and the same end. We
// may refuse what it accepts; being stricter is not a bug, disagreeing is. The
// one thing we let pass is a control byte in a value, since we do not look at
// the values that we have no use for.
func FuzzReadAnswer(f *testing.F) {
	f.Add([]byte("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n"), false)
	f.Add([]byte("HTTP/1.0 404 No\r\nContent-Length: 0\r\nX-Index-Source: db\r\n\r\n"), false)
	f.Add([]byte("HTTP/1.1 304 Not Modified\r\nETag: \"a\"\r\nConnection: close\r\n\r\n"), true)
	f.Add([]byte("HTTP/1.1 503 A\r\nRetry-After: 1\r\ncontent-length: 00012\r\n\r\n"), true)
	f.Fuzz(func(t *testing.T, in []byte, headless bool) {
		a, n, err := readAnswer(in, headless, sourceField)
		control := func(c rune) bool { return c < ' ' && c != '\t' || c == 0x7f }
		if err != nil || n == 0 || a.length > 1<<20 ||
			bytes.ContainsFunc(bytes.ReplaceAll(in[:n], []byte("\r\n"), nil), control) {
			return
		}
		method := "GET"
		if headless {
			method = "HEAD"
		}
		stream := io.MultiReader(bytes.NewReader(in[:n]), bytes.NewReader(make([]byte, a.length+1)))
		r, err := http.ReadResponse(bufio.NewReader(stream), &http.Request{Method: method})
		if err != nil {
			t.Fatalf("we accept %q; net/http does not: %v", in[:n], err)
		}
		defer r.Body.Close()
		body, err := io.ReadAll(r.Body)
		if err != nil || int64(len(body)) != a.length {
			t.Fatalf("%q: we see %d bytes of body, net/http %d (%v)", in[:n], a.length, len(body), err)
		}
		if r.StatusCode != a.status || r.Header.Get(sourceField) != string(a.source) && len(r.Header.Values(sourceField)) < 2 {
			t.Fatalf("%q: we read %d %q, net/http %d %q", in[:n], a.status, a.source, r.StatusCode, r.Header.Get(sourceField))
		}
		if a.close && !r.Close && r.ProtoMinor > 0 {
			t.Fatalf("%q: we would close, net/http would not", in[:n])
		}
		if r.Close && !a.close {
			t.Fatalf("%q: net/http would close, we would not", in[:n])
		}
	})
}

func TestReadingAllocatesNothing(t *testing.T) {
	in := []byte("HTTP/1.1 200 OK\r\nDate: Mon, 23 Nov 2026 18:00:00 GMT\r\nContent-Type: application/json\r\n" +
		"X-Index-Source: cache\r\nX-Corr-ID: 01J00000000000000000000000\r\nContent-Length: 300\r\n\r\n")
	if n := testing.AllocsPerRun(100, func() { _, _, _ = readAnswer(in, false, sourceField) }); n != 0 {
		t.Errorf("readAnswer allocates %v times, want 0", n)
	}
}

func BenchmarkReadAnswer(b *testing.B) {
	in := []byte("HTTP/1.1 200 OK\r\nDate: Mon, 23 Nov 2026 18:00:00 GMT\r\nContent-Type: application/json\r\n" +
		"X-Index-Source: cache\r\nX-Corr-ID: 01J00000000000000000000000\r\nETag: \"b3:0000000000000000000000000000000000000000000000000000000000000000\"\r\n" +
		"Vary: Accept\r\nCache-Control: public, max-age=5\r\nAge: 3\r\nX-Index-Complete: full\r\nContent-Length: 300\r\n\r\n")
	b.ReportAllocs()
	for b.Loop() {
		if _, _, err := readAnswer(in, false, sourceField); err != nil {
			b.Fatal(err)
		}
	}
}
