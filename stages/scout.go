package stages

import (
	"context"
	"slices"
	"strings"
	"time"

	"svcindex/index"
)

// A Scout asks the network, until the job's slice ends or nobody waits any
// more.
type Scout struct {
	Network index.Discoverer
	Intake  *Intake // what is found goes through it; nil: it is taken as it is
}

// Do implements Step.
func (s Scout) Do(j *index.Job) error {
	ctx, cancel := context.WithDeadline(Context(j), j.Due)
	defer cancel()
	err := s.Network.Discover(ctx, j)
	gone := err == index.Missing && j.Answer.Name.Deleted // it was there, and its publisher signed that it is no more
	if s.Intake == nil || err != nil && !gone {
		return err
	}
	return s.Intake.take(j, time.Now().Unix())
}

// An Intake is where the network's word becomes ours, or does not: it is
// verified, held against what is stored, and on its way to be stored itself.
type Intake struct {
	Verify    func(*index.Key, *index.NameRecord) error // nil only for who may speak for the name, and signed
	Stored    index.Blender
	Keep      func(*index.Mutation) // must not wait
	Integrity *index.IntegrityCounts
}

// take makes of j.Answer what may be given out. What does not prove itself is
// not an answer, nor does it prove that there is none.
func (n *Intake) take(j *index.Job, now int64) error {
	a := &j.Answer
	a.From = index.FromDHT
	m := &index.Mutation{Key: j.Key, Found: true, Who: index.AuditNetwork}
	switch {
	case j.Ask == index.AskProviders:
		m.Op, m.Providers = index.PutProviders, presentable(a.Providers, now)
		a.Providers = m.Providers
		if len(m.Providers) == 0 {
			return index.Missing
		}
	case j.Key.IsName():
		m.Op, m.Name = index.PutName, a.Name
		switch err := n.Verify(&j.Key, &a.Name); {
		case err != nil, a.Name.Seq < 1, a.Name.Seq > index.SeqMax, (a.Name.CID == index.CID{}) != a.Name.Deleted:
			n.Integrity.DHT.Add(1)
			return index.Down
		case a.Name.ExpiresAt != 0 && a.Name.ExpiresAt <= now, a.Name.IssuedAt > now+aheadMax:
			return index.Missing
		}
	default:
		m.Op, m.Manifest = index.PutManifest, a.Body
		if len(a.Body) == 0 || len(a.Body) > index.ManifestMax || index.CIDKey(index.Sum(a.Body)) != j.Key {
			n.Integrity.DHT.Add(1)
			return index.Down
		}
	}
	heard := *a
	news, err := n.Stored.Blend(j)
	if news {
		n.Keep(m)
	}
	if j.Key.IsName() && a.From == index.FromDB && !a.Name.Deleted && n.Verify(&j.Key, &a.Name) != nil {
		// It was believed when it was stored, and is no more: a sequence under a
		// key that is out must not outbid the keys that are in.
		if *a = heard; heard.Name.Deleted {
			return index.Missing
		}
		return nil
	}
	if k := index.KindOf(err); k != index.OK && k != index.Missing && !j.Key.IsName() {
		j.Doubt = index.Stronger(j.Doubt, k) // it could look a moment ago, and would have said more
		return nil
	}
	return err
}

// presentable returns the rows of a find that a client could have put, each id
// once and in order, at most FoundMax: those seen last.
func presentable(found []index.Provider, now int64) []index.Provider {
	ps := make([]index.Provider, 0, min(len(found), index.FoundMax))
	for _, p := range found {
		p.LastSeen = min(p.LastSeen, now)
		if p.Expires > now && checkProvider(p.ID, p.Addr, p.Region) == nil {
			ps = append(ps, p)
		}
	}
	slices.SortStableFunc(ps, func(a, b index.Provider) int { return int(min(max(b.LastSeen-a.LastSeen, -1), 1)) })
	ps = ps[:min(len(ps), index.FoundMax)]
	slices.SortStableFunc(ps, func(a, b index.Provider) int { return strings.Compare(a.ID, b.ID) })
	return slices.CompactFunc(ps, func(a, b index.Provider) bool { return a.ID == b.ID })
}
