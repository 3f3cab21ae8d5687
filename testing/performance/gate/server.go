package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const patience = 20 * time.Second

// A server is one build at work.
type server struct {
	cmd         *exec.Cmd
	dir         string
	addr, admin string
	gone        chan struct{}
}

// serve starts a build on all processors but the last, with keys in it.
func (b *builds) serve(ctx context.Context, at *build) (*server, error) {
	dir, err := os.MkdirTemp(b.dir, "data")
	if err != nil {
		return nil, err
	}
	args := []string{"serve", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--data", dir}
	for _, s := range at.set {
		args = append(args, "--set", s)
	}
	s := &server{cmd: exec.Command(at.path, args...), dir: dir, gone: make(chan struct{})}
	s.cmd.Env = append(append(os.Environ(), "RIG_NET=1"), at.env...)
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := s.launch(); err != nil {
		return nil, err
	}
	// Its own loadgen fills it: the token of another version may be another's.
	out, _, err := client(ctx, at.path, "loadgen", "--server", "http://"+s.addr, "--data", dir, "--prepare", strconv.Itoa(keys))
	if err != nil {
		err = fmt.Errorf("%w:\n%s", err, out)
	} else {
		err = s.collect()
	}
	if err != nil {
		s.end()
		return nil, err
	}
	return s, nil
}

// collect has the server collect its garbage. When it would by itself depends
// on how the fill went, and whether it then does in the measured time is a
// third of what it holds at the end.
func (s *server) collect() error {
	resp, err := http.Get("http://" + s.admin + "/debug/pprof/heap?gc=1")
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	_, err = io.Copy(io.Discard, resp.Body)
	return err
}

func (s *server) launch() error {
	log, err := os.Create(filepath.Join(s.dir, "log"))
	if err != nil {
		return err
	}
	defer log.Close()
	s.cmd.Stderr = log
	stdout, err := s.cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := on(serverSide, s.cmd.Start); err != nil {
		return err
	}
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
			text, _ := os.ReadFile(filepath.Join(s.dir, "log"))
			s.end()
			return fmt.Errorf("the server said %q instead of where it listens:\n%s", line, text)
		}
		s.addr = strings.TrimSuffix(s.addr, ",")
	case <-time.After(patience):
		s.end()
		return fmt.Errorf("the server said nothing for %v", patience)
	}
	return s.ready()
}

// ready waits until the server says that it is.
func (s *server) ready() error {
	for began := time.Now(); time.Since(began) < patience; time.Sleep(10 * time.Millisecond) {
		resp, err := http.Get("http://" + s.addr + "/readyz")
		if err != nil {
			continue
		}
		resp.Body.Close()
		if resp.StatusCode == http.StatusOK {
			return nil
		}
	}
	s.end()
	return fmt.Errorf("the server was not ready after %v", patience)
}

// end kills the server: nothing it has is worth a drain.
func (s *server) end() {
	_ = s.cmd.Process.Kill()
	<-s.gone
	_ = os.RemoveAll(s.dir)
}

// cpu is the processor time the kernel has charged to the process. It is read
// from the process's own clock, which is the account behind /proc/PID/stat in
// nanoseconds instead of hundredths of a second.
func (s *server) cpu() time.Duration {
	const schedClock = 2
	var t unix.Timespec
	if unix.ClockGettime(int32(^s.cmd.Process.Pid<<3|schedClock), &t) != nil {
		return 0
	}
	return time.Duration(t.Nano())
}

// memory is what the process holds that is no file's, in MiB.
func (s *server) memory() (float64, error) {
	path := fmt.Sprintf("/proc/%d/status", s.cmd.Process.Pid)
	kib, err := strconv.ParseFloat(strings.TrimSuffix(procField(path, "RssAnon"), " kB"), 64)
	if err != nil {
		return 0, fmt.Errorf("%s: %w", path, err)
	}
	return kib / 1024, nil
}

// A side of the machine.
type side int

const (
	serverSide side = iota // all processors but the last
	clientSide             // the last
)

// on starts a process on its half of the machine: children get the affinity of
// the thread that starts them. With one processor there are no halves.
func on(h side, start func() error) error {
	n := runtime.NumCPU()
	if n < 2 {
		return start()
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var was, set unix.CPUSet
	if err := unix.SchedGetaffinity(0, &was); err != nil {
		return err
	}
	for i := range n {
		if (i == n-1) == (h == clientSide) {
			set.Set(i)
		}
	}
	if err := unix.SchedSetaffinity(0, &set); err != nil {
		return err
	}
	err := start()
	if bad := unix.SchedSetaffinity(0, &was); err == nil {
		err = bad
	}
	return err
}

// client runs svc-index as a client and returns what it says, and the processor
// time that it has used.
func client(ctx context.Context, path string, args ...string) (string, time.Duration, error) {
	var out strings.Builder
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := on(clientSide, cmd.Start); err != nil {
		return "", 0, err
	}
	err := cmd.Wait()
	return out.String(), cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime(), err
}
