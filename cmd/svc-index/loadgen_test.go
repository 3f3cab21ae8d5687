package main

import (
	"bytes"
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"svcindex/loadgen"
)

// loadIt runs loadgen with the words of a command line against a house.
func (h *testHouse) loadIt(args ...string) (stdout string, err error) {
	h.t.Helper()
	var out, diag bytes.Buffer
	cmd := loadgenCmd()
	cmd.SilenceErrors, cmd.SilenceUsage = true, true
	cmd.SetOut(&out)
	cmd.SetErr(&diag)
	cmd.SetArgs(append([]string{"--server", h.url, "--token", h.token, "--spin", "-1ns", "--drain", "20s"}, args...))
	err = cmd.ExecuteContext(h.t.Context())
	return out.String(), err
}

func TestLoadgenPreparesAndThenFindsAll(t *testing.T) {
	h := openHouse(t, seams{})
	dir := t.TempDir()
	page, hdr := filepath.Join(dir, "page.html"), filepath.Join(dir, "log")
	out, err := h.loadIt("--prepare", "200", "--mix", "resolve=2,providers=1,manifests=1", "--rate", "400", "--duration", "1s",
		"--writes", "0.1", "--fresh", "0.1", "--json", "-", "--html", page, "--hdr", hdr, "--slo", "error<0.1%")
	if code := exitCode(err); code != exitOK && code != exitInvalid { // a busy machine makes any run invalid
		t.Fatalf("%v\n%s", err, out)
	}
	var r loadgen.Report
	if err := json.Unmarshal([]byte(out), &r); err != nil {
		t.Fatalf("%v in %s", err, out)
	}
	if r.Schema != loadgen.Schema || r.Requests.Due != 400 || r.Requests.OK != 400 {
		t.Errorf("%+v, want 400 due and ok", r.Requests)
	}
	for _, s := range r.Codes {
		if s.Name != "200" {
			t.Errorf("%d answers were %s: %s; all keys were prepared", s.Response.Count, s.Name, s.Example)
		}
	}
	for _, file := range []string{page, hdr} {
		if info, err := os.Stat(file); err != nil || info.Size() == 0 {
			t.Errorf("%s: %v", file, err)
		}
	}
	if _, err := h.loadIt("--prepare", "200"); err != nil {
		t.Errorf("preparing again: %v", err)
	}
}

// What was filled offline is what a server then serves: all of it, and no more.
func TestLoadgenFillsADataDirectoryOffline(t *testing.T) {
	data := t.TempDir()
	const mix = "resolve=2,providers=1,manifests=1"
	for range 2 { // again changes nothing
		cmd := loadgenCmd()
		cmd.SetOut(io.Discard)
		cmd.SetErr(io.Discard)
		cmd.SetArgs([]string{"--prepare", "3000", "--offline", "--data", data, "--mix", mix})
		if err := cmd.ExecuteContext(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	h := openHouseIn(t, data, seams{})
	if s := h.store.Stats(); s.Names != 3000 || s.Manifests != 3000 || s.Providers != 3000 {
		t.Errorf("%+v, want 3000 names, manifests and provider rows", s)
	}
	out, err := h.loadIt("--keys", "3000", "--mix", mix, "--rate", "400", "--duration", "1s", "--dist", "uniform", "--json", "-")
	if code := exitCode(err); code != exitOK && code != exitInvalid {
		t.Fatal(err)
	}
	var r loadgen.Report
	if err := json.Unmarshal([]byte(out), &r); err != nil {
		t.Fatal(err)
	}
	if len(r.Codes) != 1 || r.Codes[0].Name != "200" || r.Codes[0].Response.Count != 400 {
		t.Errorf("%+v, want 400 times 200", r.Codes)
	}
}

func TestLoadgenAbsentKeysAreNotFound(t *testing.T) {
	h := openHouse(t, seams{})
	out, err := h.loadIt("--rate", "200", "--duration", "1s", "--absent", "1", "--mix", "resolve,providers,manifests", "--json", "-")
	if code := exitCode(err); code != exitOK && code != exitInvalid {
		t.Fatal(err)
	}
	var r loadgen.Report
	if err := json.Unmarshal([]byte(out), &r); err != nil {
		t.Fatal(err)
	}
	if len(r.Codes) != 1 || r.Codes[0].Name != "404" || r.Codes[0].Response.Count != 200 || !strings.Contains(r.Codes[0].Example, "not_found") {
		t.Errorf("%+v, want 200 times 404", r.Codes)
	}
}

func TestLoadgenSaysWhenAnObjectiveBreaks(t *testing.T) {
	h := openHouse(t, seams{})
	out, err := h.loadIt("--rate", "100", "--duration", "300ms", "--slo", "hit>0.99,max<1ns")
	if code := exitCode(err); code != exitFailed && code != exitInvalid {
		t.Errorf("%v, want the objective broken", err)
	}
	if !strings.Contains(out, "BROKEN  max<1ns") {
		t.Errorf("the report does not say which clause:\n%s", out)
	}
}

func TestLoadgenCommandLinesThatMakeNoSense(t *testing.T) {
	keys := filepath.Join(t.TempDir(), "keys")
	if err := os.WriteFile(keys, []byte("name:a\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, line := range []string{
		"", "--rate x", "--rate -1", "--rate 5 --profile sine", "--rate 5 --profile ramp", "--rate 5..0 --profile ramp",
		"--rate 5,0 --profile step", "--rate 0 --profile poisson,", "--rate 5 --slo p98<1ms", "--rate 5 --mix search=1", "--rate 5 --mix resolve=x",
		"--rate 5 --mix resolve=0", "--rate 5 --absent 2", "--rate 5 --dist normal", "--rate 5 --keys 0", "--rate 5 --keys /no/such",
		"--rate 5 --server https://h:1", "--rate 5 --server http://h:1/path", "--find-max --profile ramp --rate 1..2",
		"--find-max --slo ,", "--rate 5 --prepare 5 --offline", "--offline", "--rate 5 --writes 0.5 --keys " + keys, "--rate 5 --mix providers --keys " + keys, "--rate 5 --nonsense",
	} {
		cmd := loadgenCmd()
		cmd.SilenceErrors, cmd.SilenceUsage = true, true
		cmd.SetOut(&bytes.Buffer{})
		cmd.SetErr(&bytes.Buffer{})
		cmd.SetArgs(append([]string{"--token", "t"}, strings.Fields(line)...))
		if err := cmd.ExecuteContext(t.Context()); exitCode(err) != exitUsage {
			t.Errorf("%q: %v, want a usage error", line, err)
		}
	}
}

func TestPaces(t *testing.T) {
	for _, tt := range []struct {
		profile, rate string
		want          loadgen.Pacer
	}{
		{"constant", "5000", loadgen.Constant(5000)},
		{"poisson", "0.5", loadgen.Constant(0.5)},
		{"constant", "0", nil},
		{"ramp", "0..20", loadgen.Ramp{From: 0, To: 20, Over: 10 * time.Second}},
	} {
		got, err := parsePace(tt.profile, tt.rate, 10*time.Second)
		if err != nil || got != tt.want {
			t.Errorf("%s %s: %v, %v, want %v", tt.profile, tt.rate, got, err, tt.want)
		}
	}
	got, err := parsePace("step", "1,2", 10*time.Second)
	if s, ok := got.(loadgen.Steps); err != nil || !ok || len(s.Rates) != 2 || s.Each != 5*time.Second {
		t.Errorf("step: %v, %v", got, err)
	}
}
