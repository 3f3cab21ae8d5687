// Package auth keeps a node's secrets, and knows who may do what.
//
// Identity is the node's Ed25519 key and the peer id that follows from it. A
// Keyring holds the root keys that capabilities are signed with. A capability
// is a macaroon: a bearer token that says what it allows, which anybody can
// narrow and nobody can widen. A Guard judges them, and the rest of the house
// sees only its grants.
//
// Secrets live in files that only their owner can read. A file that others can
// read, or that is damaged, is refused with a word on what to do; it is never
// repaired or deleted.
package auth
