package loadgen

import (
	"os"
	"strconv"
	"strings"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

const eventsMax = 128 // taken from the kernel at once

// A poller is an epoll instance that can wait for less than a millisecond.
type poller struct {
	fd     int
	events [eventsMax]unix.EpollEvent
	coarse bool // the kernel has no epoll_pwait2: whole milliseconds only
	raw    bool // the runtime has processors to spare: it need not hear of a wait
}

func newPoller(raw bool) (*poller, error) {
	fd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	return &poller{fd: fd, raw: raw}, err
}

// watch has fd's events reported as those of slot, with a mark by which stale
// ones are told. Edge-triggered: one call a connection, whatever happens on it.
func (p *poller) watch(op, fd int, events uint32, slot, mark int32) error {
	return unix.EpollCtl(p.fd, op, fd, &unix.EpollEvent{
		Events: events | unix.EPOLLRDHUP | unix.EPOLLET, Fd: slot, Pad: mark,
	})
}

// peek returns how many events there are, without waiting. It is a raw system
// call, which the Go scheduler does not hear of: it cannot block, and a
// spinning thread makes millions.
func (p *poller) peek() int {
	n, _, errno := unix.RawSyscall6(unix.SYS_EPOLL_PWAIT, uintptr(p.fd), uintptr(unsafe.Pointer(&p.events[0])), eventsMax, 0, 0, 0)
	if errno != 0 {
		return 0
	}
	return int(n)
}

// wait waits for events, at most for d. If it can it is raw, too: the runtime's
// watchman looks for threads that sleep in the kernel every 20 us as long as it
// finds one, and takes its processor from it, to be asked back after 50 us. A
// wait is short, and a signal ends it, which is how the runtime stops everybody.
func (p *poller) wait(d time.Duration) int {
	if p.coarse {
		return p.waitCoarse(d)
	}
	ts := unix.NsecToTimespec(int64(d))
	var n uintptr
	var errno unix.Errno
	if p.raw {
		n, _, errno = unix.RawSyscall6(unix.SYS_EPOLL_PWAIT2, uintptr(p.fd), uintptr(unsafe.Pointer(&p.events[0])), eventsMax,
			uintptr(unsafe.Pointer(&ts)), 0, 0)
	} else {
		n, _, errno = unix.Syscall6(unix.SYS_EPOLL_PWAIT2, uintptr(p.fd), uintptr(unsafe.Pointer(&p.events[0])), eventsMax,
			uintptr(unsafe.Pointer(&ts)), 0, 0)
	}
	switch errno {
	case 0:
		return int(n)
	case unix.ENOSYS, unix.EPERM:
		p.coarse = true
		return p.waitCoarse(d)
	}
	return 0
}

// waitCoarse rounds down: the rest of the wait is spun, since a late request
// would be the generator's fault.
func (p *poller) waitCoarse(d time.Duration) int {
	n, err := unix.EpollWait(p.fd, p.events[:], int(d/time.Millisecond))
	if err != nil {
		return 0
	}
	return n
}

// read and write are raw as well: the sockets do not block.
func rawRead(fd int, b []byte) (int, unix.Errno) {
	n, _, errno := unix.RawSyscall(unix.SYS_READ, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(b))), uintptr(len(b)))
	return int(n), errno
}

func rawWrite(fd int, b []byte) (int, unix.Errno) {
	n, _, errno := unix.RawSyscall(unix.SYS_WRITE, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(b))), uintptr(len(b)))
	return int(n), errno
}

// sharpen asks the kernel to wake this thread when it said, not up to 50 us
// later so as to save power.
func sharpen() { _ = unix.Prctl(unix.PR_SET_TIMERSLACK, 1, 0, 0, 0) }

// threadCPU returns the processor time that this thread has used.
func threadCPU() int64 { return cpuOf(unix.RUSAGE_THREAD) }

// threadQueued returns how long this thread could have run and was not let, for
// others had the processor; 0 if the kernel does not say.
func threadQueued() int64 {
	b, err := os.ReadFile("/proc/thread-self/schedstat") // time run, time waited, times
	if err != nil {
		return 0
	}
	fields := strings.Fields(string(b))
	if len(fields) < 2 {
		return 0
	}
	ns, _ := strconv.ParseInt(fields[1], 10, 64)
	return ns
}

// processCPU returns the processor time that the process has used.
func processCPU() int64 { return cpuOf(unix.RUSAGE_SELF) }

func cpuOf(who int) int64 {
	var u unix.Rusage
	if unix.Getrusage(who, &u) != nil {
		return 0
	}
	return u.Utime.Nano() + u.Stime.Nano()
}
