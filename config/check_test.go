package config

import (
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestCheckRefuses(t *testing.T) {
	plain := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(plain, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		why    string
		set    string // space-separated
		nofile int
		want   []string
	}{
		{"slices over the budget: the sum is said", "stages.dht.slice=1100ms", 20000,
			[]string{"1.3s", "budget.resolve = 1.2s", "lower a stages.*.slice or raise budget.resolve"}},
		{"a write slice the client does not wait for", "stages.write.slice=3s", 20000, []string{"limits.write_timeout = 2s"}},
		{"memory: the sum is said", "cache.bytes=1GiB", 20000,
			[]string{"memory wanted is 1944 MiB", "5600 connections", "1536MiB allowed", "lower cache.bytes"}},
		{"memory of connections", "limits.max_conns=5000 limits.head_bytes=1MiB", 20000, []string{"5000 connections", "memory wanted"}},
		{"memory that would wrap", "limits.buffered_bytes=8000000TiB cache.bytes=8000000TiB", 20000, []string{"memory wanted"}},
		{"descriptors: all figures are said", "limits.max_conns=6000", 20000,
			[]string{"6128", "6000 that are 30 % of the limit of 20000", "limits.max_conns", "ulimit"}},
		{"a limit nothing fits in", "", 100, []string{"descriptors wanted are 144", "all of the limit of 100"}},
		{"connections without a limit", "limits.max_conns=0", 20000, []string{"limits.max_conns = 0", "cannot be off"}},
		{"the world, by mistake", "listen=0.0.0.0:80", 20000, []string{`listen = "0.0.0.0:80"`, "insecure_bind"}},
		{"every interface has an empty name", "listen=:80", 20000, []string{"insecure_bind"}},
		{"a name may be anywhere", "listen=example.org:80", 20000, []string{"insecure_bind"}},
		{"no port", "listen=127.0.0.1", 20000, []string{"expected host:port"}},
		{"admin is for this machine, whatever insecure_bind says", "admin=0.0.0.0:9108 insecure_bind=true", 20000, []string{"admin", "token"}},
		{"one port cannot be both", "admin=127.0.0.1:8080", 20000, []string{"two addresses"}},
		{"no directory", "data_dir=", 20000, []string{`data_dir = ""`}},
		{"a file in place of the directory", "data_dir=" + plain, 20000, []string{"found a file"}},
		{"a file in place of the database", "db.path=" + plain, 20000, []string{"db.path"}},
		{"a file in place of the socket is not removed", "uds.path=" + plain, 20000, []string{"not a socket"}},
		{"a directory even less", "uds.path=" + filepath.Dir(plain), 20000, []string{"not a socket"}},
		{"an abstract socket", "uds.path=@x", 20000, []string{"abstract"}},
		{"a path no socket can have", "uds.path=/" + strings.Repeat("x", 107), 20000, []string{"107 bytes"}},
		{"no time to send", "limits.request_timeout=0s", 20000, []string{"limits.request_timeout = 0s"}},
		{"no time to drain", "limits.drain=0s", 20000, []string{"limits.drain = 0s"}},
		{"no head", "limits.head_bytes=0", 20000, []string{"1KiB..1MiB"}},
		{"no target", "limits.target_bytes=1023", 20000, []string{"limits.target_bytes = 1023", "1KiB..1MiB"}},
		{"more than a life ahead", "cache.refresh_ahead=1.5", 20000, []string{"cache.refresh_ahead = 1.5: expected 0..1"}},
		{"more to warm than there is time for", "cache.warmup_keys=1000001", 20000, []string{"at most 1000000"}},
		{"a body that fits nowhere", "limits.buffered_bytes=64KiB", 20000, []string{"limits.body = 1MiB is over"}},
		{"no queue", "stages.db.depth=0", 20000, []string{"stages.db.depth = 0: expected at least 1"}},
		{"no workers", "stages.write.workers_min=0", 20000, []string{"stages.write.workers_min = 0"}},
		{"no batch", "stages.cache.batch=0", 20000, []string{"stages.cache.batch = 0"}},
		{"fewest over most", "stages.db.workers_min=9", 20000, []string{"stages.db.workers_min = 9 is over stages.db.workers_max = 8"}},
		{"no slice", "stages.db.slice=0s stages.db.max_wait=0s", 20000, []string{"stages.db.slice = 0s"}},
		{"a wait longer than the stay", "stages.db.max_wait=181ms", 20000, []string{"stages.db.max_wait = 181ms is over"}},
		{"a breaker that forgets nothing", "stages.db.breaker.window=0s", 20000, []string{"stages.db.breaker.window"}},
		{"a breaker that never rests", "stages.db.breaker.cooldown=0s", 20000, []string{"stages.db.breaker.cooldown"}},
		{"a breaker that trips on nothing", "stages.db.breaker.trip_ratio=0", 20000, []string{"trip_ratio = 0"}},
		{"a breaker that never trips", "stages.db.breaker.trip_ratio=1.5", 20000, []string{"trip_ratio = 1.5"}},
		{"a breaker that trips on the first", "stages.db.breaker.min_requests=0", 20000, []string{"min_requests"}},
		{"a breaker without probes", "stages.db.breaker.probes=0", 20000, []string{"probes = 0"}},
		{"less cache than the library takes anyway", "cache.bytes=1KiB", 20000, []string{"512KiB"}},
		{"amnesia and files of the audit", "amnesia.enabled=true watch.dumps=false", 20000, []string{"audit.enabled = true and amnesia.enabled = true", "set audit.enabled = false"}},
		{"amnesia and dumps of stalls", "amnesia.enabled=true audit.enabled=false", 20000, []string{"watch.dumps = true and amnesia.enabled = true"}},
		{"amnesia and a list of what was asked", "amnesia.enabled=true audit.enabled=false watch.dumps=false cache.warmup_keys=5", 20000, []string{"cache.warmup_keys = 5 and amnesia.enabled = true"}},
		{"amnesia without room", "amnesia.enabled=true audit.enabled=false watch.dumps=false amnesia.bytes=1MiB", 20000, []string{"amnesia.bytes = 1MiB", "16MiB"}},
		{"records in memory are in the sum", "amnesia.enabled=true audit.enabled=false watch.dumps=false amnesia.bytes=1GiB", 20000, []string{"memory wanted", "amnesia.bytes 1GiB"}},
		{"answers never fresh", "cache.ttl=0s", 20000, []string{"cache.ttl"}},
		{"more than all the weight", "rank.region_bias=2", 20000, []string{"0..1"}},
		{"no half-life", "rank.freshness_half_life=0s", 20000, []string{"rank.freshness_half_life"}},
		{"a level nobody logs at", "log.level=loud", 20000, []string{"debug, info, warn, error"}},
		{"a format nobody writes", "log.format=xml", 20000, []string{"text, json"}},
	} {
		c, err := Load(Input{Set: strings.Fields(tt.set)})
		if err != nil {
			t.Errorf("%s: Load: %v", tt.why, err)
			continue
		}
		err = c.check(tt.nofile)
		if err == nil {
			t.Errorf("%s: accepted", tt.why)
			continue
		}
		for _, w := range tt.want {
			if !strings.Contains(err.Error(), w) {
				t.Errorf("%s: %q lacks %q", tt.why, err, w)
			}
		}
	}
}

func TestCheckTellsEverythingAtOnce(t *testing.T) {
	c, err := Load(Input{Set: []string{"log.level=loud", "stages.db.depth=0"}})
	if err != nil {
		t.Fatal(err)
	}
	if got := c.check(20000); got == nil || strings.Count(got.Error(), "\n") != 1 {
		t.Errorf("want two lines, got: %v", got)
	}
}

func TestCheckAllows(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	for why, set := range map[string]string{
		"the world, on purpose":          "listen=0.0.0.0:80 insecure_bind=true",
		"IPv6 loopback":                  "listen=[::1]:8080 admin=localhost:9108",
		"any free ports":                 "listen=127.0.0.1:0 admin=127.0.0.1:0",
		"a socket left behind":           "uds.path=" + socket,
		"limits switched off":            "limits.inflight=0 limits.joined=0 limits.body=0 limits.decompress_ratio=0 limits.buffered_bytes=0 limits.conns_per_ip=0",
		"exactly the share":              "limits.max_conns=5872",
		"slices that fill the budget":    "stages.dht.slice=1s",
		"a stage that refuses on depth":  "stages.db.max_wait=0s",
		"no memory of absence":           "cache.neg_ttl=0s cache.stale_for=0s",
		"a data directory yet to create": "data_dir=/nowhere/yet",
	} {
		c, err := Load(Input{Set: strings.Fields(set)})
		if err != nil {
			t.Fatal(err)
		}
		if err := c.check(20000); err != nil {
			t.Errorf("%s: %v", why, err)
		}
	}
}

func TestConns(t *testing.T) {
	for _, tt := range []struct {
		why    string
		is     Conns
		nofile int
		want   int
	}{
		{"28 % of the limit", Auto, 20000, 5600},
		{"less where the fixed part weighs more", Auto, 1024, 179},
		{"a few, however small the limit", Auto, 256, 16},
		{"not everything of a huge limit", Auto, 1 << 30, 8192},
		{"a number is a number", 7, 1 << 30, 7},
	} {
		if got := (Limits{MaxConns: tt.is}).conns(tt.nofile); got != tt.want {
			t.Errorf("%s: conns(%d) = %d, want %d", tt.why, tt.nofile, got, tt.want)
		}
	}
}
