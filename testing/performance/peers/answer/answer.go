// Package answer is what every peer says: our server's own answers, by key,
// with the same fields in their heads.
package answer

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"sync/atomic"
	"time"

	"github.com/coocood/freecache"
)

// An Answer is one of our server's, without what changes from one request to
// the next.
type Answer struct{ Key, ETag, Body string }

// What stands in the head of each answer, beside Date, Content-Length, ETag,
// Age and X-Corr-ID.
const (
	ContentType  = "application/json"
	Source       = "cache"
	Complete     = "full"
	Vary         = "Accept"
	CacheControl = "public, max-age=5"
)

// Path is what a request's path begins with; the key follows.
const Path = "/resolve/"

const (
	cacheBytes = 64 << 20
	cacheTTL   = 3600 // seconds
	etagLen    = len(`"b3:"`) + 64
	headLen    = 8 + etagLen
	// Room is enough for what Get returns of any answer we ask for.
	Room = 4 << 10
)

// A Shelf is a cache full of answers. It reads the clock once a second, as our
// server's does: freecache's own default would cost it 50 ns a request.
type Shelf struct {
	cache *freecache.Cache
	timer freecache.StoppableTimer
	ids   atomic.Uint64
}

// Fill reads the answers of a file into a new Shelf.
func Fill(file string) (*Shelf, error) {
	b, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	var as []Answer
	if err := json.Unmarshal(b, &as); err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	s := &Shelf{timer: freecache.NewCachedTimer()}
	s.cache = freecache.NewCacheCustomTimer(cacheBytes, s.timer)
	for _, a := range as {
		if len(a.ETag) != etagLen {
			return nil, fmt.Errorf("%s: the ETag of %s has %d bytes, want %d", file, a.Key, len(a.ETag), etagLen)
		}
		v := binary.LittleEndian.AppendUint64(nil, uint64(s.timer.Now()))
		v = append(append(v, a.ETag...), a.Body...)
		if err := s.cache.Set([]byte(a.Key), v, cacheTTL); err != nil {
			return nil, fmt.Errorf("%s: keeping %s: %w", file, a.Key, err)
		}
	}
	return s, nil
}

// A Hit is an answer found. Its slices point into the buffer given to Get.
type Hit struct {
	ETag, Body []byte
	Age        int64
}

// Get looks a key up; buf is room for what it finds.
func (s *Shelf) Get(key, buf []byte) (h Hit, ok bool) {
	v, err := s.cache.GetWithBuf(key, buf)
	if err != nil || len(v) < headLen {
		return h, false
	}
	h.Age = int64(uint64(s.timer.Now()) - binary.LittleEndian.Uint64(v))
	h.ETag, h.Body = v[8:headLen], v[headLen:]
	return h, true
}

// AppendID appends a correlation id no other answer of this process has, of as
// many characters as our server's.
func (s *Shelf) AppendID(dst []byte) []byte {
	const digits = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
	dst = append(dst, "01PEERPEERPEE"...)
	n := s.ids.Add(1)
	for shift := 60; shift >= 0; shift -= 5 {
		dst = append(dst, digits[n>>shift&31])
	}
	return dst
}

// Listen listens where the system chooses, says where, and returns.
func Listen() (net.Listener, error) {
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err == nil {
		Say(l.Addr().String())
	}
	return l, err
}

// Say prints the line by which a peer says where it listens.
func Say(addr string) { fmt.Printf("peer listens on http://%s\n", addr) }

// Run ends the process with what serve returns.
func Run(serve func(*Shelf, net.Listener) error) {
	if len(os.Args) != 2 {
		fmt.Fprintf(os.Stderr, "usage: %s ANSWERS\n", os.Args[0])
		os.Exit(2)
	}
	s, err := Fill(os.Args[1])
	if err == nil {
		var l net.Listener
		if l, err = Listen(); err == nil {
			err = serve(s, l)
		}
	}
	fmt.Fprintln(os.Stderr, time.Now().Format(time.TimeOnly), err)
	os.Exit(1)
}
