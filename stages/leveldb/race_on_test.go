//go:build race

package leveldb

const raceEnabled = true
