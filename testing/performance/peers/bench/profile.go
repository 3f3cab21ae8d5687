package main

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/google/pprof/profile"
)

// A layer is a part of the program, known by the names of its functions.
type layer struct {
	name  string
	words []string
}

// layers are asked from the innermost function of a stack outwards: the first
// function that one of them knows says whose the time is. What a system call
// was for is in its caller's name.
var layers = []layer{
	{"system call: write", []string{"unix.Write", "syscall.Write", "syscall.write", "unix.Writev", "io.Writev"}},
	{"system call: read", []string{"unix.Read", "syscall.Read", "syscall.read"}},
	{"system call: epoll_wait", []string{"netpoll.epollWait", "unix.EpollWait", "netpoll.EpollWait"}},
	{"system call: fsync", []string{"syscall.Fsync", "syscall.fsync", "unix.Fsync", "unix.Fdatasync", "poll.(*FD).Fsync"}},
	{"system calls, others", []string{"syscall.Syscall", "syscall.RawSyscall", "syscall.syscall", "runtime/syscall"}},
	{"the head parsed", []string{"netio.parseHead", "netio.readTarget", "netio.(*head)", "netio.head", "netio.target", "netio.nextLine", "netio.field", "netio.decode", "index.ParseKey", "index.parse", "netio.accept", "netio.(*conn).accept", "netio.(*request)", "netio.(*conn).describe", "netio.(*conn).readHead", "netio.valueEnd", "netio.targetEnd", "netio.validHost", "index.checkName"}},
	{"allocating and collecting", []string{"runtime.mallocgc", "runtime.gcBgMarkWorker", "runtime.gcAssist", "runtime.bgsweep", "runtime.growslice", "runtime.newobject", "runtime.scanobject", "runtime.gcDrain", "runtime.memclrNoHeap"}},
	{"the cache", []string{"coocood/freecache", "stages/ram", "cespare/xxhash"}},
	{"capabilities", []string{"svcindex/auth", "macaroon", "crypto/"}},
	{"JSON", []string{"encoding/json", "fxamacker/cbor"}},
	{"digests", []string{"zeebo/blake3"}},
	{"rendering", []string{"netio.(*slot)", "netio.patch", "netio.(*flight)", "netio.(*corrIDs)", "netio.harmless", "oklog/ulid", "netio.append"}},
	{"staging: lane, worker, tick", []string{"svcindex/stages.", "svcindex/queue.", "netio.(*loop)", "panjf2000/ants", "index.(*Job)"}},
	{"counting", []string{"index.(*Histogram)", "index.(*NetCounts)", "index.(*LookupCounts)", "index.OutcomeOf"}},
	{"netio, others", []string{"svcindex/netio."}},
	{"the database", []string{"syndtr/goleveldb", "golang/snappy", "stages/leveldb"}},
	{"gnet", []string{"panjf2000/gnet"}},
	{"the rest of ours", []string{"svcindex/"}},
	{"Go's runtime", []string{"runtime.", "runtime/", "sync.", "sync/", "time.", "context.", "internal/"}},
}

// layerOf says whose a stack is; names go from the innermost function out.
func layerOf(names []string) string {
	inKernel := false
	for _, n := range names {
		if strings.Contains(n, "runtime/syscall.Syscall") || strings.Contains(n, "RawSyscall") || strings.Contains(n, "syscall.Syscall") {
			inKernel = true
		}
	}
	for _, n := range names {
		for _, l := range layers[:len(layers)-1] {
			call := strings.HasPrefix(l.name, "system call")
			if call && !inKernel || !slices.ContainsFunc(l.words, func(w string) bool { return strings.Contains(n, w) }) {
				continue
			}
			if l.name == "system calls, others" {
				break // its caller may say what it was for
			}
			return l.name
		}
	}
	if inKernel {
		return "system calls, others"
	}
	return layers[len(layers)-1].name
}

// shares adds up whose the samples of a profile are.
func shares(p *profile.Profile) (total int64, by map[string]int64, leaves map[string]int64) {
	by, leaves = map[string]int64{}, map[string]int64{}
	for _, s := range p.Sample {
		v := s.Value[len(s.Value)-1]
		var names []string
		for _, loc := range s.Location {
			for _, line := range loc.Line {
				names = append(names, line.Function.Name)
			}
		}
		if len(names) == 0 {
			continue
		}
		total += v
		by[layerOf(names)] += v
		leaves[names[0]] += v
	}
	return total, by, leaves
}

