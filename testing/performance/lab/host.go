package lab

import (
	"fmt"
	"os"
	"runtime"
	"slices"
	"strings"
	"syscall"
)

// A Host is what figures can be compared on: the same class, or only ratios.
type Host struct {
	Class      string `json:"class"` // processor, count, memory
	Processors int    `json:"processors"`
	Kernel     string `json:"kernel"`
	Go         string `json:"go"`
}

// ThisHost describes the machine.
func ThisHost() Host {
	h := Host{Go: runtime.Version()}
	model := "unknown processor"
	if b, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		for line := range strings.Lines(string(b)) {
			// Counted here: we may be on one of them only.
			if name, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(name) == "model name" {
				model = strings.Join(strings.Fields(value), " ")
				h.Processors++
			}
		}
	}
	var memory syscall.Sysinfo_t
	_ = syscall.Sysinfo(&memory)
	gib := float64(memory.Totalram) * float64(memory.Unit) / (1 << 30)
	if b, err := os.ReadFile("/proc/sys/kernel/osrelease"); err == nil {
		h.Kernel = strings.TrimSpace(string(b))
	}
	h.Class = fmt.Sprintf("%s, %d processors, %.0f GiB", model, h.Processors, gib)
	return h
}

// Spread is the median and the range of a few figures.
type Spread struct {
	Median, Min, Max float64
	N                int
}

// SpreadOf sorts figures out.
func SpreadOf(figures []float64) Spread {
	if len(figures) == 0 {
		return Spread{}
	}
	s := slices.Sorted(slices.Values(figures))
	return Spread{Median: (s[(len(s)-1)/2] + s[len(s)/2]) / 2, Min: s[0], Max: s[len(s)-1], N: len(s)}
}

func (s Spread) String() string {
	return fmt.Sprintf("%.3g (%.3g-%.3g, n=%d)", s.Median, s.Min, s.Max, s.N)
}
