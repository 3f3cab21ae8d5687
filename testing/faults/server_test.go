package faults

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// patience bounds every wait for something that is going to happen. Only a
// server that hangs meets it.
const patience = 20 * time.Second

// options are what a test wants of a server.
type options struct {
	dir    string   // data; "" for a directory of the test's own
	env    []string // of the rig
	set    []string // --set
	nofile int      // limit on descriptors; 0: as we have
	cpu    int      // the one processor it may use, counted from 1; 0: any
	args   []string // more of them
	under  []string // the command that runs the server; nil: none
}

// A server is a running svc-index process.
type server struct {
	t     *testing.T
	cmd   *exec.Cmd
	dir   string
	cpu   int    // the one processor it may use; 0: any
	addr  string // of the public listener
	admin string
	token string
	ready time.Duration // from start to ready
	log   string        // path of what it wrote on stderr
	gone  chan struct{} // closed when the process has ended
}

// start runs a server and waits until it is ready. The test's end stops it.
func start(t *testing.T, o options) *server {
	t.Helper()
	if o.dir == "" {
		o.dir = t.TempDir()
	}
	args := []string{"serve", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--data", o.dir}
	for _, s := range append([]string{"cache.bytes=16MiB"}, o.set...) {
		args = append(args, "--set", s)
	}
	args = append(args, o.args...)
	s := &server{t: t, dir: o.dir, cpu: o.cpu, gone: make(chan struct{}), log: filepath.Join(t.TempDir(), "log")}
	line := append(append(o.under, binary), args...)
	s.cmd = exec.Command(line[0], line[1:]...)
	if o.nofile > 0 {
		limited := fmt.Sprintf(`ulimit -n %d && exec "$0" "$@"`, o.nofile)
		s.cmd = exec.Command("sh", append([]string{"-c", limited, binary}, args...)...)
	}
	s.cmd.Env = append(os.Environ(), o.env...)
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL} // a test that dies leaves nobody behind
	s.launch()
	return s
}

// launch starts the process and reads from its first line where it listens.
func (s *server) launch() {
	s.t.Helper()
	stderr, err := os.Create(s.log)
	if err != nil {
		s.t.Fatal(err)
	}
	defer stderr.Close()
	s.cmd.Stderr = stderr
	stdout, err := s.cmd.StdoutPipe()
	if err != nil {
		s.t.Fatal(err)
	}
	began := time.Now()
	if err := onCPU(s.cpu, s.cmd.Start); err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(s.cleanup)
	said := make(chan string, 1)
	go func() {
		r := bufio.NewReader(stdout)
		line, _ := r.ReadString('\n')
		said <- line
		_, _ = io.Copy(io.Discard, r)
		_ = s.cmd.Wait()
		close(s.gone)
	}()
	select {
	case line := <-said:
		const form = "svc-index listens on http://%s admin on http://%s"
		if n, _ := fmt.Sscanf(line, form, &s.addr, &s.admin); n != 2 {
			s.t.Fatalf("the server said %q instead of where it listens:\n%s", line, s.said())
		}
		s.addr = strings.TrimSuffix(s.addr, ",")
	case <-time.After(patience):
		s.t.Fatalf("the server said nothing for %v:\n%s", patience, s.said())
	}
	token, err := command("token", "mint", "--for", "2h", "--scope", "index.read,index.write,index.admin,index.pin", "--data", s.dir)
	if err != nil {
		s.t.Fatalf("minting a token: %v: %s", err, token)
	}
	s.token = strings.TrimSpace(token)
	s.await("readiness", func() bool { return s.readyz() == http.StatusOK })
	s.ready = time.Since(began)
}

// cleanup ends a server that the test has not ended.
func (s *server) cleanup() {
	if s.running() {
		_ = s.cmd.Process.Kill()
		<-s.gone
	}
	said := s.said()
	if strings.Contains(said, "\ngoroutine ") && strings.Contains(said, "panic: ") || strings.Contains(said, "fatal error: ") {
		s.t.Errorf("the server crashed")
	}
	if s.t.Failed() {
		s.t.Logf("the server's last words:\n%s", said[max(len(said)-4<<10, 0):])
	}
}

