package config

import (
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
)

// errForm is all the value types say of bad text; whoever knows the key says
// what was expected.
var errForm = errors.New("malformed value")

// A Duration is written "180ms", "1.5s" or "2h". It is never negative, and
// never so long that sums of them could wrap.
type Duration time.Duration

// durationMax is longer than anything we wait for or remember.
const durationMax = 365 * 24 * time.Hour

// MarshalText implements encoding.TextMarshaler.
func (d Duration) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (d *Duration) UnmarshalText(text []byte) error {
	v, err := time.ParseDuration(string(text))
	if err != nil || v < 0 || v > durationMax {
		return errForm
	}
	*d = Duration(v)
	return nil
}

// String returns d the way people write it: "10m", not "10m0s".
func (d Duration) String() string {
	s := time.Duration(d).String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

// Bytes is a size, written "64MiB", "10kB", or as a plain number of bytes.
type Bytes int64

// byteUnits is longest suffix first, so that "B" does not eat the end of "MiB".
var byteUnits = []struct {
	suffix string
	size   int64
}{
	{"TiB", 1 << 40}, {"GiB", 1 << 30}, {"MiB", 1 << 20}, {"KiB", 1 << 10},
	{"TB", 1e12}, {"GB", 1e9}, {"MB", 1e6}, {"kB", 1e3}, {"KB", 1e3}, {"B", 1},
}

// MarshalText implements encoding.TextMarshaler.
func (b Bytes) MarshalText() ([]byte, error) { return []byte(b.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (b *Bytes) UnmarshalText(text []byte) error {
	num, size := string(text), int64(1)
	for _, u := range byteUnits {
		if rest, ok := strings.CutSuffix(num, u.suffix); ok {
			num, size = strings.TrimSuffix(rest, " "), u.size
			break
		}
	}
	n, err := strconv.ParseUint(num, 10, 63)
	if err != nil || int64(n) > math.MaxInt64/size {
		return errForm
	}
	*b = Bytes(int64(n) * size)
	return nil
}

// String returns b exactly, in the largest binary unit that divides it.
func (b Bytes) String() string {
	for _, u := range byteUnits[:4] {
		if b != 0 && int64(b)%u.size == 0 {
			return fmt.Sprintf("%d%s", int64(b)/u.size, u.suffix)
		}
	}
	return fmt.Sprintf("%dB", int64(b))
}

// Conns is a number of connections, or Auto.
type Conns int

// Auto leaves the number to the system's limit on descriptors.
const Auto Conns = -1

// MarshalText implements encoding.TextMarshaler.
func (n Conns) MarshalText() ([]byte, error) { return []byte(n.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (n *Conns) UnmarshalText(text []byte) error {
	if string(text) == "auto" {
		*n = Auto
		return nil
	}
	v, err := strconv.ParseUint(string(text), 10, 31)
	if err != nil {
		return errForm
	}
	*n = Conns(v)
	return nil
}

func (n Conns) String() string {
	if n == Auto {
		return "auto"
	}
	return strconv.Itoa(int(n))
}
