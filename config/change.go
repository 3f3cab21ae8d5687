package config

import (
	"fmt"
	"reflect"
)

// A Change is one key that a reload found different.
type Change struct {
	Key      string
	From, To string
	Live     bool // in force now; else it waits for a restart
}

func (c Change) String() string {
	if c.Live {
		return fmt.Sprintf("%s: %s -> %s", c.Key, c.From, c.To)
	}
	return fmt.Sprintf("%s: %s -> %s, after a restart", c.Key, c.From, c.To)
}

// Reload returns c with what may change under way as next has it, and says
// what differs. What needs a restart stays as it is in c.
func (c Config) Reload(next Config) (merged Config, changes []Change) {
	merged = c
	theirs := next.keys()
	for i, k := range merged.keys() {
		from, to := show(k.at), show(theirs[i].at)
		if from == to {
			continue
		}
		changes = append(changes, Change{k.name, from, to, isLive(k.name)})
		if isLive(k.name) {
			reflect.ValueOf(k.at).Elem().Set(reflect.ValueOf(theirs[i].at).Elem())
		}
	}
	return merged, changes
}
