package faults

import (
	"bufio"
	"bytes"
	"crypto/rand"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

var micronode = []string{"--profile", "micronode"}

// TestFaultAmnesiaWritesNoFile traces the system calls of a server in use.
func TestFaultAmnesiaWritesNoFile(t *testing.T) {
	for _, tt := range []struct {
		why    string
		args   []string
		writes bool
	}{
		{"a micronode", micronode, false},
		{"a server with a disk, or the trace proves nothing", []string{"--profile", "dev", "--set", "dht.enabled=false"}, true},
	} {
		t.Run(tt.why, func(t *testing.T) {
			trace := filepath.Join(t.TempDir(), "trace")
			strace, err := exec.LookPath("strace")
			if err != nil {
				unproven(t, "strace is not installed (apt-get install strace): what the kernel is asked for cannot be seen")
			}
			under := []string{strace, "-D", "-f", "-qq", "-ttt", "-s", "256", "-o", trace,
				"-e", "trace=open,openat,openat2,creat,rename,renameat,renameat2,mkdir,mkdirat,unlink,unlinkat,link,linkat,symlink,symlinkat,truncate,ftruncate"}
			if out, err := exec.Command(strace, "-qq", "-o", os.DevNull, "true").CombinedOutput(); err != nil {
				unproven(t, "strace may not trace here (%v: %s)", err, out)
			}
			s := start(t, options{args: tt.args, under: under})
			began := time.Now()
			l := s.dial(dialing{})
			s.warm(s.publish("traced/", 50))
			l.want(t, s.putManifest(strings.Repeat("m", 1000)), 200, 201)
			l.want(t, resolve("traced/none"), 404)
			s.signal(syscall.SIGHUP)
			s.scrape()
			time.Sleep(1500 * time.Millisecond) // the keeper, the purge and the watch have their rounds
			_ = l.Close()
			s.stop()
			opens, writes := readTrace(t, trace, began)
			if opens == 0 {
				t.Error("the trace shows no file at all being opened: it cannot be trusted")
			}
			if (len(writes) > 0) != tt.writes {
				t.Errorf("after start it touched %d files for writing:\n%s", len(writes), strings.Join(writes[:min(len(writes), 20)], "\n"))
			}
		})
	}
}

// unproven ends a test that cannot see what it has to. In CI, which has all it
// takes, that is a failure: nobody reads of skipped tests there.
func unproven(t *testing.T, format string, args ...any) {
	t.Helper()
	if os.Getenv("CI") != "" {
		t.Fatalf("unproven: "+format, args...)
	}
	t.Skipf("UNPROVEN: "+format, args...)
}

// readTrace returns how many calls a trace holds, and those after began that
// make, open for writing, rename or remove a file.
func readTrace(t *testing.T, path string, began time.Time) (calls int, writes []string) {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for sc := bufio.NewScanner(f); sc.Scan(); {
		fields := strings.Fields(sc.Text()) // pid, time, call
		if len(fields) < 3 {
			continue
		}
		at, err := strconv.ParseFloat(fields[1], 64)
		call := strings.Join(fields[2:], " ")
		if err != nil || strings.Contains(call, "resumed>") || !strings.Contains(call, "(") || strings.HasPrefix(call, "---") {
			continue
		}
		calls++
		reads := strings.HasPrefix(call, "open") && !strings.Contains(call, "O_WRONLY") && !strings.Contains(call, "O_RDWR") &&
			!strings.Contains(call, "O_CREAT") && !strings.Contains(call, "O_TRUNC") && !strings.Contains(call, "O_APPEND")
		if at > float64(began.UnixNano())/1e9 && !reads {
			writes = append(writes, call)
		}
	}
	return calls, writes
}

// TestFaultAmnesiaForgets looks for what a server was told in its memory: while
// it serves, after a purge, and after its end, before the process is gone.
func TestFaultAmnesiaForgets(t *testing.T) {
	s := start(t, options{args: micronode, env: []string{"RIG_LINGER=1"}, set: []string{"amnesia.purge_interval=1s"}})
	var b [12]byte
	_, _ = rand.Read(b[:])
	mark := "canary" + hex.EncodeToString(b[:])
	l := s.dial(dialing{})
	body := fmt.Sprintf(`{"v":1,"files":[{"name":"%s"}],"pad":"%s"}`, "manifest-"+mark, strings.Repeat("x", 20000))
	l.want(t, s.putManifest(body), 200, 201)
	cid := cidOf(body)
	l.want(t, s.putName("name-"+mark, cid, 1), 200)
	row := fmt.Sprintf(`{"providers":[{"id":"p1","addr":"/dns4/addr-%s/tcp/1"}]}`, mark)
	l.want(t, request("PUT", "/providers/"+cid, row, s.bearer(), "Content-Type: application/json"), 200)
	for range 3 {
		l.want(t, resolve("name-"+mark), 200)
		l.want(t, get("/providers/"+cid), 200)
		l.want(t, get("/manifests/"+cid), 200)
	}
	_ = l.Close()

	canaries := map[string]string{
		"a manifest": "manifest-" + mark, "a name": "name-" + mark, "an address": "addr-" + mark, "the token": s.token,
	}
	for _, file := range []string{"root.keys", "identity.key"} {
		text, err := os.ReadFile(filepath.Join(s.dir, file))
		if err != nil {
			t.Fatal(err)
		}
		for i, word := range strings.Fields(string(text)) {
			if len(word) <= 40 {
				continue
			}
			canaries[fmt.Sprintf("word %d of %s", i, file)] = word
			for _, decode := range []func(string) ([]byte, error){hex.DecodeString, base64.RawURLEncoding.DecodeString, base64.StdEncoding.DecodeString} {
				if raw, err := decode(word); err == nil && len(raw) >= 32 {
					canaries[fmt.Sprintf("the key in word %d of %s", i, file)] = string(raw[len(raw)-32:]) // PKCS#8 has its key at the end
				}
			}
		}
	}
	found := s.search(canaries)
	keys := 0
	for what, n := range found {
		if strings.HasPrefix(what, "the key") {
			keys += n
		} else if !strings.HasPrefix(what, "word") && what != "the token" && n == 0 {
			t.Errorf("while it serves, %s is not to be found: the search proves nothing", what)
		}
	}
	if keys == 0 {
		t.Error("while it serves, no key is to be found: the search proves nothing")
	}
	rendered := map[string]string{"an answer": `"key":"name:name-` + mark + `"`}
	s.await("the purge to forget what was rendered", func() bool { return s.search(rendered)["an answer"] == 0 })

	s.signal(syscall.SIGTERM)
	s.await("the end", func() bool { return strings.Contains(s.said(), "all is forgotten") })
	for what, n := range s.search(canaries) {
		if n > 0 {
			t.Errorf("at its end the process still has %s in memory, %d times", what, n)
		}
	}
	s.signal(syscall.SIGUSR2)
	if code := s.exit(); code != 0 {
		t.Errorf("exit code %d, want 0", code)
	}
}

// search returns how often each text is in the memory of the process.
func (s *server) search(texts map[string]string) map[string]int {
	s.t.Helper()
	pid := s.cmd.Process.Pid
	maps, err := os.ReadFile(fmt.Sprintf("/proc/%d/maps", pid))
	if os.IsPermission(err) {
		unproven(s.t, "the memory of a process that allows no dumps may not be read here: %v", err)
	}
	if err != nil {
		s.t.Fatal(err)
	}
	mem, err := os.Open(fmt.Sprintf("/proc/%d/mem", pid))
	if os.IsPermission(err) {
		unproven(s.t, "the memory of a process that allows no dumps may not be read here: %v", err)
	}
	if err != nil {
		s.t.Fatal(err)
	}
	defer mem.Close()
	found := make(map[string]int)
	for line := range strings.Lines(string(maps)) {
		var from, to int64
		var mode string
		if n, _ := fmt.Sscanf(line, "%x-%x %s", &from, &to, &mode); n != 3 || mode[0] != 'r' || strings.Contains(line, "[vv") {
			continue
		}
		const chunk, overlap = 4 << 20, 4 << 10
		buf := make([]byte, chunk+overlap)
		for at := from; at < to; at += chunk {
			n, err := mem.ReadAt(buf[:min(chunk+overlap, to-at)], at)
			if err != nil && err != io.EOF {
				break // a hole
			}
			for what, text := range texts {
				found[what] += bytes.Count(buf[:n], []byte(text))
			}
		}
	}
	return found
}

// TestFaultMicronodeIsSmall holds a node at rest to what it promises.
func TestFaultMicronodeIsSmall(t *testing.T) {
	s := start(t, options{args: micronode})
	time.Sleep(2 * time.Second)
	rss := s.resident()
	t.Logf("ready after %v, %d MiB resident", s.ready, rss>>20)
	if rss > 64<<20 {
		t.Errorf("%d MiB resident at rest, want less than 64", rss>>20)
	}
	if m := s.scrape(); m[`amnesia_mode{status="enabled"}`] != 1 || m[`amnesia_mode{status="disabled"}`] != 0 {
		t.Error("amnesia_mode does not say enabled")
	}
	if entries, _ := os.ReadDir(filepath.Join(s.dir, "db")); len(entries) != 0 {
		t.Errorf("there are %d files of a database", len(entries))
	}
	s.stop()
}
