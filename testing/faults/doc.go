// Package faults breaks whole servers and counts what they lose.
//
// Its tests run the real binary on loopback, kill it, freeze its disk, fill it,
// flood it and starve it, and hold it to its promises: what was acknowledged is
// there, every request has one answer, and "not found" is never said in doubt.
// They count; they do not race the clock, but for generous bounds that only a
// server that hangs would meet.
//
// The default size suits every run of the tests. With -full they take as long
// as it takes to believe them: make faults.
package faults
