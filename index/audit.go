package index

import (
	"encoding/hex"
	"strconv"
	"time"
)

// An AuditEntry is the record of one mutation: who, when, what. Entries are
// numbered from 1 without a gap, and each is chained to the one before it.
type AuditEntry struct {
	N     uint64
	Text  []byte // a JSON object without its end: see AppendAuditLine
	Chain CID    // over the chain before it and Text
}

// An AuditMark says how far the entries of a store go.
type AuditMark struct {
	Last      uint64 // newest entry; 0: none yet
	Head      CID    // its chain
	Kept      uint64 // newest entry that is safely elsewhere
	KeptChain CID
	// Unaudited says that the store holds what was written before there was
	// an audit, or without one.
	Unaudited bool
}

// An Event says that something changed. It is a hint to look again, never the
// only record of a change.
type Event struct {
	N    uint64 // grows by one with each event of a process: a gap is a loss
	Kind string // what changed: "name", "manifest", "provider_set", "pin", "admin", "config", "readiness"
	Key  string // which, as users write it
	At   time.Time
}

// An Auditor holds entries until they are kept elsewhere.
type Auditor interface {
	AuditMark() AuditMark
	// AuditAfter returns entries that follow entry n: most of them, or a batch more.
	AuditAfter(n uint64, most int) ([]AuditEntry, error)
	// AuditKept drops all entries up to e, which are safely elsewhere.
	AuditKept(e AuditEntry) error
	// Audited tells, now and then, that there are new ones.
	Audited() <-chan struct{}
}

var opNames = [...]string{
	"", "put_manifest", "put_name", "delete_name", "put_providers", "delete_provider", "pin", "unpin", "reindex",
}

func (o Op) String() string { return opNames[o] }

// Who writes when no client asked.
const (
	AuditNode    = "node" // the node itself
	AuditNetwork = "dht"  // the node, what the network had
)

// AppendAuditText appends entry n for a mutation that was applied at a unix
// second.
func AppendAuditText(dst []byte, n uint64, at int64, m *Mutation) []byte {
	who := m.Who
	if who == "" {
		who = AuditNode
	}
	dst = strconv.AppendUint(append(dst, `{"n":`...), n, 10)
	dst = strconv.AppendInt(append(dst, `,"at":`...), at, 10)
	dst = AppendJSONString(append(dst, `,"who":`...), who)
	dst = AppendJSONString(append(dst, `,"op":`...), m.Op.String())
	if m.Op == Reindex {
		dst = AppendJSONString(append(dst, `,"task":`...), m.TaskID)
		return AppendJSONString(append(dst, `,"body":`...), m.Idem.Body.String())
	}
	dst = append(m.Key.AppendText(append(dst, `,"key":"`...)), '"') // no byte of a key has to be escaped
	switch m.Op {
	case PutManifest:
		dst = strconv.AppendInt(append(dst, `,"size":`...), int64(len(m.Manifest)), 10)
	case PutName, DeleteName:
		dst = strconv.AppendUint(append(dst, `,"seq":`...), m.Record.Seq, 10)
		dst = append(m.Record.CID.AppendText(append(dst, `,"cid":"`...)), '"')
	case PutProviders:
		dst = appendAuditProviders(dst, m.Providers)
	case DeleteProvider:
		dst = AppendJSONString(append(dst, `,"ids":[`...), m.ProviderID)
		dst = append(dst, ']')
	}
	return dst
}

// appendAuditProviders appends who was put, and until when: one number if that is
// the same for all, else one for each.
func appendAuditProviders(dst []byte, ps []Provider) []byte {
	dst = append(dst, `,"ids":[`...)
	alike, until := true, int64(0)
	for i := range ps {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = AppendJSONString(dst, ps[i].ID)
		alike = alike && ps[i].Expires == ps[0].Expires
		until = max(until, ps[i].Expires)
	}
	dst = strconv.AppendInt(append(dst, `],"until":`...), until, 10)
	if alike {
		return dst
	}
	dst = append(dst, `,"untils":[`...)
	for i := range ps {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = strconv.AppendInt(dst, ps[i].Expires, 10)
	}
	return append(dst, ']')
}

// ChainAudit returns the chain of an entry.
func ChainAudit(before CID, text []byte) CID {
	h := NewHash()
	_, _ = h.Write(before[:])
	_, _ = h.Write(text)
	var c CID
	h.Sum(c[:0])
	return c
}

// AuditTail is what stands between an entry's text and its chain in a line.
const AuditTail = `,"chain":"`

// AppendAuditLine appends e as a line of a file: its text, and its chain as the
// last member of the object.
func AppendAuditLine(dst []byte, e *AuditEntry) []byte {
	dst = append(append(dst, e.Text...), AuditTail...)
	dst = hex.AppendEncode(dst, e.Chain[:])
	return append(dst, "\"}\n"...)
}

// A Fact is one thing that a store holds, to be held against the entries.
type Fact struct {
	Op  Op // the one that makes it so: PutManifest, PutName, DeleteName, PutProviders or Pin
	Key Key
	Seq uint64 // of a name
	CID CID    // of a name
	ID  string // of a provider
}
