package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"svcindex/auth"
	"svcindex/index"
)

// What was written over HTTP is in the audit, on the word of its capability,
// and a line that is gone is missed.
func TestAuditOfAServer(t *testing.T) {
	dir := t.TempDir()
	h := openHouseIn(t, dir, seams{})
	token := h.mint(auth.Wish{Scope: index.ScopeWrite | index.ScopePin})
	who, err := auth.Inspect(token)
	if err != nil {
		t.Fatal(err)
	}
	as := []string{"Authorization", "Bearer " + token}
	cid := h.do("PUT", "/manifests", "m", as...).field("cid")
	for i := range 5 {
		h.want(h.do("PUT", "/names/name:a/b", fmt.Sprintf(`{"manifest_cid":%q,"seq":%d}`, cid, i+1), as...), 200, "")
	}
	h.want(h.do("PUT", "/names/name:a/b", fmt.Sprintf(`{"manifest_cid":%q,"seq":1}`, cid), as...), 409, "conflict")
	h.want(h.do("DELETE", "/names/name:a/b", "", as...), 200, "")
	h.want(h.do("PUT", "/providers/"+cid, `{"providers":[{"id":"p","addr":"http://192.0.2.1/"}]}`, as...), 200, "")
	h.want(h.do("DELETE", "/providers/"+cid+"/p", "", as...), 200, "")
	h.want(h.do("POST", "/admin/pin", `{"cid":"`+cid+`"}`, as...), 200, "")
	h.want(h.do("POST", "/admin/pin", `{"cid":"`+cid+`"}`, "Authorization", "Bearer "+h.mint(auth.Wish{Scope: index.ScopeWrite})), 403, "")
	if n := h.scrape()["audit_entries_total"]; n != 10 {
		t.Errorf("%v entries are counted, want 10", n)
	}
	if out, _, err := run(t, auditCmd(), "verify", "--data", dir); err == nil || !strings.Contains(err.Error(), "--files-only") {
		t.Errorf("while the server runs: %v\n%s", err, out)
	}
	if _, _, err := run(t, auditCmd(), "verify", "--data", dir, "--files-only"); err != nil {
		t.Errorf("the files alone: %v", err)
	}
	h.shut()
	out, code, err := run(t, auditCmd(), "verify", "--data", dir)
	if code != exitOK || !strings.Contains(out, "sound") || !strings.Contains(out, "entries                    10") {
		t.Errorf("%v\n%s", err, out)
	}
	files, err := filepath.Glob(filepath.Join(dir, "audit", "*.jsonl"))
	if err != nil || len(files) != 1 {
		t.Fatal(files, err)
	}
	b, err := os.ReadFile(files[0])
	if err != nil {
		t.Fatal(err)
	}
	if n := bytes.Count(b, []byte(`"who":"`+who.ID+`"`)); n != 10 {
		t.Errorf("%d entries name %s:\n%s", n, who.ID, b)
	}
	if bytes.Contains(b, []byte(token)) {
		t.Error("a token is in the audit")
	}
	lines := bytes.SplitAfter(b, []byte("\n"))
	if err := os.WriteFile(files[0], bytes.Join(append(lines[:4:4], lines[5:]...), nil), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, code, _ := run(t, auditCmd(), "verify", "--data", dir); code != exitFailed || !strings.Contains(out, "entry 5 follows entry 3") {
		t.Errorf("a line is gone: code %d\n%s", code, out)
	}
	if err := os.WriteFile(files[0], b, 0o600); err != nil {
		t.Fatal(err)
	}
	openHouseIn(t, dir, seams{}).shut() // and it goes on where it was
	if out, code, _ := run(t, auditCmd(), "verify", "--data", dir); code != exitOK {
		t.Errorf("after a restart: code %d\n%s", code, out)
	}
}
