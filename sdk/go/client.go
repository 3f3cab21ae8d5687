// Package client asks an svc-index server, and tells it things, over HTTP.
//
// A Client keeps its connections alive, may be used by many goroutines at once
// and starts none of its own. It waits and asks again when the server says it
// is too busy, within bounds; every other answer that is not a success is an
// *Error. Unknown fields in answers are ignored, so that an old client serves
// with a new server. Manifest bytes are handed out only after their BLAKE3
// matched.
package client

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// Defaults of New.
const (
	DefaultConns   = 32               // idle connections kept
	DefaultRetries = 3                // after the first try, on 429 and 503
	DefaultMaxWait = 10 * time.Second // the longest Retry-After worth waiting for
	DefaultTimeout = 30 * time.Second // for one try, from its first byte to its answer's last
)

const (
	dialTimeout = 5 * time.Second
	idleTimeout = 30 * time.Second // a connection idle for longer is closed by us
)

// A Client speaks to one server.
type Client struct {
	base    string // scheme, host and any path in front of ours; no slash at its end
	http    *http.Client
	token   func() (string, error)
	conns   int
	retries int
	maxWait time.Duration
	timeout time.Duration
}

// An Option changes a default of New.
type Option func(*Client)

// WithToken sends the bearer token with every request.
func WithToken(token string) Option {
	return WithTokens(func() (string, error) { return token, nil })
}

// WithTokens asks from for the bearer token of every request, so that one that
// does not live long can be replaced. It is called by many goroutines at once;
// an empty token is not sent.
func WithTokens(from func() (string, error)) Option { return func(c *Client) { c.token = from } }

// WithConns keeps up to n idle connections: as many as goroutines that ask.
func WithConns(n int) Option { return func(c *Client) { c.conns = n } }

// WithRetries tries again up to n times after a 429 or 503. If the server asks
// to wait for longer than longest, the answer is returned instead.
func WithRetries(n int, longest time.Duration) Option {
	return func(c *Client) { c.retries, c.maxWait = n, longest }
}

// WithTimeout bounds each try. The context bounds the whole call.
func WithTimeout(d time.Duration) Option { return func(c *Client) { c.timeout = d } }

// New returns a client of server: http://HOST:PORT, https://HOST:PORT or
// unix:/PATH. It does not connect yet.
func New(server string, opts ...Option) (*Client, error) {
	base, socket, err := parseServer(server)
	if err != nil {
		return nil, err
	}
	c := &Client{base: base, conns: DefaultConns, retries: DefaultRetries,
		maxWait: DefaultMaxWait, timeout: DefaultTimeout,
		token: func() (string, error) { return "", nil }}
	for _, o := range opts {
		o(c)
	}
	c.http = &http.Client{
		Transport: transport(socket, c.conns),
		// A redirect would carry the token to a place nobody chose.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	return c, nil
}

// Close closes the idle connections.
func (c *Client) Close() { c.http.CloseIdleConnections() }

var errServer = errors.New("a server is http://HOST:PORT, https://HOST:PORT or unix:/PATH")

// parseServer returns the URL to put in front of paths, and the Unix socket to
// dial, if it is one.
func parseServer(server string) (base, socket string, err error) {
	if path, ok := strings.CutPrefix(server, "unix:"); ok {
		path = strings.TrimPrefix(path, "//") // unix:///run/x.sock, as some write it
		if path == "" {
			return "", "", errServer
		}
		return "http://localhost", path, nil
	}
	u, err := url.Parse(server)
	switch {
	case err != nil, u.Scheme != "http" && u.Scheme != "https", u.Host == "", u.User != nil,
		u.RawQuery != "", u.Fragment != "":
		return "", "", fmt.Errorf("%w; this is %q", errServer, server)
	}
	return strings.TrimRight(server, "/"), "", nil
}

func transport(socket string, conns int) *http.Transport {
	dialer := &net.Dialer{Timeout: dialTimeout}
	t := &http.Transport{
		Proxy:               http.ProxyFromEnvironment,
		DialContext:         dialer.DialContext,
		TLSHandshakeTimeout: dialTimeout,
		MaxIdleConns:        conns,
		MaxIdleConnsPerHost: conns,
		IdleConnTimeout:     idleTimeout,
		DisableCompression:  true, // manifests are verified as sent, and loopback is cheap
	}
	if socket != "" {
		t.Proxy = nil
		t.DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) {
			return dialer.DialContext(ctx, "unix", socket)
		}
	}
	return t
}
