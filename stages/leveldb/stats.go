package leveldb

import (
	"os"
	"strings"
	"time"

	goleveldb "github.com/syndtr/goleveldb/leveldb"
)

// Stats are what `db stat` prints.
type Stats struct {
	Names       uint64 // not deleted
	Tombstones  uint64
	Manifests   uint64
	Sets        uint64 // content ids with a provider row
	Providers   uint64 // rows; expired ones until they are swept
	Pins        uint64
	Quarantined uint64

	Batch    uint64 // number of the last batch
	Bytes    int64  // on disk
	Free     int64  // on the disk
	ReadOnly bool

	Commits  uint64 // calls made durable since start
	Batches  uint64 // writes they shared
	Refused  uint64 // mutations
	Failures uint64 // writes that failed
	Heals    uint64
	Purged   uint64 // rows dropped by the sweep
	Scrubbed uint64 // rows the keeper looked at

	Syncs        uint64
	SyncTime     time.Duration
	FileFailures uint64
	Stalls       uint64 // writes that waited for a compaction
	StallTime    time.Duration
	Stalled      bool // one waits now
	Tables       int
	OpenTables   int
	Iterators    int // alive; 0 between calls
	Snapshots    int
}

// Stats counts. The first part is exact: each batch carries it. It asks no
// disk, so that a scrape does not hang with one that is frozen; Bytes and Free
// are a second old.
func (d *DB) Stats() Stats {
	t := d.tally.Load()
	s := Stats{
		Names: t.Names, Tombstones: t.Tombstones, Manifests: t.Manifests, Sets: t.Sets,
		Providers: t.Providers, Pins: t.Pins, Quarantined: t.Quarantined, Batch: t.Batch,
		ReadOnly: d.ReadOnly(),
		Commits:  d.counts.commits.Load(), Batches: d.counts.batches.Load(), Refused: d.counts.refused.Load(),
		Failures: d.counts.failures.Load(), Heals: d.counts.heals.Load(),
		Purged: d.counts.purged.Load(), Scrubbed: d.counts.scrubbed.Load(),
		Syncs: d.fileStats.syncs.Load(), SyncTime: time.Duration(d.fileStats.syncNanos.Load()),
		FileFailures: d.fileStats.failures.Load(),
	}
	s.Bytes, s.Free = d.bytes.Load(), d.free.Load()
	d.engineStats(&s)
	return s
}

func (d *DB) engineStats(s *Stats) {
	e := d.use()
	if e == nil {
		return
	}
	defer e.mu.RUnlock()
	var l goleveldb.DBStats
	if e.db.Stats(&l) != nil {
		return
	}
	s.Stalls, s.StallTime, s.Stalled = uint64(l.WriteDelayCount), l.WriteDelayDuration, l.WritePaused
	for _, n := range l.LevelTablesCounts {
		s.Tables += n
	}
	s.OpenTables = l.OpenedTablesCount
	s.Iterators, s.Snapshots = int(l.AliveIterators), int(l.AliveSnapshots)
}

// measure takes the figures of the disk.
func (d *DB) measure() {
	if d.memory != nil {
		d.bytes.Store(d.memory.bytes())
	} else if n, err := dirBytes(d.opt.Path, ""); err == nil {
		d.bytes.Store(n)
	}
	if n, err := d.space.left(); err == nil {
		d.free.Store(n)
	}
}

// journalBytes is what a reopening has to write again.
func (d *DB) journalBytes() int64 {
	if d.memory != nil {
		return 0 // it is memory already
	}
	n, _ := dirBytes(d.opt.Path, ".log")
	return n
}

// dirBytes adds up the files whose name ends in suffix.
func dirBytes(dir, suffix string) (sum int64, err error) {
	entries, err := os.ReadDir(dir)
	for _, e := range entries {
		if !strings.HasSuffix(e.Name(), suffix) {
			continue
		}
		if fi, err := e.Info(); err == nil { // else it was just deleted
			sum += fi.Size()
		}
	}
	return sum, err
}
