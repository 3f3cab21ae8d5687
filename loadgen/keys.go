package loadgen

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"math"
	"strconv"
	"strings"
)

// Shapes of the demand for keys, when nothing else is said.
const (
	hotKeys   = 0.01 // of all keys
	hotShare  = 0.80 // of all requests
	zipfPower = 0.9
)

// A Dist picks one of n keys by rank: rank 0 is the one asked for most, if
// there is one.
type Dist interface {
	pick(d *dice) int
}

// NewDist reads a distribution over n keys: "hotcold" (1 % of the keys take
// 80 % of the requests, the rest is Zipf), "zipf" or "zipf:POWER", "uniform".
func NewDist(text string, n int) (Dist, error) {
	name, arg, has := strings.Cut(text, ":")
	switch {
	case n < 1:
		return nil, fmt.Errorf("there are no keys to choose from")
	case name == "uniform" && !has:
		return uniform(n), nil
	case name == "hotcold" && !has:
		return newHotCold(n), nil
	case name == "zipf" && !has:
		return newZipf(n, zipfPower), nil
	case name == "zipf":
		power, err := strconv.ParseFloat(arg, 64)
		if err != nil || !(power > 0 && power <= 10) {
			return nil, fmt.Errorf("zipf:%s: the power is above 0 and at most 10", arg)
		}
		return newZipf(n, power), nil
	}
	return nil, fmt.Errorf("there is no distribution %q; there are hotcold, zipf, zipf:POWER, uniform", text)
}

type uniform int

func (u uniform) pick(d *dice) int { return d.below(int(u)) }

// hotCold asks for the hot keys alike and for the rest by Zipf's law.
type hotCold struct {
	hot  int
	cold *zipf // nil if all keys are hot
}

func newHotCold(n int) hotCold {
	h := hotCold{hot: max(int(math.Round(hotKeys*float64(n))), 1)}
	if n > h.hot {
		h.cold = newZipf(n-h.hot, zipfPower)
	}
	return h
}

func (h hotCold) pick(d *dice) int {
	if h.cold == nil || d.unit() < hotShare {
		return d.below(h.hot)
	}
	return h.hot + h.cold.pick(d)
}

// A zipf picks rank k with a probability proportional to 1/(k+1)^power. It is
// the rejection-inversion of Hörmann and Derflinger (1996): exact, for any
// power, in constant time and memory, which the standard library's, wanting a
// power above 1, is not.
type zipf struct {
	n, power         float64
	low, high, short float64
}

func newZipf(n int, power float64) *zipf {
	z := &zipf{n: float64(n), power: power}
	z.low = z.area(1.5) - 1
	z.high = z.area(z.n + 0.5)
	z.short = 2 - z.invert(z.area(2.5)-z.weight(2))
	return z
}

func (z *zipf) weight(x float64) float64 { return math.Exp(-z.power * math.Log(x)) }

// area is the integral of weight, up to a constant.
func (z *zipf) area(x float64) float64 {
	log := math.Log(x)
	return expm1Over((1-z.power)*log) * log
}

// invert is the inverse of area.
func (z *zipf) invert(a float64) float64 {
	t := max(a*(1-z.power), -1)
	return math.Exp(log1pOver(t) * a)
}

func (z *zipf) pick(d *dice) int {
	for {
		u := z.high + d.unit()*(z.low-z.high)
		x := z.invert(u)
		k := min(max(math.Round(x), 1), z.n)
		if k-x <= z.short || u >= z.area(k+0.5)-z.weight(k) {
			return int(k) - 1
		}
	}
}

// expm1Over is (e^x - 1)/x, and log1pOver ln(1+x)/x, good near zero as well.
func expm1Over(x float64) float64 {
	if math.Abs(x) > 1e-8 {
		return math.Expm1(x) / x
	}
	return 1 + x/2
}

func log1pOver(x float64) float64 {
	if math.Abs(x) > 1e-8 {
		return math.Log1p(x) / x
	}
	return 1 - x/2
}

// A Keyset is keys that can be written into a request's target.
type Keyset interface {
	Len() int
	Append(dst []byte, i int) []byte
}

