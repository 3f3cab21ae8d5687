package leveldb

import (
	"bytes"

	"svcindex/index"
)

// walked are the kinds of rows that the network may be told of, in the order of
// a walk.
const walked = string(rowHeld) + string(rowName) + string(rowProviders)

// walkRows is how many rows one step of a walk looks at. No iterator outlives
// its step: one that is held keeps files from being deleted.
const walkRows = 256

// Walk visits the next stretch of rows after from (nil: from the start) that
// say something this node could tell others: manifests held, names,
// tombstones included, and cids with a live row of the provider own. It
// returns where to go on, nil at the end. A damaged row is passed over.
func (d *DB) Walk(from []byte, own string, visit func(index.Holding)) (next []byte, err error) {
	e := d.use()
	if e == nil {
		return from, errAway
	}
	defer e.mu.RUnlock()
	if len(from) == 0 {
		from = []byte{walked[0]}
	}
	kind := from[0]
	it := e.iterate(from, []byte{kind + 1})
	defer it.Release()
	now := d.now().Unix()
	for range walkRows {
		if !it.Next() {
			if i := bytes.IndexByte([]byte(walked), kind); it.Error() == nil && i+1 < len(walked) {
				return []byte{walked[i+1]}, nil
			}
			return nil, it.Error()
		}
		from = append(append(from[:0:0], it.Key()...), 0)
		if payload, ok := unframe(it.Key(), it.Value()); ok {
			if h, ok := holding(it.Key(), payload, own, now); ok {
				visit(h)
			}
		}
	}
	return from, nil
}

// Held returns what the store holds under k that this node could tell others.
func (d *DB) Held(k *index.Key, own string) (h index.Holding, err error) {
	e := d.use()
	if e == nil {
		return h, errAway
	}
	defer e.mu.RUnlock()
	keys := [][]byte{appendNameKey(nil, k)}
	if !k.IsName() {
		c := k.CID()
		keys = [][]byte{cidKey(rowHeld, &c), cidKey(rowProviders, &c)}
	}
	h.Key = *k
	for _, key := range keys {
		payload, err := d.read(e, key)
		if err == index.Missing {
			continue
		}
		if err != nil {
			return h, err
		}
		if part, ok := holding(key, payload, own, d.now().Unix()); ok {
			h.Name = part.Name
			h.Manifest = max(h.Manifest, part.Manifest)
			if part.Provider.ID != "" {
				h.Provider = part.Provider
			}
		}
	}
	return h, nil
}

// holding reads one row. The key and the payload are the iterator's.
func holding(key, payload []byte, own string, now int64) (h index.Holding, ok bool) {
	if key[0] != rowName && len(key) != 1+len(index.CID{}) {
		return h, false
	}
	switch key[0] {
	case rowName:
		k, err := index.ParseKey("name:" + string(key[1:]))
		if err != nil {
			return h, false
		}
		h.Key = k
		h.Name, ok = parseName(bytes.Clone(payload))
		return h, ok && !h.Name.Found // it is told by whom it came from
	case rowHeld:
		p := reader{b: payload}
		h.Key, h.Manifest = index.CIDKey(index.CID(key[1:])), int(p.u64())
		return h, p.done() && len(payload) == heldOwn
	}
	s, _, ok := parseSet(payload, now, nil)
	if !ok {
		return h, false
	}
	i, found := s.find(own)
	if !found || s.rows[i].Found {
		return h, false
	}
	h.Key, h.Provider = index.CIDKey(index.CID(key[1:])), s.rows[i]
	return h, true
}
