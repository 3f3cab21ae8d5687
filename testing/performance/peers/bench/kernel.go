package main

import (
	"bytes"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// cpuOf returns the processor time that a process has used, all its threads
// and what ended of them included, to the nanosecond: the kernel's own clock
// of that process.
func cpuOf(pid int) (time.Duration, error) {
	var ts unix.Timespec
	// clock_getcpuclockid(3): the complement of the pid, and CPUCLOCK_SCHED.
	if err := unix.ClockGettime(int32(^pid)<<3|2, &ts); err != nil {
		return 0, fmt.Errorf("the processor clock of process %d: %w", pid, err)
	}
	return time.Duration(ts.Nano()), nil
}

// cpuOfAll is cpuOf of a process and its children.
func cpuOfAll(pid int) (sum time.Duration, err error) {
	for _, p := range append(children(pid), pid) {
		d, err := cpuOf(p)
		if err != nil {
			return 0, err
		}
		sum += d
	}
	return sum, nil
}

func children(pid int) (pids []int) {
	b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", pid, pid))
	for f := range strings.FieldsSeq(string(b)) {
		if p, err := strconv.Atoi(f); err == nil {
			pids = append(pids, p)
		}
	}
	return pids
}

// A machine is what all processors have done since the start, in seconds.
type machine struct{ busy, steal float64 }

const ticks = 100 // of the kernel's clock a second, in /proc/stat

// parseStat reads the first line of /proc/stat:
//
//	cpu user nice system idle iowait irq softirq steal guest guest_nice
func parseStat(b []byte) (m machine, err error) {
	line, _, _ := bytes.Cut(b, []byte("\n"))
	f := strings.Fields(string(line))
	if len(f) < 9 || f[0] != "cpu" {
		return m, fmt.Errorf("/proc/stat begins with %q, want cpu and eight figures", line)
	}
	for i, text := range f[1:9] {
		v, err := strconv.ParseFloat(text, 64)
		switch {
		case err != nil:
			return m, fmt.Errorf("/proc/stat: %w", err)
		case i == 7:
			m.steal += v / ticks
		case i != 3 && i != 4: // idle, iowait
			m.busy += v / ticks
		}
	}
	return m, nil
}

func readMachine() (machine, error) {
	b, err := os.ReadFile("/proc/stat")
	if err != nil {
		return machine{}, err
	}
	return parseStat(b)
}

// resident returns the bytes of memory a process has.
func resident(pid int) (int64, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, err
	}
	_, after, _ := strings.Cut(string(b), "VmRSS:")
	var kb int64
	if _, err := fmt.Sscan(after, &kb); err != nil {
		return 0, fmt.Errorf("process %d: no VmRSS: %w", pid, err)
	}
	return kb << 10, nil
}

// pinned calls f, which starts a process, so that the process runs on these
// processors only.
func pinned(cores []int, f func() error) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var old, set unix.CPUSet
	if err := unix.SchedGetaffinity(0, &old); err != nil {
		return err
	}
	for _, c := range cores {
		set.Set(c)
	}
	if err := unix.SchedSetaffinity(0, &set); err != nil {
		return fmt.Errorf("pinning to processors %v: %w", cores, err)
	}
	defer func() { _ = unix.SchedSetaffinity(0, &old) }()
	return f()
}
