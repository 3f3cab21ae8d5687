package kaddht

import (
	"bytes"
	"crypto/sha256"
	"slices"

	"github.com/libp2p/go-libp2p/core/peer"
)

// A search is one iterative look-up as a state machine: it opens no socket,
// starts no goroutine and reads no clock. Whoever runs it sends what next
// returns and reports back with answer, fail and widen.
type search struct {
	rule   rule
	alpha  int // requests in flight in the first wave
	self   peer.ID
	target place
	grade  func(peer.ID) grade

	near   []*candidate // nearest first
	flying int          // of the first wave
	extra  int          // of hedges
	owed   int          // answers that are overdue
	width  int          // hedges that may fly
	sent   int
	hedged int // hedges sent
	hops   int // of the longest chain that led to an answer
	failed int

	answers int
	finds   int
}

// A rule says when a search has enough.
type rule struct {
	most    int // finds that end it at once
	some    int // answers that suffice once there is a find; 0: none do
	nearest int // nearest candidates that, having answered, make it complete
	absent  int // and answers, beside, that it takes where nothing was found
	sends   int // requests it may cost at most
}

// Bounds of one search.
const (
	candidatesMax = 64 // candidates kept beside those already asked
	heardMax      = 32 // candidates taken from one answer: a liar may send thousands
	reach         = 8  // nearest unasked candidates among which the healthy go first
	absentMin     = 3  // answers that make an absence certain although some failed
	doubtful      = 4  // one of so many of the nearest may be silent, no more
)

// A place is a point of the keyspace, or the distance of two.
type place [sha256.Size]byte

func placeOf(key []byte) place { return sha256.Sum256(key) }

func (p place) to(q place) (d place) {
	for i := range d {
		d[i] = p[i] ^ q[i]
	}
	return d
}

// A grade is how well a peer did of late.
type grade uint8

const (
	good   grade = iota
	slow         // asked after those that are not
	broken       // asked when nobody else is left
)

type progress uint8

const (
	unasked progress = iota
	asked
	overdue // asked so long ago that another has its slot
	answered
	failed
)

// A candidate is a peer that may know.
type candidate struct {
	id    peer.ID
	far   place    // its distance from the target
	addrs [][]byte // as heard; not parsed before it is asked
	hop   int
	state progress
	hedge bool // asked in a second wave
	grade grade
}

// A heard is a peer that somebody named.
type heard struct {
	id    peer.ID
	addrs [][]byte
}

// A verdict is how a search stands.
type verdict uint8

const (
	going       verdict = iota
	enough              // what was found satisfies
	complete            // the nearest have answered
	unsure              // too many of the nearest failed to say that it is absent
	unreachable         // nobody answered
)

var verdictNames = [...]string{"out of time", "enough", "complete", "unsure", "unreachable"}

func (v verdict) String() string { return verdictNames[v] }

func newSearch(key []byte, self peer.ID, alpha int, r rule, grade func(peer.ID) grade) *search {
	return &search{rule: r, alpha: alpha, self: self, target: placeOf(key), grade: grade}
}

// offer adds peers that somebody at hop-1 named. A peer that is known already
// is not added again, so that none is asked twice.
func (s *search) offer(hop int, peers []heard) {
	for i, h := range peers {
		if i == heardMax && hop > 1 {
			break
		}
		if h.id == s.self || h.id == "" {
			continue
		}
		far := placeOf([]byte(h.id)).to(s.target)
		at, known := slices.BinarySearchFunc(s.near, far, func(c *candidate, far place) int { return bytes.Compare(c.far[:], far[:]) })
		if known {
			continue
		}
		s.near = slices.Insert(s.near, at, &candidate{id: h.id, far: far, addrs: h.addrs, hop: hop, grade: s.grade(h.id)})
	}
	s.trim()
}

// trim forgets the farthest candidates that were not asked.
func (s *search) trim() {
	for i := len(s.near) - 1; i >= 0 && len(s.near) > candidatesMax; i-- {
		if s.near[i].state == unasked {
			s.near = slices.Delete(s.near, i, i+1)
		}
	}
}

// next returns the peer to ask now, or nil when none is to be asked.
func (s *search) next() *candidate {
	if s.sent >= s.rule.sends || s.verdict() != going {
		return nil
	}
	most, pick := s.alpha, s.pick
	if n := s.missing(); n > 0 {
		most = n // all at once: it is the last round
	} else if s.nearestAnswered() {
		pick = s.passedBy // what they say decides
	}
	hedge := s.flying >= most
	if hedge && s.extra >= s.width {
		return nil
	}
	c := pick()
	if c == nil {
		return nil
	}
	c.state, c.hedge = asked, hedge
	s.sent++
	if hedge {
		s.extra++
		s.hedged++
	} else {
		s.flying++
	}
	return c
}

