package faults

import (
	"fmt"
	"io"
	"strings"
	"testing"
	"time"
)

// TestFaultInline holds the row without a queue, which the product is compared
// with, to the same answers: a comparison with something that answers less
// would be worth nothing.
func TestFaultInline(t *testing.T) {
	s := start(t, options{env: []string{"RIG_INLINE=1"}})
	names := s.publish("inline/", 40)
	l := s.dial(dialing{})
	for _, source := range []string{"db", "cache"} {
		var b strings.Builder
		for i, name := range names {
			b.WriteString(resolve(name))
			b.WriteString(resolve(fmt.Sprint("absent/", source, i)))
		}
		_ = l.SetDeadline(time.Now().Add(patience))
		if _, err := io.WriteString(l, b.String()); err != nil {
			t.Fatal(err)
		}
		for _, name := range names {
			a, err := l.answer()
			if err != nil || a.status != 200 || strings.TrimSpace(a.head["x-index-source"]) != source || a.field("key") != "name:"+name {
				t.Fatalf("%s: %v %v from %q, want 200 from %s", name, err, a, a.head["x-index-source"], source)
			}
			if a, err = l.answer(); err != nil || a.status != 404 {
				t.Fatalf("after %s: %v %v, want 404", name, err, a)
			}
		}
	}
	if m := s.scrape(); m.attempts("cache", "found") < len(names) {
		t.Errorf("the cache has found %d, want %d at least", m.attempts("cache", "found"), len(names))
	}
	s.stop()
}
