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
	{"system calls, others", []string{"syscall.Syscall", "syscall.RawSyscall", "syscall.syscall", "runtime/syscall"}},
	{"the head parsed", []string{"netio.parseHead", "netio.readTarget", "netio.(*head)", "netio.head", "netio.target", "netio.nextLine", "netio.field", "netio.decode", "index.ParseKey", "index.parse", "netio.accept", "netio.(*conn).accept", "netio.(*request)", "netio.(*conn).describe", "netio.(*conn).readHead", "netio.valueEnd", "netio.targetEnd", "netio.validHost", "index.checkName"}},
	{"allocating and collecting", []string{"runtime.mallocgc", "runtime.gcBgMarkWorker", "runtime.gcAssist", "runtime.bgsweep", "runtime.growslice", "runtime.newobject", "runtime.scanobject", "runtime.gcDrain", "runtime.memclrNoHeap"}},
	{"the cache", []string{"coocood/freecache", "stages/ram", "cespare/xxhash"}},
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
		taken := make(chan []byte, 1)
		go func() {
			_, body := srv.get(fmt.Sprintf("/debug/pprof/profile?seconds=%d", seconds))
			taken <- body
		}()
		sample, err := watch(ctx, srv, how.ask)
		raw := <-taken
		b.stop(srv)
		if err != nil {
			return err
		}
		p, err := profile.Parse(bytes.NewReader(raw))
		if err != nil {
			return fmt.Errorf("the profile of %s: %w", how.name, err)
		}
		total, by, leaves := shares(p)
		s.Tables = append(s.Tables, shareTable(how.name, sample, total, by), leafTable(how.name, total, leaves))
		if err := os.MkdirAll(s.out.captures, 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(s.out.captures, how.file), raw, 0o644); err != nil {
			return err
		}
	}
	return nil
}

func shareTable(name string, s Sample, total int64, by map[string]int64) Table {
	t := Table{Title: "Whose the time is: " + name, Head: []string{"layer", "share", "us a request"}}
	for _, l := range layers {
		if v := by[l.name]; v > 0 {
			share := float64(v) / float64(total)
			t.Rows = append(t.Rows, []string{l.name, fmt.Sprintf("%.1f %%", 100*share), fmt.Sprintf("%.2f", share*s.CPU)})
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
