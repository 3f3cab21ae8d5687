package faults

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// onCPU calls start, which starts a process, so that the process may use one
// only of the processors that we may, counted from 1; 0: any.
func onCPU(cpu int, start func() error) error {
	if cpu == 0 {
		return start()
	}
	runtime.LockOSThread() // what a thread may use, its children may
	defer runtime.UnlockOSThread()
	var was, one unix.CPUSet
	if err := unix.SchedGetaffinity(0, &was); err != nil {
		return err
	}
	for i, n := 0, 0; n < cpu && i < 8*len(was)*8; i++ {
		if was.IsSet(i) {
			if n++; n == cpu {
				one.Set(i)
			}
		}
	}
	if err := unix.SchedSetaffinity(0, &one); err != nil {
		return fmt.Errorf("processor %d: %w", cpu, err)
	}
	defer func() { _ = unix.SchedSetaffinity(0, &was) }()
	return start()
}

// strangers returns the processor time, in seconds, that processes other than
// the given ones have used up to now. Of processes that have ended it knows if
// they were waited for.
func strangers(ours map[int]bool) (seconds float64) {
	all, _ := filepath.Glob("/proc/[0-9]*/stat")
	for _, path := range all {
		pid, _ := strconv.Atoi(filepath.Base(filepath.Dir(path)))
		b, err := os.ReadFile(path)
		if err != nil || ours[pid] {
			continue
		}
		// pid (name) state ppid ...: the name may hold anything, the rest not.
		fields := strings.Fields(string(b[strings.LastIndexByte(string(b), ')')+1:]))
		for _, f := range fields[11:15] { // utime stime cutime cstime
			ticks, _ := strconv.ParseFloat(f, 64)
			seconds += ticks / 100
		}
	}
	return seconds
}
