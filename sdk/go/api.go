package client

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"svcindex/index"
)

// Meta is what an answer's head says about it.
type Meta struct {
	Source   string        // cache, db or dht
	Age      time.Duration // since the place of origin gave it
	Complete bool          // every place could be asked
	Stale    bool          // past its time; the fresh source could not be asked
	CorrID   string
	Body     []byte // as sent
}

// Resolved says which manifest a key points to.
type Resolved struct {
	Key         string    `json:"key"`
	Kind        string    `json:"kind"` // name or cid
	ManifestCID index.CID `json:"manifest_cid"`
	Integrity   struct {
		Algo   string `json:"algo"`
		Digest string `json:"digest"`
	} `json:"integrity"`
	ProvidersHint int    `json:"providers_hint"`
	Seq           uint64 `json:"seq"`        // names
	ExpiresAt     int64  `json:"expires_at"` // unix seconds; 0: never
	Signed        bool   `json:"signed"`

	Meta `json:"-"`
}

// Resolve asks what key points to: a name with its "name:", or a content id.
func (c *Client) Resolve(ctx context.Context, key string) (*Resolved, error) {
	return c.resolve(ctx, key, nil)
}

// ResolveFresh is Resolve past the cache: it sees every write acknowledged
// before it was called, and is never stale.
func (c *Client) ResolveFresh(ctx context.Context, key string) (*Resolved, error) {
	return c.resolve(ctx, key, url.Values{"fresh": {"true"}})
}

func (c *Client) resolve(ctx context.Context, key string, q url.Values) (*Resolved, error) {
	var v Resolved
	m, err := c.ask(ctx, &request{method: http.MethodGet, path: "/resolve/" + escape(key), query: q, patient: true}, &v)
	if err == nil && v.Key != key {
		err = c.strange(errOther)
	}
	if err != nil {
		return nil, err
	}
	v.Meta = m
	return &v, nil
}

// A ProviderQuery narrows a provider set. The zero one asks for nothing
// special.
type ProviderQuery struct {
	Region       string
	Limit        int   // 1..32
	MinFreshness int64 // seen at most that many seconds ago
}

func (q ProviderQuery) values() url.Values {
	v := url.Values{}
	if q.Region != "" {
		v.Set("region", q.Region)
	}
	if q.Limit != 0 {
		v.Set("limit", strconv.Itoa(q.Limit))
	}
	if q.MinFreshness != 0 {
		v.Set("min_freshness", strconv.FormatInt(q.MinFreshness, 10))
	}
	return v
}

// ProviderSet says who can serve a content id, best first.
type ProviderSet struct {
	CID       index.CID `json:"cid"`
	Providers []struct {
		ID       string  `json:"id"`
		Addr     string  `json:"addr"`
		Region   string  `json:"region"`
		Class    string  `json:"class"` // region_match, fresh or any
		Score    float64 `json:"score"`
		LastSeen int64   `json:"last_seen"` // unix seconds
	} `json:"providers"`
	Truncated bool `json:"truncated"`

	Meta `json:"-"`
}

// Providers asks who can serve cid.
func (c *Client) Providers(ctx context.Context, cid index.CID, q ProviderQuery) (*ProviderSet, error) {
	var v ProviderSet
	m, err := c.ask(ctx, &request{method: http.MethodGet, path: "/providers/" + cid.String(), query: q.values(), patient: true}, &v)
	if err == nil && v.CID != cid {
		err = c.strange(errOther)
	}
	if err != nil {
		return nil, err
	}
	v.Meta = m
	return &v, nil
}

// ErrMismatch says that bytes do not have the content id they came under: the
// server or something on the way damaged them.
var ErrMismatch = errors.New("the bytes do not have this content id: they were damaged at the server or on the way")

// Manifest fetches the bytes of a manifest, in Meta.Body, and verifies them.
func (c *Client) Manifest(ctx context.Context, cid index.CID) (Meta, error) {
	a, err := c.do(ctx, &request{method: http.MethodGet, path: "/manifests/" + cid.String(), patient: true})
	if err != nil {
		return Meta{}, err
	}
	if index.Sum(a.body) != cid {
		return Meta{}, ErrMismatch
	}
	return meta(a), nil
}

// Stored is the answer to PutManifest.
type Stored struct {
	CID       index.CID `json:"cid"`
	Size      int       `json:"size"`
	Announced bool      `json:"announced"`
	Created   bool      `json:"-"` // the server had not got it
}

// PutManifest stores the bytes of a manifest.
func (c *Client) PutManifest(ctx context.Context, b []byte) (*Stored, error) {
	a, err := c.do(ctx, &request{method: http.MethodPut, path: "/manifests", body: b, patient: true})
	if err != nil {
		return nil, err
	}
	v := Stored{Created: a.status == http.StatusCreated}
	if err := json.Unmarshal(a.body, &v); err != nil {
		return nil, err
	}
	if v.CID != index.Sum(b) {
		return nil, ErrMismatch
	}
	return &v, nil
}

