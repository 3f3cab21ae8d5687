package main

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestWordsOfALoad(t *testing.T) {
	for _, tt := range []struct {
		why, line string
		want      []string
	}{
		{"words", " loadgen  --rate 5 ", []string{"loadgen", "--rate", "5"}},
		{"quotes keep spaces", `a --slo 'p95<80ms, p99<1s' "b c"`, []string{"a", "--slo", "p95<80ms, p99<1s", "b c"}},
		{"nothing, quoted, is a word", `a ''`, []string{"a", ""}},
		{"a quote within a word", `--x='1 2'3`, []string{"--x=1 23"}},
	} {
		if got, err := splitWords(tt.line); err != nil || !cmp.Equal(got, tt.want) {
			t.Errorf("%s: %q, %v; want %q", tt.why, got, err, tt.want)
		}
	}
	for _, bad := range []string{"", "  ", "a 'b"} {
		if got, err := splitWords(bad); err == nil {
			t.Errorf("%q became %q", bad, got)
		}
	}
}

func TestProfileRefusesWhatMakesNoSense(t *testing.T) {
	for _, tt := range []struct {
		why string
		p   profiling
	}{
		{"no folder", profiling{seconds: 1}},
		{"too long", profiling{out: "x", seconds: 301}},
		{"a load of no seconds", profiling{out: "x", during: "loadgen --rate 1 --duration 10ms"}},
		{"a load that is none", profiling{out: "x", during: "rm -rf x"}},
		{"a flag that is none", profiling{out: "x", during: "loadgen --rat 5"}},
		{"an open quote", profiling{out: "x", during: "loadgen '"}},
	} {
		if err := tt.p.prepare(nil); exitCode(err) != exitUsage {
			t.Errorf("%s: %v", tt.why, err)
		}
	}
}

// TestProfileOfARunningServer takes a folder of profiles, a second one, their
// difference, and looks at them through a browser's eyes.
func TestProfileOfARunningServer(t *testing.T) {
	h := openHouse(t, seams{})
	dirs := [2]string{filepath.Join(t.TempDir(), "a"), filepath.Join(t.TempDir(), "b")}
	for _, dir := range dirs {
		var out, errs bytes.Buffer
		root := rootCmd()
		root.SetOut(&out)
		root.SetErr(&errs)
		root.SetArgs([]string{"profile", "--admin", "http://" + h.admin.Addr(), "--out", dir, "--",
			"loadgen", "--server", h.url, "--token", h.token, "--prepare", "50", "--rate", "200", "--duration", "1s", "--fresh", ".5"})
		if err := root.Execute(); err != nil {
			t.Fatalf("%v\n%s", err, errs.String())
		}
	}
	var note profileNote
	b, err := os.ReadFile(filepath.Join(dirs[0], noteFile))
	if err != nil || json.Unmarshal(b, &note) != nil || note.Requests < 150 || note.Host.Cores == 0 || note.Server == nil {
		t.Errorf("the note is %s, %v", b, err)
	}
	for _, name := range []string{"config.toml", "stages.json", "load.json", "metrics.txt", "trace.out", "index.html", summaryFile} {
		if fi, err := os.Stat(filepath.Join(dirs[0], name)); err != nil || fi.Size() == 0 {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, g := range graphs {
		if b, err := os.ReadFile(filepath.Join(dirs[0], g.name+".svg")); err != nil || !bytes.HasPrefix(b, []byte("<?xml")) {
			t.Errorf("%s: %v", g.name, err)
		}
	}
	b, err = os.ReadFile(filepath.Join(dirs[0], "goroutines.svg"))
	if err != nil || !strings.Contains(string(b), "<title>stage loop (") || !strings.Contains(string(b), "<title>stage watch (") {
		t.Errorf("goroutines do not wear their stage: %v", err)
	}
	for _, of := range []string{"cpu", "allocs", "heap", "goroutine"} {
		var out bytes.Buffer
		root := rootCmd()
		root.SetOut(&out)
		root.SetArgs([]string{"profile", "diff", dirs[0], dirs[1], "--of", of})
		if err := root.Execute(); err != nil || !strings.Contains(out.String(), "before") {
			t.Errorf("%s: %v\n%s", of, err, out.String())
		}
	}
	seeFolder(t, dirs[1])
}

// seeFolder opens a folder and fetches its page.
func seeFolder(t *testing.T, dir string) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	r, w := io.Pipe()
	root := rootCmd()
	root.SetOut(w)
	root.SetArgs([]string{"profile", "open", dir})
	ended := make(chan error, 1)
	go func() { ended <- root.ExecuteContext(ctx); w.Close() }()
	line := make([]byte, 512)
	n, err := r.Read(line)
	if err != nil {
		t.Fatal(err)
	}
	url, _, _ := strings.Cut(string(line[:n]), " ")
	resp, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(resp.Body)
	resp.Body.Close()
	if err != nil || !strings.Contains(string(b), "cpu-by-stage.svg") || !strings.Contains(string(b), "requests answered") {
		t.Errorf("the page is %.300s, %v", b, err)
	}
	cancel()
	if err := <-ended; err != nil {
		t.Errorf("open ended with %v", err)
	}
	http.DefaultClient.CloseIdleConnections()
}
