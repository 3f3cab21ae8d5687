package index

import (
	"errors"
	"fmt"
	"testing"
)

// kinds are all there are.
var kinds = []Kind{
	OK, Missing, Invalid, Unsupported, TooLarge, BadType, Forbidden, Conflict, Busy, Late, Down, Full, Broken,
}

func TestEveryKindHasANameOfItsOwn(t *testing.T) {
	seen := make(map[string]Kind)
	for _, k := range kinds {
		s := k.String()
		if other, twice := seen[s]; twice || s == "" || k.Error() != s {
			t.Errorf("kind %d is called %q (error %q); so is kind %d", k, s, k.Error(), other)
		}
		seen[s] = k
	}
	if len(kinds) != len(kindNames) {
		t.Errorf("%d kinds have %d names", len(kinds), len(kindNames))
	}
}

// A refusal that carries its kind, as those of other packages do.
type wrapped struct{ kind Kind }

func (w *wrapped) Error() string { return "in other words" }
func (w *wrapped) Unwrap() error { return w.kind }

func TestKindOf(t *testing.T) {
	for _, tt := range []struct {
		why  string
		err  error
		want Kind
	}{
		{"nil is well", nil, OK},
		{"a kind is itself", Late, Late},
		{"the proven absence is a kind, too", Missing, Missing},
		{"a kind inside an error", fmt.Errorf("reading: %w", Full), Full},
		{"a kind deep inside", fmt.Errorf("a: %w", fmt.Errorf("b: %w", Conflict)), Conflict},
		{"a refusal that carries one", &wrapped{TooLarge}, TooLarge},
		{"a refusal inside an error", fmt.Errorf("a: %w", &wrapped{BadType}), BadType},
		{"one that says nothing did not look", errors.New("disk on fire"), Down},
		{"and is not taken for absence", fmt.Errorf("missing"), Down},
	} {
		if got := KindOf(tt.err); got != tt.want {
			t.Errorf("%s: KindOf(%v) = %v, want %v", tt.why, tt.err, got, tt.want)
		}
	}
}

func TestKindOfDoesNotAllocate(t *testing.T) {
	deep := fmt.Errorf("a: %w", &wrapped{BadType})
	for _, err := range []error{nil, Missing, deep} {
		if n := testing.AllocsPerRun(100, func() { KindOf(err) }); n != 0 {
			t.Errorf("KindOf(%v) allocates %v times, want 0", err, n)
		}
	}
}

func TestStronger(t *testing.T) {
	for _, tt := range []struct {
		why     string
		weaker  Kind
		further Kind
	}{
		{"any doubt beats none", OK, Down},
		{"absence is no doubt", Missing, Down},
		{"504 beats 503", Down, Late},
		{"429 beats 504", Late, Busy},
		{"429 beats 503", Down, Busy},
		{"damage beats them all", Busy, Broken},
		{"a full disk is no stronger than lateness", Full, Late},
	} {
		if got := Stronger(tt.weaker, tt.further); got != tt.further {
			t.Errorf("%s: Stronger(%v, %v) = %v", tt.why, tt.weaker, tt.further, got)
		}
		if got := Stronger(tt.further, tt.weaker); got != tt.further {
			t.Errorf("%s, whichever came first: Stronger(%v, %v) = %v", tt.why, tt.further, tt.weaker, got)
		}
	}
}

// A pipeline meets doubts in any order and must end at the same one.
func TestStrongerDoesNotDependOnTheOrder(t *testing.T) {
	doubts := []Kind{OK, Down, Late, Busy, Broken}
	for _, a := range doubts {
		if Stronger(a, a) != a {
			t.Errorf("Stronger(%v, %v) is something else", a, a)
		}
		for _, b := range doubts {
			if Stronger(a, b) != Stronger(b, a) {
				t.Errorf("Stronger of %v and %v depends on the order", a, b)
			}
			for _, c := range doubts {
				if Stronger(Stronger(a, b), c) != Stronger(a, Stronger(b, c)) {
					t.Errorf("Stronger of %v, %v and %v depends on the order", a, b, c)
				}
			}
		}
	}
}