// profile takes a CPU profile of the hit load and says whose the time is.
func (b *bench) profile(ctx context.Context, s *Section) error {
	seconds := 8
	if b.quick {
		seconds = 3
	}
	quick := time.Second
	few, span := b.kinds()["ours"], time.Duration(seconds+1)*time.Second
	dir, n, err := b.million(ctx)
	if err != nil {
		return err
	}
	for _, how := range []struct {
		name, file string
		kind       kind
		warm, ask  asking
		set        []string
	}{
		{one64, "hit-64.pb.gz", few, b.wrk(apart, 64, 1, 0, quick), b.wrk(apart, 64, 1, 0, span), nil},
		{piped, "hit-pipelined.pb.gz", few, b.wrk(apart, 64, 16, 0, quick), b.wrk(apart, 64, 16, 0, span), nil},
		{"database hits, one core, 64 connections", "hit-db.pb.gz", b.on(dir), b.uniform(n, quick), b.uniform(n, span), []string{tenth(n)}},
	} {
		srv, err := b.up(ctx, how.kind, apart, how.warm, how.set...)
		if err != nil {
			return err
		}
		taken := profiled(srv, seconds)
		sample, err := watch(ctx, srv, how.ask)
		raw := <-taken
		b.stop(srv)
		if err != nil {
			return err
		}
		if err := s.keep(how.name, how.file, raw, sample.CPU); err != nil {
			return err
		}
	}
	return b.profileWrites(ctx, s, seconds)
}

// profileWrites takes a profile of durable writes by 64 writers.
func (b *bench) profileWrites(ctx context.Context, s *Section, seconds int) error {
	keys := 4_000 * seconds // more than it can take in that time
	var taken chan []byte
	w, err := b.acknowledged(ctx, keys, func(srv *server) { taken = profiled(srv, seconds) })
	if err != nil {
		return err
	}
	return s.keep("durable writes, 64 writers, both cores; a request is a record", "writes.pb.gz", <-taken, w.cpu*1e6/float64(3*keys))
}

// profiled asks a server for a CPU profile of the next seconds.
func profiled(srv *server, seconds int) chan []byte {
	taken := make(chan []byte, 1)
	go func() {
		_, body := srv.get(fmt.Sprintf("/debug/pprof/profile?seconds=%d", seconds))
		taken <- body
	}()
	return taken
}

// keep writes a profile among the captures, and what it says into the report.
func (s *Section) keep(name, file string, raw []byte, us float64) error {
	p, err := profile.Parse(bytes.NewReader(raw))
	if err != nil {
		return fmt.Errorf("the profile of %s: %w", name, err)
	}
	total, by, leaves := shares(p)
	s.Tables = append(s.Tables, shareTable(name, us, total, by), leafTable(name, total, leaves))
	if err := os.MkdirAll(s.out.captures, 0o755); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(s.out.captures, file), raw, 0o644)
}

func shareTable(name string, us float64, total int64, by map[string]int64) Table {
	t := Table{Title: "Whose the time is: " + name, Head: []string{"layer", "share", "us a request"}}
	for _, l := range layers {
		if v := by[l.name]; v > 0 {
			share := float64(v) / float64(total)
			t.Rows = append(t.Rows, []string{l.name, fmt.Sprintf("%.1f %%", 100*share), fmt.Sprintf("%.2f", share*us)})
		}
	}
	return t
}

// leafTable lists the functions that took most, themselves.
func leafTable(name string, total int64, leaves map[string]int64) Table {
	t := Table{Title: "Functions above 1 %, by themselves: " + name, Head: []string{"function", "share"}}
	var names []string
	for n, v := range leaves {
		if float64(v) > .01*float64(total) {
			names = append(names, n)
		}
	}
	slices.SortFunc(names, func(a, b string) int { return cmp.Compare(leaves[b], leaves[a]) })
	for _, n := range names {
		t.Rows = append(t.Rows, []string{"`" + n + "`", fmt.Sprintf("%.1f %%", 100*float64(leaves[n])/float64(total))})
	}
	return t
}
