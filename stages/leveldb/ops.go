package leveldb

import (
	"bytes"
	"fmt"

	"svcindex/index"
)

// Why a mutation is refused, beyond what its Kind says. Constant texts: a
// client reads them.
var (
	errSeqRange  = fmt.Errorf("a sequence number is 1 to %d: %w", index.SeqMax, index.Invalid)
	errProviders = fmt.Errorf("a content id has at most %d live providers: %w", index.ProvidersMax, index.Invalid)
	errProvider  = fmt.Errorf("a provider has an id of 1 to %d bytes, an address of at most %d and a region of at most %d: %w",
		index.ProviderIDMax, index.ProviderAddrMax, index.RegionMax, index.Invalid)
	errWantCID   = fmt.Errorf("this is written under a content id: %w", index.Invalid)
	errWantName  = fmt.Errorf("this is written under a name: %w", index.Invalid)
	errLarge     = fmt.Errorf("a manifest has at most %d bytes: %w", index.ManifestMax, index.TooLarge)
	errOp        = fmt.Errorf("the store does not know this operation: %w", index.Invalid)
	errNameLost  = fmt.Errorf("the record that stands is damaged, and without its sequence a new one could go back in time; restore a backup: %w", index.Broken)
	errIdemTaken = fmt.Errorf("this Idempotency-Key came with another body: %w", index.Conflict)
)

// apply adds m to the batch, or returns why not. It writes nothing unless it
// returns nil.
func (t *txn) apply(m *index.Mutation) error {
	switch m.Op {
	case index.PutName, index.DeleteName:
		if !m.Key.IsName() {
			return errWantName
		}
	case index.Reindex:
		return t.reindex(m)
	default:
		if m.Key.IsName() || m.Key.IsZero() {
			return errWantCID
		}
	}
	switch c := m.Key.CID(); m.Op {
	case index.PutManifest:
		return t.putManifest(m, &c)
	case index.PutName:
		return t.putName(m)
	case index.DeleteName:
		return t.deleteName(m)
	case index.PutProviders:
		if m.Found {
			return t.findProviders(m, &c)
		}
		return t.putProviders(m, &c)
	case index.DeleteProvider:
		return t.deleteProvider(m, &c)
	case index.Pin, index.Unpin:
		return t.pin(&c, m.Op == index.Pin)
	}
	return errOp
}

// heldOwn is the length of the row of a manifest that a client put. That of one
// that the network had has a flag behind its size: it is not ours to announce.
const heldOwn = 8

// putManifest reads what is there in full: only bytes that still match their
// cid count as held, and so a manifest damaged unnoticed heals when it is put
// again. What is not held needs no second look, nor does a store without a
// quarantine.
func (t *txn) putManifest(m *index.Mutation, c *index.CID) error {
	if len(m.Manifest) > index.ManifestMax {
		return errLarge
	}
	content, held, mark := cidKey(rowContent, c), cidKey(rowHeld, c), cidKey(rowQuarantine, c)
	was, heldErr := t.read(held)
	var bodyErr, markErr error = index.Missing, index.Missing
	if heldErr != index.Missing {
		_, bodyErr = t.read(content)
	}
	if t.tally.Quarantined > 0 {
		_, markErr = t.read(mark)
	}
	for _, err := range [...]error{bodyErr, heldErr, markErr} {
		if index.KindOf(err) == index.Down {
			return err // it may be there: not read is not absent
		}
	}
	if bodyErr == nil && heldErr == nil && markErr == index.Missing {
		if !m.Found && len(was) != heldOwn { // found before, and now a client's own
			t.put(held, appendU64(nil, uint64(len(m.Manifest))))
		}
		return nil
	}
	if heldErr == index.Missing {
		t.tally.Manifests++
	}
	if markErr != index.Missing {
		t.tally.Quarantined--
		t.drop(mark)
	}
	t.heals = append(t.heals, *c)
	t.put(content, m.Manifest)
	t.payload = appendU64(t.payload[:0], uint64(len(m.Manifest)))
	if m.Found {
		t.payload = append(t.payload, rowFound)
	}
	t.put(held, t.payload)
	m.Created, m.News = true, true
	return nil
}

// name returns the record that stands, tombstones included; its Seq is 0 when
// there is none.
func (t *txn) name(key []byte) (index.NameRecord, error) {
	payload, err := t.read(key)
	switch index.KindOf(err) {
	case index.OK:
	case index.Missing:
		return index.NameRecord{}, nil
	case index.Broken:
		return index.NameRecord{}, errNameLost
	default:
		return index.NameRecord{}, err
	}
	r, ok := parseName(bytes.Clone(payload)) // it may be given out, and the batch's memory is used again
	if !ok {
		return r, errNameLost
	}
	return r, nil
}

func (t *txn) putName(m *index.Mutation) error {
	key := appendNameKey(make([]byte, 0, index.NameMax), &m.Key)
	was, err := t.name(key)
	if err != nil {
		return err
	}
	m.Name.Found, m.Name.Checked = m.Found, t.now
	switch {
	case m.Name.Seq == 0 || m.Name.Seq > index.SeqMax:
		return errSeqRange
	case m.Found && m.Name.Seq <= was.Seq:
		m.Record = was
		return nil
	case m.Name.Seq == was.Seq && sameName(&m.Name, &was):
		if was.Found { // found before, and now a client's own: to be told, and to be believed as such
			t.setName(key, &was, m, m.Name)
			was = m.Name
		}
		m.Record = was
		return nil
	case m.Name.Seq <= was.Seq:
		m.Current = was.Seq
		return index.Conflict
	}
	t.setName(key, &was, m, m.Name)
	return nil
}

func (t *txn) deleteName(m *index.Mutation) error {
	key := appendNameKey(make([]byte, 0, index.NameMax), &m.Key)
	was, err := t.name(key)
	if err != nil {
		return err
	}
	r := m.Name
	r.Deleted, r.CID, r.Checked = true, index.CID{}, t.now
	if !r.Signed() {
		r.IssuedAt = t.now
	}
	if r.Seq == 0 {
		r.Seq = was.Seq + 1
	}
	switch {
	case r.Seq > index.SeqMax:
		return errSeqRange
	case r.Signed() && r.Seq == was.Seq && sameName(&r, &was):
		m.Record = was
		return nil
	case r.Seq <= was.Seq:
		m.Current = was.Seq
		return index.Conflict
	}
	t.setName(key, &was, m, r)
	return nil
}

func (t *txn) setName(key []byte, was *index.NameRecord, m *index.Mutation, r index.NameRecord) {
	if was.Seq > 0 {
		*t.nameCount(was.Deleted)--
	}
	*t.nameCount(r.Deleted)++
	m.News = true
	t.payload = appendName(t.payload[:0], &r)
	t.put(key, t.payload)
	m.Record = r
}

func (t *txn) nameCount(deleted bool) *uint64 {
	if deleted {
		return &t.tally.Tombstones
	}
	return &t.tally.Names
}

// sameName reports whether two records of one seq say the same.
func sameName(a, b *index.NameRecord) bool {
	return a.CID == b.CID && a.IssuedAt == b.IssuedAt && a.ExpiresAt == b.ExpiresAt &&
		a.Deleted == b.Deleted && bytes.Equal(a.Sig, b.Sig)
}
