// Command nethttp is the peer made of net/http and freecache.
package main

import (
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"unsafe"

	"svcindex/testing/performance/peers/answer"
)

// A scratch is what one request needs room for.
type scratch struct{ found, text [answer.Room]byte }

func main() { answer.Run(serve) }

// Values that are the same in every answer.
var (
	source   = []string{answer.Source}
	complete = []string{answer.Complete}
	kind     = []string{answer.ContentType}
	vary     = []string{answer.Vary}
	control  = []string{answer.CacheControl}
)

func serve(shelf *answer.Shelf, l net.Listener) error {
	pool := sync.Pool{New: func() any { return new(scratch) }}
	s := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		key, ok := strings.CutPrefix(r.URL.Path, answer.Path)
		if !ok {
			http.NotFound(w, r)
			return
		}
		b := pool.Get().(*scratch)
		defer pool.Put(b)
		hit, ok := shelf.Get(unsafe.Slice(unsafe.StringData(key), len(key)), b.found[:])
		if !ok {
			http.NotFound(w, r)
			return
		}
		h := w.Header()
		if id := r.Header["X-Corr-Id"]; len(id) > 0 {
			h["X-Corr-ID"] = id[:1]
		} else {
			h["X-Corr-ID"] = []string{string(shelf.AppendID(b.text[:0]))}
		}
		h["X-Index-Source"], h["X-Index-Complete"] = source, complete
		h["Age"] = []string{strconv.FormatInt(hit.Age, 10)}
		h["ETag"] = []string{string(hit.ETag)}
		h["Content-Type"], h["Vary"], h["Cache-Control"] = kind, vary, control
		_, _ = w.Write(hit.Body)
	})}
	return s.Serve(l)
}