// NameRecord says which manifest a name points to.
type NameRecord struct {
	ManifestCID index.CID `json:"manifest_cid"`
	Seq         uint64    `json:"seq"`
	IssuedAt    int64     `json:"issued_at,omitempty"`  // unix seconds
	ExpiresAt   int64     `json:"expires_at,omitempty"` // unix seconds; 0: never
	PubKey      string    `json:"pubkey,omitempty"`     // of a signed record, base64url without padding
	Sig         string    `json:"sig,omitempty"`
}

// PutName points name, with its "name:", at a manifest. Its Seq must be newer
// than the one that stands; if not, IsConflict tells which does.
func (c *Client) PutName(ctx context.Context, name string, r NameRecord) error {
	return c.tell(ctx, &request{method: http.MethodPut, path: "/names/" + escape(name)}, r, &struct{}{})
}

// DeleteName puts a tombstone with sequence seq in the place of name; 0 means
// the next one.
func (c *Client) DeleteName(ctx context.Context, name string, seq uint64) error {
	r := &request{method: http.MethodDelete, path: "/names/" + escape(name), patient: true}
	if seq > 0 {
		r.query = url.Values{"seq": {strconv.FormatUint(seq, 10)}}
	} else {
		r.once = true // each time would be one sequence further
	}
	_, err := c.do(ctx, r)
	return err
}

// DeleteSigned is DeleteName with a publisher's signature, which a name under a
// trusted prefix needs. Its ManifestCID is zero.
func (c *Client) DeleteSigned(ctx context.Context, name string, r NameRecord) error {
	return c.tell(ctx, &request{method: http.MethodDelete, path: "/names/" + escape(name)}, r, &struct{}{})
}

// A Provider is one row of who serves a content id.
type Provider struct {
	ID     string `json:"id"`
	Addr   string `json:"addr"` // a multiaddr or http(s) URL
	Region string `json:"region,omitempty"`
	TTL    int64  `json:"ttl_s,omitempty"` // seconds; 0: the server's default
}

// PutProviders stores or renews rows of cid.
func (c *Client) PutProviders(ctx context.Context, cid index.CID, rows ...Provider) (stored int, err error) {
	var out struct {
		Stored int `json:"stored"`
	}
	in := struct {
		Providers []Provider `json:"providers"`
	}{rows}
	err = c.tell(ctx, &request{method: http.MethodPut, path: "/providers/" + cid.String()}, in, &out)
	return out.Stored, err
}

// DeleteProvider removes a row of cid.
func (c *Client) DeleteProvider(ctx context.Context, cid index.CID, id string) error {
	_, err := c.do(ctx, &request{method: http.MethodDelete, patient: true,
		path: "/providers/" + cid.String() + "/" + escape(id)})
	return err
}

// Pin keeps the manifest cid and its rows from expiring.
func (c *Client) Pin(ctx context.Context, cid index.CID) error { return c.pin(ctx, "/admin/pin", cid) }

// Unpin undoes Pin.
func (c *Client) Unpin(ctx context.Context, cid index.CID) error {
	return c.pin(ctx, "/admin/unpin", cid)
}

func (c *Client) pin(ctx context.Context, path string, cid index.CID) error {
	in := struct {
		CID index.CID `json:"cid"`
	}{cid}
	return c.tell(ctx, &request{method: http.MethodPost, path: path}, in, &struct{}{})
}

// Version says what the server is.
type Version struct {
	NodeID  string `json:"node_id"` // its provider id
	Version string `json:"version"`

	Meta `json:"-"`
}

// Version asks what the server is.
func (c *Client) Version(ctx context.Context) (*Version, error) {
	var v Version
	m, err := c.ask(ctx, &request{method: http.MethodGet, path: "/version", patient: true}, &v)
	if err != nil {
		return nil, err
	}
	v.Meta = m
	return &v, nil
}

// Readiness says whether the server is ready and, if not, what is missing.
type Readiness struct {
	Ready    bool     `json:"ready"`
	Keys     []string `json:"keys"`
	Missing  []string `json:"missing"`
	Degraded bool     `json:"degraded"` // reads are still served
}

// Ready asks whether the server is ready. Not being so is an answer, not an
// error, and is not waited out.
func (c *Client) Ready(ctx context.Context) (*Readiness, error) {
	a, err := c.do(ctx, &request{method: http.MethodGet, path: "/readyz"})
	if a == nil || a.status/100 != 2 && a.status != http.StatusServiceUnavailable {
		return nil, err
	}
	var v Readiness
	if bad := json.Unmarshal(a.body, &v); bad != nil {
		return nil, errors.Join(err, bad)
	}
	// A 503 that does not look like readyz's own came from the door.
	if err != nil && !v.Ready && len(v.Missing) == 0 {
		return nil, err
	}
	return &v, nil
}
