package index

import (
	"hash"

	"github.com/zeebo/blake3"
)

// Sum returns the content id of b: its BLAKE3-256.
func Sum(b []byte) CID { return blake3.Sum256(b) }

// NewHash returns a running BLAKE3-256, for content too large to hold.
func NewHash() hash.Hash { return blake3.New() }
