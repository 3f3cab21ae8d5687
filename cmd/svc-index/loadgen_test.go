package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
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
		"--rate 5 --connections -5", "--rate 5 --connections 0", "--rate 5 --threads 0", "--rate 5 --pipeline -1", "--rate 5 --pipeline 2000", "--rate 5 --inflight -1",
		"--rate 5 --churn -1", "--rate 5 --drain -1s", "--rate 5 --timeout 0s", "--rate 5 --max-requests -5", "--rate 5 --duration 0s", "--rate 5 --duration 25h",
		"--rate nan", "--rate inf", "--prepare -5", "--prepare 5 --connections 0", "--rate 5 --slo ,", "--rate 5 --server 127.0.0.1:8080",
		"--rate 5 --html /no/such/page.html", "--rate 5 --hdr " + filepath.Dir(keys), "--rate 5 --json /no/such/x.json", "--rate 5 --html -",
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

func TestWhereALoadGoes(t *testing.T) {
	for _, tt := range []struct{ why, url, network, addr string }{
		{"a host and a port", "http://h:8080/", "tcp", "h:8080"},
		{"no port is 80", "http://h", "tcp", "h:80"},
		{"IPv6 keeps its brackets", "http://[::1]:8080", "tcp", "[::1]:8080"},
		{"and gets them for its 80", "http://[::1]", "tcp", "[::1]:80"},
		{"a path", "unix:/run/s", "unix", "/run/s"},
		{"a path as a URL", "unix:///run/s", "unix", "/run/s"},
	} {
		if network, addr, err := dialAddress(tt.url); network != tt.network || addr != tt.addr || err != nil {
			t.Errorf("%s: %s %s, %v; want %s %s", tt.why, network, addr, err, tt.network, tt.addr)
		}
	}
	for _, bad := range []string{"https://h:1", "h:1", "127.0.0.1:1", "http://", "http://h:1/path", ""} {
		if _, _, err := dialAddress(bad); err == nil || !strings.Contains(err.Error(), "it must be http://HOST:PORT or unix:/PATH") {
			t.Errorf("%q: %v, want it to say what a server is", bad, err)
		}
	}
}

// A run whose writes are no newer than those of the one before it would measure
// how quickly the server refuses them.
func TestWritesOfEachRunAreNewer(t *testing.T) {
	o := loadOptions{keys: "10", mix: "resolve=1", dist: "uniform", writes: 1}
	o.token, o.cfg.Address = "t", "h:1"
	mix, _, err := o.demand()
	if err != nil {
		t.Fatal(err)
	}
	put := mix.Endpoints[len(mix.Endpoints)-1]
	for _, at := range []int64{1000, 5000} {
		o.writesAt = at
		if body, want := string(put.Body(nil, 0, 7)), fmt.Sprintf(`"seq":%d}`, at+7); !strings.HasSuffix(body, want) {
			t.Errorf("%s, want it to end in %s", body, want)
		}
	}
	before := o.writesAt
	if _, err := o.run(t.Context(), loadgen.Config{}); err == nil || o.writesAt <= before {
		t.Errorf("%v; the next run begins at %d, want it after %d", err, o.writesAt, before)
	}
}

func TestAReportThatCannotBeWrittenIsSaid(t *testing.T) {
	full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if err != nil {
		t.Skip("no /dev/full here")
	}
	defer full.Close()
	hdr := filepath.Join(t.TempDir(), "hdr")
	o := loadOptions{stdout: full, htmlFile: "/dev/full", hdrFile: hdr}
	r, err := loadgenReport(t)
	if err != nil {
		t.Fatal(err)
	}
	err = o.publish(r, r, r.WriteText)
	if err == nil || strings.Count(err.Error(), "no space left") != 2 {
		t.Errorf("%v, want both that were not written", err)
	}
	if info, err := os.Stat(hdr); err != nil || info.Size() == 0 {
		t.Errorf("%v: what could be written was not", err)
	}
	o = loadOptions{stdout: io.Discard, jsonFile: filepath.Join(filepath.Dir(hdr), "-x")}
	if err := o.publish(r, r, r.WriteText); err != nil {
		t.Fatal(err)
	}
	if b, err := os.ReadFile(o.jsonFile); err != nil || !bytes.Contains(b, []byte(loadgen.Schema)) {
		t.Errorf("%q, %v: a name that begins with - is a name", b, err)
	}
}

