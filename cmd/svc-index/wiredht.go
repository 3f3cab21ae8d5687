package main

import (
	"crypto/ed25519"
	"sync/atomic"
	"time"

	"svcindex/auth"
	"svcindex/config"
	"svcindex/index"
	"svcindex/stages"
	"svcindex/stages/kaddht"
	"svcindex/telemetry"
)

// A dhtPart is what a house has of the network.
type dhtPart struct {
	node   *kaddht.Node // nil: the DHT is switched off
	herald atomic.Pointer[kaddht.Announcer]
	counts index.DHTCounts
	line   atomic.Pointer[stages.Pipeline] // nil until there is one: the node looks round before that
}

// joinDHT makes this server a node of the network, unless it is switched off.
func (h *house) joinDHT(key ed25519.PrivateKey, integrity *index.IntegrityCounts, now func() time.Time) (err error) {
	d := &h.cfg.DHT
	if !d.Enabled {
		h.ready.Set(telemetry.DHTClientReady, nil) // switched off counts as held
		return nil
	}
	h.dht.node, err = kaddht.Open(kaddht.Options{
		Key: key, Server: d.Mode == "server", Listen: d.Listen, Bootstrap: d.Bootstrap, Prefix: d.Prefix, AllowPrivate: d.AllowPrivate,
		Alpha: d.Alpha, Beta: d.Beta, Hedge: time.Duration(d.Hedge), Jitter: d.HedgeJitter, HedgeBudget: d.HedgeBudget,
		Path: h.dhtPath(), Trusted: h.trust.TrustedKeys, Verify: auth.VerifyName, Calm: h.dhtCalm,
		Counts: &h.dht.counts, Integrity: integrity, Log: h.log, Now: now,
	})
	if err != nil {
		return err
	}
	h.ready.Watch(telemetry.DHTClientReady, func() error {
		if err := h.dht.node.Ready(); err != nil {
			return telemetry.Degraded(err)
		}
		return nil
	})
	h.log.Info("dht: a node of the network", "id", h.dht.node.ID(), "mode", d.Mode, "addrs", h.dht.node.Addrs(), "bootstrap", len(d.Bootstrap))
	return nil
}

// tuneDHT changes how eagerly the network is asked.
func (h *house) tuneDHT(d *config.DHT) {
	if h.dht.node != nil {
		h.dht.node.Tune(kaddht.Hedging{
			Alpha: d.Alpha, Beta: d.Beta, After: time.Duration(d.Hedge), Jitter: d.HedgeJitter, Budget: d.HedgeBudget,
		})
	}
}

// dhtPath is where the records of others are kept: nowhere, if nothing may be.
func (h *house) dhtPath() string {
	if h.cfg.Amnesia.Enabled {
		return ""
	}
	return h.cfg.DHTPath()
}

// announce begins to tell the network what the store holds.
func (h *house) announce(key ed25519.PrivateKey) error {
	if h.dht.node == nil {
		return nil
	}
	served := h.cfg
	served.Listen = h.addr.String() // the port is known only now
	addrs := served.Announced()
	if len(addrs) == 0 {
		h.log.Warn("dht: this node's content is not announced: listen names no address that others could come to; set dht.announce_addrs")
	}
	a, err := kaddht.NewAnnouncer(kaddht.AnnouncerOptions{Node: h.dht.node, Store: h.store, Key: key, Addrs: addrs, Log: h.log})
	if err == nil {
		h.dht.herald.Store(a)
	}
	return err
}

// announces reports whether the network carries a manifest of so many bytes.
func (h *house) announces(size int) bool { return h.dht.node != nil && size <= kaddht.ManifestMax }

// dhtCalm reports whether the dht stage has room for extra requests: neither
// half its queue is taken, nor does its breaker try whether the network is
// back.
func (h *house) dhtCalm() bool {
	line := h.dht.line.Load()
	if line == nil {
		return true
	}
	for _, r := range line.Stats() {
		if r.Name == "dht" {
			return r.Breaker == 0 && r.Depth <= r.Capacity/2
		}
	}
	return true
}

// network is what /debug/dht shows; nil when there is none.
func (h *house) network() func() any {
	if h.dht.node == nil {
		return nil
	}
	return func() any { return h.dht.node.State() }
}

// leaveDHT stops announcing and leaves the network.
func (h *house) leaveDHT() error {
	if a := h.dht.herald.Load(); a != nil {
		a.Close()
	}
	if h.dht.node == nil {
		return nil
	}
	return h.dht.node.Close()
}
