package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"testing"

	"svcindex/index"
)

const (
	fakeToken = "sesame"
	fakeNode  = "12D3KooWBtg3aaRMjxwedh83aGiUkwSxDwUZkzuJcfaqUmo7R3pq"
)

type fakeName struct {
	ManifestCID string `json:"manifest_cid"`
	Seq         uint64 `json:"seq"`
	Deleted     bool   `json:"-"`
}

// A fakeServer answers like svc-index, from maps, and remembers what it was
// asked.
type fakeServer struct {
	*httptest.Server

	// May refuse a request before it is looked at. Set before the first one.
	refuse func(r *http.Request) (status int)

	mu        sync.Mutex // protects the fields below
	asked     []string   // "METHOD /path"
	manifests map[string][]byte
	names     map[string]fakeName
	rows      map[string][]map[string]any
}

func newFakeServer(t *testing.T) *fakeServer {
	s := &fakeServer{
		refuse:    func(*http.Request) int { return 0 },
		manifests: map[string][]byte{}, names: map[string]fakeName{}, rows: map[string][]map[string]any{},
	}
	s.Server = httptest.NewServer(s)
	t.Cleanup(s.Close)
	t.Setenv(envServer, s.URL)
	t.Setenv(envToken, fakeToken)
	return s
}

func (s *fakeServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.asked = append(s.asked, r.Method+" "+r.URL.RequestURI())
	w.Header().Set("X-Corr-ID", "corr-7")
	if status := s.refuse(r); status != 0 {
		w.Header().Set("Retry-After", "0.01")
		s.fail(w, status, "refused")
		return
	}
	if r.Method != "GET" && r.Header.Get("Authorization") != "Bearer "+fakeToken {
		s.fail(w, 401, "unauthorized")
		return
	}
	s.answer(w, r, body)
}

func (s *fakeServer) fail(w http.ResponseWriter, status int, code string) {
	w.WriteHeader(status)
	fmt.Fprintf(w, `{"code":%q,"message":"the fake says no","corr_id":"corr-7"}`, code)
}

func (s *fakeServer) answer(w http.ResponseWriter, r *http.Request, body []byte) {
	_, key, _ := strings.Cut(r.URL.Path[1:], "/")
	switch what := r.Method + " /" + strings.SplitN(r.URL.Path, "/", 3)[1]; what {
	case "GET /version":
		fmt.Fprintf(w, `{"node_id":%q,"version":"fake"}`, fakeNode)
	case "PUT /manifests":
		s.putManifest(w, body)
	case "GET /manifests":
		s.getManifest(w, key)
	case "PUT /names":
		s.putName(w, key, body)
	case "GET /resolve":
		s.resolve(w, key)
	case "PUT /providers":
		s.putProviders(w, key, body)
	case "GET /providers":
		fmt.Fprintf(w, `{"cid":%q,"providers":[{"id":"p1","addr":"http://a\u001b[31m","region":"","class":"any","score":0.5,"last_seen":1}],"truncated":true}`, key)
	default:
		s.fail(w, 404, "not_found")
	}
}

func (s *fakeServer) putManifest(w http.ResponseWriter, body []byte) {
	cid := index.Sum(body).String()
	if _, held := s.manifests[cid]; !held {
		w.WriteHeader(201)
	}
	s.manifests[cid] = body
	fmt.Fprintf(w, `{"cid":%q,"size":%d,"announced":false}`, cid, len(body))
}

func (s *fakeServer) getManifest(w http.ResponseWriter, key string) {
	b, ok := s.manifests[key]
	if !ok {
		s.fail(w, 404, "not_found")
		return
	}
	w.Write(b)
}

func (s *fakeServer) putName(w http.ResponseWriter, key string, body []byte) {
	var n fakeName
	if json.Unmarshal(body, &n) != nil {
		s.fail(w, 400, "bad_request")
		return
	}
	if old := s.names[key]; n.Seq <= old.Seq && n != old {
		w.WriteHeader(409)
		fmt.Fprintf(w, `{"code":"conflict","message":"m","current_seq":%d}`, old.Seq)
		return
	}
	s.names[key] = n
	w.Write(body)
}

func (s *fakeServer) resolve(w http.ResponseWriter, key string) {
	n, ok := s.names[key]
	if !ok || n.Deleted {
		s.fail(w, 404, "not_found")
		return
	}
	w.Header().Set("X-Index-Source", "db")
	w.Header().Set("Age", "3")
	fmt.Fprintf(w, `{"key":%q,"kind":"name","manifest_cid":%q,"providers_hint":1,"seq":%s}`,
		key, n.ManifestCID, strconv.FormatUint(n.Seq, 10))
}

func (s *fakeServer) putProviders(w http.ResponseWriter, key string, body []byte) {
	var in struct{ Providers []map[string]any }
	if json.Unmarshal(body, &in) != nil {
		s.fail(w, 400, "bad_request")
		return
	}
	s.rows[key] = in.Providers
	fmt.Fprintf(w, `{"stored":%d}`, len(in.Providers))
}

// forget returns how often each kind of request came since the last call.
func (s *fakeServer) forget() map[string]int {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := map[string]int{}
	for _, a := range s.asked {
		n["/"+strings.SplitN(a, "/", 3)[1]]++
		n[strings.Join(strings.SplitN(a, "/", 3)[:2], "/")]++
	}
	s.asked = nil
	return n
}