// loadgenReport is that of a short run.
func loadgenReport(t *testing.T) (*loadgen.Report, error) {
	h := openHouse(t, seams{})
	mix := loadgen.Mix{Endpoints: []loadgen.Endpoint{{Name: "resolve", Weight: 1, Method: "GET", Path: "/resolve/", Keys: loadgen.Numbered{Prefix: loadNames, N: 5}}}, Dist: "uniform", Host: "h"}
	asker, err := mix.Asker()
	if err != nil {
		return nil, err
	}
	network, addr, err := dialAddress(h.url)
	if err != nil {
		return nil, err
	}
	return loadgen.Run(t.Context(), loadgen.Config{Network: network, Address: addr, NewAsker: asker, Pacer: loadgen.Constant(50), Duration: 100 * time.Millisecond, Spin: -1})
}

func TestAnInterruptedSearchWritesItsCurve(t *testing.T) {
	h := openHouse(t, seams{})
	file := filepath.Join(t.TempDir(), "max.json")
	var out, diag bytes.Buffer
	ctx, cancel := context.WithCancel(t.Context())
	cmd := loadgenCmd()
	cmd.SilenceErrors, cmd.SilenceUsage = true, true
	cmd.SetOut(&out)
	// The second line is that of the first try.
	cmd.SetErr(writing(func(b []byte) (int, error) {
		if diag.Write(b); bytes.Count(diag.Bytes(), []byte("\n")) == 2 {
			cancel()
		}
		return len(b), nil
	}))
	cmd.SetArgs([]string{"--server", h.url, "--spin", "-1ns", "--find-max", "--rate", "50", "--duration", "200ms", "--slo", "p50<1h", "--json", file})
	err := cmd.ExecuteContext(ctx)
	if exitCode(err) != exitFailed || !strings.Contains(err.Error(), "interrupted") || out.Len() > 0 {
		t.Errorf("%v, stdout %q; want only that it was interrupted", err, &out)
	}
	var m loadgen.Maximum
	b, err := os.ReadFile(file)
	if err == nil {
		err = json.Unmarshal(b, &m)
	}
	if err != nil || len(m.Curve) != 1 || m.Valid || m.Rate != 0 {
		t.Errorf("%+v, %v; want the one try before the interrupt", m, err)
	}
}

// timeout(1) interrupts its command, and then its whole group: what it gets is
// still its report.
func TestAnInterruptThatComesTwiceAtOnceIsOne(t *testing.T) {
	cmd := loadgenCmd()
	cmd.SetContext(t.Context())
	ctx, stop := interruptible(cmd)
	defer stop()
	for range 2 { // the second would end the test, and all others
		if err := syscall.Kill(os.Getpid(), syscall.SIGINT); err != nil {
			t.Fatal(err)
		}
		<-ctx.Done()
	}
}

type writing func([]byte) (int, error)

func (f writing) Write(b []byte) (int, error) { return f(b) }

// A line that is wider than the terminal stands on several of its own, all of
// which the next one has to take away.
func TestALiveLineTakesTheLastOneAway(t *testing.T) {
	var b bytes.Buffer
	s := shower{w: &b, live: true} // of 80 columns: it does not say
	for _, tt := range []struct {
		why, line, before string
	}{
		{"the first, as wide as the terminal", strings.Repeat("a", 80), "\r\x1b[K"},
		{"after one row", strings.Repeat("b", 161), "\r\x1b[K"},
		{"after three", "c", "\r\x1b[2A\x1b[J"},
	} {
		b.Reset()
		if s.line(tt.line); b.String() != tt.before+tt.line {
			t.Errorf("%s: %q, want %q before the line", tt.why, &b, tt.before)
		}
	}
	b.Reset()
	if s.end(); b.String() != "\r\x1b[K" {
		t.Errorf("at the end: %q", &b)
	}
}
