package compare

import (
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"time"
)

// A Waiver lets one gate be worse, for a reason, until a day.
type Waiver struct {
	Gate    string  `json:"gate"`
	Owner   string  `json:"owner"`
	Reason  string  `json:"reason"`
	Expires string  `json:"expires"` // 2026-12-31: the last day it holds
	UpTo    float64 `json:"up_to"`   // share by which the gate may be worse
}

// ReadWaivers reads the file of waivers; no file is none.
func ReadWaivers(path string) (ws []Waiver, err error) {
	text, err := os.ReadFile(path)
	if os.IsNotExist(err) {
		return nil, nil
	}
	if err == nil {
		err = json.Unmarshal(text, &ws)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return ws, nil
}

// Waive applies waivers to verdicts. What is wrong with a waiver is an error,
// whether or not its gate has failed: one that has expired is a promise nobody
// kept.
func Waive(vs []Verdict, ws []Waiver, now time.Time) ([]Verdict, []error) {
	var bad []error
	vs = slices.Clone(vs)
	for _, w := range ws {
		if err := w.check(now); err != nil {
			bad = append(bad, err)
			continue
		}
		i := slices.IndexFunc(vs, func(v Verdict) bool { return v.Name == w.Gate })
		if i < 0 {
			continue // of a gate that was not measured this time
		}
		if v := &vs[i]; v.State == Failed && v.worse() <= w.UpTo {
			v.State = Waived
			v.Why = fmt.Sprintf("%s; waived by %s until %s: %s", v.Why, w.Owner, w.Expires, w.Reason)
		}
	}
	return vs, bad
}

func (v Verdict) worse() float64 {
	if v.Less {
		return 1 - v.Ratio
	}
	return v.Ratio - 1
}

func (w Waiver) check(now time.Time) error {
	last, err := time.Parse(time.DateOnly, w.Expires)
	switch {
	case w.Gate == "" || w.Owner == "" || w.Reason == "":
		return fmt.Errorf("a waiver of %q by %q for %q: expected a gate, an owner and a reason", w.Gate, w.Owner, w.Reason)
	case err != nil:
		return fmt.Errorf("the waiver of %s expires %q, expected a day such as 2026-12-31", w.Gate, w.Expires)
	case w.UpTo <= 0:
		return fmt.Errorf("the waiver of %s is up to %v, expected the share by which it may be worse, such as 0.2", w.Gate, w.UpTo)
	case !now.Before(last.AddDate(0, 0, 1)):
		return fmt.Errorf("the waiver of %s has expired on %s: %s, mend it, or say anew why not", w.Gate, w.Expires, w.Owner)
	}
	return nil
}
