package leveldb

import (
	"math"
	"slices"

	"svcindex/index"
)

// providers returns all rows of c, live or not, and whether there is a row for
// them. Damage is met with an empty set: providers say again that they are
// there, and what they say must be able to stand.
func (t *txn) providers(c *index.CID) (s set, had bool, err error) {
	payload, err := t.read(cidKey(rowProviders, c))
	switch index.KindOf(err) {
	case index.OK:
		if s, _, ok := parseSet(payload, math.MinInt64, nil); ok {
			return s, true, nil
		}
	case index.Missing:
		return set{}, false, nil
	case index.Broken:
	default:
		return set{}, false, err
	}
	_, pinErr := t.read(cidKey(rowPin, c)) // a pin has a row of its own
	return set{pinned: pinErr == nil, gone: t.now + index.GoneFor}, true, nil
}

// keep writes what became of a set of n rows, or drops its row when nothing is
// left to say.
func (t *txn) keep(c *index.CID, s *set, had bool, n int) {
	t.tally.Providers += uint64(len(s.rows)) - uint64(n)
	key := cidKey(rowProviders, c)
	if s.empty(t.now) {
		if had {
			t.tally.Sets--
			t.drop(key)
		}
		return
	}
	if !had {
		t.tally.Sets++
	}
	t.payload = appendSet(t.payload[:0], s)
	t.put(key, t.payload)
}

// expire takes out the rows that are past their time. A pinned set has none.
func (s *set) expire(now int64) {
	if s.pinned {
		return
	}
	s.rows = slices.DeleteFunc(s.rows, func(p index.Provider) bool { return p.Expires <= now })
}

func (t *txn) putProviders(m *index.Mutation, c *index.CID) error {
	for i := range m.Providers {
		if !fits(&m.Providers[i]) {
			return errProvider
		}
	}
	s, had, err := t.providers(c)
	if err != nil {
		return err
	}
	n := len(s.rows)
	for _, p := range m.Providers {
		i, found := s.find(p.ID)
		if !found {
			s.rows = slices.Insert(s.rows, i, index.Provider{})
		}
		p.Found = false
		s.rows[i] = p
	}
	s.expire(t.now)
	s.spare(index.ProvidersMax)
	if len(s.rows) > index.ProvidersMax {
		return errProviders
	}
	if err := t.welcomeBack(c, &s, m.Providers); err != nil {
		return err
	}
	t.keep(c, &s, had, n)
	m.Stored = len(m.Providers)
	return nil
}

func fits(p *index.Provider) bool {
	return len(p.ID) >= 1 && len(p.ID) <= index.ProviderIDMax &&
		len(p.Addr) <= index.ProviderAddrMax && len(p.Region) <= index.RegionMax
}

// welcomeBack clears the gone marks of providers that are put again. Most cids
// have none, and their set says so.
func (t *txn) welcomeBack(c *index.CID, s *set, ps []index.Provider) error {
	if s.gone <= t.now {
		s.gone = 0
		return nil
	}
	for i := range ps {
		key := goneKey(c, ps[i].ID)
		switch _, err := t.read(key); index.KindOf(err) {
		case index.OK, index.Broken:
			t.drop(key)
		case index.Missing:
		default:
			return err
		}
	}
	return nil
}

func (t *txn) deleteProvider(m *index.Mutation, c *index.CID) error {
	s, had, err := t.providers(c)
	if err != nil {
		return err
	}
	n := len(s.rows)
	s.expire(t.now)
	i, found := s.find(m.ProviderID)
	if !found {
		return index.Missing
	}
	s.rows = slices.Delete(s.rows, i, i+1)
	until := t.now + index.GoneFor
	s.gone = max(s.gone, until)
	t.put(goneKey(c, m.ProviderID), appendU64(nil, uint64(until)))
	t.keep(c, &s, had, n)
	return nil
}

// pin marks the set, so that reading it needs no second look, and keeps a row
// to list pins by.
func (t *txn) pin(c *index.CID, on bool) error {
	s, had, err := t.providers(c)
	if err != nil {
		return err
	}
	key := cidKey(rowPin, c)
	_, err = t.read(key)
	is := err == nil
	switch kind := index.KindOf(err); {
	case kind == index.Down:
		return err
	case is == on && s.pinned == on && kind != index.Broken:
		return nil
	}
	n := len(s.rows)
	switch {
	case on:
		if err == index.Missing {
			t.tally.Pins++
		}
		t.put(key, appendU64(nil, uint64(t.now)))
	case err != index.Missing:
		t.tally.Pins--
		t.drop(key)
	}
	s.pinned = on
	s.expire(t.now)
	t.keep(c, &s, had, n)
	return nil
}

// reindex makes a repeated request the same as one.
func (t *txn) reindex(m *index.Mutation) error {
	m.TaskID = m.Idem.TaskID
	if m.Idem.Key == "" {
		return nil
	}
	key := idemKey(m.Idem.Key)
	payload, err := t.read(key)
	switch {
	case err == nil:
		was, ok := parseIdem(payload)
		switch {
		case !ok:
			return errDigest
		case was.Expires <= t.now:
		case was.Body != m.Idem.Body:
			m.TaskID = ""
			return errIdemTaken
		default:
			m.TaskID = was.TaskID
			return nil
		}
	case err != index.Missing:
		return err
	}
	t.put(key, appendIdem(nil, &m.Idem))
	return nil
}

// idemKey hashes what a client chose, so that every key is short.
func idemKey(s string) []byte {
	sum := index.Sum([]byte(s))
	return append([]byte{rowIdem}, sum[:]...)
}
