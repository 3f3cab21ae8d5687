package leveldb

import (
	"cmp"
	"slices"
	"time"

	"svcindex/index"
)

var _ index.Blender = (*DB)(nil)

// Blend implements index.Blender. It asks with the same rules that Commit keeps
// when the same find is to be stored.
func (d *DB) Blend(j *index.Job) (news bool, err error) {
	e := d.use()
	if e == nil {
		return false, errAway
	}
	defer e.mu.RUnlock()
	s := scratches.Get().(*scratch)
	defer s.release()
	now := d.now()
	switch {
	case j.Ask == index.AskProviders:
		return d.blendProviders(e, s, j, now)
	case j.Key.IsName():
		return d.blendName(e, s, j, now)
	}
	return d.blendManifest(e, s, j, now)
}

// blendName lets the higher sequence stand, a tombstone's too.
func (d *DB) blendName(e *engine, s *scratch, j *index.Job, now time.Time) (news bool, err error) {
	a := &j.Answer
	s.key = appendNameKey(s.key[:0], &j.Key)
	payload, err := d.read(e, s.key)
	switch {
	case err == nil:
		was, ok := parseName(payload)
		if !ok {
			return false, d.misread(s.key)
		}
		if was.Seq >= a.Name.Seq {
			a.Name, a.From = was, index.FromDB
		} else {
			news = true
		}
	case err == index.Missing:
		news = true
	default:
		return false, err // without the sequence that stands it could go back in time
	}
	if !a.Name.Live(now.Unix()) {
		return news, index.Missing
	}
	a.Until = wall(a.Name.ExpiresAt)
	if hint, err := d.hint(e, s, &a.Name.CID, now); err == nil {
		a.Hint = hint
	}
	return news, nil
}

func (d *DB) blendManifest(e *engine, s *scratch, j *index.Job, now time.Time) (news bool, err error) {
	c := j.Key.CID()
	s.key = appendCIDKey(s.key[:0], rowHeld, &c)
	if _, err := d.read(e, s.key); err != nil && err != index.Missing {
		return false, err
	} else if err == index.Missing || d.damaged.has(&c) {
		news = true
	}
	if hint, err := d.hint(e, s, &c, now); err == nil {
		j.Answer.Hint = hint
	}
	return news, nil
}

func (d *DB) blendProviders(e *engine, s *scratch, j *index.Job, now time.Time) (news bool, err error) {
	c, a := j.Key.CID(), &j.Answer
	s.key = appendCIDKey(s.key[:0], rowProviders, &c)
	payload, err := d.read(e, s.key)
	var set set
	switch index.KindOf(err) {
	case index.OK:
		var ok bool
		if set, _, ok = parseSet(payload, now.Unix(), nil); !ok {
			return false, d.misread(s.key)
		}
	case index.Missing:
	default:
		return false, err
	}
	news, err = set.blend(&c, a.Providers, now.Unix(), e.read)
	if err != nil {
		return false, err
	}
	if len(set.rows) == 0 {
		return news, index.Missing
	}
	a.Providers, a.From, a.Until = set.rows, index.FromDB, time.Time{}
	for i := range set.rows {
		p := &set.rows[i]
		if p.Found {
			a.From = index.FromDHT
		}
		if set.pinned {
			p.Expires = 0
		} else if end := wall(p.Expires); a.Until.IsZero() || end.Before(a.Until) {
			a.Until = end
		}
	}
	return news, nil
}

// blend lays what the network found over a set that holds no row past its time.
// What a client here put stands; what was deleted here comes back only if the
// provider was seen later; and clients keep the room they may need. It reports
// whether the set is another now.
func (s *set) blend(c *index.CID, found []index.Provider, now int64, read func([]byte) ([]byte, error)) (changed bool, err error) {
	before := slices.Clone(s.rows)
	for _, p := range found {
		if !fits(&p) || p.Expires <= now {
			continue
		}
		i, known := s.find(p.ID)
		if known && !(s.rows[i].Found && renews(&s.rows[i], &p, now)) {
			continue
		}
		if s.gone > now {
			deleted, err := goneAt(c, p.ID, read)
			if err != nil {
				return false, err
			}
			if p.LastSeen <= deleted {
				continue
			}
		}
		if !known {
			s.rows = slices.Insert(s.rows, i, index.Provider{})
		}
		p.Found = true
		s.rows[i] = p
	}
	s.spareFound(index.FoundMax)
	s.spare(index.ProvidersMax)
	return !slices.Equal(before, s.rows), nil
}

// renews reports whether p says something that the row was of the same
// provider does not: it was seen later, or half of the row's time is over.
func renews(was, p *index.Provider, now int64) bool {
	if p.LastSeen != was.LastSeen {
		return p.LastSeen > was.LastSeen
	}
	return p.Addr != was.Addr || p.Region != was.Region || was.Expires-now < (p.Expires-now)/2
}

// goneAt returns when the provider id of c was deleted here; 0: it was not.
func goneAt(c *index.CID, id string, read func([]byte) ([]byte, error)) (int64, error) {
	payload, err := read(goneKey(c, id))
	if err == index.Missing {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	p := reader{b: payload}
	until := p.i64()
	if !p.done() {
		return 0, errDigest
	}
	return until - index.GoneFor, nil
}

// spare drops rows that the network found, those seen longest ago first, until
// the set has at most so many.
func (s *set) spare(most int) { s.dropFound(len(s.rows) - most) }

func (s *set) spareFound(most int) {
	n := 0
	for i := range s.rows {
		if s.rows[i].Found {
			n++
		}
	}
	s.dropFound(n - most)
}

func (s *set) dropFound(n int) {
	if n <= 0 {
		return
	}
	var found []index.Provider
	for _, p := range s.rows {
		if p.Found {
			found = append(found, p)
		}
	}
	slices.SortFunc(found, func(a, b index.Provider) int {
		return cmp.Or(cmp.Compare(a.LastSeen, b.LastSeen), cmp.Compare(a.ID, b.ID))
	})
	found = found[:min(n, len(found))]
	s.rows = slices.DeleteFunc(s.rows, func(p index.Provider) bool {
		return p.Found && slices.ContainsFunc(found, func(f index.Provider) bool { return f.ID == p.ID })
	})
}

// findProviders stores what the network found, as far as it is news.
func (t *txn) findProviders(m *index.Mutation, c *index.CID) error {
	s, had, err := t.providers(c)
	if err != nil {
		return err
	}
	n := len(s.rows)
	s.expire(t.now)
	if m.News, err = s.blend(c, m.Providers, t.now, t.read); err != nil || !m.News {
		return err
	}
	s.checked = t.now
	t.keep(c, &s, had, n)
	m.Stored = len(m.Providers)
	return nil
}
