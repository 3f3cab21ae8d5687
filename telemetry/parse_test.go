package telemetry

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// A parsed family is what a strict reader of the text format makes of ours.
type parsed struct {
	help, kind string
	series     []sample
}

type sample struct {
	name   string // with _bucket, _sum or _count
	labels map[string]string
	names  []string // of the labels, in order
	value  float64
}

var (
	nameForm   = regexp.MustCompile(`^[a-z_][a-z0-9_]*$`)
	sampleForm = regexp.MustCompile(`^([a-z_][a-z0-9_]*)(?:\{(.+)\})? (\S+)$`)
	labelForm  = regexp.MustCompile(`^([a-z_][a-z0-9_]*)="([A-Za-z0-9_.+:\-]*)"$`)
)

// parse reads an exposition and refuses what a lenient reader would forgive: a
// sample before its HELP and TYPE, a family in two pieces, a series twice, a
// label value that needs escaping, a line of any other form.
func parse(text string) (map[string]*parsed, error) {
	out, seen := map[string]*parsed{}, map[string]bool{}
	lines := strings.Split(text, "\n")
	if lines[len(lines)-1] != "" {
		return nil, fmt.Errorf("the last line does not end")
	}
	current := ""
	for i, line := range lines[:len(lines)-1] {
		fail := func(why string) (map[string]*parsed, error) {
			return nil, fmt.Errorf("line %d: %s: %q", i+1, why, line)
		}
		switch {
		case strings.HasPrefix(line, "# HELP "):
			name, help, _ := strings.Cut(line[len("# HELP "):], " ")
			if out[name] != nil || help == "" || !nameForm.MatchString(name) {
				return fail("bad or repeated HELP")
			}
			current, out[name] = name, &parsed{help: help}
		case strings.HasPrefix(line, "# TYPE "):
			name, kind, _ := strings.Cut(line[len("# TYPE "):], " ")
			if name != current || out[name].kind != "" {
				return fail("TYPE not right after its HELP")
			}
			out[name].kind = kind
		default:
			s, err := parseSample(line)
			if err != nil {
				return fail(err.Error())
			}
			if f := out[current]; f == nil || !belongs(s.name, current, f.kind) {
				return fail("sample outside its family")
			}
			if id := line[:strings.LastIndexByte(line, ' ')]; seen[id] {
				return fail("series twice")
			} else {
				seen[id] = true
			}
			out[current].series = append(out[current].series, s)
		}
	}
	return out, nil
}

func belongs(sample, family, kind string) bool {
	if kind == "histogram" {
		rest, ok := strings.CutPrefix(sample, family)
		return ok && (rest == "_bucket" || rest == "_sum" || rest == "_count")
	}
	return (kind == "counter" || kind == "gauge") && sample == family
}

func parseSample(line string) (sample, error) {
	m := sampleForm.FindStringSubmatch(line)
	if m == nil {
		return sample{}, fmt.Errorf("not a sample")
	}
	v, err := strconv.ParseFloat(m[3], 64)
	if err != nil {
		return sample{}, err
	}
	s := sample{name: m[1], labels: map[string]string{}, value: v}
	for pair := range strings.SplitSeq(m[2], ",") {
		if m[2] == "" {
			break
		}
		l := labelForm.FindStringSubmatch(pair)
		if l == nil || s.labels[l[1]] != "" {
			return sample{}, fmt.Errorf("bad label %q", pair)
		}
		s.labels[l[1]], s.names = l[2], append(s.names, l[1])
	}
	return s, nil
}

// values returns the samples called name whose labels include those given as
// name, value, ..
func (p *parsed) values(name string, labels ...string) (out []float64) {
	for _, s := range p.series {
		match := s.name == name
		for i := 0; i < len(labels); i += 2 {
			match = match && s.labels[labels[i]] == labels[i+1]
		}
		if match {
			out = append(out, s.value)
		}
	}
	return out
}

func TestTheParserIsStrict(t *testing.T) {
	head := "# HELP a x\n# TYPE a counter\n"
	for _, tt := range []struct {
		why, text string
		ok        bool
	}{
		{"the plain case", head + "a{b=\"c\"} 1\n", true},
		{"no last newline", head + "a 1", false},
		{"no TYPE", "# HELP a x\na 1\n", false},
		{"another name", head + "b 1\n", false},
		{"twice", head + "a 1\na 2\n", false},
		{"two labels of one name", head + "a{b=\"c\",b=\"d\"} 1\n", false},
		{"not a number", head + "a one\n", false},
		{"a histogram without suffix", "# HELP a x\n# TYPE a histogram\na 1\n", false},
		{"an empty line", head + "\n", false},
	} {
		if _, err := parse(tt.text); (err == nil) != tt.ok {
			t.Errorf("%s: %v", tt.why, err)
		}
	}
}
