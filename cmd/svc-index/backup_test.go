package main

import (
	"bufio"
	"context"
	"fmt"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"svcindex/auth"
	"svcindex/index"
)

// A backup is taken of a server that runs and is written to; a server on what
// was restored gives the same answers.
func TestARestoredBackupServesTheSame(t *testing.T) {
	h := openHouse(t, seams{})
	var paths []string
	for i := range 60 {
		cid := h.putManifest(fmt.Sprint("manifest ", i))
		h.want(h.do("PUT", fmt.Sprintf("/names/name:r/%d", i), fmt.Sprintf(`{"manifest_cid":%q,"seq":7}`, cid)), 200, "")
		h.want(h.do("PUT", "/providers/"+cid, `{"providers":[{"id":"a","addr":"http://192.0.2.1/"},{"id":"b","addr":"/ip4/192.0.2.2"}]}`), 200, "")
		paths = append(paths, fmt.Sprintf("/resolve/name:r/%d", i), "/resolve/"+cid, "/manifests/"+cid)
		if i%10 == 0 {
			h.want(h.do("DELETE", fmt.Sprintf("/names/name:r/%d", i), ""), 200, "")
		}
	}
	h.want(h.do("PUT", "/names/name:r/signed", sign(t, "name:r/signed", "one", 5, time.Hour)), 200, "")
	paths = append(paths, "/resolve/name:r/signed")
	quit, gone := make(chan struct{}), make(chan struct{})
	go func() { // somebody writes all the while
		defer close(gone)
		for i := 0; ; i++ {
			select {
			case <-quit:
				return
			default:
				_, _ = h.try("PUT", "/manifests", fmt.Sprint("meanwhile ", i))
			}
		}
	}()
	file := filepath.Join(t.TempDir(), "backup")
	data, admin := h.cfg.DataDir, "http://"+h.admin.Addr()
	backup := func(args ...string) (string, int, error) {
		return run(t, dbCmd(), append([]string{"backup", "--data", data, "--admin-url", admin, "--out", file}, args...)...)
	}
	out, code, err := backup()
	close(quit)
	<-gone
	if code != exitOK || !strings.Contains(out, "rows") {
		t.Fatalf("%v %s", err, out)
	}
	if _, code, err := backup(); code != exitFailed || !strings.Contains(err.Error(), "replaces nothing") {
		t.Errorf("over a file: %v", err)
	}
	if _, _, err := run(t, dbCmd(), "verify", "--backup", file); err != nil {
		t.Errorf("verify: %v", err)
	}
	dir := filepath.Join(t.TempDir(), "new")
	if out, code, err := run(t, dbCmd(), "restore", file, "--data", dir); code != exitOK || !strings.Contains(out, "restored") {
		t.Fatalf("%v %s", err, out)
	}
	if _, code, err := run(t, dbCmd(), "restore", file, "--data", dir); code != exitFailed || !strings.Contains(err.Error(), "not empty") {
		t.Errorf("over a database: %v", err)
	}
	again := openHouseIn(t, dir, seams{})
	for _, path := range paths {
		was, is := h.get(path), again.get(path)
		if was.status != is.status || was.status == 200 && (string(was.body) != string(is.body) || was.header.Get("ETag") != is.header.Get("ETag")) {
			t.Errorf("%s: %v, restored %v", path, was, is)
		}
	}
	again.want(again.do("PUT", "/names/name:r/0", fmt.Sprintf(`{"manifest_cid":%q,"seq":8}`, cidOf("x"))), 409, "conflict") // still deleted
	again.shut()
	if out, code, err := run(t, auditCmd(), "verify", "--data", dir); code != exitOK {
		t.Errorf("its audit: %v\n%s", err, out)
	}
	h.shut()
	file += ".offline"
	if _, code, err := backup("--offline"); code != exitOK {
		t.Errorf("of a server that does not run: %v", err)
	}
}

