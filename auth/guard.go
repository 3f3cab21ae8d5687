package auth

import (
	"crypto/rand"
	"sync"
	"time"

	"svcindex/index"
)

// A Guard judges capabilities: those of one keyring, for one node.
type Guard struct {
	ring *Keyring
	aud  string
	none [keyBytes]byte // signs for keys that nobody has, which then cost as much as wrong ones

	mu   sync.RWMutex // protects the field below
	held map[index.CID]*held
}

var _ index.Guard = (*Guard)(nil)

// held is a token whose signature was found good. What may change is judged
// every time.
type held struct {
	terms
	id  string
	end time.Time // by the monotonic clock: setting the wall clock neither shortens nor prolongs it
}

// heldMost is how many tokens are remembered. Only who has a good one can add
// to them, though by narrowing it one can make any number.
const heldMost = 4096

// NewGuard returns the guard of the node aud.
func NewGuard(ring *Keyring, aud string) *Guard {
	g := &Guard{ring: ring, aud: aud, held: make(map[index.CID]*held)}
	_, _ = rand.Read(g.none[:])
	ring.OnChange(g.forget)
	return g
}

// forget drops every judgement: the keys have changed.
func (g *Guard) forget() {
	g.mu.Lock()
	defer g.mu.Unlock()
	clear(g.held)
}

// Judge implements index.Guard.
func (g *Guard) Judge(c *index.Claim) index.Grant {
	token := bearer(c.Authorization)
	if len(token) == 0 || len(token) > tokenText.EncodedLen(tokenMax) {
		return index.Grant{}
	}
	keys := g.ring.now.Load()
	sum := index.Sum(token)
	g.mu.RLock()
	h := g.held[sum]
	g.mu.RUnlock()
	if h == nil {
		if h = g.verify(keys, token, c.Now); h == nil {
			return index.Grant{}
		}
		g.keep(sum, h, keys)
	}
	if !c.Now.Before(h.end) {
		return index.Grant{}
	}
	if _, gone := keys.revoked[h.id]; gone {
		return index.Grant{}
	}
	grant := index.Grant{Who: h.id, Until: h.end}
	switch {
	case !h.covers(c.Method, c.Path):
		grant.Access = index.OutOfPlay
	case h.scope&c.Want == 0:
		grant.Access = index.Unscoped
	default:
		grant.Access = index.Granted
	}
	return grant
}

// keep remembers a good token, unless the keys it was judged by have been
// replaced meanwhile.
func (g *Guard) keep(sum index.CID, h *held, by *keys) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.ring.now.Load() != by {
		return
	}
	for old := range g.held {
		if len(g.held) < heldMost {
			break
		}
		delete(g.held, old) // any: who is in use comes back at the price of one look
	}
	g.held[sum] = h
}

// verify looks at the signature first, and at no caveat before it was found
// good. nil: not good, or not for here and now.
func (g *Guard) verify(keys *keys, token []byte, now time.Time) *held {
	m, err := decode(token)
	if err != nil {
		return nil
	}
	h := &held{id: string(m.Id())}
	keyID, _, _ := cutID(h.id)
	key, known := keys.key(keyID), true
	if key == nil {
		key, known = &rootKey{secret: g.none[:]}, false
	}
	conds, err := m.VerifySignature(key.secret, nil)
	if err != nil || !known {
		return nil
	}
	for _, c := range conds {
		if h.take(c) != nil {
			return nil
		}
	}
	if h.whole() != nil || h.aud != g.aud {
		return nil
	}
	left := time.Unix(h.exp, 0).Sub(now.Round(0))
	if left <= 0 || left > LifeMax+lifeSlack {
		return nil
	}
	h.end = now.Add(left)
	h.said = nil
	return h
}

// bearer returns what follows the scheme (RFC 6750 2.1).
func bearer(field []byte) []byte {
	const scheme = "bearer "
	if len(field) <= len(scheme) {
		return nil
	}
	for i := range len(scheme) {
		c := field[i]
		if c >= 'A' && c <= 'Z' {
			c += 'a' - 'A'
		}
		if c != scheme[i] {
			return nil
		}
	}
	return field[len(scheme):]
}