// said returns what the server has logged.
func (s *server) said() string {
	b, _ := os.ReadFile(s.log)
	return string(b)
}

func (s *server) running() bool {
	select {
	case <-s.gone:
		return false
	default:
		return true
	}
}

// signal sends the process a signal.
func (s *server) signal(sig syscall.Signal) {
	s.t.Helper()
	if err := s.cmd.Process.Signal(sig); err != nil {
		s.t.Errorf("sending %v: %v", sig, err)
	}
}

// kill ends the process as a crash would, if it has not ended yet.
func (s *server) kill() {
	s.t.Helper()
	_ = s.cmd.Process.Kill()
	s.exit()
}

// exit waits for the process to end and returns its exit code, -1 after a
// signal.
func (s *server) exit() int {
	s.t.Helper()
	select {
	case <-s.gone:
	case <-time.After(patience):
		_ = s.cmd.Process.Signal(syscall.SIGQUIT) // say where you hang
		<-s.gone
		s.t.Fatalf("the server did not end within %v", patience)
	}
	return s.cmd.ProcessState.ExitCode()
}

// stop ends the server in peace. Nothing may have panicked on an event loop.
func (s *server) stop() {
	s.t.Helper()
	if n := s.scrape()["http_loop_panics_total"]; n != 0 {
		s.t.Errorf("%v panics on event loops", n)
	}
	s.signal(syscall.SIGTERM)
	if code := s.exit(); code != 0 {
		s.t.Errorf("exit code %d, want 0", code)
	}
}

// await waits until something holds.
func (s *server) await(what string, holds func() bool) {
	s.t.Helper()
	for until := time.Now().Add(patience); !holds(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(until) {
			s.t.Fatalf("no %s within %v", what, patience)
		}
		if !s.running() {
			s.t.Fatalf("the server ended while we waited for %s:\n%s", what, s.said())
		}
	}
}

// local asks the admin listener on connections of their own: a kept one would
// outlive its server.
var local = &http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}

func (s *server) adminGet(path string) (status int, body []byte) {
	resp, err := local.Get("http://" + s.admin + path)
	if err != nil {
		return 0, nil
	}
	defer resp.Body.Close()
	body, _ = io.ReadAll(resp.Body)
	return resp.StatusCode, body
}

// readyz returns the status of /readyz on the admin listener, 0 for none.
func (s *server) readyz() int {
	status, _ := s.adminGet("/readyz")
	return status
}

// A scrape is the samples of /metrics by series.
type scrape map[string]float64

func (s *server) scrape() scrape {
	s.t.Helper()
	status, body := s.adminGet("/metrics")
	if status != http.StatusOK {
		s.t.Errorf("scraping: status %d", status)
	}
	m := make(scrape)
	for line := range bytes.Lines(body) {
		line := strings.TrimSpace(string(line))
		if i := strings.LastIndexByte(line, ' '); i > 0 && line[0] != '#' {
			var v float64
			if _, err := fmt.Sscan(line[i+1:], &v); err == nil {
				m[line[:i]] = v
			}
		}
	}
	return m
}

// attempts returns how often a stage worked on a job to an end of that kind.
func (m scrape) attempts(stage, result string) int {
	return int(m[fmt.Sprintf("stage_attempts_total{stage=%q,result=%q}", stage, result)])
}

// of returns a series with the label stage.
func (m scrape) of(name, stage string) int { return int(m[fmt.Sprintf("%s{stage=%q}", name, stage)]) }

// memory returns the bytes of memory the process has after a collection.
func (s *server) memory() int64 {
	s.t.Helper()
	s.adminGet("/debug/pprof/heap?gc=1")
	return s.resident()
}

// resident returns the bytes of memory the process has now.
func (s *server) resident() int64 {
	s.t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", s.cmd.Process.Pid))
	if err != nil {
		s.t.Fatal(err)
	}
	_, after, _ := strings.Cut(string(b), "VmRSS:")
	var kb int64
	if _, err := fmt.Sscan(after, &kb); err != nil {
		s.t.Fatalf("no VmRSS: %v", err)
	}
	return kb << 10
}

// command runs another command of the binary to its end.
func command(args ...string) (out string, err error) {
	b, err := exec.Command(binary, args...).CombinedOutput()
	return string(b), err
}
