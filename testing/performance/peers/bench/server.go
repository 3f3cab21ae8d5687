package main

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
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// patience bounds every wait for something that is going to happen.
const patience = 30 * time.Second

// A place is where a server runs.
type place struct {
	cores []int // the server's
	asks  []int // the client's
	procs int   // GOMAXPROCS, or worker processes
}

// The places. apart gives each side a processor of its own; together lets both
// go where the kernel sends them.
var (
	apart    = place{[]int{0}, []int{1}, 1}
	together = place{[]int{0, 1}, []int{0, 1}, 2}
)

// A server is a running process that answers.
type server struct {
	name  string
	addr  string
	admin string // of ours: where it counts
	cmd   *exec.Cmd
	log   string
	gone  chan struct{}
	cost  float64 // objects that a scrape allocates
}

func (s *server) pid() int { return s.cmd.Process.Pid }

// said returns the end of what the server has logged.
func (s *server) said() string {
	b, _ := os.ReadFile(s.log)
	return string(b[max(len(b)-2<<10, 0):])
}

// A kind is a server that can be started.
type kind struct {
	name  string
	start func(b *bench, at place, extra ...string) (*server, error)
}

// listens stands before the address in the line that says it.
const listens = " listens on http://"

// launch starts a process in its place and waits for the line with its
// address.
func (b *bench) launch(name string, at place, env []string, path string, args ...string) (*server, error) {
	b.launched++
	s := &server{name: name, log: filepath.Join(b.dir, fmt.Sprintf("log-%03d-%s", b.launched, name)), gone: make(chan struct{})}
	s.cmd = exec.Command(path, args...)
	s.cmd.Env = append(os.Environ(), fmt.Sprintf("GOMAXPROCS=%d", at.procs))
	s.cmd.Env = append(s.cmd.Env, env...)
	stderr, err := os.Create(s.log)
	if err != nil {
		return nil, err
	}
	defer stderr.Close()
	s.cmd.Stderr = stderr
	stdout, err := s.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := pinned(at.cores, s.cmd.Start); err != nil {
		return nil, fmt.Errorf("starting %s: %w", path, err)
	}
	b.running[s] = true
	line := make(chan string, 1)
	go func() {
		r := bufio.NewReader(stdout)
		first, err := r.ReadString('\n')
		for err == nil && !strings.Contains(first, listens) {
			first, err = r.ReadString('\n') // gnet has something to say before
		}
		line <- first
		_, _ = io.Copy(io.Discard, r)
		_ = s.cmd.Wait()
		close(s.gone)
	}()
	select {
	case first := <-line:
		_, after, ok := strings.Cut(first, listens)
		if !ok {
			return nil, fmt.Errorf("%s said %q instead of where it listens:\n%s", name, first, s.said())
		}
		s.addr, _, _ = strings.Cut(strings.TrimSpace(after), ",")
		if _, admin, ok := strings.Cut(after, "admin on http://"); ok {
			s.admin = strings.TrimSpace(admin)
		}
	case <-time.After(patience):
		return nil, fmt.Errorf("%s said nothing for %v:\n%s", name, patience, s.said())
	}
	return s, nil
}

// stop ends a server and waits for its end.
func (b *bench) stop(s *server) {
	delete(b.running, s)
	_ = s.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-s.gone:
	case <-time.After(patience):
		_ = s.cmd.Process.Kill()
		<-s.gone
	}
}

