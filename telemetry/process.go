package telemetry

import (
	"bytes"
	"os"
	"runtime"
	"runtime/metrics"
	"strconv"
	"syscall"
	"time"
)

// runtimeSeries are read from runtime/metrics, which does not stop the world;
// runtime.ReadMemStats does. The values of several sources are added.
var runtimeSeries = []struct {
	name, kind, help string
	from             []string
}{
	{"go_goroutines", "gauge", "Goroutines.", []string{"/sched/goroutines:goroutines"}},
	{"go_threads", "gauge", "Threads of the runtime.", []string{"/sched/threads/total:threads"}},
	{"go_sched_gomaxprocs_threads", "gauge", "Threads that may run Go code at once.", []string{"/sched/gomaxprocs:threads"}},
	{"go_gc_cycles_total", "counter", "Garbage collections.", []string{"/gc/cycles/total:gc-cycles"}},
	{"go_gc_gogc_percent", "gauge", "GOGC.", []string{"/gc/gogc:percent"}},
	{"go_gc_gomemlimit_bytes", "gauge", "GOMEMLIMIT.", []string{"/gc/gomemlimit:bytes"}},
	{"go_memstats_alloc_bytes", "gauge", "Bytes in objects, live or not yet swept.", []string{"/memory/classes/heap/objects:bytes"}},
	{"go_memstats_alloc_bytes_total", "counter", "Bytes allocated.", []string{"/gc/heap/allocs:bytes"}},
	{"go_memstats_mallocs_total", "counter", "Objects allocated.", []string{"/gc/heap/allocs:objects"}},
	{"go_memstats_frees_total", "counter", "Objects freed.", []string{"/gc/heap/frees:objects"}},
	{"go_memstats_heap_objects", "gauge", "Objects, live or not yet swept.", []string{"/gc/heap/objects:objects"}},
	{"go_memstats_heap_inuse_bytes", "gauge", "Bytes in spans in use.", []string{"/memory/classes/heap/objects:bytes", "/memory/classes/heap/unused:bytes"}},
	{"go_memstats_heap_idle_bytes", "gauge", "Bytes in spans not in use.", []string{"/memory/classes/heap/free:bytes", "/memory/classes/heap/released:bytes"}},
	{"go_memstats_heap_released_bytes", "gauge", "Bytes given back to the system.", []string{"/memory/classes/heap/released:bytes"}},
	{"go_memstats_stack_inuse_bytes", "gauge", "Bytes in goroutine stacks.", []string{"/memory/classes/heap/stacks:bytes"}},
	{"go_memstats_next_gc_bytes", "gauge", "Heap size at which the next collection ends.", []string{"/gc/heap/goal:bytes"}},
	{"go_memstats_sys_bytes", "gauge", "Bytes obtained from the system.", []string{"/memory/classes/total:bytes"}},
}

func enterRuntime(b *book, v *view) {
	b.gauges("go_info", "The Go that built this.", "version").gauge(func() float64 { return 1 }, runtime.Version())
	for _, row := range runtimeSeries {
		read := func() float64 { return v.runtime.sum(row.from) }
		if row.kind == "counter" {
			b.counters(row.name, row.help).counter(func() uint64 { return uint64(read()) })
			continue
		}
		b.gauges(row.name, row.help).gauge(read)
	}
}

// A runtimeView is one reading of runtime/metrics.
type runtimeView struct {
	samples []metrics.Sample
	at      map[string]int
}

func newRuntimeView() runtimeView {
	v := runtimeView{at: map[string]int{}}
	for _, row := range runtimeSeries {
		for _, name := range row.from {
			if _, have := v.at[name]; !have {
				v.at[name] = len(v.samples)
				v.samples = append(v.samples, metrics.Sample{Name: name})
			}
		}
	}
	return v
}

func (v *runtimeView) look() { metrics.Read(v.samples) }

func (v *runtimeView) sum(names []string) (sum float64) {
	for _, name := range names {
		if s := v.samples[v.at[name]].Value; s.Kind() == metrics.KindUint64 {
			sum += float64(s.Uint64())
		}
	}
	return sum
}

func enterProcess(b *book, v *view) {
	p := &v.process
	b.counterFloat("process_cpu_seconds_total", "Processor time used.", func() float64 { return p.cpu })
	b.gauges("process_open_fds", "Open file descriptors.").gauge(func() float64 { return p.openFDs })
	b.gauges("process_max_fds", "Most file descriptors it may open.").gauge(func() float64 { return p.maxFDs })
	b.gauges("process_resident_memory_bytes", "Memory in RAM.").gauge(func() float64 { return p.resident })
	b.gauges("process_virtual_memory_bytes", "Address space.").gauge(func() float64 { return p.virtual })
	b.gauges("process_start_time_seconds", "When it started, in seconds since 1970.").gauge(func() float64 { return p.started })
}

// counterFloat is for the one counter that does not count whole things.
func (b *book) counterFloat(name, help string, read func() float64) {
	b.counters(name, help).gauge(read)
}

// A processView is what the system says of the process. What cannot be read is
// 0.
type processView struct {
	started           float64
	cpu               float64
	openFDs, maxFDs   float64
	resident, virtual float64
}

// newProcessView takes the time of the call for the start when the system does
// not tell.
func newProcessView(now time.Time) processView {
	started := float64(now.UnixNano()) / 1e9
	if s, ok := startTime(); ok {
		started = s
	}
	return processView{started: started}
}

func (v *processView) look() {
	var use syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &use) == nil {
		v.cpu = float64(use.Utime.Nano()+use.Stime.Nano()) / 1e9
	}
	var limit syscall.Rlimit
	if syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit) == nil {
		v.maxFDs = float64(limit.Cur)
	}
	v.openFDs = openFDs()
	if fields := procFields("/proc/self/statm", 0); len(fields) > 1 {
		v.virtual = number(fields[0]) * float64(os.Getpagesize())
		v.resident = number(fields[1]) * float64(os.Getpagesize())
	}
}

func openFDs() float64 {
	dir, err := os.Open("/proc/self/fd")
	if err != nil {
		return 0
	}
	defer dir.Close()
	names, err := dir.Readdirnames(-1)
	if err != nil {
		return 0
	}
	return float64(len(names) - 1) // less the directory itself
}

// startTime returns when the process started, in seconds since 1970.
func startTime() (float64, bool) {
	const (
		ticks      = 100 // USER_HZ: the kernel shows this to everybody, whatever its own clock
		afterName  = ')' // the name before it may hold anything, spaces included
		startField = 19  // field 22 of proc(5), counted from the one after the name
	)
	fields := procFields("/proc/self/stat", afterName)
	boot, ok := bootTime()
	if len(fields) <= startField || !ok {
		return 0, false
	}
	return boot + number(fields[startField])/ticks, true
}

func bootTime() (float64, bool) {
	text, err := os.ReadFile("/proc/stat")
	_, rest, found := bytes.Cut(text, []byte("\nbtime "))
	line, _, _ := bytes.Cut(rest, []byte("\n"))
	return number(line), err == nil && found
}

// procFields returns the fields of a file after the last byte past; all of
// them when past is 0.
func procFields(path string, past byte) [][]byte {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil
	}
	if past != 0 {
		text = text[bytes.LastIndexByte(text, past)+1:]
	}
	return bytes.Fields(text)
}

func number(text []byte) float64 {
	f, _ := strconv.ParseFloat(string(text), 64)
	return f
}
