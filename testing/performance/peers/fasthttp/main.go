// Command fasthttp is the peer made of fasthttp and freecache.
package main

import (
	"bytes"
	"net"
	"strconv"
	"sync"

	"github.com/valyala/fasthttp"

	"svcindex/testing/performance/peers/answer"
)

// A scratch is what one request needs room for.
type scratch struct{ found, text [answer.Room]byte }

func main() { answer.Run(serve) }

func serve(shelf *answer.Shelf, l net.Listener) error {
	s := &fasthttp.Server{NoDefaultServerHeader: true, Handler: handler(shelf)}
	return s.Serve(l)
}

func handler(shelf *answer.Shelf) fasthttp.RequestHandler {
	pool := sync.Pool{New: func() any { return new(scratch) }}
	return func(c *fasthttp.RequestCtx) {
		key, ok := bytes.CutPrefix(c.Path(), []byte(answer.Path))
		if !ok {
			c.Error("no such path", fasthttp.StatusNotFound)
			return
		}
		b := pool.Get().(*scratch)
		defer pool.Put(b)
		hit, ok := shelf.Get(key, b.found[:])
		if !ok {
			c.Error("no such key", fasthttp.StatusNotFound)
			return
		}
		h := &c.Response.Header
		id := c.Request.Header.Peek("X-Corr-ID")
		if len(id) == 0 {
			id = shelf.AppendID(b.text[:0])
		}
		h.SetBytesV("X-Corr-ID", id)
		h.Set("X-Index-Source", answer.Source)
		h.SetBytesV("Age", strconv.AppendInt(b.text[:0], hit.Age, 10))
		h.SetBytesV("ETag", hit.ETag)
		h.Set("X-Index-Complete", answer.Complete)
		h.SetContentType(answer.ContentType)
		h.Set("Vary", answer.Vary)
		h.Set("Cache-Control", answer.CacheControl)
		c.Response.SetBody(hit.Body)
	}
}
