package index

import (
	"strings"
	"time"
)

// A Scope is a set of things that a capability may allow.
type Scope uint8

const (
	ScopeRead   Scope = 1 << iota // look-ups, where reading needs a capability at all
	ScopeWrite                    // manifests, names and providers
	ScopeAdmin                    // tasks, events, backups
	ScopePin                      // pinning and unpinning
	ScopeFacets                   // searching and walking the graph
)

var scopeNames = [...]string{"index.read", "index.write", "index.admin", "index.pin", "index.facets"}

// ScopeNames returns every scope there is.
func ScopeNames() []string { return scopeNames[:] }

// ParseScope returns the scope of a name.
func ParseScope(name string) (Scope, bool) {
	for i, n := range scopeNames {
		if n == name {
			return 1 << i, true
		}
	}
	return 0, false
}

// String lists what is in s, as a caveat does.
func (s Scope) String() string {
	var names []string
	for i, n := range scopeNames {
		if s&(1<<i) != 0 {
			names = append(names, n)
		}
	}
	return strings.Join(names, ",")
}

// A Claim is what a request asks to be allowed. Its slices may be views that
// are dead after it was judged.
type Claim struct {
	Authorization []byte // the value of the field, as sent; empty: none came
	Method        Method
	Path          []byte // of the target, as sent, up to '?'
	Want          Scope  // one scope
	Now           time.Time
}

// An Access is how a claim was judged.
type Access uint8

const (
	Denied    Access = iota // no capability that holds here and now: 401
	OutOfPlay               // one that holds, but for other methods or paths: 403
	Unscoped                // one that holds, without the scope: 403
	Granted
)

// A Grant is a judgement, and on whose word.
type Grant struct {
	Access Access
	Who    string    // id of the capability; empty when denied
	Until  time.Time // when it ends
}

// A Guard judges claims. It is asked on event loops, before anything is
// queued: it must not wait.
type Guard interface{ Judge(*Claim) Grant }
