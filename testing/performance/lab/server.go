// Package lab runs the programs that are measured, each on a processor of its
// own, and asks the kernel what they have used.
package lab

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// patience bounds the wait for a server to come up, and to go.
const patience = 60 * time.Second

// Options say what server is wanted.
type Options struct {
	Binary    string
	Dir       string   // its data
	Profile   string   // "" for its own default
	Set, Env  []string // key=value each
	Processor int      // the one it gets; -1: all
	Log       io.Writer
}

// A Server is a running svc-index.
type Server struct {
	Addr, Admin string // host:port each
	Dir         string
	PID         int

	cmd  *exec.Cmd
	http http.Client
	gone chan struct{} // closed when the process has ended
	err  error         // how, then
	wait sync.WaitGroup
}

// Start runs a server and returns when it is ready.
func Start(ctx context.Context, o Options) (*Server, error) {
	args := []string{o.Binary, "serve", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--data", o.Dir}
	if o.Profile != "" {
		args = append(args, "--profile", o.Profile)
	}
	for _, s := range o.Set {
		args = append(args, "--set", s)
	}
	s := &Server{Dir: o.Dir, gone: make(chan struct{}), http: http.Client{Timeout: 10 * time.Second}}
	s.cmd = exec.Command(pinned(o.Processor, args)[0], pinned(o.Processor, args)[1:]...)
	s.cmd.Env = append(os.Environ(), o.Env...)
	s.cmd.Stderr = o.Log
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL} // whoever measures and dies leaves nobody behind
	stdout, err := s.cmd.StdoutPipe()
	if err == nil {
		err = s.cmd.Start()
	}
	if err != nil {
		return nil, err
	}
	s.PID = s.cmd.Process.Pid
	said := make(chan string, 1)
	s.wait.Go(func() {
		r := bufio.NewReader(stdout)
		line, _ := r.ReadString('\n')
		said <- line
		_, _ = io.Copy(io.Discard, r)
		s.err = s.cmd.Wait()
		close(s.gone)
	})
	if err := s.settle(ctx, said); err != nil {
		_ = s.cmd.Process.Kill()
		s.wait.Wait()
		return nil, err
	}
	return s, nil
}

// pinned is a command line on one processor.
func pinned(processor int, args []string) []string {
	if processor < 0 {
		return args
	}
	return append([]string{"taskset", "-c", strconv.Itoa(processor)}, args...)
}

// settle learns where the server listens, and when it is ready.
func (s *Server) settle(ctx context.Context, said <-chan string) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	select {
	case line := <-said:
		if n, _ := fmt.Sscanf(line, "svc-index listens on http://%s admin on http://%s", &s.Addr, &s.Admin); n != 2 {
			return fmt.Errorf("the server said %q instead of where it listens", line)
		}
		s.Addr = strings.TrimSuffix(s.Addr, ",")
	case <-ctx.Done():
		return errors.New("the server did not say where it listens")
	}
	for {
		if status, _, err := s.Get(s.Admin, "/readyz"); err == nil && status == http.StatusOK {
			return nil
		}
		select {
		case <-s.gone:
			return fmt.Errorf("the server ended: %w", s.err)
		case <-ctx.Done():
			return errors.New("the server did not become ready")
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// Mint makes a token that may do everything, for binary's own commands and for
// requests made by hand.
func (s *Server) Mint(ctx context.Context, binary string) (string, error) {
	out, err := Run(ctx, -1, binary, "token", "mint", "--for", "2h", "--scope", "index.read,index.write,index.admin,index.pin", "--data", s.Dir)
	return strings.TrimSpace(string(out)), err
}

// URL is what --server takes.
func (s *Server) URL() string { return "http://" + s.Addr }

// Get asks one of the server's listeners.
func (s *Server) Get(addr, path string) (status int, body []byte, err error) {
	resp, err := s.http.Get("http://" + addr + path)
	if err != nil {
		return 0, nil, err
	}
	defer resp.Body.Close()
	body, err = io.ReadAll(resp.Body)
	return resp.StatusCode, body, err
}

// Stop ends the server as an operator would, and returns how it ended.
func (s *Server) Stop() error {
	defer s.http.CloseIdleConnections()
	_ = s.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-s.gone:
	case <-time.After(patience):
		_ = s.cmd.Process.Kill()
		s.wait.Wait()
		return errors.New("the server had to be killed")
	}
	s.wait.Wait()
	return s.err
}

// Running reports whether the process is there.
func (s *Server) Running() bool {
	select {
	case <-s.gone:
		return false
	default:
		return true
	}
}

// A Usage is what the kernel says of a process.
type Usage struct {
	At       time.Time
	CPU      time.Duration // since it began
	Resident int64         // bytes, now
	Peak     int64         // bytes, ever
	Files    int           // open descriptors
	FilesMax int
}

// UsageOf asks the kernel about a process.
func UsageOf(pid int) (u Usage, err error) {
	dir := fmt.Sprintf("/proc/%d", pid)
	u.At = time.Now()
	stat, err := os.ReadFile(dir + "/stat")
	if err != nil {
		return u, err
	}
	// After the name, which may hold anything: fields 14 and 15 of proc(5).
	fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
	if len(fields) < 13 {
		return u, fmt.Errorf("%s/stat: %q", dir, stat)
	}
	user, _ := strconv.ParseInt(fields[11], 10, 64)
	system, _ := strconv.ParseInt(fields[12], 10, 64)
	u.CPU = time.Duration(user+system) * tick

	status, err := os.ReadFile(dir + "/status")
	if err != nil {
		return u, err
	}
	for line := range strings.Lines(string(status)) {
		var kib int64
		if n, _ := fmt.Sscanf(line, "VmRSS: %d kB", &kib); n == 1 {
			u.Resident = kib << 10
		}
		if n, _ := fmt.Sscanf(line, "VmHWM: %d kB", &kib); n == 1 {
			u.Peak = kib << 10
		}
	}
	limits, err := os.ReadFile(dir + "/limits")
	if err != nil {
		return u, err
	}
	for line := range strings.Lines(string(limits)) {
		if n, _ := fmt.Sscanf(line, "Max open files %d", &u.FilesMax); n == 1 {
			break
		}
	}
	if u.Peak == 0 || u.Resident == 0 { // a zombie has neither
		return u, fmt.Errorf("%s/status says nothing of memory: has the process ended?", dir)
	}
	open, err := os.ReadDir(dir + "/fd")
	u.Files = len(open)
	return u, err
}

// Metrics are the server's, by name with labels.
func (s *Server) Metrics() (map[string]float64, error) {
	status, body, err := s.Get(s.Admin, "/metrics")
	if err != nil {
		return nil, err
	}
	if status != http.StatusOK {
		return nil, fmt.Errorf("/metrics: %d %.200s", status, body)
	}
	all := map[string]float64{}
	for line := range strings.Lines(string(body)) {
		line = strings.TrimSpace(line)
		i := strings.LastIndexByte(line, ' ')
		if i < 0 || line[0] == '#' {
			continue
		}
		if v, err := strconv.ParseFloat(line[i+1:], 64); err == nil {
			all[line[:i]] = v
		}
	}
	return all, nil
}

// Sum adds up a metric over its labels. A metric that is not there is no zero:
// there says whether it is.
func Sum(metrics map[string]float64, name string) (sum float64, there bool) {
	for k, v := range metrics {
		if k == name || strings.HasPrefix(k, name+"{") {
			sum, there = sum+v, true
		}
	}
	return sum, there
}
