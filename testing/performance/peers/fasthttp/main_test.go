package main

import (
	"bufio"
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/valyala/fasthttp"

	"svcindex/testing/performance/peers/answer"
)

func filled(t testing.TB) *answer.Shelf {
	t.Helper()
	file := filepath.Join(t.TempDir(), "answers")
	text, err := json.Marshal([]answer.Answer{{Key: "name:a", ETag: `"b3:` + strings.Repeat("0", 64) + `"`, Body: strings.Repeat("x", 260)}})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, text, 0o600); err != nil {
		t.Fatal(err)
	}
	s, err := answer.Fill(file)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// ask has the handler answer one request, and fasthttp write the answer.
func ask(t testing.TB, h fasthttp.RequestHandler, c *fasthttp.RequestCtx, w *bufio.Writer) {
	c.Response.Reset()
	h(c)
	if err := c.Response.Write(w); err != nil {
		t.Fatal(err)
	}
}

func context() *fasthttp.RequestCtx {
	c := new(fasthttp.RequestCtx)
	c.Request.SetRequestURI("/resolve/name:a")
	c.Request.Header.SetHost("x")
	return c
}

// A peer that allocates would lose for a reason of our making.
func TestThePeerDoesNotAllocate(t *testing.T) {
	h, c, w := handler(filled(t)), context(), bufio.NewWriter(io.Discard)
	if n := testing.AllocsPerRun(200, func() { ask(t, h, c, w) }); n > 0 {
		t.Errorf("a hit allocates %v times, want 0", n)
	}
	if c.Response.StatusCode() != 200 {
		t.Errorf("status %d, want 200", c.Response.StatusCode())
	}
}

func BenchmarkHit(b *testing.B) {
	h, c, w := handler(filled(b)), context(), bufio.NewWriter(io.Discard)
	b.ReportAllocs()
	for b.Loop() {
		ask(b, h, c, w)
	}
}
