//go:build rig

// Package fakenet is a network that answers from a seed and a latency curve.
// It exists for tests and rigs: it is not in a release binary.
package fakenet

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"encoding/binary"
	"math"
	"time"

	"svcindex/index"
)

// A Net knows a share of all keys, always the same ones for one seed, and takes
// its time to say so.
type Net struct {
	Seed   uint64
	Known  float64       // share of keys it has, 0..1
	Median time.Duration // of the time an answer takes
	P99    time.Duration // and its 99th percentile; the curve between is log-normal
}

var _ index.Discoverer = Net{}

// Discover implements index.Discoverer.
func (n Net) Discover(ctx context.Context, j *index.Job) error {
	u, v := n.draw(&j.Key)
	select {
	case <-time.After(n.latency(u)):
	case <-ctx.Done():
		return index.Late
	}
	if v >= n.Known || !n.fill(j) {
		return index.Missing
	}
	return nil
}

// Key is what the network signs its names with.
func (n Net) Key() ed25519.PrivateKey {
	seed := index.Sum(binary.LittleEndian.AppendUint64(nil, n.Seed))
	return ed25519.NewKeyFromSeed(seed[:])
}

// draw returns two numbers in 0..1 that depend on the key and the seed alone.
func (n Net) draw(k *index.Key) (u, v float64) {
	s := index.Sum(binary.LittleEndian.AppendUint64(bytes.Clone(k.Bytes()), n.Seed))
	unit := func(b []byte) float64 { return float64(binary.LittleEndian.Uint64(b)>>11) / (1 << 53) }
	return unit(s[:8]), unit(s[8:16])
}

// latency is the u-quantile of a log-normal curve through the median and the
// 99th percentile.
func (n Net) latency(u float64) time.Duration {
	if n.Median <= 0 || n.P99 <= n.Median {
		return n.Median
	}
	const z99 = 2.3263478740408408 // standard normal quantile of .99
	sigma := math.Log(float64(n.P99)/float64(n.Median)) / z99
	u = min(max(u, 1e-6), 1-1e-6)
	return time.Duration(float64(n.Median) * math.Exp(sigma*math.Sqrt2*math.Erfinv(2*u-1)))
}

// fill makes up an answer. Nobody can make up the content of a content id: of
// those it knows providers alone.
func (n Net) fill(j *index.Job) bool {
	a := &j.Answer
	a.From = index.FromDHT
	switch {
	case j.Ask == index.AskProviders:
		now := time.Now().Unix()
		a.Providers = []index.Provider{{
			ID: "fakenet", Addr: "http://192.0.2.1:8080", LastSeen: now, Expires: now + index.TTLDefault,
		}}
	case j.Key.IsName():
		key := n.Key()
		a.Name = index.NameRecord{CID: index.Sum(j.Key.Bytes()), Seq: 1, PubKey: key.Public().(ed25519.PublicKey)}
		a.Name.Sig = ed25519.Sign(key, index.AppendSigned(nil, &j.Key, &a.Name))
	default:
		return false
	}
	return true
}
