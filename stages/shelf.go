package stages

import (
	"time"

	"svcindex/index"
)

// A Shelf looks in a Store. A Store takes no context: a read from disk cannot
// be called back once begun, so the slice bounds only the wait before it.
type Shelf struct {
	Store index.Store
	Rule  *Freshness // what is found is judged by it; nil: it is an answer
}

// Do implements Step.
func (s Shelf) Do(j *index.Job) error {
	if err := s.Store.Get(j); err != nil || s.Rule == nil {
		return err
	}
	return s.Rule.judge(j, time.Now())
}

// A Freshness says how long what is stored is an answer without the network
// being asked.
type Freshness struct {
	After time.Duration
	// Holds reports whether the network could hold the answer; nil: there is
	// no network, and what is stored is the answer.
	Holds func(*index.Job) bool
	// Believe reports whether a stored name may be given out: whoever was
	// trusted when it was stored may be so no longer. nil: all may.
	Believe func(*index.Key, *index.NameRecord) bool
}

// judge marks what is past its time, and hides what is not to be believed.
// Content cannot age: its id is its proof.
func (f *Freshness) judge(j *index.Job, now time.Time) error {
	a := &j.Answer
	named := j.Key.IsName()
	if named && f.Believe != nil && !f.Believe(&j.Key, &a.Name) {
		*a = index.Answer{}
		return index.Missing
	}
	if f.Holds == nil || !f.Holds(j) || !named && j.Ask != index.AskProviders {
		return nil
	}
	checked := a.Checked
	if named {
		checked = a.Name.Checked
	}
	until := time.Unix(checked, 0).Add(f.After)
	if a.Past = j.Fresh || !now.Before(until); !a.Past {
		a.FreshUntil = until
	}
	return nil
}
