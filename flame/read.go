package flame

import (
	"bytes"
	"cmp"
	"fmt"
	"io"
	"strings"

	"github.com/google/pprof/profile"
)

// How says what to make of a profile.
type How struct {
	Of      string  // the value that counts: cpu, alloc_space, delay; "" is the profile's own choice
	Per     float64 // what each value is divided by: the requests that were answered; 0 is 1
	ByStage bool    // the first frames are the labels stage and route, where there are any
	Rules   []Rule  // where there are none
}

// A Tree is the merged stacks of a profile.
type Tree struct {
	Unit  string // nanoseconds, bytes, count
	Of    string // what was counted: cpu, alloc_space, delay
	Total float64
	root  *node
}

// A node is one frame in one place.
type node struct {
	name        string
	total, self float64
	before      float64 // of a difference: what total was
	children    map[string]*node
}

func (n *node) child(name string) *node {
	c := n.children[name]
	if c == nil {
		c = &node{name: name}
		if n.children == nil {
			n.children = map[string]*node{}
		}
		n.children[name] = c
	}
	return c
}

// Read merges the stacks of a profile.
func Read(r io.Reader, how How) (*Tree, error) {
	p, err := profile.Parse(r)
	if err != nil {
		return nil, fmt.Errorf("no profile: %w", err)
	}
	at, err := column(p, how.Of)
	if err != nil {
		return nil, err
	}
	t := &Tree{Unit: p.SampleType[at].Unit, Of: p.SampleType[at].Type, root: &node{name: "all"}}
	for _, s := range p.Sample {
		if v := float64(s.Value[at]) / cmp.Or(how.Per, 1); v != 0 {
			t.add(stack(s, how), v)
		}
	}
	t.Total = t.root.total
	return t, nil
}

// column returns which of a sample's values is called of.
func column(p *profile.Profile, of string) (int, error) {
	if of == "" {
		of = p.DefaultSampleType
	}
	var have []string
	for i, t := range p.SampleType {
		if t.Type == of {
			return i, nil
		}
		have = append(have, t.Type)
	}
	if of == "" && len(have) > 0 {
		return len(have) - 1, nil
	}
	return 0, fmt.Errorf("the profile has no %q; it has %s", of, strings.Join(have, ", "))
}

func (t *Tree) add(frames []string, v float64) {
	n := t.root
	n.total += v
	for _, f := range frames {
		n = n.child(f)
		n.total += v
	}
	n.self += v
}

// stack returns a sample's frames, outermost first.
func stack(s *profile.Sample, how How) (frames []string) {
	var functions []string
	for i := len(s.Location) - 1; i >= 0; i-- {
		lines := s.Location[i].Line
		for k := len(lines) - 1; k >= 0; k-- { // the last is what the others were inlined into
			if f := lines[k].Function; f != nil {
				functions = append(functions, short(f.Name))
			}
		}
	}
	if how.ByStage {
		frames = append(frames, "stage "+stage(s, functions, how.Rules))
		if r := s.Label["route"]; len(r) > 0 {
			frames = append(frames, "route "+r[0])
		}
	}
	return append(frames, functions...)
}

// A Rule says to which stage a stack belongs that wears no label: one with a
// function whose name begins so. The runtime labels only samples of processor
// time and goroutines.
type Rule struct{ Function, Stage string }

// stage returns the label, or what the rules say, the first that fits.
func stage(s *profile.Sample, functions []string, rules []Rule) string {
	if l := s.Label["stage"]; len(l) > 0 {
		return l[0]
	}
	for _, r := range rules {
		for _, f := range functions {
			if strings.HasPrefix(f, r.Function) {
				return r.Stage
			}
		}
	}
	return "(none)"
}

// short drops the path of a function's package: the name says enough.
func short(name string) string {
	head, tail := name, ""
	if i := strings.IndexAny(name, "(["); i >= 0 { // a type argument has a path of its own
		head, tail = name[:i], name[i:]
	}
	return head[strings.LastIndexByte(head, '/')+1:] + tail
}

// Subtract returns the profile of what came after before: the runtime's
// profiles of allocations and waits count from the start of the process.
func Subtract(after, before []byte) ([]byte, error) {
	b, err := profile.Parse(bytes.NewReader(before))
	if err != nil {
		return nil, fmt.Errorf("the profile before: %w", err)
	}
	a, err := profile.Parse(bytes.NewReader(after))
	if err != nil {
		return nil, fmt.Errorf("the profile after: %w", err)
	}
	b.Scale(-1)
	d, err := profile.Merge([]*profile.Profile{a, b})
	if err != nil {
		return nil, fmt.Errorf("the two do not match: %w", err)
	}
	d.TimeNanos, d.DurationNanos = a.TimeNanos, a.TimeNanos-b.TimeNanos
	var out bytes.Buffer
	err = d.Write(&out)
	return out.Bytes(), err
}
