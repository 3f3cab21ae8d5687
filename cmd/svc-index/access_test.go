package main

import (
	"encoding/base64"
	"fmt"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"svcindex/auth"
	"svcindex/index"
)

// Everything that is not a good capability is refused on the event loop: with
// one answer, counted, and before any room has heard of it.
func TestCapabilitiesAtTheSocket(t *testing.T) {
	h := openHouse(t, seams{})
	cid := h.putManifest("m")
	write := auth.Wish{Scope: index.ScopeWrite}
	good := h.mint(write)
	narrow := func(caveats ...string) string {
		token, err := auth.Narrow(good, caveats...)
		if err != nil {
			t.Fatal(err)
		}
		return token
	}
	raw, err := base64.RawURLEncoding.DecodeString(good)
	if err != nil {
		t.Fatal(err)
	}
	coded := base64.RawURLEncoding.EncodeToString
	// appended adds a caveat to the bytes, as one might who has no library.
	appended := func(caveat string, vid string) string {
		at := len(raw) - 35 // end of section, signature
		packet := "\x02" + string(rune(len(caveat))) + caveat
		if vid != "" {
			packet += "\x04" + string(rune(len(vid))) + vid
		}
		return coded([]byte(string(raw[:at]) + packet + "\x00" + string(raw[at:])))
	}
	ended := h.mint(auth.Wish{Scope: index.ScopeWrite, Life: time.Second})
	name := func(seq int) string { return fmt.Sprintf(`{"manifest_cid":%q,"seq":%d}`, cid, seq) }
	put := func(field ...string) string {
		return request("PUT", "/names/name:a/b", name(1), append([]string{"Content-Type", "application/json"}, field...)...)
	}
	bearer := func(token string) []string { return []string{"Authorization", "Bearer " + token} }
	time.Sleep(2 * time.Second) // ended ends

	before := h.scrape()
	refused := 0
	for _, tt := range []struct {
		why     string
		request string
		status  int
		reason  string
	}{
		{"none", put(), 401, ""},
		{"an empty one", put("Authorization", ""), 401, ""},
		{"a word", put(bearer("wrong")...), 401, ""},
		{"in another scheme", put("Authorization", "Macaroon "+good), 401, ""},
		{"past its end", put(bearer(ended)...), 401, ""},
		{"narrowed to an end that is past", put(bearer(narrow("exp=1"))...), 401, ""},
		{"for another node", put(bearer(h.mint(auth.Wish{Scope: index.ScopeWrite, Aud: "12D3KooWother"}))...), 401, ""},
		{"truncated", put(bearer(good[:len(good)-6])...), 401, ""},
		{"with something behind it", put(bearer(coded(append(raw[:len(raw):len(raw)], 0)))...), 401, ""},
		{"padded", put(bearer(base64.URLEncoding.EncodeToString(append(raw[:len(raw):len(raw)], 1)))...), 401, ""},
		{"widened by hand", put(bearer(appended("scope=index.admin", ""))...), 401, ""},
		{"with a caveat that nobody signed", put(bearer(appended("method=PUT", ""))...), 401, ""},
		{"with a third-party caveat", put(bearer(appended("x", strings.Repeat("v", 72)))...), 401, ""},
		{"V1", put(bearer(coded([]byte("0015identifier 000000\n")))...), 401, ""},
		{"JSON", put(bearer(coded([]byte(`{"i":"x","s64":"AAAA"}`)))...), 401, ""},
		{"JSON, bare", put("Authorization", `Bearer {"i":"x","s64":"AAAA"}`), 401, ""},
		{"two in one field", put(bearer(good + "," + good)...), 401, ""},
		{"over 4 KiB", put(bearer(coded(append(raw[:len(raw):len(raw)], make([]byte, 4096)...)))...), 401, ""},
		{"in the query", request("PUT", "/names/name:a/b?token="+good, name(1), "Content-Type", "application/json"), 401, ""},

		{"the wrong scope", put(bearer(h.mint(auth.Wish{Scope: index.ScopeRead | index.ScopeAdmin}))...), 403, "index.write"},
		{"a scope for a pin", request("POST", "/admin/pin", `{"cid":"`+cid+`"}`, append(bearer(good), "Content-Type", "application/json")...), 403, "index.pin"},
		{"a scope for a task", request("GET", "/admin/tasks/x", "", bearer(good)...), 403, "index.admin"},
		{"for another method", put(bearer(narrow("method=POST"))...), 403, "method_or_path"},
		{"for another path", put(bearer(narrow("path=/names/name:b/*"))...), 403, "method_or_path"},
		{"for the same path in another spelling", put(bearer(narrow("path=/names/name:a%2Fb"))...), 403, "method_or_path"},
	} {
		refused++
		w := h.dial()
		w.send(tt.request)
		a := w.answer("PUT")
		if a.status != tt.status || a.field("reason") != tt.reason {
			t.Errorf("%s: %v, want %d %s", tt.why, a, tt.status, tt.reason)
		}
		if tt.status == 401 && a.field("message") != h.do("PUT", "/manifests", "", "Authorization", "").field("message") {
			t.Errorf("%s: the answer tells why: %v", tt.why, a)
		}
		if tt.status == 401 {
			refused++ // the one it was compared with
		}
		_ = w.Close()
	}
	after := h.scrape()
	if n := int(after[`rejected_total{reason="unauth"}`] - before[`rejected_total{reason="unauth"}`]); n != refused {
		t.Errorf("%d refusals are counted, want %d", n, refused)
	}
	for series := range after {
		if strings.HasPrefix(series, "stage_attempts_total") && strings.Contains(series, `stage="write"`) && after[series] != before[series] {
			t.Errorf("%s went from %v to %v: a room heard of a request that was refused", series, before[series], after[series])
		}
	}
	twice := h.dial()
	twice.send(put("Authorization", "Bearer "+good, "Authorization", "Bearer "+good))
	h.want(twice.answer("PUT"), 400, "bad_request")

	for i, token := range []string{
		good, narrow("method=PUT,DELETE", "path=/names/name:a/*"), narrow("path=/names/name:a/b"), h.mint(auth.Wish{Scope: index.ScopeWrite | index.ScopePin}),
	} {
		h.want(h.do("PUT", "/names/name:a/b", name(i+1), "Authorization", "Bearer "+token), 200, "")
	}
	h.want(h.do("POST", "/admin/pin", `{"cid":"`+cid+`"}`, "Authorization", "Bearer "+h.mint(auth.Wish{Scope: index.ScopePin})), 200, "")
}

