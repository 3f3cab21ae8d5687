package lab

import (
	"bufio"
	"flag"
	"fmt"
	"io"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

var (
	binary = flag.String("binary", "", "svc-index: measure the memory of a client in a network of -nodes")
	nodes  = flag.Int("nodes", 200, "with -binary")
	cache  = flag.String("cache", "256MiB", "with -binary: cache.bytes of both")
	settle = flag.Duration("settle", time.Minute, "with -binary: between the last question and the first look")
)

// What a client node may cost beside the server without a DHT.
const clientMax = 60e6 // bytes

// asked is how many keys each server is asked for first: enough for its routing
// table, its connections and what it remembers to be what they come to be.
const asked = 3000

func TestMemoryOfAClientInANetwork(t *testing.T) {
	if *binary == "" {
		t.Skip("make dht-memory")
	}
	network := exec.Command(*binary, "devnet", "--nodes", fmt.Sprint(*nodes), "--port", "0")
	network.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	out, err := network.StdoutPipe()
	if err == nil {
		err = network.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	said := bufio.NewReader(out)
	bootstrap := ""
	for bootstrap == "" {
		line, err := said.ReadString('\n')
		if err != nil {
			_ = network.Wait()
			t.Fatalf("the devnet ended: %v", err)
		}
		_, bootstrap, _ = strings.Cut(strings.TrimSpace(line), "dht.bootstrap=")
	}
	var rest sync.WaitGroup
	rest.Go(func() { _, _ = io.Copy(io.Discard, said) })
	t.Cleanup(func() {
		_ = network.Process.Kill()
		rest.Wait()
		_ = network.Wait()
	})

	with := start(t, "dht.enabled=true", "dht.mode=client", "dht.listen=", "dht.allow_private=true", "dht.bootstrap="+bootstrap)
	without := start(t, "dht.enabled=false")
	for i := range asked {
		path := fmt.Sprintf("/providers/b3:%064x", i)
		for _, s := range []*Server{with, without} {
			if status, body, err := s.Get(s.Addr, path); err != nil || status != 404 && status != 503 && status != 504 {
				t.Fatalf("%s: %d %s %v", path, status, body, err)
			}
		}
	}
	m, err := with.Metrics()
	if err != nil || m["index_dht_lookup_ms_count"] < asked/2 {
		t.Fatalf("%v look-ups in the network (%v): it was not asked", m["index_dht_lookup_ms_count"], err)
	}
	time.Sleep(*settle)
	var figures [2][]float64
	for range 10 {
		for i, s := range []*Server{with, without} {
			u, err := UsageOf(s.PID)
			if err != nil {
				t.Fatal(err)
			}
			figures[i] = append(figures[i], float64(u.Resident)/1e6)
		}
		time.Sleep(time.Second)
	}
	client, plain := SpreadOf(figures[0]), SpreadOf(figures[1])
	t.Logf("resident, MB, with cache.bytes=%s: a client in a network of %d nodes %v, without DHT %v: %.1f MB more (at most %.0f); after %.0f look-ups",
		*cache, *nodes, client, plain, client.Median-plain.Median, clientMax/1e6, m["index_dht_lookup_ms_count"])
	if more := (client.Median - plain.Median) * 1e6; more >= clientMax {
		t.Errorf("a client costs %.1f MB, at most %.0f", more/1e6, clientMax/1e6)
	}
}

func start(t *testing.T, set ...string) *Server {
	t.Helper()
	s, err := Start(t.Context(), Options{Binary: *binary, Dir: t.TempDir(), Profile: "dev", Processor: -1, Set: append(set, "limits.rps=0", "cache.bytes="+*cache)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Stop(); err != nil {
			t.Error(err)
		}
	})
	return s
}
