package netio

import (
	"bytes"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"svcindex/index"
)

// FuzzKnown drives two heads through one connection's memory and holds what it
// says of the second to the parser: a head that is known is one the parser
// takes, ends at the same byte and says the same.
func FuzzKnown(f *testing.F) {
	for _, c := range corpus(f) {
		if in := c.octets(); len(in) < 2<<10 {
			f.Add([]byte(hitHead), in)
			f.Add(in, in)
			f.Add(in, bytes.Replace(in, []byte(" /"), []byte(" /more"), 1))
		}
	}
	f.Add([]byte(longHead), []byte(longHead))
	f.Add([]byte(hitHead), []byte("PUT"+hitHead[3:]))
	f.Add([]byte(hitHead), []byte(strings.Replace(hitHead, "1.1", "1.0", 1)))
	f.Add([]byte(hitHead), []byte(strings.Replace(hitHead, "/resolve", "/a#b", 1)))
	f.Fuzz(func(t *testing.T, first, second []byte) {
		const small = 700 // a head cap that inputs reach
		var k knownHead
		var h, plain head
		if n, err := parseHead(first, &h, headCap, targetCap); n > 0 && err == nil {
			k.remember(first[:n], &h)
		}
		for _, most := range []int{headCap, small} {
			want, err := parseHead(second, &plain, most, targetCap)
			for range 2 { // it is read when it comes again, and only then
				got := k.again(second, most, targetCap)
				if got == 0 {
					continue // it may forget what it likes
				}
				if err != nil || got != want || !same(&k.head, &plain) {
					t.Fatalf("after %q, %q is known as %d, %+v; the parser says %d, %v, %+v", first, second, got, k.head, want, err, plain)
				}
			}
		}
		for i := range second {
			if n := k.again(second[:i], headCap, targetCap); n > i {
				t.Fatalf("after %q, %d bytes of %q are known", first, n, second[:i])
			}
		}
	})
}

// TestWhatIsKnown: the memory is of use to those who ask the same way again, and
// keeps nothing of what others may not see or nobody sends twice.
func TestWhatIsKnown(t *testing.T) {
	get := func(target, fields string) string {
		return "GET " + target + " HTTP/1.1\r\nHost: a\r\n" + fields + "\r\n"
	}
	for _, tt := range []struct {
		why           string
		first, second string
		known         bool
	}{
		{"the same again", get("/a", ""), get("/a", ""), true},
		{"another target", get("/a", "Accept: */*\r\n"), get("/resolve/name:a?fresh=true", "Accept: */*\r\n"), true},
		{"and bytes behind it", get("/a", ""), get("/b", "") + get("/c", ""), true},
		{"it is not whole yet", get("/a", ""), strings.TrimSuffix(get("/b", ""), "\n"), false},
		{"a field more", get("/a", ""), get("/a", "A: b\r\n"), false},
		{"a field less", get("/a", "A: b\r\n"), get("/a", ""), false},
		{"another case: it means the same, but takes reading to see that", get("/a", "A: b\r\n"), get("/a", "a: b\r\n"), false},
		{"no target", get("/a", ""), get("", ""), false},
		{"a byte no target holds", get("/a", ""), get("/a\x7f", ""), false},
		{"a target too long", get("/a", ""), get("/"+strings.Repeat("a", targetCap), ""), false},
		{"a head too long", get("/a", ""), get("/"+strings.Repeat("a", targetCap-1), ""), false},
		{"another method", get("/a", ""), "HEAD" + get("/a", "")[3:], false},
		{"another version", get("/a", ""), strings.Replace(get("/a", ""), "1.1", "1.0", 1), false},
		{"a secret", get("/a", "Authorization: Bearer x\r\n"), get("/a", "Authorization: Bearer x\r\n"), false},
		{"a body", get("/a", "Content-Length: 3\r\n"), get("/a", "Content-Length: 3\r\n"), false},
		{"more than is remembered", get("/a", "A: "+strings.Repeat("b", knownMost)+"\r\n"), get("/a", "A: "+strings.Repeat("b", knownMost)+"\r\n"), false},
	} {
		var k knownHead
		var h head
		n, err := parseHead([]byte(tt.first), &h, headCap, targetCap)
		if err != nil || n == 0 {
			t.Fatalf("%s: %d, %v", tt.why, n, err)
		}
		k.remember([]byte(tt.first)[:n], &h)
		if got := k.again([]byte(tt.second), 4<<10, targetCap) > 0; got != tt.known {
			t.Errorf("%s: known %v, want %v", tt.why, got, tt.known)
		}
	}
}

// TestNothingOfARequestIsLeftForTheNext: a slot that was used says of a request
// what a new one says.
func TestNothingOfARequestIsLeftForTheNext(t *testing.T) {
	heads := []string{
		hitHead,
		"GET /resolve/" + cid + " HTTP/1.1\r\nHost: a\r\nAccept: application/cbor\r\nIf-None-Match: \"x\"\r\nX-Corr-ID: mine\r\n\r\n",
		"HEAD /resolve/name:a HTTP/1.1\r\nHost: a\r\n\r\n",
		"GET /resolve/name:" + strings.Repeat("long/", 30) + "x HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
		"GET /resolve/name:b?fresh=true HTTP/1.1\r\nHost: a\r\n\r\n",
		"GET /providers/" + cid + "?region=eu&limit=3 HTTP/1.1\r\nHost: a\r\nAccept: application/cbor\r\n\r\n",
		"GET /manifests/" + cid + " HTTP/1.1\r\nHost: a\r\n\r\n",
		"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n",
		"GET /nowhere HTTP/1.1\r\nHost: a\r\n\r\n",
		"no request at all\r\n\r\n",
	}
	s := newBareServer(&fakeResolver{testPage(t)})
	tuning := *s.opt.Dial.Now()
	tuning.Rate = 1000
	s.opt.Dial = index.NewDial(tuning)
	now := time.Now()
	// ask has the connection take one request, and returns its slot as it takes off.
	ask := func(c *conn, in string) slot {
		c.tuning = s.opt.Dial.Now()
		f := c.loop.newFlight(c)
		if n, _ := c.readHead(f, []byte(in), now); n != len(in) {
			t.Fatalf("%q: %d of %d bytes read", in, n, len(in))
		}
		k := *f.slots[0]
		if !k.local {
			f.Jobs = append(f.Jobs, &f.slots[0].job)
			f.left.Store(1)
			s.resolver.Push(0, []*index.Flight{&f.Flight})
		}
		c.loop.release(f)
		// What differs by right: where it belongs, its serial number, and memory.
		k.flight, k.server, k.job.Tuning, k.job.Home, k.job.CorrID, k.corr, k.out = nil, nil, nil, nil, nil, [64]byte{}, nil
		k.limit.left, k.limit.full = 0, 0
		return k
	}
	for _, first := range heads {
		for _, second := range heads {
			used, _ := newBareConn(s)
			used.peer = new(peer)
			ask(used, first)
			fresh, _ := newBareConn(s)
			fresh.peer = new(peer)
			got, want := ask(used, second), ask(fresh, second)
			// Written before anybody reads it.
			got.job.Noted, got.job.Entered = want.job.Noted, want.job.Entered
			if diff := cmp.Diff(want, got, cmp.Exporter(func(reflect.Type) bool { return true })); diff != "" {
				t.Errorf("after %.40q, %.40q is not what it is of its own: %s", first, second, diff)
			}
		}
	}
}