// adminGet asks the admin listener.
func (h *testHouse) adminGet(ctx context.Context, path, token string) *http.Response {
	h.t.Helper()
	req, err := http.NewRequestWithContext(ctx, "GET", "http://"+h.admin.Addr()+path, nil)
	if err != nil {
		h.t.Fatal(err)
	}
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		h.t.Fatal(err)
	}
	h.t.Cleanup(func() { _ = resp.Body.Close() })
	return resp
}

func TestAdminListenerAsksForCapabilities(t *testing.T) {
	h := openHouse(t, seams{})
	for _, path := range []string{"/events", "/backup"} {
		for _, tt := range []struct {
			why, token string
			status     int
		}{
			{"none", "", 401},
			{"a word", "wrong", 401},
			{"another scope", h.mint(auth.Wish{Scope: index.ScopeWrite | index.ScopeRead}), 403},
			{"another path", h.mint(auth.Wish{Scope: index.ScopeAdmin, Paths: []string{"/admin/*"}}), 403},
			{"another method", h.mint(auth.Wish{Scope: index.ScopeAdmin, Methods: []index.Method{index.MethodPost}}), 403},
			{"another node", h.mint(auth.Wish{Scope: index.ScopeAdmin, Aud: "x"}), 401},
		} {
			resp := h.adminGet(t.Context(), path, tt.token)
			if resp.StatusCode != tt.status || (resp.Header.Get("WWW-Authenticate") != "") != (tt.status == 401) {
				t.Errorf("%s with %s: %d, want %d", path, tt.why, resp.StatusCode, tt.status)
			}
		}
	}
}

// Whoever listens hears of everything that changes, and of nothing after his
// capability has ended.
func TestEvents(t *testing.T) {
	h := openHouse(t, seams{})
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	resp := h.adminGet(ctx, "/events", h.mint(auth.Wish{Scope: index.ScopeAdmin}))
	if resp.StatusCode != 200 || resp.Header.Get("Content-Type") != "text/event-stream" {
		t.Fatalf("%d %v", resp.StatusCode, resp.Header)
	}
	lines := make(chan string, 64)
	go func() {
		defer close(lines)
		for sc := bufio.NewScanner(resp.Body); sc.Scan(); {
			lines <- sc.Text()
		}
	}()
	wait := func(prefix string) string {
		t.Helper()
		for {
			select {
			case l, open := <-lines:
				if !open {
					t.Fatalf("the stream ended before %q", prefix)
				}
				if strings.HasPrefix(l, prefix) {
					return l
				}
			case <-time.After(10 * time.Second):
				t.Fatalf("no %q", prefix)
			}
		}
	}
	wait(": listening")
	cid := h.putManifest("m")
	wait("event: manifest")
	if l := wait("data: "); !strings.Contains(l, cid) {
		t.Errorf("got %s", l)
	}
	h.do("PUT", "/providers/"+cid, `{"providers":[{"id":"p","addr":"http://192.0.2.1/"}]}`)
	wait("event: provider_set")
	h.do("POST", "/admin/pin", `{"cid":"`+cid+`"}`)
	wait("event: pin")
	h.do("PUT", "/names/name:a", fmt.Sprintf(`{"manifest_cid":%q,"seq":1}`, cid))
	wait("event: name")
	h.do("POST", "/admin/reindex", `{"keys":["name:a"]}`)
	wait("event: admin")
	if _, _, err := auth.Rotate(h.cfg.KeysPath(), time.Now(), time.Second, true); err != nil {
		t.Fatal(err)
	}
	if err := h.ring.Reload(); err != nil {
		t.Fatal(err)
	}
	wait("event: admin")

	short := h.adminGet(ctx, "/events?kind=pin", h.mint(auth.Wish{Scope: index.ScopeAdmin, Life: time.Second}))
	text, sc := "", bufio.NewScanner(short.Body)
	for sc.Scan() { // until the capability ends
		text += sc.Text() + "\n"
	}
	if !strings.Contains(text, "event: end\ndata: {\"why\":\"the capability has ended\"}") {
		t.Errorf("got %q", text)
	}
	h.shut()
	wait("event: readiness")
	wait("event: end")
	if l := wait("data: "); !strings.Contains(l, "the server is shutting down") {
		t.Errorf("the last word is %s", l)
	}
}