func TestReadsNeedACapabilityWhereTheyAreToldTo(t *testing.T) {
	h := openHouse(t, seams{}, "auth.required=true")
	cid := h.putManifest("m")
	read, write := h.mint(auth.Wish{Scope: index.ScopeRead}), h.mint(auth.Wish{Scope: index.ScopeWrite})
	for _, path := range []string{"/manifests/" + cid, "/resolve/" + cid} {
		for range 2 { // from the disk, then from memory
			h.want(h.get(path), 401, "unauthorized")
			h.want(h.get(path, "Authorization", "Bearer "+write), 403, "forbidden")
			h.want(h.get(path, "Authorization", "Bearer "+read), 200, "")
		}
	}
	h.want(h.do("HEAD", "/resolve/"+cid, "", "Authorization", "Bearer "+h.mint(auth.Wish{Scope: index.ScopeRead, Methods: []index.Method{index.MethodGet}})), 200, "")
	for _, path := range []string{"/healthz", "/readyz", "/version"} {
		h.want(h.get(path), 200, "")
	}
	for token, status := range map[string]int{"": 401, write: 403, read: 200} { // it tells what a look-up would
		if resp := h.adminGet(t.Context(), "/debug/explain/"+cid, token); resp.StatusCode != status {
			t.Errorf("/debug/explain: %d, want %d", resp.StatusCode, status)
		}
	}
	if _, err := fetchExplanation(t.Context(), h.admin.Addr(), cid, read, false); err != nil {
		t.Error(err)
	}
}

