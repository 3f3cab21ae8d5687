package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"svcindex/index"
)

// TestMain makes the test binary a svc-index for the scripts.
func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"svc-index": main})
}

// A story is a file under testdata/script. Its server is met through a Unix
// socket that every command finds by itself. Beside the usual commands there
// are
//
//	up, ready              wait until the server answers, and says that it is
//	get PATH [FIELD...]    send a GET; status, head and body are in stdout
//	send METHOD PATH FILE  send a body as JSON, with the token; empty FILE: none
//	exits CODE COMMAND...  run a command that ends with CODE
//	term                   send SIGTERM to what runs in the background
//	b3 VAR FILE            keep the content id of a file
//	save VAR LABEL         keep the word after LABEL that opens a line of stdout
//	flip TEXT              flip a bit where the database holds the text
func TestStories(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: "testdata/script",
		Setup: func(e *testscript.Env) error {
			sock := filepath.Join(e.WorkDir, "run", "s")
			e.Setenv("SOCK", sock)
			e.Setenv("SVC_INDEX_UDS_PATH", sock)
			e.Setenv("SVC_INDEX_SERVER", "unix:"+sock)
			e.Setenv("SVC_INDEX_DATA_DIR", filepath.Join(e.WorkDir, "data"))
			e.Setenv("SVC_INDEX_LISTEN", "127.0.0.1:0")
			e.Setenv("SVC_INDEX_ADMIN", "127.0.0.1:0")
			e.Setenv("SVC_INDEX_CACHE_BYTES", "4MiB")
			e.Setenv("SVC_INDEX_DHT_ENABLED", "false")
			e.Setenv("HOME", e.WorkDir)
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"up": scriptAwait("/healthz"), "ready": scriptAwait("/readyz"), "get": scriptGet, "send": scriptSend, "exits": scriptExits, "term": scriptTerm,
			"b3": scriptB3, "save": scriptSave, "flip": scriptFlip,
		},
	})
}

// scriptAsk sends one request over the script's socket.
func scriptAsk(ts *testscript.TestScript, path string, fields ...string) (*http.Response, []byte, error) {
	return scriptDo(ts, "GET", path, nil, fields...)
}

func scriptDo(ts *testscript.TestScript, method, path string, content io.Reader, fields ...string) (*http.Response, []byte, error) {
	c := http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, "unix", ts.Getenv("SOCK"))
		},
	}}
	req, err := http.NewRequest(method, "http://story"+path, content)
	if err != nil {
		return nil, nil, err
	}
	for _, f := range fields {
		name, value, _ := strings.Cut(f, ":")
		req.Header.Set(name, strings.TrimSpace(value))
	}
	resp, err := c.Do(req)
	if err != nil {
		return nil, nil, err
	}
	defer resp.Body.Close()
	var body bytes.Buffer
	_, err = body.ReadFrom(resp.Body)
	return resp, body.Bytes(), err
}

func scriptAwait(path string) func(*testscript.TestScript, bool, []string) {
	return func(ts *testscript.TestScript, _ bool, _ []string) {
		var last string
		for range 400 {
			resp, body, err := scriptAsk(ts, path)
			if err == nil && resp.StatusCode == 200 {
				return
			}
			last = fmt.Sprintf("%s %v", body, err)
			time.Sleep(25 * time.Millisecond)
		}
		ts.Fatalf("%s never said yes: %s", path, last)
	}
}

func scriptGet(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) == 0 {
		ts.Fatalf("usage: get PATH [FIELD...]")
	}
	resp, body, err := scriptAsk(ts, args[0], args[1:]...)
	if (err != nil) != neg {
		ts.Fatalf("get %s: %v", args[0], err)
	}
	if err != nil {
		return
	}
	var head bytes.Buffer
	_ = resp.Header.Write(&head)
	fmt.Fprintf(ts.Stdout(), "%d\n%s\n%s\n", resp.StatusCode, head.Bytes(), body)
}

func scriptSend(ts *testscript.TestScript, _ bool, args []string) {
	if len(args) != 3 {
		ts.Fatalf("usage: send METHOD PATH FILE")
	}
	r := remote{data: ts.Getenv("SVC_INDEX_DATA_DIR")}
	tokens, err := r.tokens(time.Minute)
	ts.Check(err)
	token, err := tokens()
	ts.Check(err)
	var body io.Reader
	fields := []string{"Authorization: Bearer " + token}
	if args[2] != "" {
		body = strings.NewReader(ts.ReadFile(args[2]))
		fields = append(fields, "Content-Type: application/json")
	}
	resp, answer, err := scriptDo(ts, args[0], args[1], body, fields...)
	ts.Check(err)
	fmt.Fprintf(ts.Stdout(), "%d\n%s\n", resp.StatusCode, answer)
}

func scriptExits(ts *testscript.TestScript, _ bool, args []string) {
	if len(args) < 2 {
		ts.Fatalf("usage: exits CODE COMMAND...")
	}
	code := 0
	if err := ts.Exec(args[1], args[2:]...); err != nil {
		code = -1
		if e, ok := errors.AsType[*exec.ExitError](err); ok {
			code = e.ExitCode()
		}
	}
	if strconv.Itoa(code) != args[0] {
		ts.Fatalf("it ended with %d, want %s\n%s", code, args[0], ts.ReadFile("stderr"))
	}
}

func scriptTerm(ts *testscript.TestScript, _ bool, _ []string) {
	for _, cmd := range ts.BackgroundCmds() {
		ts.Check(cmd.Process.Signal(syscall.SIGTERM))
	}
}

func scriptB3(ts *testscript.TestScript, _ bool, args []string) {
	if len(args) != 2 {
		ts.Fatalf("usage: b3 VAR FILE")
	}
	ts.Setenv(args[0], index.Sum([]byte(ts.ReadFile(args[1]))).String())
}

func scriptFlip(ts *testscript.TestScript, _ bool, args []string) {
	if len(args) != 1 {
		ts.Fatalf("usage: flip TEXT")
	}
	ts.Check(flip(ts.Getenv("SVC_INDEX_DATA_DIR"), args[0]))
}

func scriptSave(ts *testscript.TestScript, _ bool, args []string) {
	if len(args) != 2 {
		ts.Fatalf("usage: save VAR LABEL")
	}
	for line := range strings.Lines(ts.ReadFile("stdout")) {
		if f := strings.Fields(line); len(f) > 1 && f[0] == args[1] {
			ts.Setenv(args[0], f[1])
			return
		}
	}
	ts.Fatalf("stdout has no line that begins with %s", args[1])
}
