package ram

import (
	"container/heap"
	"context"
	"encoding/binary"
	"slices"
	"time"

	"svcindex/index"
)

// A Recent is a question that was asked of late.
type Recent struct {
	Ask    index.Ask
	Format index.Format
	Key    index.Key

	filledAt time.Duration
}

// Recent returns what was asked last, the latest first, at most so many. An
// answer is looked up anew only when somebody asks after its time, so the one
// that was looked up last is the one that was asked for last, give or take
// cache.ttl. Absences are left out: they are not worth remembering. It stops
// when ctx ends, with what it has.
func (c *Cache) Recent(ctx context.Context, most int) []Recent {
	var latest oldest
	it := c.kept.Load().free.NewIterator()
	for e := it.Next(); e != nil && most > 0 && ctx.Err() == nil; e = it.Next() {
		r, ok := c.recent(e.Key, e.Value)
		if !ok || len(latest) == most && r.filledAt <= latest[0].filledAt {
			continue
		}
		if len(latest) == most {
			heap.Pop(&latest)
		}
		heap.Push(&latest, r)
	}
	slices.SortFunc(latest, func(a, b Recent) int { return int(b.filledAt - a.filledAt) })
	return latest
}

// recent reads one entry, unless a write has overtaken it.
func (c *Cache) recent(place, value []byte) (r Recent, ok bool) {
	e, ok := parse(value)
	if !ok || len(place) != keySize || e.negative() || e.gen != c.gens.Note(binary.LittleEndian.Uint64(place)) {
		return r, false
	}
	r = Recent{Ask: index.Ask(place[8]), Format: index.Format(place[9]), filledAt: e.filledAt}
	if e.flags&flagName == 0 {
		if len(e.key) != len(index.CID{}) {
			return r, false
		}
		r.Key = index.CIDKey(index.CID(e.key))
		return r, true
	}
	k, err := index.ParseKey(e.key)
	r.Key = k
	return r, err == nil
}

// oldest is a heap with the entry that was filled first at its top.
type oldest []Recent

func (o oldest) Len() int           { return len(o) }
func (o oldest) Less(i, j int) bool { return o[i].filledAt < o[j].filledAt }
func (o oldest) Swap(i, j int)      { o[i], o[j] = o[j], o[i] }
func (o *oldest) Push(r any)        { *o = append(*o, r.(Recent)) }
func (o *oldest) Pop() any {
	last := len(*o) - 1
	r := (*o)[last]
	*o = (*o)[:last]
	return r
}
