package netio

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
)

// TestChunked is a table of chunked bodies written from RFC 9112 7.1, each read
// whole and byte by byte.
func TestChunked(t *testing.T) {
	ext := func(n int) string { return ";" + strings.Repeat("a", n-1) }
	for _, tt := range []struct {
		why, in string
		content string // if done
		rest    int    // bytes after the body
		want    *refusal
	}{
		{"7.1: the plain case", "5\r\nhello\r\n0\r\n\r\n", "hello", 0, nil},
		{"7.1: nothing", "0\r\n\r\n", "", 0, nil},
		{"7.1: what follows is not ours", "1\r\na\r\n0\r\n\r\nGET", "a", 3, nil},
		{"7.1: hex digits in either case", "a\r\n0123456789\r\nA\r\n0123456789\r\n0\r\n\r\n", "01234567890123456789", 0, nil},
		{"7.1: leading zeros, in the last chunk too", "0005\r\nhello\r\n000\r\n\r\n", "hello", 0, nil},
		{"7.1: content is opaque", "7\r\n\r\n0\r\n\r\n\r\n0\r\n\r\n", "\r\n0\r\n\r\n", 0, nil},
		{"7.1: a size is something", "\r\n", "", 0, errChunkSize},
		{"7.1: a size is hex", "g\r\n", "", 0, errChunkSize},
		{"7.1: a size has no sign", "-1\r\n", "", 0, errChunkSize},
		{"7.1: nor a prefix", "0x5\r\n", "", 0, errChunkSize},
		{"7.1: nor white space before it", " 5\r\n", "", 0, errChunkSize},
		{"7.1: nor after it", "5 \r\n", "", 0, errChunkExt},
		{"7.1: nor a separator in it", "1_0\r\n", "", 0, errChunkSize},
		{"7.1: sixteen digits are enough", strings.Repeat("0", 16) + "5\r\n", "", 0, errChunkSize},
		{"7.1: a size must not overflow", "10000000000000005\r\n", "", 0, errBodyCap},
		{"7.1: nor be negative", "ffffffffffffffff\r\n", "", 0, errBodyCap},
		{"9110 15.5.14: a size over the cap is refused at once", "65", "", 0, errBodyCap},
		{"9110 15.5.14: sizes are added up", "60\r\n" + strings.Repeat("a", 0x60) + "\r\n5", "", 0, errBodyCap},
		{"9110 15.5.14: to the cap and no further", "60\r\n" + strings.Repeat("a", 0x60) + "\r\n4\r\nbbbb\r\n0\r\n\r\n", strings.Repeat("a", 0x60) + "bbbb", 0, nil},
		{"2.2: LF alone ends no size", "5\nhello", "", 0, errChunkLine},
		{"2.2: nor does CR", "5\rhello", "", 0, errChunkLine},
		{"7.1: content ends with CRLF", "5\r\nhello0\r\n", "", 0, errChunkEnd},
		{"7.1: not with LF", "5\r\nhello\n0\r\n", "", 0, errChunkEnd},
		{"7.1: nor with CR", "5\r\nhello\r0\r\n", "", 0, errChunkEnd},

		{"7.1.1: extensions are ignored", "5;foo=bar;flag;q=\"a;b\\\"c\\\\\"\r\nhello\r\n0;end\r\n\r\n", "hello", 0, nil},
		{"7.1.1: so is bad white space in them", "5 \t; foo\t= \"bar\" ;flag ; a=b\r\nhello\r\n0\r\n\r\n", "hello", 0, nil},
		{"7.1.1: but not at the end", "5;foo \r\n", "", 0, errChunkExt},
		{"7.1.1: nor after a value", "5;foo=bar\t\r\n", "", 0, errChunkExt},
		{"7.1.1: an extension has a name", "5;\r\n", "", 0, errChunkExt},
		{"7.1.1: also the second", "5;a;\r\n", "", 0, errChunkExt},
		{"7.1.1: a name is a token", "5;(\r\n", "", 0, errChunkExt},
		{"7.1.1: a value is something", "5;a=\r\n", "", 0, errChunkExt},
		{"7.1.1: a value is a token", "5;a=b=c\r\n", "", 0, errChunkExt},
		{"7.1.1: or a string, to its end", "5;a=\"b\r\n", "", 0, errChunkExt},
		{"7.1.1: with nothing after it", "5;a=\"b\"c\r\n", "", 0, errChunkExt},
		{"7.1.1: a string holds no LF, escaped or not", "5;a=\"b\\\nc\"\r\n", "", 0, errChunkExt},
		{"7.1.1: LF ends no extension", "5;a\nhello", "", 0, errChunkLine},
		{"7.1.1: nor hides in a half one", "2;\nxx", "", 0, errChunkExt},
		{"7.1.1: no NUL", "5;a=\x00\r\n", "", 0, errChunkExt},
		{"7.1.1: 4 KiB of them", "1" + ext(4096) + "\r\na\r\n0\r\n\r\n", "a", 0, nil},
		{"7.1.1: and no more", "1" + ext(4097) + "\r\na\r\n0\r\n\r\n", "", 0, errChunkExt},
		{"7.1.1: in all chunks together", "1" + ext(4000) + "\r\na\r\n1" + ext(97) + "\r\n", "", 0, errChunkExt},

		{"7.1.2: trailers are dropped", "0\r\nX-T: v\r\nContent-Length: 5\r\nHost:\r\n\r\n", "", 0, nil},
		{"7.1.2: a trailer may look like a request", "0\r\nX:POST /smuggled HTTP/1.1\r\n\r\n", "", 0, nil},
		{"5: a trailer has a colon", "0\r\nX-T\r\n", "", 0, errTrailerName},
		{"5.1: directly after its name", "0\r\nX-T : v\r\n", "", 0, errTrailerName},
		{"5: a trailer has a name", "0\r\n: v\r\n", "", 0, errTrailerName},
		{"5.2: no folding", "0\r\nX-T: v\r\n w\r\n", "", 0, errFold},
		{"9110 5.5: no control characters", "0\r\nX-T: v\x00\r\n", "", 0, errFieldValue},
		{"2.2: LF alone ends no trailer", "0\r\nX-T: v\n", "", 0, errBareLF},
		{"2.2: nor the section", "0\r\n\n", "", 0, errBareLF},
		{"2.2: nor does CR", "0\r\n\rG", "", 0, errBareCR},
		{"2.2: CR is not part of a value", "0\r\nX-T: v\rw\r\n", "", 0, errBareCR},
		{"6585 5: 4 KiB of trailers", "0\r\nX: " + strings.Repeat("t", 4096-7) + "\r\n\r\n", "", 0, nil},
		{"6585 5: and no more", "0\r\nX: " + strings.Repeat("t", 4096-6) + "\r\n\r\n", "", 0, errTrailerCap},
	} {
		for _, step := range []int{len(tt.in), 1} {
			out, n, done, err := dechunk([]byte(tt.in), step, 100)
			if err != tt.want {
				t.Errorf("%s (%d at a time): %.60q: %v, want %v", tt.why, step, tt.in, err, tt.want)
				continue
			}
			if err == nil && (!done || string(out) != tt.content || len(tt.in)-n != tt.rest) {
				t.Errorf("%s (%d at a time): %.60q: %q, done %v, %d left; want %q, %d left", tt.why, step, tt.in, out, done, len(tt.in)-n, tt.content, tt.rest)
			}
		}
	}
}

