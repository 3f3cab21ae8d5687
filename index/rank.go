package index

import (
	"cmp"
	"math"
	"slices"
)

// A Rank orders providers for one asker.
type Rank struct {
	Bias     float64 // weight of a region match, 0..1
	HalfLife float64 // seconds after which freshness counts half
}

// A Ranked is a provider as one asker sees it.
type Ranked struct {
	*Provider
	Score float64 // Bias x match + (1-Bias) x 2^(-age/HalfLife)
	Class string  // region_match, fresh (seen within a half-life), any
}

// Order appends to dst the providers of set that q admits, best first, ties by
// id. now is in unix seconds. What it appends points into set.
func (r Rank) Order(dst []Ranked, set []Provider, q *ProviderQuery, now int64) []Ranked {
	before := len(dst)
	for i := range set {
		p := &set[i]
		age := max(now-p.LastSeen, 0)
		if p.Expires != 0 && p.Expires <= now || q.MinFreshness > 0 && age > q.MinFreshness {
			continue
		}
		fresh := math.Exp2(-float64(age) / r.HalfLife)
		v := Ranked{Provider: p, Score: (1 - r.Bias) * fresh, Class: "any"}
		if fresh >= .5 {
			v.Class = "fresh"
		}
		if q.Region != "" && q.Region == p.Region {
			v.Score += r.Bias
			v.Class = "region_match"
		}
		v.Score = math.Round(v.Score*100) / 100
		dst = append(dst, v)
	}
	slices.SortFunc(dst[before:], func(a, b Ranked) int {
		return cmp.Or(cmp.Compare(b.Score, a.Score), cmp.Compare(a.ID, b.ID))
	})
	return dst
}
