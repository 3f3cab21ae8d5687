package leveldb

import (
	"math"

	"svcindex/index"
)

// peekGone is how many remembered deletions are shown.
const peekGone = 64

// A Peeked is all that is stored of one key, as people are shown it.
type Peeked struct {
	Name          *index.NameRecord // tombstones and expired ones too; nil: none
	Held          bool              // the bytes of the manifest are here
	HeldBytes     int
	HeldFound     bool // the network had them, no client here put them
	Quarantined   bool // they were found damaged
	Pinned        bool
	Checked       int64            // unix seconds when the network last told of the providers; 0: never
	Providers     []index.Provider // expired ones too
	Gone          []Gone           // deleted providers that are remembered
	GoneNotListed bool             // there are more of them
}

// A Gone is a provider that was deleted here.
type Gone struct {
	ID    string
	At    int64 // unix seconds
	Until int64 // it is remembered
}

// Peek returns all that is stored of k.
func (d *DB) Peek(k *index.Key) (p Peeked, err error) {
	e := d.use()
	if e == nil {
		return p, errAway
	}
	defer e.mu.RUnlock()
	if k.IsName() {
		payload, err := e.read(appendNameKey(nil, k))
		if err != nil {
			return p, ignoreMissing(err)
		}
		r, ok := parseName(payload)
		if !ok {
			return p, errDigest
		}
		p.Name = &r
		return p, nil
	}
	c := k.CID()
	p.Quarantined = d.damaged.has(&c)
	payload, err := e.read(cidKey(rowHeld, &c))
	switch {
	case err == nil:
		size := reader{b: payload}
		p.Held, p.HeldBytes, p.HeldFound = true, int(size.u64()), len(payload) != heldOwn
	case err != index.Missing:
		return p, err
	}
	payload, err = e.read(cidKey(rowProviders, &c))
	if err != nil {
		return p, ignoreMissing(err)
	}
	s, _, ok := parseSet(payload, math.MinInt64, nil)
	if !ok {
		return p, errDigest
	}
	p.Pinned, p.Checked, p.Providers = s.pinned, s.checked, s.rows
	if s.gone > 0 {
		p.Gone, p.GoneNotListed = e.gone(&c)
	}
	return p, nil
}

// gone lists the deleted providers of c that are remembered.
func (e *engine) gone(c *index.CID) (all []Gone, more bool) {
	from := cidKey(rowGone, c)
	to := append([]byte(nil), from...)
	for i := len(to) - 1; i >= 0; i-- {
		if to[i]++; to[i] != 0 {
			break
		}
	}
	it := e.iterate(from, to)
	defer it.Release()
	for it.Next() {
		if len(all) == peekGone {
			return all, true
		}
		if payload, ok := unframe(it.Key(), it.Value()); ok {
			r := reader{b: payload}
			until := r.i64()
			all = append(all, Gone{string(it.Key()[len(from):]), until - index.GoneFor, until})
		}
	}
	return all, false
}

func ignoreMissing(err error) error {
	if err == index.Missing {
		return nil
	}
	return err
}
