package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"svcindex/testing/performance/lab"
)

// nginxConf answers every request with a constant of the size of a hit: the
// least that a good server does for it.
const nginxConf = `daemon off;
worker_processes 1;
pid %[1]s/pid;
error_log %[1]s/error.log;
events { worker_connections 4096; }
http {
  access_log off;
  keepalive_requests 1000000000;
  server {
    listen 127.0.0.1:%[2]d;
    location / { default_type application/json; add_header ETag '"b3:%[3]s"'; add_header X-Index-Source cache; add_header Cache-Control "public, max-age=5"; return 200 '%[4]s'; }
  }
}
`

// A nginx is the yardstick, on the server's processor.
type nginx struct {
	addr   string
	worker int // its process
	cmd    *exec.Cmd
}

// openNginx starts it with a body of the length of the server's.
func (b *bench) openNginx(ctx context.Context, body string) (*nginx, error) {
	dir := filepath.Join(b.work, "nginx")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	port, err := freePort()
	if err != nil {
		return nil, err
	}
	conf := fmt.Sprintf(nginxConf, dir, port, strings.Repeat("0", 64), strings.NewReplacer("'", "", "$", "").Replace(body))
	if err := os.WriteFile(filepath.Join(dir, "conf"), []byte(conf), 0o644); err != nil {
		return nil, err
	}
	args := []string{"nginx", "-p", dir, "-c", filepath.Join(dir, "conf")}
	if b.server >= 0 {
		args = append([]string{"taskset", "-c", strconv.Itoa(b.server)}, args...)
	}
	n := &nginx{addr: fmt.Sprintf("127.0.0.1:%d", port), cmd: exec.Command(args[0], args[1:]...)}
	n.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := n.cmd.Start(); err != nil {
		return nil, err
	}
	for range 100 {
		if ctx.Err() != nil {
			break
		}
		if c, err := net.Dial("tcp", n.addr); err == nil {
			_ = c.Close()
			if n.worker = childOf(n.cmd.Process.Pid); n.worker != 0 {
				return n, nil
			}
		}
		time.Sleep(20 * time.Millisecond)
	}
	n.close()
	return nil, errors.New("nginx did not come up (apt-get install nginx-light)")
}

func freePort() (int, error) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	defer ln.Close()
	return ln.Addr().(*net.TCPAddr).Port, nil
}

// childOf returns a child of a process, or 0.
func childOf(pid int) int {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", pid, pid))
	if err != nil {
		return 0
	}
	first, _, _ := strings.Cut(strings.TrimSpace(string(b)), " ")
	child, _ := strconv.Atoi(first)
	return child
}

func (n *nginx) close() {
	_ = n.cmd.Process.Signal(syscall.SIGTERM)
	_ = n.cmd.Wait()
}

func (n *nginx) target(args string) target {
	return target{name: "nginx", addr: n.addr, args: args, usage: func() (lab.Usage, error) { return lab.UsageOf(n.worker) }}
}