// Numbered are the keys prefix + number, in eight digits.
type Numbered struct {
	Prefix string
	N      int
}

// Len implements Keyset.
func (k Numbered) Len() int { return k.N }

// Append implements Keyset.
func (k Numbered) Append(dst []byte, i int) []byte {
	return appendDigits(append(dst, k.Prefix...), uint64(i), 8)
}

// Hashes are keys of a prefix and 32 bytes in hex.
type Hashes struct {
	Prefix string
	Sums   [][32]byte
}

// Len implements Keyset.
func (k Hashes) Len() int { return len(k.Sums) }

// Append implements Keyset.
func (k Hashes) Append(dst []byte, i int) []byte {
	return appendHex(append(dst, k.Prefix...), k.Sums[i][:])
}

// Nowhere are keys that look like Hashes and are those of nothing.
type Nowhere struct {
	Prefix string
	N      int
}

// Len implements Keyset.
func (k Nowhere) Len() int { return k.N }

// Append implements Keyset.
func (k Nowhere) Append(dst []byte, i int) []byte {
	d, sum := newDice(0x6e6f7768657265, uint64(i)), [32]byte{}
	for b := 0; b < len(sum); b += 8 {
		v := d.next()
		for j := range 8 {
			sum[b+j] = byte(v >> (8 * j))
		}
	}
	return appendHex(append(dst, k.Prefix...), sum[:])
}

// Lines are keys as they stand in a file. The first lines are the hot ones.
type Lines []string

// Len implements Keyset.
func (k Lines) Len() int { return len(k) }

// Append implements Keyset.
func (k Lines) Append(dst []byte, i int) []byte { return append(dst, k[i]...) }

const linesMax = 20_000_000 // keys read from a file

// ReadLines reads keys, one a line. Empty lines and those that begin with # are
// passed over. A key goes into a request as it is, so it may hold only bytes
// that mean themselves there.
func ReadLines(r io.Reader) (keys Lines, err error) {
	in, n := bufio.NewScanner(r), 0
	for in.Scan() {
		n++
		line := strings.TrimSpace(in.Text())
		if line == "" || line[0] == '#' {
			continue
		}
		if i := strings.IndexFunc(line, func(c rune) bool { return !plain(c) }); i >= 0 {
			return nil, fmt.Errorf("line %d: a key is of letters, digits and . _ ~ + @ / - : only", n)
		}
		if keys = append(keys, line); len(keys) > linesMax {
			return nil, fmt.Errorf("more than %d keys", linesMax)
		}
	}
	switch err := in.Err(); {
	case errors.Is(err, bufio.ErrTooLong):
		return nil, fmt.Errorf("line %d is longer than %d bytes", n+1, bufio.MaxScanTokenSize)
	case err != nil:
		return nil, err
	}
	if len(keys) == 0 {
		return nil, fmt.Errorf("it holds no keys")
	}
	return keys, nil
}

func plain(c rune) bool {
	return c >= '0' && c <= '9' || c >= 'A' && c <= 'Z' || c >= 'a' && c <= 'z' || strings.ContainsRune("._~+@/-:", c)
}

// spread turns a rank into an index. Without it the hot keys would be
// neighbours, and a store that keeps keys in order would have them all in a
// few blocks. It is a bijection: the stride has no factor in common with n.
func spread(n int) (stride uint64) {
	if n < 3 {
		return 1
	}
	stride = uint64(float64(n)*0.6180339887) | 1
	for gcd(stride, uint64(n)) != 1 {
		stride += 2
	}
	return stride
}

func gcd(a, b uint64) uint64 {
	for b != 0 {
		a, b = b, a%b
	}
	return a
}

func appendDigits(dst []byte, v uint64, width int) []byte {
	var b [20]byte
	text := strconv.AppendUint(b[:0], v, 10)
	for range width - len(text) {
		dst = append(dst, '0')
	}
	return append(dst, text...)
}

func appendHex(dst, sum []byte) []byte {
	const digits = "0123456789abcdef"
	for _, c := range sum {
		dst = append(dst, digits[c>>4], digits[c&15])
	}
	return dst
}
