package index

// SeqMax is the highest sequence number: 2^53-1, the last integer that every
// JSON reader keeps exact.
const SeqMax = 1<<53 - 1

// Limits of what may be stored, from the specification.
const (
	ManifestMax     = 1 << 20   // bytes of one manifest
	ProvidersMax    = 64        // provider rows of one cid
	ProviderIDMax   = 128       // bytes of a provider id
	ProviderAddrMax = 512       // bytes of a provider's address
	RegionMax       = 64        // bytes of a region; ours, the specification is silent
	TTLMin          = 60        // seconds a provider row may ask to live, at least
	TTLMax          = 172_800   // and at most
	TTLDefault      = 86_400    // and when it does not say
	FoundMax        = 32        // provider rows of one cid that the network may have said
	HintMax         = 32        // providers_hint counts no further
	GoneFor         = 48 * 3600 // seconds a deleted provider is remembered
)

// A NameRecord says which manifest a name points to. Seq only grows, deletions
// included: a tombstone is a record with Deleted set.
type NameRecord struct {
	CID       CID
	Seq       uint64
	IssuedAt  int64 // unix seconds; 0: not said
	ExpiresAt int64 // unix seconds; 0: never
	Deleted   bool
	PubKey    []byte // Ed25519 public key; empty: not signed
	Sig       []byte

	Found   bool  // the network said so, not a client of ours
	Checked int64 // unix seconds when it was last known to be the newest; 0: long ago
}

// Signed reports whether the record carries a signature.
func (r *NameRecord) Signed() bool { return len(r.Sig) > 0 }

// Live reports whether the record is an answer at now (unix seconds).
func (r *NameRecord) Live(now int64) bool {
	return r.Seq > 0 && !r.Deleted && (r.ExpiresAt == 0 || now < r.ExpiresAt)
}

// A Provider is one row of who serves a cid.
type Provider struct {
	ID       string
	Addr     string // a multiaddr or http(s) URL, returned verbatim
	Region   string
	LastSeen int64 // unix seconds
	Expires  int64 // unix seconds
	Found    bool  // the network said so, not a client of ours
}

// A Holding is what a store holds under one key that its node could tell
// others of.
type Holding struct {
	Key      Key
	Name     NameRecord // of a name, tombstones included; Seq 0: none
	Manifest int        // of a cid: bytes of the manifest held
	Provider Provider   // of a cid: the node's own live row; no ID: none
}

// Op is what a Mutation does.
type Op uint8

const (
	PutManifest Op = iota + 1
	PutName
	DeleteName
	PutProviders
	DeleteProvider
	Pin
	Unpin
	Reindex
)

// A Mutation is one write. The first part is the wish; the second is filled by
// Writer.Commit.
type Mutation struct {
	Op         Op
	Key        Key // what is written; zero for Reindex
	Manifest   []byte
	Name       NameRecord // PutName; DeleteName, whose Seq 0 means the next
	Providers  []Provider // PutProviders: rows with LastSeen and Expires set
	ProviderID string     // DeleteProvider
	Found      bool       // the network said so: it takes nothing's place that a client put
	Idem       Idempotency
	Who        string // on whose word: the id of a capability, or a word for the node itself

	Err     error      // why it was refused; nil: it is durable
	Created bool       // PutManifest: the bytes were not held before
	Stored  int        // PutProviders: rows written
	Current uint64     // Conflict on a name: the sequence that stands
	Record  NameRecord // PutName, DeleteName: the record that stands
	News    bool       // a find: it changed what is stored
	TaskID  string     // Reindex: the task, an earlier one if the key was seen before
}

// Idempotency makes a repeated Reindex the same as one.
type Idempotency struct {
	Key     string // the client's Idempotency-Key; empty: none
	Body    CID    // of the request body, so that another body is a conflict
	TaskID  string // the task to remember
	Expires int64  // unix seconds
}