// ours starts our server on a copy of its own of the data, or on dir.
func (b *bench) ours(name, binary, dir string, env []string, at place, extra ...string) (*server, error) {
	args := []string{"serve", "--profile", "dev", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--data", dir}
	for _, set := range append(b.settings(), extra...) {
		args = append(args, "--set", set)
	}
	s, err := b.launch(name, at, env, binary, args...)
	if err != nil {
		return nil, err
	}
	for end := time.Now().Add(patience); ; time.Sleep(5 * time.Millisecond) {
		if status, _ := s.get("/readyz"); status == http.StatusOK {
			break
		}
		if time.Now().After(end) {
			return nil, fmt.Errorf("%s was not ready within %v:\n%s", name, patience, s.said())
		}
	}
	s.allocs()
	from := s.allocs()
	s.cost = s.allocs().mallocs - from.mallocs
	return s, nil
}

// settings are what a comparison needs: one client address may open more
// connections than a stranger may, what is in the cache stays there, and no
// stage has the network behind it.
func (b *bench) settings() []string {
	set := []string{"limits.conns_per_ip=0", "cache.ttl=1h", "log.level=warn", "limits.idle_timeout=10m"}
	if b.hasDHT {
		set = append(set, "dht.enabled=false")
	}
	return set
}

var local = &http.Client{Timeout: 20 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}

// get asks the admin listener.
func (s *server) get(path string) (int, []byte) {
	resp, err := local.Get("http://" + s.admin + path)
	if err != nil {
		return 0, nil
	}
	defer resp.Body.Close()
	body, _ := io.ReadAll(resp.Body)
	return resp.StatusCode, body
}

// metric returns the sum of a metric's series that hold all the words.
func (s *server) metric(name string, words ...string) (sum float64) {
	_, body := s.get("/metrics")
	return metricIn(body, name, words...)
}

func metricIn(body []byte, name string, words ...string) (sum float64) {
lines:
	for line := range bytes.Lines(body) {
		rest, ok := bytes.CutPrefix(line, []byte(name))
		if !ok || len(rest) == 0 || rest[0] != '{' && rest[0] != ' ' {
			continue
		}
		for _, w := range words {
			if !bytes.Contains(rest, []byte(w)) {
				continue lines
			}
		}
		var v float64
		if _, err := fmt.Sscan(string(rest[bytes.LastIndexByte(rest, ' ')+1:]), &v); err == nil {
			sum += v
		}
	}
	return sum
}

// An allocation count: objects, requests, and the objects that counting them
// took.
type allocation struct{ mallocs, requests, scrape float64 }

// allocs returns what our server has allocated; nothing for others.
func (s *server) allocs() (a allocation) {
	if s.admin == "" {
		return a
	}
	_, body := s.get("/metrics")
	return allocation{metricIn(body, "go_memstats_mallocs_total"), metricIn(body, "http_requests_total"), s.cost}
}

// nginx starts nginx with the configuration that has it answer as many bytes
// as our server does.
func (b *bench) nginx(at place, _ ...string) (*server, error) {
	body := 400
	for {
		s, raw, err := b.nginxWith(at, body)
		if err != nil || len(raw) == len(b.constant) {
			return s, err
		}
		b.stop(s)
		if body += len(b.constant) - len(raw); body < 1 {
			return nil, errors.New("nginx's head alone is longer than our answer")
		}
	}
}

const nginxConf = `daemon off;
pid %[1]s/nginx.pid;
error_log %[1]s/nginx.err;
worker_processes %[2]d;
worker_rlimit_nofile 16384;
events { worker_connections 8192; }
http {
	access_log off;
	default_type application/json;
	keepalive_requests 1000000000;
	keepalive_timeout 600s;
	client_body_temp_path %[1]s/b; proxy_temp_path %[1]s/p; fastcgi_temp_path %[1]s/f; uwsgi_temp_path %[1]s/u; scgi_temp_path %[1]s/s;
	server { listen %[3]s reuseport; location /resolve/ { return 200 "%[4]s"; } }
}
`

func (b *bench) nginxWith(at place, body int) (*server, []byte, error) {
	addr, err := freePort()
	if err != nil {
		return nil, nil, err
	}
	dir, err := os.MkdirTemp(b.dir, "nginx")
	if err != nil {
		return nil, nil, err
	}
	if err := os.Chmod(dir, 0o777); err != nil { // its workers are another user
		return nil, nil, err
	}
	conf := filepath.Join(dir, "nginx.conf")
	if err := os.WriteFile(conf, fmt.Appendf(nil, nginxConf, dir, at.procs, addr, strings.Repeat("x", body)), 0o644); err != nil {
		return nil, nil, err
	}
	// nginx says nothing when it is up.
	s, err := b.launch("nginx", at, nil, "sh", "-c", `echo "nginx listens on http://`+addr+`"; exec "$0" "$@"`, b.nginxPath, "-c", conf, "-p", dir)
	if err != nil {
		return nil, nil, err
	}
	for end := time.Now().Add(patience); ; time.Sleep(10 * time.Millisecond) {
		raw, err := rawGet(addr, b.keys[0])
		if err == nil {
			return s, raw, nil
		}
		if time.Now().After(end) {
			return nil, nil, fmt.Errorf("nginx: %w\n%s", err, s.said())
		}
	}
}

// kinds are all that can be measured.
func (b *bench) kinds() map[string]kind {
	plain := func(name string, arg string) kind {
		return kind{name, func(b *bench, at place, _ ...string) (*server, error) {
			return b.launch(name, at, nil, filepath.Join(b.bin, name), arg)
		}}
	}
	return map[string]kind{
		"ours": {"ours", func(b *bench, at place, extra ...string) (*server, error) {
			return b.ours("ours", filepath.Join(b.bin, "svc-index"), b.few, nil, at, extra...)
		}},
		"inline": {"inline", func(b *bench, at place, extra ...string) (*server, error) {
			return b.ours("inline", filepath.Join(b.bin, "svc-index-rig"), b.few, []string{"RIG_INLINE=1"}, at, extra...)
		}},
		"nginx":    {"nginx", (*bench).nginx},
		"fasthttp": plain("fasthttp", b.answers),
		"nethttp":  plain("nethttp", b.answers),
		"floor":    plain("floor", b.reply),
	}
}

// up starts a server, makes sure that it answers as ours does, and warms it.
func (b *bench) up(ctx context.Context, k kind, at place, warm asking, extra ...string) (*server, error) {
	s, err := k.start(b, at, extra...)
	if err != nil {
		return nil, err
	}
	if err := b.same(s); err != nil {
		return nil, err
	}
	if warm != nil {
		if _, _, err := warm(ctx, s.addr); err != nil {
			return nil, fmt.Errorf("warming %s: %w\n%s", s.name, err, s.said())
		}
	}
	return s, nil
}
