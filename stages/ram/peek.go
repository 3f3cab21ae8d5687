package ram

import (
	"time"

	"svcindex/index"
)

// A Peeked is an entry as people are shown it.
type Peeked struct {
	Asked      string           `json:"asked"`
	Format     string           `json:"format"`
	State      string           `json:"state"` // fresh, stale, expired, or overtaken by a write
	Negative   bool             `json:"negative"`
	Age        float64          `json:"age_s"`
	FreshFor   float64          `json:"fresh_for_s"` // below 0: no longer
	StaleFor   float64          `json:"stale_for_s"` // how long it could yet be served if the fresh source cannot be asked
	Generation index.Generation `json:"generation"`
	Bytes      int              `json:"bytes"`
}

// Peek returns what is kept of the key, without counting as a look-up.
func (c *Cache) Peek(hash uint64, k *index.Key) (all []Peeked) {
	now := time.Since(c.start)
	for ask := index.AskResolve; ask <= index.AskManifest; ask++ {
		for f, format := range [...]string{index.JSON: "json", index.CBOR: "cbor"} {
			if ask == index.AskManifest && f > 0 {
				continue // the bytes are the bytes
			}
			var kb [keySize]byte
			_ = c.kept.Load().free.GetFn(appendKey(kb[:0], hash, ask, index.Format(f)), func(b []byte) error {
				if e, ok := parse(b); ok && e.isOf(k) {
					p := c.peeked(&e, hash, now)
					p.Asked, p.Format = [...]string{"", "resolve", "providers", "manifests"}[ask], format
					all = append(all, p)
				}
				return nil
			})
		}
	}
	return all
}

func (c *Cache) peeked(e *entry, hash uint64, now time.Duration) Peeked {
	p := Peeked{
		State: "fresh", Negative: e.negative(), Age: (now - e.filledAt).Seconds(), FreshFor: (e.freshUntil - now).Seconds(),
		StaleFor: (e.staleUntil - now).Seconds(), Generation: e.gen, Bytes: len(e.page) + len(e.set),
	}
	switch {
	case e.gen != c.gens.Note(hash):
		p.State = "overtaken by a write"
	case now >= e.staleUntil:
		p.State = "expired"
	case now >= e.freshUntil:
		p.State = "stale"
	}
	return p
}
