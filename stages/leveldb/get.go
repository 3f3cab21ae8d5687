package leveldb

import (
	"fmt"
	"slices"
	"time"

	"svcindex/index"
)

// What Get answers when it could not look. They are made once: an error on the
// way of a thousand requests a second should not cost an allocation.
var (
	errAway        = fmt.Errorf("leveldb: closed, or being reopened: %w", index.Down)
	errDigest      = fmt.Errorf("leveldb: a row does not match its digest: %w", index.Broken)
	errQuarantined = fmt.Errorf("leveldb: the bytes are damaged and in quarantine; put them again to heal them: %w", index.Broken)
	errNotAsked    = fmt.Errorf("leveldb: this store is not asked that: %w", index.Invalid)
)

// Get implements index.Store.
func (d *DB) Get(j *index.Job) error {
	e := d.use()
	if e == nil {
		return errAway
	}
	defer e.mu.RUnlock()
	s := scratches.Get().(*scratch)
	defer s.release()
	now := d.now()
	switch named := j.Key.IsName(); {
	case j.Ask == index.AskResolve && named:
		return d.getName(e, s, j, now)
	case j.Ask == index.AskResolve:
		return d.getHeld(e, s, j, now)
	case j.Ask == index.AskProviders && !named:
		return d.getProviders(e, s, j, now)
	case j.Ask == index.AskManifest && !named:
		return d.getManifest(e, s, j, now)
	}
	return errNotAsked
}

func (d *DB) getName(e *engine, s *scratch, j *index.Job, now time.Time) error {
	s.key = appendNameKey(s.key[:0], &j.Key)
	payload, err := d.read(e, s.key)
	if err != nil {
		return err
	}
	r, ok := parseName(payload)
	if !ok {
		return d.misread(s.key)
	}
	if !r.Live(now.Unix()) {
		return index.Missing
	}
	hint, err := d.hint(e, s, &r.CID, now)
	if err != nil {
		return err
	}
	a := &j.Answer
	a.Name, a.Hint = r, hint
	a.From, a.Age, a.Until = index.FromDB, 0, wall(r.ExpiresAt)
	if r.Found {
		a.Age = max(now.Sub(wall(r.Checked)), 0)
	}
	return nil
}

// getHeld answers whether the bytes of a manifest are here.
func (d *DB) getHeld(e *engine, s *scratch, j *index.Job, now time.Time) error {
	c := j.Key.CID()
	if d.damaged.has(&c) {
		return errQuarantined
	}
	s.key = appendCIDKey(s.key[:0], rowHeld, &c)
	if _, err := d.read(e, s.key); err != nil {
		return err
	}
	hint, err := d.hint(e, s, &c, now)
	if err != nil {
		return err
	}
	a := &j.Answer
	a.Hint = hint
	a.From, a.Age, a.Until = index.FromDB, 0, time.Time{}
	return nil
}

// hint counts the live providers of c. A damaged set is 0, which by contract
// says nothing, rather than the loss of an answer that is sound.
func (d *DB) hint(e *engine, s *scratch, c *index.CID, now time.Time) (int, error) {
	if d.tally.Load().Sets == 0 {
		return 0, nil // to find out that there is none costs a tenth of a look-up
	}
	s.key = appendCIDKey(s.key[:0], rowProviders, c)
	payload, err := d.read(e, s.key)
	switch index.KindOf(err) {
	case index.OK:
	case index.Missing, index.Broken:
		return 0, nil
	default:
		return 0, err
	}
	n, _ := countLive(payload, now.Unix(), index.HintMax)
	return n, nil
}

func (d *DB) getProviders(e *engine, s *scratch, j *index.Job, now time.Time) error {
	c := j.Key.CID()
	s.key = appendCIDKey(s.key[:0], rowProviders, &c)
	payload, err := d.read(e, s.key)
	if err != nil {
		return err
	}
	live, ok := countLive(payload, now.Unix(), index.ProvidersMax)
	switch {
	case !ok:
		return d.misread(s.key)
	case live == 0:
		return index.Missing
	}
	a := &j.Answer
	if cap(a.Providers) < live {
		a.Providers = make([]index.Provider, 0, live)
	}
	set, until, _ := parseSet(payload, now.Unix(), a.Providers[:0])
	if set.pinned {
		for i := range set.rows {
			set.rows[i].Expires = 0 // nor may whoever ranks them drop them
		}
	}
	a.Providers, a.Checked = set.rows, set.checked
	a.From, a.Age, a.Until = index.FromDB, 0, wall(until)
	if !slices.ContainsFunc(set.rows, func(p index.Provider) bool { return !p.Found }) {
		a.Age = max(now.Sub(wall(set.checked)), 0)
	}
	return nil
}

// getManifest returns bytes that match their cid; unframe hashed them.
func (d *DB) getManifest(e *engine, s *scratch, j *index.Job, now time.Time) error {
	c := j.Key.CID()
	if d.damaged.has(&c) {
		return errQuarantined
	}
	s.key = appendCIDKey(s.key[:0], rowContent, &c)
	payload, err := d.read(e, s.key)
	if err != nil {
		return err
	}
	a := &j.Answer
	a.Body = payload
	a.From, a.Age, a.Until = index.FromDB, 0, time.Time{}
	return nil
}

// read is engine.read for somebody's answer: what is found wrong is counted
// and remembered.
func (d *DB) read(e *engine, key []byte) ([]byte, error) {
	payload, err := e.read(key)
	if err != nil && err != index.Missing {
		d.noteDamage(key, err)
	}
	return payload, err
}

// misread is for a row whose digest matches and whose shape does not.
func (d *DB) misread(key []byte) error {
	d.noteDamage(key, errDigest)
	return errDigest
}

// wall is the time of a unix second, the zero time for 0.
func wall(unix int64) time.Time {
	if unix == 0 {
		return time.Time{}
	}
	return time.Unix(unix, 0)
}