// Keys are rotated twice under load by clients that mint as ours do, and no
// good request is refused. Then the first key is gone, and what it signed.
func TestKeysRotateUnderLoad(t *testing.T) {
	h := openHouse(t, seams{})
	dir := h.cfg.DataDir
	first := h.mint(auth.Wish{Scope: index.ScopeWrite})
	const grace = 1500 * time.Millisecond // longer than a server may take to notice
	var asked atomic.Int64
	quit := make(chan struct{})
	var clients sync.WaitGroup
	keys := sync.Map{}
	for c := range 4 {
		clients.Go(func() {
			m, err := newMinter(filepath.Join(dir, auth.KeysFile), dir, auth.Wish{Scope: index.ScopeWrite, Life: time.Second})
			if err != nil {
				t.Error(err)
				return
			}
			for i := 0; ; i++ {
				select {
				case <-quit:
					return
				default:
				}
				token, err := m.token()
				if err != nil {
					t.Error(err)
					return
				}
				d, _ := auth.Inspect(token)
				keys.Store(d.Key, true)
				a, err := h.try("PUT", "/manifests", fmt.Sprintf("%d %d", c, i), "Authorization", "Bearer "+token)
				if err != nil || a.status == 401 || a.status == 403 {
					t.Errorf("a good request was refused: %v %v", a, err)
					return
				}
				asked.Add(1)
			}
		})
	}
	count := func() (n int) { keys.Range(func(any, any) bool { n++; return true }); return n }
	for round := 1; round <= 2; round++ {
		if _, _, err := auth.Rotate(filepath.Join(dir, auth.KeysFile), time.Now(), grace, true); err != nil {
			t.Fatal(err)
		}
		eventually(t, "the new key signs", func() bool { return count() == round+1 })
	}
	time.Sleep(200 * time.Millisecond)
	close(quit)
	clients.Wait()
	t.Logf("%d requests under %d keys, none refused", asked.Load(), count())
	h.want(h.do("PUT", "/manifests", "late", "Authorization", "Bearer "+first), 401, "unauthorized")
}

func TestTokenCommands(t *testing.T) {
	h := openHouse(t, seams{})
	dir := h.cfg.DataDir
	mint := func(args ...string) string {
		t.Helper()
		out, code, err := run(t, tokenCmd(), append([]string{"mint", "--data", dir}, args...)...)
		if code != exitOK {
			t.Fatalf("mint %v: %v", args, err)
		}
		return strings.TrimSpace(out)
	}
	token := mint("--scope", "index.write", "--path", "/manifests", "--method", "put")
	h.want(h.do("PUT", "/manifests", "x", "Authorization", "Bearer "+token), 201, "")
	h.want(h.do("PUT", "/names/name:a", "{}", "Authorization", "Bearer "+token), 403, "forbidden")
	out, _, err := run(t, tokenCmd(), "inspect", token)
	out = strings.Replace(out, "in 4m59s", "in 5m", 1)
	for _, want := range []string{"index.write", "/manifests", "PUT", "for node", ", in 5m"} {
		if err != nil || !strings.Contains(out, want) {
			t.Errorf("inspect does not say %s: %v\n%s", want, err, out)
		}
	}
	if doc := mint("--json"); !strings.Contains(doc, `"token"`) || !strings.Contains(doc, `"expires"`) {
		t.Errorf("mint --json: %s", doc)
	}
	narrow, _, err := run(t, tokenCmd(), "narrow", token, "--caveat", "method=DELETE")
	if err == nil {
		t.Errorf("a method was added: %s", narrow)
	}
	if _, _, err := run(t, tokenCmd(), "revoke", "--data", dir, token); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the revoked token is refused", func() bool {
		return h.do("PUT", "/manifests", "x", "Authorization", "Bearer "+token).status == 401
	})
	if out, _, err := run(t, tokenCmd(), "rotate", "--data", dir); err != nil || !strings.Contains(out, "signs in 10s") {
		t.Errorf("rotate: %v %s", err, out)
	}
	for _, tt := range []struct {
		why  string
		args []string
		code int
		want string
	}{
		{"a scope that is not one", []string{"mint", "--data", dir, "--scope", "all"}, exitUsage, "index.read"},
		{"a method that is not one", []string{"mint", "--data", dir, "--method", "LOOK"}, exitUsage, "GET"},
		{"too long a life", []string{"mint", "--data", dir, "--for", "1000h"}, exitFailed, "720h"},
		{"no life", []string{"mint", "--data", dir, "--for", "0s"}, exitFailed, "lives for"},
		{"a path that is none", []string{"mint", "--data", dir, "--path", "names"}, exitFailed, "slash"},
		{"no keys", []string{"mint", "--data", t.TempDir()}, exitFailed, "--data"},
		{"no token", []string{"inspect", "AAAA"}, exitFailed, "V2"},
		{"rotating again at once", []string{"rotate", "--data", dir}, exitFailed, "--force"},
		{"revoking what is no id", []string{"revoke", "--data", dir, "x"}, exitFailed, "token inspect"},
	} {
		if _, code, err := run(t, tokenCmd(), tt.args...); code != tt.code || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: code %d, %v; want it to say %q", tt.why, code, err, tt.want)
		}
	}
}
