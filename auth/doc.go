// Package auth keeps a node's two secrets, and knows who may do what.
//
// Identity is the node's Ed25519 key and the peer id that follows from it.
// AdminToken is the one bearer token that opens every write; capabilities will
// take its place, and the rest of the house sees only "may" or "may not".
//
// Secrets live in files that only their owner can read. A file that others can
// read, or that is damaged, is refused with a word on what to do; it is never
// repaired, replaced or deleted.
package auth
