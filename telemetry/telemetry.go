// Package telemetry tells people and machines how the server is: metrics in
// the Prometheus text format, readiness, and profiles, on a listener of their
// own.
//
// It only reads. The core counts in atomics of its own and does not know who
// looks; a scrape dresses the counters in names and units. Every series is
// there from the start, and nothing from a request ever becomes a label value:
// the set of series is fixed before the first request.
package telemetry

import (
	"context"
	"io"

	"svcindex/index"
)

// Sources are where the figures come from. What is nil shows as zero.
type Sources struct {
	Rooms     func() []index.RoomStats
	Net       *index.NetCounts
	Cache     *index.CacheCounts
	CacheSize func() int64 // entries
	Lookups   *index.LookupCounts
	Integrity *index.IntegrityCounts
	DHT       *index.DHTCounts
	Bus       func() (lagged uint64)
	Reloads   *index.ReloadCounts
	Amnesia   bool
	Guard     index.Guard                            // judges /events and /backup; nil: nobody may
	AuthReads bool                                   // and /debug/explain: it tells what a look-up would
	Events    func() (<-chan index.Event, func())    // /events: what changes from now on, and how to end that
	Backup    func(context.Context, io.Writer) error // /backup
	Audit     func() (made, kept, faults uint64)     // entries, and failures to keep them
	Ready     *Readiness
	Version   any                                                          // /version, as JSON
	Stages    func() any                                                   // "extra" of /debug/stages, as JSON
	Network   func() any                                                   // /debug/dht, as JSON; nil: there is none
	Explain   func(ctx context.Context, key string, ask bool) (any, error) // /debug/explain, as JSON

	Stalls    *index.WatchCounts
	Watch     func() any            // "watch" of /debug/stages, as JSON
	Recording func(io.Writer) error // /debug/flight: a trace of the last seconds
	Config    func(io.Writer) error // /debug/config: what it runs with

	// AnyAddress lets Listen take an address that others can reach. What is
	// served there is for operators only.
	AnyAddress bool
}

// orZero fills what is nil, so that nobody behind it has to ask.
func (s Sources) orZero() Sources {
	if s.Rooms == nil {
		s.Rooms = func() []index.RoomStats { return nil }
	}
	if s.Net == nil {
		s.Net = new(index.NetCounts)
	}
	if s.Cache == nil {
		s.Cache = new(index.CacheCounts)
	}
	if s.CacheSize == nil {
		s.CacheSize = func() int64 { return 0 }
	}
	if s.Reloads == nil {
		s.Reloads = new(index.ReloadCounts)
	}
	if s.Lookups == nil {
		s.Lookups = new(index.LookupCounts)
	}
	if s.Integrity == nil {
		s.Integrity = new(index.IntegrityCounts)
	}
	if s.Audit == nil {
		s.Audit = func() (made, kept, faults uint64) { return 0, 0, 0 }
	}
	if s.DHT == nil {
		s.DHT = new(index.DHTCounts)
	}
	if s.Bus == nil {
		s.Bus = func() uint64 { return 0 }
	}
	if s.Stalls == nil {
		s.Stalls = new(index.WatchCounts)
	}
	if s.Ready == nil {
		s.Ready = NewReadiness(nil)
	}
	return s
}
