package client

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/url"
	"strconv"
	"time"
)

const (
	answerMax = 4 << 20 // bytes of an answer; a manifest has at most 1 MiB

	// How long to wait when the server does not say: doubled each time.
	backoffFirst = 100 * time.Millisecond
	backoffLast  = 5 * time.Second
)

// A request is what one call sends, as often as it must.
type request struct {
	method, path string // path is already escaped
	query        url.Values
	body         []byte
	isJSON       bool
	once         bool // doing it twice is not the same as doing it once
	patient      bool // may wait and try again on 429 and 503
}

// An answer is a response that has arrived whole.
type answer struct {
	status int
	header http.Header
	body   []byte
}

// do sends r until it is answered with something other than "later", or the
// patience of the client or ctx is used up.
func (c *Client) do(ctx context.Context, r *request) (*answer, error) {
	for try := 0; ; try++ {
		a, err := c.send(ctx, r)
		if err != nil {
			return nil, err
		}
		if a.status/100 == 2 {
			return a, nil
		}
		refusal := decodeError(a)
		wait, worth := c.wait(refusal, try)
		if !r.patient || !worth || !sleep(ctx, wait) {
			return a, refusal
		}
	}
}

// wait returns how long to wait before the next try, and whether there is to
// be one.
func (c *Client) wait(e *Error, try int) (time.Duration, bool) {
	if e.Status != http.StatusTooManyRequests && e.Status != http.StatusServiceUnavailable {
		return 0, false
	}
	wait := e.RetryAfter
	if wait == 0 {
		wait = min(backoffFirst<<min(try, 10), backoffLast)
	}
	if try >= c.retries || wait > c.maxWait {
		return 0, false
	}
	// Those refused together must not come back together.
	return wait + rand.N(wait/8+1), true
}

// sleep reports whether d passed; not if ctx ended or will end before.
func sleep(ctx context.Context, d time.Duration) bool {
	if end, ok := ctx.Deadline(); ok && time.Until(end) <= d {
		return false
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// send tries once and reads the whole answer, so that the connection can be
// used again.
func (c *Client) send(ctx context.Context, r *request) (*answer, error) {
	ctx, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	req, err := c.build(ctx, r)
	if err != nil {
		return nil, err
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	body, err := readBody(resp)
	if err != nil {
		return nil, fmt.Errorf("reading the answer of %s %s: %w", r.method, c.base, err)
	}
	return &answer{resp.StatusCode, resp.Header, body}, nil
}

func (c *Client) build(ctx context.Context, r *request) (*http.Request, error) {
	target := c.base + r.path
	if len(r.query) > 0 {
		target += "?" + r.query.Encode()
	}
	req, err := http.NewRequestWithContext(ctx, r.method, target, bytes.NewReader(r.body))
	if err != nil {
		return nil, err
	}
	token, err := c.token()
	if err != nil {
		return nil, err
	}
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	req.Header.Set("User-Agent", "svc-index-client-go")
	req.Header.Set("Accept", "application/json, */*;q=0.1")
	switch {
	case r.isJSON:
		req.Header.Set("Content-Type", "application/json")
	case len(r.body) > 0:
		req.Header.Set("Content-Type", "application/octet-stream")
	}
	if !r.once {
		// Empty, it is not sent: it tells net/http that it may send the request
		// again if a kept connection turns out to have been closed meanwhile.
		req.Header["Idempotency-Key"] = []string{}
	}
	return req, nil
}

func readBody(resp *http.Response) ([]byte, error) {
	var b bytes.Buffer
	if n := resp.ContentLength; n > 0 && n <= answerMax {
		b.Grow(int(n) + bytes.MinRead) // MinRead: ReadFrom wants that much to see the end
	}
	n, err := b.ReadFrom(io.LimitReader(resp.Body, answerMax+1))
	if err == nil && n > answerMax {
		err = fmt.Errorf("it is over %d bytes", answerMax)
	}
	return b.Bytes(), err
}

// ask sends r and decodes the JSON of its answer into v.
func (c *Client) ask(ctx context.Context, r *request, v any) (Meta, error) {
	a, err := c.do(ctx, r)
	if err != nil {
		return Meta{}, err
	}
	if err := json.Unmarshal(a.body, v); err != nil {
		return Meta{}, c.strange(err)
	}
	return meta(a), nil
}

// errOther is what a stranger's JSON comes to, and an answer that somebody on
// the way gave to the wrong question.
var errOther = errors.New("it is about another key than was asked for")

func (c *Client) strange(why error) error {
	return fmt.Errorf("the answer of %s is not what svc-index sends: %w", c.base, why)
}

// tell sends v as JSON and decodes the answer into out.
func (c *Client) tell(ctx context.Context, r *request, v, out any) error {
	body, err := json.Marshal(v)
	if err != nil {
		return err
	}
	r.body, r.isJSON, r.patient = body, true, true
	_, err = c.ask(ctx, r, out)
	return err
}

func meta(a *answer) Meta {
	age, _ := strconv.ParseInt(a.header.Get("Age"), 10, 32)
	return Meta{
		Source:   a.header.Get("X-Index-Source"),
		Age:      time.Duration(max(age, 0)) * time.Second,
		Complete: a.header.Get("X-Index-Complete") != "partial",
		Stale:    a.header.Get("X-Index-Stale") == "true",
		CorrID:   a.header.Get("X-Corr-ID"),
		Body:     a.body,
	}
}

// escape makes key part of a path. Keys of the grammar pass as they are.
func escape(key string) string {
	const hex = "0123456789ABCDEF"
	b := make([]byte, 0, len(key))
	for i := range len(key) {
		if c := key[i]; plain(c) {
			b = append(b, c)
		} else {
			b = append(b, '%', hex[c>>4], hex[c&15])
		}
	}
	return string(b)
}

// plain tells the bytes that mean themselves in a path.
func plain(c byte) bool {
	switch {
	case c >= '0' && c <= '9', c >= 'A' && c <= 'Z', c >= 'a' && c <= 'z':
		return true
	}
	switch c {
	case '-', '.', '_', '~', '+', '@', ':', '/':
		return true
	}
	return false
}
