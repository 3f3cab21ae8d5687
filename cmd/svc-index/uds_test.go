package main

import (
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// shortDir is a directory whose path leaves room for a socket's name.
func shortDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "uds")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

func modeOf(t *testing.T, path string) fs.FileMode {
	t.Helper()
	fi, err := os.Lstat(path)
	if err != nil {
		t.Fatal(err)
	}
	return fi.Mode()
}

func TestUnixSocket(t *testing.T) {
	sock := filepath.Join(shortDir(t), "run", "index.sock")
	h := openHouse(t, seams{}, "uds.path="+sock)
	if m := modeOf(t, filepath.Dir(sock)); m.Perm() != 0o700 {
		t.Errorf("the directory has mode %v, want 0700", m)
	}
	if m := modeOf(t, sock); m.Perm() != 0o600 || m.Type() != fs.ModeSocket {
		t.Errorf("the socket has mode %v, want 0600", m)
	}
	w := dialWire(t, "unix", sock)
	w.send(request("PUT", "/manifests", "m", h.bearer()...) + request("GET", "/manifests/"+cidOf("m"), "") + request("PUT", "/manifests", "m"))
	h.want(w.answer("PUT"), 201, "")
	if a := h.want(w.answer("GET"), 200, ""); string(a.body) != "m" {
		t.Errorf("got %v", a)
	}
	h.want(w.answer("PUT"), 401, "unauthorized") // who may connect may not write yet
	half := dialWire(t, "unix", sock)
	half.send(request("GET", "/resolve/name:a", ""))
	_ = half.Conn.(*net.UnixConn).CloseWrite()
	h.want(half.answer("GET"), 404, "not_found")
	h.shut()
	if _, err := os.Lstat(sock); err == nil {
		t.Error("the socket is left behind")
	}
}

// What is in the way of the socket stays as it is, unless it is a socket that
// nobody answers on.
func TestUnixSocketInTheWay(t *testing.T) {
	for _, tt := range []struct {
		why   string
		make  func(path string) error
		taken bool
	}{
		{"a file", func(p string) error { return os.WriteFile(p, []byte("precious"), 0o600) }, false},
		{"an empty file", func(p string) error { return os.WriteFile(p, nil, 0o600) }, false},
		{"a directory", func(p string) error { return os.MkdirAll(filepath.Join(p, "precious"), 0o700) }, false},
		{"a link to a file", func(p string) error {
			if err := os.WriteFile(p+".there", []byte("precious"), 0o600); err != nil {
				return err
			}
			return os.Symlink(p+".there", p)
		}, false},
		{"a link to nothing", func(p string) error { return os.Symlink(p+".nowhere", p) }, false},
		{"a socket that somebody answers on", func(p string) error {
			ln, err := net.Listen("unix", p)
			if err == nil {
				t.Cleanup(func() { _ = ln.Close() })
			}
			return err
		}, false},
		{"a socket that was left behind", func(p string) error {
			ln, err := net.Listen("unix", p)
			if err == nil {
				ln.(*net.UnixListener).SetUnlinkOnClose(false)
				err = ln.Close()
			}
			return err
		}, true},
	} {
		t.Run(tt.why, func(t *testing.T) {
			sock := filepath.Join(shortDir(t), "index.sock")
			if err := tt.make(sock); err != nil {
				t.Fatal(err)
			}
			was := modeOf(t, sock)
			err := tryHouse(t, "uds.path="+sock)
			if tt.taken != (err == nil) {
				t.Fatalf("opening the house: %v", err)
			}
			if tt.taken {
				return
			}
			if !strings.Contains(err.Error(), sock) || !strings.Contains(err.Error(), "choose another path") {
				t.Errorf("the error does not say what to do: %v", err)
			}
			if m := modeOf(t, sock); m != was {
				t.Errorf("it was %v and is %v", was, m)
			}
			if tt.why == "a directory" {
				modeOf(t, filepath.Join(sock, "precious"))
			}
			if b, err := os.ReadFile(sock); err == nil && len(b) > 0 && string(b) != "precious" {
				t.Errorf("it says %q now", b)
			}
		})
	}
}

// A directory that others may enter is no place for the socket.
func TestUnixSocketAmongOthers(t *testing.T) {
	dir := shortDir(t)
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	err := tryHouse(t, "uds.path="+filepath.Join(dir, "index.sock"))
	if err == nil || !strings.Contains(err.Error(), "0700") {
		t.Errorf("opening the house: %v", err)
	}
	if m := modeOf(t, dir); m.Perm() != 0o755 {
		t.Errorf("the directory's mode became %v", m)
	}
}

// The kernel says who connects, and who is not on the list hears so.
func TestUnixSocketForSomeUsers(t *testing.T) {
	dir := filepath.Join(shortDir(t), "open")
	if err := os.Chmod(filepath.Dir(dir), 0o711); err != nil {
		t.Fatal(err)
	}
	sock := filepath.Join(dir, "s")
	const other = 54321
	h := openHouse(t, seams{}, "uds.path="+sock, fmt.Sprintf("uds.allow_uids=%d", other))
	w := dialWire(t, "unix", sock)
	w.send(request("GET", "/healthz", ""))
	if a := h.want(w.answer("GET"), 403, "forbidden"); a.field("reason") != "peer" {
		t.Errorf("got %v", a)
	}
	if !w.ended() {
		t.Error("the connection stays")
	}
	if n := h.scrape()["http_peers_refused_total"]; n != 1 {
		t.Errorf("%v peers are counted as refused, want 1", n)
	}
	h.want(h.get("/healthz"), 200, "") // TCP knows no users
	if os.Getuid() == 0 {
		ask := exec.Command("curl", "-s", "--unix-socket", sock, "http://x/healthz")
		ask.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: other, Gid: other}}
		if out, err := ask.CombinedOutput(); err != nil || string(out) != `{"ok":true}` {
			t.Errorf("user %d: %v %s", other, err, out)
		}
	}
	h.shut()
	mine := openHouse(t, seams{}, "uds.path="+sock, fmt.Sprintf("uds.allow_uids=%d,%d", other, os.Getuid()))
	w = dialWire(t, "unix", sock)
	w.send(request("GET", "/healthz", ""))
	mine.want(w.answer("GET"), 200, "")

	if err := os.Chmod(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	mine.shut()
	if err := tryHouse(t, "uds.path="+sock, "uds.allow_uids=1"); err == nil || !strings.Contains(err.Error(), "replace it") {
		t.Errorf("in a directory that all may write to: %v", err)
	}
}
