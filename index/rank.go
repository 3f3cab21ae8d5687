package index

import (
	"cmp"
	"math"
	"slices"
	"strings"
)

// A Rank orders providers for one asker, and leaves out those that nobody is
// to be sent to.
type Rank struct {
	Bias     float64 // weight of a region match, 0..1
	HalfLife float64 // seconds after which freshness counts half

	Allowed    map[string]bool // regions that may be given out; nil: all
	DenyID     map[string]bool // providers that may not
	DenyRegion map[string]bool // regions that may not
}

// admits reports whether p may be given out to anybody.
func (r *Rank) admits(p *Provider) bool {
	return (r.Allowed == nil || r.Allowed[p.Region]) && !r.DenyID[p.ID] && !r.DenyRegion[p.Region]
}

// NewRank returns a Rank. allowed lists the regions that may be given out, an
// empty text for providers that name none; an empty list allows all. deny
// lists provider ids, and regions as "region:" and the region.
func NewRank(bias, halfLife float64, allowed, deny []string) Rank {
	r := Rank{Bias: bias, HalfLife: halfLife}
	for _, region := range allowed {
		r.Allowed = put(r.Allowed, region)
	}
	for _, d := range deny {
		if region, ok := strings.CutPrefix(d, "region:"); ok {
			r.DenyRegion = put(r.DenyRegion, region)
		} else {
			r.DenyID = put(r.DenyID, d)
		}
	}
	return r
}

func put(m map[string]bool, s string) map[string]bool {
	if m == nil {
		m = make(map[string]bool)
	}
	m[s] = true
	return m
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
		if p.Expires != 0 && p.Expires <= now || q.MinFreshness > 0 && age > q.MinFreshness || !r.admits(p) {
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
