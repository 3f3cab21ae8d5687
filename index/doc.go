// Package index holds the nouns of svc-index: keys, records, jobs and the
// interfaces through which the rooms of the house meet.
//
// It starts nothing, imports nothing of ours, and beside the standard library
// only BLAKE3 (blake3.go) and CBOR (cbor.go).
package index
