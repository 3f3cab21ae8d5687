// Package compare decides whether one build is worse than another, from
// figures that were taken of both in turns.
//
// It only decides: it measures nothing, reads no clock, and says the same of
// the same figures each time. Time and throughput fail only when three things
// agree: the median of the paired ratios is past the threshold, its interval
// leaves no room for what the machine does by itself, and the difference is
// large enough for anybody to feel. Allocations are counted, not measured, and
// fail alone.
package compare