// dechunk reads a chunked body of at most most bytes, step bytes at a time.
func dechunk(in []byte, step int, most int64) (out []byte, n int, done bool, err *refusal) {
	var c chunked
	for n < len(in) && !done && err == nil {
		var k int
		out, k, done, err = c.decode(out, in[n:min(n+step, len(in))], most)
		n += k
	}
	return out, n, done, err
}

// TestChunkedIsUnhurried: every beginning of a body is only a beginning.
func TestChunkedIsUnhurried(t *testing.T) {
	const in = "5 ;a=\"b\\\"\" ; c = d\r\nhello\r\n0;e\r\nX: y\r\n\r\n"
	for i := range in {
		if _, n, done, err := dechunk([]byte(in[:i]), i+1, 100); done || err != nil || n != i {
			t.Errorf("%q: took %d, done %v, %v", in[:i], n, done, err)
		}
	}
}

// TestChunkedInPlace: content may overwrite what was read.
func TestChunkedInPlace(t *testing.T) {
	in := []byte("5;a=b\r\nhello\r\n6\r\n world\r\n0\r\n\r\nGET /")
	var c chunked
	out, n, done, err := c.decode(in[:0], in, 100)
	if string(out) != "hello world" || string(in[n:]) != "GET /" || !done || err != nil {
		t.Errorf("%q, then %q; done %v, %v", out, in[n:], done, err)
	}
}

// TestChunkedStaysDone: it takes nothing that is not its own.
func TestChunkedStaysDone(t *testing.T) {
	var c chunked
	c.decode(nil, []byte("0\r\n\r\n"), 100)
	if out, n, done, err := c.decode(nil, []byte("5\r\nhello"), 100); len(out) != 0 || n != 0 || !done || err != nil {
		t.Errorf("after its end: %q, %d, %v, %v", out, n, done, err)
	}
}

func chunks(size, total int) []byte {
	var b bytes.Buffer
	for range total / size {
		fmt.Fprintf(&b, "%x\r\n%s\r\n", size, strings.Repeat("x", size))
	}
	b.WriteString("0\r\n\r\n")
	return b.Bytes()
}

func TestChunkedDoesNotAllocate(t *testing.T) {
	in := chunks(100, 1000)
	dst := make([]byte, 0, 1000)
	if n := testing.AllocsPerRun(100, func() {
		var c chunked
		c.decode(dst, in, bodyCap)
	}); n != 0 {
		t.Errorf("decode allocates %v times, want 0", n)
	}
}

func BenchmarkChunked(b *testing.B) {
	for _, size := range []int{1, 100, 16 << 10} {
		b.Run(fmt.Sprint(size), func(b *testing.B) {
			in := chunks(size, 64<<10)
			dst := make([]byte, 0, 64<<10)
			b.ReportAllocs()
			b.SetBytes(int64(len(in)))
			for b.Loop() {
				var c chunked
				if _, _, done, err := c.decode(dst, in, bodyCap); !done || err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
