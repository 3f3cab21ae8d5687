package compare

import (
	"cmp"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"regexp"
	"slices"
	"strings"
	"time"
)

// Schema names the layout of a Baseline.
const Schema = "svc-index/baseline/v1"

// A Baseline is what one class of machine has measured of one commit.
type Baseline struct {
	Schema  string             `json:"schema"`
	Host    Host               `json:"host"`
	Commit  string             `json:"commit"`
	Go      string             `json:"go"`
	Taken   time.Time          `json:"taken"`
	Rounds  int                `json:"rounds"` // of each comparison
	Noise   map[string]float64 `json:"noise"`  // by gate, of comparisons in which nothing had changed
	Figures map[string]float64 `json:"figures"`
	Null    []Round            `json:"null_rounds"` // what noise was taken from

	Disturbed int `json:"disturbed"` // halves of those rounds during which others used the machine, in every try
}

// A Round is one figure of each gate, of both builds.
type Round map[string]Pair

// A Host is a machine. Figures of two classes cannot be compared.
type Host struct {
	Class  string `json:"class"`
	CPU    string `json:"cpu"`
	Cores  int    `json:"cores"`
	Memory string `json:"memory"`
	Kernel string `json:"kernel"`
}

var notWord = regexp.MustCompile(`[^a-z0-9]+`)

// ClassOf makes the name of a class: what is the same of machines whose figures
// can be compared.
func ClassOf(arch, cpu string, cores int) string {
	slug := strings.Trim(notWord.ReplaceAllString(strings.ToLower(cpu), "-"), "-")
	return fmt.Sprintf("%s-%s-%d", arch, cmp.Or(slug, "unknown"), cores)
}

// ReadBaseline reads a baseline for this machine, and refuses another's.
func ReadBaseline(path string, here Host) (*Baseline, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var b Baseline
	if err := json.Unmarshal(text, &b); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	switch {
	case b.Schema != Schema:
		return nil, fmt.Errorf("%s: it is %q, expected %q", path, b.Schema, Schema)
	case b.Host.Class != here.Class:
		return nil, fmt.Errorf("%s was measured on %s, and this is %s: such figures cannot be compared; "+
			"measure a baseline here with make gate-null", path, b.Host.Class, here.Class)
	}
	return &b, nil
}

// Of returns the rounds of one gate. A round without that figure is left out.
func Of(rounds []Round, gate string) (pairs []Pair) {
	for _, r := range rounds {
		if p, ok := r[gate]; ok {
			pairs = append(pairs, p)
		}
	}
	return pairs
}

// Nulls makes n comparisons of size rounds each from rounds in which nothing
// had changed: first those that share no round, then drawn ones. Which build
// was called new means nothing in them, so half are turned round.
func Nulls(rounds []Round, n, size int) (all [][]Round) {
	dice := rand.New(rand.NewPCG(7, uint64(len(rounds))))
	if size > len(rounds) || size == 0 {
		return nil
	}
	for i := range n {
		var c []Round
		if (i+1)*size <= len(rounds) {
			c = slices.Clone(rounds[i*size : (i+1)*size])
		} else {
			for _, k := range dice.Perm(len(rounds))[:size] {
				c = append(c, rounds[k])
			}
		}
		if i%2 == 1 {
			for k, r := range c {
				c[k] = turned(r)
			}
		}
		all = append(all, c)
	}
	return all
}

func turned(r Round) Round {
	t := Round{}
	for g, p := range r {
		t[g] = Pair{p.New, p.Base}
	}
	return t
}
