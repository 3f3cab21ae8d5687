package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"svcindex/auth"
	"svcindex/config"
	"svcindex/index"
)

// A testHouse is a real server on real sockets and a real disk.
type testHouse struct {
	*house
	t     *testing.T
	url   string
	token string
	http  *http.Client
}

// open starts a house on a directory of the test's.
func openHouse(t *testing.T, s seams, set ...string) *testHouse {
	t.Helper()
	return openHouseIn(t, t.TempDir(), s, set...)
}

func openHouseIn(t *testing.T, dir string, s seams, set ...string) *testHouse {
	t.Helper()
	set = append([]string{
		"listen=127.0.0.1:0", "admin=127.0.0.1:0", "data_dir=" + dir, "cache.bytes=4MiB", "limits.max_conns=2000",
	}, set...)
	cfg, err := config.Load(config.Input{Set: set})
	if err != nil {
		t.Fatal(err)
	}
	if err := cfg.Check(); err != nil {
		t.Fatal(err)
	}
	h, err := build(cfg, slog.New(slog.NewTextHandler(t.Output(), nil)), s)
	if err != nil {
		t.Fatal(err)
	}
	token, err := auth.AdminToken(dir, false)
	if err != nil {
		t.Fatal(err)
	}
	th := &testHouse{house: h, t: t, url: "http://" + h.addr.String(), token: token}
	th.http = &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 64}}
	t.Cleanup(th.shut)
	th.awaitReady()
	return th
}

// shut closes the house; safe to call twice.
func (h *testHouse) shut() {
	if h.house == nil {
		return
	}
	h.http.CloseIdleConnections()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	if err := h.close(ctx); err != nil {
		h.t.Errorf("closing the house: %v", err)
	}
	h.house = nil
}

func (h *testHouse) awaitReady() {
	h.t.Helper()
	for range 100 {
		if r := h.get("/readyz"); r.status == 200 {
			return
		}
		time.Sleep(50 * time.Millisecond)
	}
	h.t.Fatalf("never ready: %s", h.get("/readyz").body)
}

// An answered is an answer as the client saw it.
type answered struct {
	status int
	header http.Header
	body   []byte
}

func (a answered) String() string { return fmt.Sprintf("%d %s", a.status, a.body) }

// field returns a top-level field of a JSON body as text.
func (a answered) field(name string) string {
	var m map[string]any
	if json.Unmarshal(a.body, &m) != nil {
		return ""
	}
	switch v := m[name].(type) {
	case nil:
		return ""
	case string:
		return v
	default:
		b, _ := json.Marshal(v)
		return string(b)
	}
}

func (h *testHouse) do(method, path, body string, header ...string) answered {
	h.t.Helper()
	a, err := h.try(method, path, body, header...)
	if err != nil {
		h.t.Fatalf("%s %s: %v", method, path, err)
	}
	return a
}

func (h *testHouse) try(method, path, body string, header ...string) (a answered, err error) {
	req, err := http.NewRequest(method, h.url+path, strings.NewReader(body))
	if err != nil {
		return a, err
	}
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	if method != "GET" && method != "HEAD" {
		req.Header.Set("Authorization", "Bearer "+h.token)
	}
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
		if header[i+1] == "" {
			req.Header.Del(header[i])
		}
	}
	resp, err := h.http.Do(req)
	if err != nil {
		return a, err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	return answered{resp.StatusCode, resp.Header, b}, err
}

func (h *testHouse) get(path string, header ...string) answered {
	h.t.Helper()
	return h.do("GET", path, "", header...)
}

// want fails the test unless the answer has the status and, if one is named,
// the code.
func (h *testHouse) want(a answered, status int, code string) answered {
	h.t.Helper()
	if a.status != status || code != "" && a.field("code") != code {
		h.t.Errorf("got %v, want %d %s", a, status, code)
	}
	return a
}

// put stores a manifest and returns its cid.
func (h *testHouse) putManifest(content string) string {
	h.t.Helper()
	a := h.do("PUT", "/manifests", content)
	if a.status != 201 && a.status != 200 {
		h.t.Fatalf("PUT /manifests: %v", a)
	}
	return a.field("cid")
}

func cidOf(content string) string { return index.Sum([]byte(content)).String() }

// raw sends bytes and returns all that comes back until the server closes or
// is silent for a while.
func (h *testHouse) raw(request string) string {
	h.t.Helper()
	nc, err := net.Dial("tcp", h.addr.String())
	if err != nil {
		h.t.Fatal(err)
	}
	defer nc.Close()
	if _, err := io.WriteString(nc, request); err != nil {
		h.t.Fatal(err)
	}
	var out bytes.Buffer
	for {
		_ = nc.SetReadDeadline(time.Now().Add(400 * time.Millisecond))
		if _, err := io.CopyN(&out, bufio.NewReader(nc), 1<<20); err != nil {
			return out.String()
		}
	}
}

// scrape returns the samples of /metrics by series.
func (h *testHouse) scrape() map[string]float64 {
	h.t.Helper()
	resp, err := http.Get("http://" + h.admin.Addr() + "/metrics")
	if err != nil {
		h.t.Fatal(err)
	}
	defer resp.Body.Close()
	m := make(map[string]float64)
	for sc := bufio.NewScanner(resp.Body); sc.Scan(); {
		line := sc.Text()
		if i := strings.LastIndexByte(line, ' '); i > 0 && line[0] != '#' {
			var v float64
			if _, err := fmt.Sscan(line[i+1:], &v); err == nil {
				m[line[:i]] = v
			}
		}
	}
	return m
}

// sharedDir is where the corpus lies: beside the project.
func sharedDir(t *testing.T) string {
	t.Helper()
	dir, err := filepath.Abs("../../../shared/http1")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(dir, "run.py")); err != nil {
		t.Fatalf("the HTTP/1 corpus has to lie in ../shared/http1, beside the project: %v", err)
	}
	return dir
}
