package lab

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"
)

// A Machine is what all processors have done since it started.
type Machine struct{ Busy, Steal time.Duration }

const tick = 10 * time.Millisecond // USER_HZ is 100 wherever Linux runs Go

// ReadMachine asks the kernel.
func ReadMachine() (Machine, error) {
	b, err := os.ReadFile("/proc/stat")
	if err != nil {
		return Machine{}, err
	}
	return parseStat(b)
}

// parseStat reads the first line of /proc/stat:
//
//	cpu user nice system idle iowait irq softirq steal guest guest_nice
func parseStat(b []byte) (m Machine, err error) {
	line, _, _ := bytes.Cut(b, []byte("\n"))
	f := strings.Fields(string(line))
	if len(f) < 9 || f[0] != "cpu" {
		return m, fmt.Errorf("/proc/stat begins with %q, expected cpu and eight figures", line)
	}
	for i, text := range f[1:9] {
		n, err := strconv.ParseInt(text, 10, 64)
		switch {
		case err != nil:
			return m, fmt.Errorf("/proc/stat: %w", err)
		case i == 7:
			m.Steal += time.Duration(n) * tick
		case i != 3 && i != 4: // idle, iowait
			m.Busy += time.Duration(n) * tick
		}
	}
	return m, nil
}

// A Disturbance is what a run was kept from by others: processors, of programs
// that had no part in it and of the host's other guests.
type Disturbance struct{ Others, Steal float64 }

// What others may take before a run is better done again. The kernel counts in
// ticks of 10 ms, and its own threads are among the others: a quiet machine
// shows up to 0.03.
const (
	othersMax = 0.08
	stealMax  = 0.04
)

// Disturbed says what was taken between two looks at the machine, but for what
// the run itself has used.
func Disturbed(from, to Machine, wall, own time.Duration) Disturbance {
	if wall <= 0 {
		return Disturbance{}
	}
	return Disturbance{
		Others: max((to.Busy-from.Busy-own).Seconds()/wall.Seconds(), 0),
		Steal:  (to.Steal - from.Steal).Seconds() / wall.Seconds(),
	}
}

// Level is how much that was; above 1 is too much.
func (d Disturbance) Level() float64 { return max(d.Others/othersMax, d.Steal/stealMax) }

func (d Disturbance) String() string {
	return fmt.Sprintf("others had %.2f processors, other guests of the host %.2f", d.Others, d.Steal)
}

// Calm waits until the machine is at rest, or for so long that it will not be.
func Calm() {
	const look, most = 300 * time.Millisecond, 20 * time.Second
	for end := time.Now().Add(most); time.Now().Before(end); {
		from, err := ReadMachine()
		time.Sleep(look)
		to, err2 := ReadMachine()
		if err != nil || err2 != nil || Disturbed(from, to, look, 0).Level() <= 1 {
			return
		}
	}
}
