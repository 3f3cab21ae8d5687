package loadgen

import (
	"errors"
	"fmt"
	"strconv"
)

// An Endpoint is one kind of request: METHOD PATH + key + query, and a body.
type Endpoint struct {
	Name   string
	Weight float64 // against the others of its mix
	Method string
	Path   string // before the key
	Keys   Keyset
	Absent Keyset // keys that nobody has, for the mix's share of them; may be nil
	InFile bool   // ranks are indexes: keys come in the order of their demand
	Fresh  string // appended to the target for the mix's share; empty: never
	Header string // more header lines, each with its CR LF

	// Body appends the body for key i of Keys in request n; nil: there is none.
	Body func(dst []byte, i int, n int64) []byte
}

// A Mix is who is asked for what, how often. Its requests are a pure function
// of the seed and their number.
type Mix struct {
	Endpoints []Endpoint
	Host      string
	Dist      string  // see NewDist
	Absent    float64 // share of requests for keys that are not there
	Fresh     float64 // share of requests that want to see past a cache
	Seed      uint64
}

// Asker returns a maker of Askers, or what is wrong with the mix.
func (m Mix) Asker() (func() Asker, error) {
	asker := mixAsker{seed: m.Seed, absent: m.Absent, fresh: m.Fresh}
	sum := 0.0
	for _, e := range m.Endpoints {
		if !(e.Weight >= 0) {
			return nil, fmt.Errorf("%s: a weight is not negative", e.Name)
		}
		sum += e.Weight
	}
	if !(sum > 0) {
		return nil, errors.New("there is nothing to ask: all weights are zero")
	}
	upTo := 0.0
	for i := range m.Endpoints {
		e := &m.Endpoints[i]
		if e.Weight == 0 {
			continue
		}
		dist, err := NewDist(m.Dist, e.Keys.Len())
		if err != nil {
			return nil, fmt.Errorf("%s: %w", e.Name, err)
		}
		upTo += e.Weight / sum
		asker.kinds = append(asker.kinds, newForm(e, m.Host, dist, upTo))
	}
	return func() Asker { a := asker; return &a }, nil
}

// A form is an endpoint with all that can be rendered ahead.
type form struct {
	*Endpoint
	upTo     float64 // of the dice that choose between forms
	dist     Dist
	stride   uint64
	open     string // "GET /path/"
	close    string // " HTTP/1.1\r\n...\r\n\r\n", or up to "Content-Length: "
	headless bool
}

func newForm(e *Endpoint, host string, dist Dist, upTo float64) form {
	t := form{Endpoint: e, upTo: upTo, dist: dist, stride: 1, open: e.Method + " " + e.Path, headless: e.Method == "HEAD"}
	if !e.InFile {
		t.stride = spread(e.Keys.Len())
	}
	t.close = " HTTP/1.1\r\nHost: " + host + "\r\n" + e.Header
	if e.Body != nil {
		t.close += "Content-Type: application/json\r\nContent-Length: "
	} else {
		t.close += "\r\n"
	}
	return t
}

type mixAsker struct {
	kinds         []form
	seed          uint64
	absent, fresh float64
	body          []byte
	dice          dice // of the request at hand; here, for on the stack it would escape
}

// Ask implements Asker.
func (m *mixAsker) Ask(dst []byte, n int64) ([]byte, bool) {
	m.dice = newDice(m.seed, uint64(n))
	d := &m.dice
	t := m.choose(d)
	i := int(uint64(t.dist.pick(d)) * t.stride % uint64(t.Keys.Len()))
	keys := t.Keys
	// The dice are rolled whether or not they decide anything, so that another
	// share leaves the other requests what they were.
	if d.unit() < m.absent && t.Absent != nil {
		keys = t.Absent
		i %= keys.Len()
	}
	fresh := d.unit() < m.fresh && t.Fresh != ""
	return t.render(dst, keys, i, n, fresh, &m.body), t.headless
}

func (m *mixAsker) choose(d *dice) *form {
	u := d.unit()
	for i := range m.kinds[:len(m.kinds)-1] {
		if u < m.kinds[i].upTo {
			return &m.kinds[i]
		}
	}
	return &m.kinds[len(m.kinds)-1]
}

// render appends one request. body is a buffer that is kept between calls: a
// body's length stands before it.
func (t *form) render(dst []byte, keys Keyset, i int, n int64, fresh bool, body *[]byte) []byte {
	dst = keys.Append(append(dst, t.open...), i)
	if fresh {
		dst = append(dst, t.Fresh...)
	}
	dst = append(dst, t.close...)
	if t.Body == nil {
		return dst
	}
	*body = t.Body((*body)[:0], i, n)
	dst = strconv.AppendInt(dst, int64(len(*body)), 10)
	return append(append(dst, "\r\n\r\n"...), *body...)
}
