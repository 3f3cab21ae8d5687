package lab

import (
	"testing"
	"time"
)

func TestWhatAllProcessorsDid(t *testing.T) {
	m, err := parseStat([]byte("cpu  100 1 200 5000 900 3 40 50 0 0\ncpu0 1 2 3\n"))
	if want := (Machine{Busy: 3440 * time.Millisecond, Steal: 500 * time.Millisecond}); err != nil || m != want {
		t.Errorf("%+v, %v; want %+v: neither idle nor waiting for a disk is busy", m, err, want)
	}
	for _, bad := range []string{"", "cpu 1 2 3\n", "intr 1 2 3 4 5 6 7 8 9\n", "cpu 1 2 3 4 x 6 7 8\n"} {
		if m, err := parseStat([]byte(bad)); err == nil {
			t.Errorf("%q became %+v", bad, m)
		}
	}
	if m, err := ReadMachine(); err != nil || m.Busy == 0 {
		t.Errorf("this machine: %+v, %v", m, err)
	}
}

func TestWhatDisturbsARun(t *testing.T) {
	for _, tt := range []struct {
		why              string
		busy, steal, own time.Duration // in a second
		much             bool
	}{
		{"nobody else was there", 1500 * time.Millisecond, 0, 1500 * time.Millisecond, false},
		{"the kernel's own threads", 1530 * time.Millisecond, 0, 1500 * time.Millisecond, false},
		{"someone else at work", 1600 * time.Millisecond, 0, 1500 * time.Millisecond, true},
		{"the host had other guests", 1500 * time.Millisecond, 50 * time.Millisecond, 1500 * time.Millisecond, true},
		{"ticks counted for less than the run used", 1490 * time.Millisecond, 0, 1500 * time.Millisecond, false},
	} {
		d := Disturbed(Machine{}, Machine{Busy: tt.busy, Steal: tt.steal}, time.Second, tt.own)
		if much := d.Level() > 1; much != tt.much {
			t.Errorf("%s: %v, level %.2f", tt.why, d, d.Level())
		}
	}
	if d := Disturbed(Machine{}, Machine{Busy: time.Second}, 0, 0); d.Level() != 0 {
		t.Errorf("in no time: %v", d)
	}
}
