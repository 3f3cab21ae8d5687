// Package leveldb keeps names, manifests and providers on disk. It is the only
// door to goleveldb.
//
// Its promise has three parts. What Commit acknowledged survives a crash. What
// Get returns is what was put, or Get says that it cannot tell. What is
// damaged is found, said and kept out of answers; nothing is repaired by
// guessing.
//
// goleveldb alone does not keep this promise, so there is a belt for each of
// its braces: a file whose sync failed once takes nothing more (files.go), the
// journal and the table of contents are read before goleveldb replays them
// (inspect.go), several journals are one to an opening for reads only
// (joined.go), each batch carries its own number (txn.go), each value its own
// digest (frame.go), and a failed write closes the store for writes until it
// was reopened, ended as it had ended before (engine.go), and proved itself
// (latch.go).
//
// One goroutine writes. Whoever commits builds his part of a batch, while the
// batch before is synced (writer.go), over zeros that make the journal as long
// as it has to be (inplace.go). The writer heals the store after a failure, and
// in idle moments drops what is past its time (sweep.go). Another reads a canary each second and walks
// slowly over all rows (keeper.go). Readers share nothing with them but the
// engine, and never wait for it: while it is being reopened they are told Down.
//
// # Layout
//
// A key is one letter and what it is about:
//
//	a <number> 1   audit: entries that are not in the audit's files yet, from that number on
//	c <cid>        content: the bytes of a manifest
//	g <cid> <id>   gone: until when a deleted provider is remembered
//	h <cid>        held: the size of a manifest whose bytes are here
//	i <sum>        an Idempotency-Key (its BLAKE3) and what it was answered
//	n <text>       a name record, without its "name:"; tombstones stay for ever
//	p <cid>        all providers of a cid in one row, and whether it is pinned
//	q <cid>        quarantined: a manifest whose bytes were found damaged
//	x <cid>        a pin, to list them by
//	! <word>       the store's own: format, batch, canary, audit
//
// A value is a version byte, a digest of 16 bytes over version, key and
// payload, and the payload. The bytes of a manifest have no second digest:
// their key is one.
package leveldb
