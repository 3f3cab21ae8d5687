package faults

import (
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// TestFaultTenants runs a macronode whose cache is far smaller than what its
// tenants ask for, so that most of it has been evicted when it is asked for
// again: it comes back from the disk. One tenant is greedy; the others, each
// from an address of its own and within its rate, are refused nothing.
func TestFaultTenants(t *testing.T) {
	names, tenants := size(1500, 10_000), 3
	s := start(t, options{
		args: []string{"--profile", "macronode", "--set", "dht.enabled=false"},
		set:  []string{"cache.bytes=512KiB", "quota.resolves_per_min=60000"},
	})
	all := s.publish("tenant/", names)
	var mu sync.Mutex
	var fromDisk []time.Duration
	var fromMemory, refused atomic.Int64
	quit := make(chan struct{})
	var greedy, fair sync.WaitGroup
	greedy.Go(func() {
		l := s.dial(dialing{from: 99})
		defer l.Close()
		for i := 0; ; i++ {
			select {
			case <-quit:
				return
			default:
			}
			a, err := l.ask(resolve(all[i%16]))
			switch {
			case err != nil:
				t.Errorf("the greedy one: %v", err)
				return
			case a.status == 429 && (a.field("reason") != "limits.rps_per_ip" || a.retryAfter() < 1):
				t.Errorf("the greedy one is told %v", a)
				return
			case a.status == 429:
				refused.Add(1)
			}
		}
	})
	for tenant := range tenants {
		fair.Go(func() {
			l := s.dial(dialing{from: byte(11 + tenant)})
			defer l.Close()
			pace := time.NewTicker(2500 * time.Microsecond) // 400 a second, of 500
			defer pace.Stop()
			for pass := range 2 {
				for i := tenant; i < len(all); i += tenants {
					<-pace.C
					began := time.Now()
					a, err := l.ask(resolve(all[i]))
					took := time.Since(began)
					if err != nil || a.status != 200 {
						t.Errorf("tenant %d, within his rate: %v %v", tenant, a, err)
						return
					}
					if a.head["x-index-source"] == "cache" {
						fromMemory.Add(1)
					} else if pass == 1 {
						mu.Lock()
						fromDisk = append(fromDisk, took)
						mu.Unlock()
					}
				}
			}
		})
	}
	fair.Wait()
	close(quit)
	greedy.Wait()
	slices.Sort(fromDisk)
	if len(fromDisk) < names/4 {
		t.Fatalf("%d of %d were evicted: the cache was not small enough to tell", len(fromDisk), names)
	}
	t.Logf("%d refilled after eviction: p50 %v, p95 %v, p99 %v; %d from memory; the greedy one was refused %d times",
		len(fromDisk), fromDisk[len(fromDisk)/2], fromDisk[len(fromDisk)*95/100], fromDisk[len(fromDisk)*99/100], fromMemory.Load(), refused.Load())
	if refused.Load() == 0 {
		t.Error("the greedy one was never refused")
	}
	s.stop()
}
