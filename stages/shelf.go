package stages

import "svcindex/index"

// A Shelf looks in a Store. A Store takes no context: a read from disk cannot
// be called back once begun, so the slice bounds only the wait before it.
type Shelf struct{ Store index.Store }

// Do implements Step.
func (s Shelf) Do(j *index.Job) error { return s.Store.Get(j) }
