package loadgen

import "math"

// dice is a small deterministic source of chance (splitmix64). Each request
// rolls dice of its own, made from the seed and its number, so that what is
// asked does not depend on how many threads ask or in which order.
type dice uint64

func newDice(seed, n uint64) dice { return dice(mix(seed + n*0x9e3779b97f4a7c15)) }

func mix(z uint64) uint64 {
	z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
	z = (z ^ z>>27) * 0x94d049bb133111eb
	return z ^ z>>31
}

func (d *dice) next() uint64 {
	*d += 0x9e3779b97f4a7c15
	return mix(uint64(*d))
}

// unit returns a number in [0, 1).
func (d *dice) unit() float64 { return float64(d.next()>>11) / (1 << 53) }

// below returns a whole number in [0, n).
func (d *dice) below(n int) int { return int(d.unit() * float64(n)) }

// exponential returns a number from the exponential distribution of mean 1.
func (d *dice) exponential() float64 { return -math.Log1p(-d.unit()) }
