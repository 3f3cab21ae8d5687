//go:build !race

package leveldb

const raceEnabled = false