// pick returns the nearest unasked candidate, the healthy ones first: a peer
// that was slow or failed a moment ago is asked after its neighbours, who hold
// the same. One that is broken is asked only when nothing else is under way.
func (s *search) pick() (best *candidate) {
	seen := 0
	for _, c := range s.near {
		if c.state != unasked {
			continue
		}
		if best == nil || c.grade < best.grade {
			best = c
		}
		if c.grade == broken {
			continue // however many of them are nearest, behind them are others
		}
		if seen++; seen == reach || best.grade == good {
			break
		}
	}
	if best != nil && best.grade == broken && (s.flying+s.extra > 0 || s.answers > 0) {
		return nil
	}
	return best
}

// widen lets n more requests fly: somebody keeps us waiting.
func (s *search) widen(n int) { s.width += n }

// answer notes that c answered, whom it named, and how many new finds it had.
func (s *search) answer(c *candidate, named []heard, finds int) {
	s.land(c, answered)
	s.answers++
	s.finds += finds
	s.hops = max(s.hops, c.hop)
	s.offer(c.hop+1, named)
}

// fail notes that c did not answer.
func (s *search) fail(c *candidate) {
	s.land(c, failed)
	s.failed++
}

// passOver gives c's slot to another. Its answer still counts, and no absence
// is sure without it.
func (s *search) passOver(c *candidate) {
	s.land(c, overdue)
	s.owed++
}

func (s *search) land(c *candidate, p progress) {
	switch {
	case c.state == overdue:
		s.owed--
	case c.hedge:
		s.extra--
	default:
		s.flying--
	}
	c.state = p
}

// verdict says how the search stands.
func (s *search) verdict() verdict {
	switch r := &s.rule; {
	case s.finds >= r.most, s.finds > 0 && r.some > 0 && s.answers >= r.some:
		return enough
	case s.nearestAnswered() && s.missing() == 0 && s.doubt() != open:
	case s.flying+s.extra+s.owed > 0 || s.sent < r.sends && s.pick() != nil:
		return going
	}
	switch {
	case s.answers == 0:
		return unreachable
	case s.finds == 0 && (s.failed > 0 && s.answers < absentMin || s.doubt() != none):
		return unsure
	}
	return complete
}

// missing returns how many answers it still takes to call a thing absent, once
// the nearest have nothing: they may have come after it was stored, and those
// behind them hold it. Whoever is overdue is not waited for.
func (s *search) missing() int {
	if s.finds > 0 || s.answers >= s.rule.absent || !s.nearestAnswered() || s.flying+s.extra == 0 && s.pick() == nil {
		return 0
	}
	return s.rule.absent - s.answers
}

// A doubt is whether those who did not answer may hold what the others have
// not got.
type doubt uint8

const (
	none  doubt = iota
	open        // it depends on who is still under way
	grave       // more than a quarter of the nearest did not answer
)

// doubt looks at the nearest candidates, up to the last it takes to call a
// thing absent. Where many of them are silent, it may be that we are on one side
// of a network and what is asked for on the other.
func (s *search) doubt() doubt {
	if s.finds > 0 || s.rule.absent == 0 {
		return none
	}
	answers, lost, out := 0, 0, 0
	for _, c := range s.nearestFew() {
		switch {
		case c.state == answered:
			answers++
		case c.state == failed, c.state == unasked && c.grade == broken:
			lost++
		case c.state == asked, c.state == overdue, c.grade == slow:
			out++
		}
	}
	switch {
	case doubtful*lost > answers+lost:
		return grave
	case doubtful*(lost+out) > answers+lost+out:
		return open
	}
	return none
}

// nearestFew returns the nearest candidates, up to the last answer that it takes
// to call a thing absent.
func (s *search) nearestFew() []*candidate {
	answers := 0
	for i, c := range s.near {
		if c.state == answered {
			answers++
		}
		if answers == max(s.rule.absent, s.rule.nearest) {
			return s.near[:i+1]
		}
	}
	return s.near
}

// passedBy returns the nearest of them that was not asked for being slow.
func (s *search) passedBy() *candidate {
	if s.doubt() != open {
		return nil
	}
	for _, c := range s.nearestFew() {
		if c.state == unasked && c.grade == slow {
			return c
		}
	}
	return nil
}

// nearestAnswered reports whether the nearest candidates have answered, not
// counting those that could not.
func (s *search) nearestAnswered() bool {
	n := 0
	for _, c := range s.near {
		switch {
		case c.state == failed, c.state == unasked && c.grade == broken:
			continue
		case c.state != answered:
			return false
		}
		if n++; n == s.rule.nearest {
			return true
		}
	}
	return false
}

// nearest returns the nearest n candidates that did not fail.
func (s *search) nearest(n int) (ids []*candidate) {
	for _, c := range s.near {
		if c.state != failed && c.grade != broken && len(ids) < n {
			ids = append(ids, c)
		}
	}
	return ids
}
