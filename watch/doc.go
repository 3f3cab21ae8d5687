// Package watch notices when the server stands still, and keeps what it was
// doing just before.
//
// It reads what the rooms count anyway, four times a second: no request pays
// for it. A stall is counted, logged once, shown, and leaves on the disk what
// every goroutine was at and a trace of the last seconds. The files are bounded
// in number, size and rate; the oldest go first.
package watch
