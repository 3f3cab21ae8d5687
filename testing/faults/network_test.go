package faults

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"
)

// freePorts returns the first of n ports in a row that nobody listens at now:
// a network that comes back comes back where it was.
func freePorts(t *testing.T, n int) int {
	t.Helper()
	for range 50 {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		first := l.Addr().(*net.TCPAddr).Port
		_ = l.Close()
		free := first+n < 1<<16
		for p := first; free && p < first+n; p++ {
			if l, err := net.Listen("tcp", fmt.Sprint("127.0.0.1:", p)); err != nil {
				free = false
			} else {
				_ = l.Close()
			}
		}
		if free {
			return first
		}
	}
	t.Fatalf("no %d free ports in a row", n)
	return 0
}

// devnet starts a network as a user would, and returns how to join it and how
// to kill it.
func devnet(t *testing.T, nodes, port int) (bootstrap string, kill func()) {
	t.Helper()
	cmd := exec.Command(binary, "devnet", "--nodes", fmt.Sprint(nodes), "--port", fmt.Sprint(port))
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	ended := false
	kill = func() {
		if !ended {
			ended = true
			_ = cmd.Process.Kill()
			_ = cmd.Wait()
		}
	}
	t.Cleanup(kill)
	for lines := bufio.NewScanner(out); lines.Scan(); {
		if _, list, ok := strings.Cut(lines.Text(), "--set "); ok {
			return list, kill
		}
	}
	t.Fatal("the devnet did not say how to join it")
	return "", nil
}

// asked is what a client sees of one request.
func (s *server) asked(path string) (status int, head http.Header, body string) {
	s.t.Helper()
	resp, err := local.Get("http://" + s.addr + path)
	if err != nil {
		s.t.Fatal(err)
	}
	defer resp.Body.Close()
	b, _ := io.ReadAll(resp.Body)
	return resp.StatusCode, resp.Header, string(b)
}

// A whole network is killed under a server that lives on it, and started again
// at the same addresses.
func TestFaultTheNetworkDiesAndComesBack(t *testing.T) {
	const nodes = 6
	port := freePorts(t, nodes)
	bootstrap, kill := devnet(t, nodes, port)
	set := []string{
		"dht.enabled=true", "dht.allow_private=true", bootstrap, "db.refresh_after=1s", "cache.ttl=1s", "cache.neg_ttl=1s", "cache.stale_for=1s",
		"stages.dht.breaker.window=5s", "stages.dht.breaker.min_requests=4", "stages.dht.breaker.cooldown=1s", "stages.dht.breaker.probes=2",
	}
	a, b := start(t, options{set: set}), start(t, options{set: set})
	put := func(path, body string) string {
		req, _ := http.NewRequest("PUT", "http://"+a.addr+path, strings.NewReader(body))
		req.Header.Set("Authorization", "Bearer "+a.token)
		req.Header.Set("Content-Type", "application/json")
		resp, err := local.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		var doc struct{ CID string }
		_ = json.NewDecoder(resp.Body).Decode(&doc)
		if resp.StatusCode/100 != 2 {
			t.Fatalf("PUT %s: %d", path, resp.StatusCode)
		}
		return doc.CID
	}
	cid := put("/manifests", "content")
	var node struct {
		ID string `json:"node_id"`
	}
	_, _, version := a.asked("/version")
	_ = json.Unmarshal([]byte(version), &node)
	put("/providers/"+cid, fmt.Sprintf(`{"providers":[{"id":%q,"addr":"http://127.0.0.1:1"}]}`, node.ID))
	found := func(path string) func() bool {
		return func() bool { status, _, _ := b.asked(path); return status == 200 }
	}
	b.await("the other's content", found("/manifests/"+cid))
	b.await("the other's row", found("/providers/"+cid))
	b.await("both in the database", func() bool { return b.scrape()["index_dht_kept_total"] >= 2 })

	a.kill()
	kill()
	died, n := time.Now(), 0
	nowhere := func() int {
		n++
		status, _, _ := b.asked(fmt.Sprintf("/resolve/b3:%064x", n))
		return status
	}
	b.await("an open breaker", func() bool {
		if status := nowhere(); status != 503 && status != 504 {
			t.Fatalf("nobody could be asked, and what is nowhere gets %d", status)
		}
		return b.scrape().of("breaker_state", "dht") == 2
	})
	b.await("a stale row", func() bool {
		status, head, body := b.asked("/providers/" + cid)
		if status != 200 || !strings.Contains(body, node.ID) {
			t.Fatalf("what is stored: %d %s", status, body)
		}
		return head.Get("X-Index-Stale") == "true" && head.Get("X-Index-Complete") == "partial"
	})
	if status, head, body := b.asked("/manifests/" + cid); status != 200 || body != "content" || head.Get("X-Index-Stale") != "" {
		t.Errorf("content that proves itself: %d %v %s", status, head, body)
	}
	if *full { // a minute without an answer is what makes it unready
		for b.readyz() == 200 && time.Since(died) < 90*time.Second {
			time.Sleep(500 * time.Millisecond)
		}
		if status, body := b.adminGet("/readyz"); status != 503 || !strings.Contains(string(body), "dht_client_ready") || !strings.Contains(string(body), `"degraded":true`) {
			t.Errorf("a minute and a half after the network died: %d %s", status, body)
		}
		t.Logf("unready %v after the network died", time.Since(died).Round(time.Second))
	}

	devnet(t, nodes, port)
	back := time.Now()
	b.await("a closed breaker, and an absence", func() bool {
		status := nowhere()
		return status == 404 && b.scrape().of("breaker_state", "dht") == 0
	})
	b.await("readiness", func() bool { return b.readyz() == 200 })
	t.Logf("well again %v after the network was back; %d keys that are nowhere asked for", time.Since(back).Round(100*time.Millisecond), n)
	b.stop()
}
