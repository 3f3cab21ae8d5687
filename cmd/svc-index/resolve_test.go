package main

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"svcindex/index"
)

func TestResolveCommand(t *testing.T) {
	s := newFakeServer(t)
	s.names["name:x"] = fakeName{ManifestCID: cidOfNothing, Seq: 7}
	out, code, err := run(t, resolveCmd(), "name:x")
	want := "key        name:x\n" +
		"manifest   " + cidOfNothing + "\n" +
		"seq        7\n" +
		"providers  1 known here\n" +
		"source     db, 3s old\n"
	if code != exitOK || out != want {
		t.Errorf("code %d, %v:\n%s\nwant\n%s", code, err, out, want)
	}
	out, _, _ = run(t, resolveCmd(), "name:x", "--json", "--fresh")
	if out != `{"key":"name:x","kind":"name","manifest_cid":"`+cidOfNothing+`","providers_hint":1,"seq":7}` {
		t.Errorf("--json printed %q", out)
	}
	if last := s.asked[len(s.asked)-1]; last != "GET /resolve/name:x?fresh=true" {
		t.Errorf("--fresh asked %s", last)
	}
}

func TestProvidersCommand(t *testing.T) {
	s := newFakeServer(t)
	out, code, err := run(t, providersCmd(), cidOfNothing, "--region", "eu", "--limit", "3", "--min-freshness", "1m")
	if code != exitOK {
		t.Fatal(err)
	}
	if got := s.asked[0]; got != "GET /providers/"+cidOfNothing+"?limit=3&min_freshness=60&region=eu" {
		t.Errorf("asked %s", got)
	}
	if strings.Contains(out, "\x1b") || !strings.Contains(out, "http://a?[31m") {
		t.Errorf("an address drives the terminal: %q", out)
	}
	if !strings.Contains(out, "raise --limit") || !strings.Contains(out, "ID  ") {
		t.Errorf("printed\n%s", out)
	}
}

// What a server says is in an error, too, which may have several lines.
func TestAnErrorDoesNotDriveTheTerminal(t *testing.T) {
	s := newFakeServer(t)
	s.refuse = func(*http.Request) int { return 400 }
	_, _, err := run(t, resolveCmd(), "name:x")
	if err == nil || !strings.Contains(printableLines(err.Error()), "the fake says no") {
		t.Errorf("the message is lost: %v", err)
	}
	if got := printableLines("a\x1b[31m\nb\r\u009bc é"); got != "a?[31m\nb??c é" {
		t.Errorf("got %q", got)
	}
}

func TestManifestCommand(t *testing.T) {
	s := newFakeServer(t)
	text := "{\"v\":1}"
	cid := index.Sum([]byte(text)).String()
	s.manifests[cid] = []byte(text)
	if out, _, err := run(t, manifestCmd(), cid); err != nil || out != text {
		t.Errorf("printed %q, %v", out, err)
	}
	file := filepath.Join(t.TempDir(), "m.json")
	if out, _, err := run(t, manifestCmd(), cid, "--out", file); err != nil || out != "" {
		t.Errorf("printed %q, %v", out, err)
	}
	if b, err := os.ReadFile(file); err != nil || string(b) != text {
		t.Errorf("wrote %q, %v", b, err)
	}
	s.manifests[cid] = []byte("damaged")
	out, code, err := run(t, manifestCmd(), cid)
	if out != "" || code != exitFailed || !strings.Contains(err.Error(), "damaged") {
		t.Errorf("damaged bytes: printed %q, code %d, %v", out, code, err)
	}
}

func TestExitCodesAndAdvice(t *testing.T) {
	for _, tt := range []struct {
		why    string
		args   []string
		status int // the server refuses with it; 0: it answers
		code   int
		want   []string // in the error
	}{
		{"absent", []string{"name:nope"}, 0, exitNotFound, []string{"404 not_found", "corr-7", "publish it"}},
		{"overloaded", []string{"name:x"}, 429, exitFailed, []string{"429 refused", "try again in 10ms"}},
		{"late", []string{"name:x"}, 504, exitFailed, []string{"504", "try again"}},
		{"a bug", []string{"name:x"}, 500, exitFailed, []string{"500", "corr-7", "log"}},
		{"no token", []string{"name:x"}, 401, exitFailed, []string{"401", "--token"}},
		{"a key without its kind", []string{"go/src"}, 0, exitUsage, []string{"b3: or name:"}},
		{"a cid in capitals", []string{strings.ToUpper(cidOfNothing)}, 0, exitUsage, []string{"begins with"}},
		{"no key", nil, 0, exitUsage, []string{"one KEY"}},
		{"two keys", []string{"name:a", "name:b"}, 0, exitUsage, []string{"one KEY"}},
		{"nobody listens", []string{"name:x", "--server", "http://127.0.0.1:1"}, 0, exitFailed, []string{"refused", "svc-index serve"}},
		{"no such socket", []string{"name:x", "--server", "unix:/nowhere/x"}, 0, exitFailed, []string{"svc-index serve"}},
		{"not a server", []string{"name:x", "--server", "x"}, 0, exitUsage, []string{"http://HOST:PORT"}},
	} {
		s := newFakeServer(t)
		s.refuse = func(*http.Request) int { return tt.status }
		out, code, err := run(t, resolveCmd(), tt.args...)
		if code != tt.code || out != "" {
			t.Errorf("%s: code %d, want %d; printed %q", tt.why, code, tt.code, out)
		}
		for _, want := range tt.want {
			if err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("%s: error %v, want it to say %q", tt.why, err, want)
			}
		}
	}
	if _, code, _ := run(t, providersCmd(), cidOfNothing, "--limit", "33"); code != exitUsage {
		t.Errorf("--limit 33: code %d", code)
	}
	if _, code, _ := run(t, manifestCmd(), "b3:xyz"); code != exitUsage {
		t.Errorf("a malformed cid: code %d", code)
	}
}

func TestExitCode(t *testing.T) {
	for _, tt := range []struct {
		why  string
		err  error
		want int
	}{
		{"all is well", nil, exitOK},
		{"an error that says nothing", errors.New("x"), exitFailed},
		{"one that does", exitError{exitInvalid, errors.New("x")}, exitInvalid},
		{"wrapped", fmt.Errorf("y: %w", usagef("x")), exitUsage},
	} {
		if got := exitCode(tt.err); got != tt.want {
			t.Errorf("%s: %d, want %d", tt.why, got, tt.want)
		}
	}
}

func TestADeviceIsWrittenToAndNotReplaced(t *testing.T) {
	pipe := filepath.Join(t.TempDir(), "pipe")
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	r, err := os.OpenFile(pipe, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if err := deliver([]byte("x"), pipe, io.Discard); err != nil {
		t.Fatal(err)
	}
	if fi, err := os.Stat(pipe); err != nil || fi.Mode().IsRegular() {
		t.Errorf("the pipe is now %v, %v", fi, err)
	}
}
