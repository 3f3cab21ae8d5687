package config

import (
	"maps"
	"slices"
	"strconv"
	"strings"
)

// A List is texts in an order. It is a list in TOML, and "a,b" elsewhere.
type List []string

// Publishers says for each name prefix which public keys may sign names under
// it. It is a table of lists in TOML, and "name:a=KEY,KEY;name:b=KEY" elsewhere.
type Publishers map[string][]string

// assignList takes a list, or text. Nothing but blanks is an empty list.
func assignList(p *List, v any) bool {
	list, ok := texts(v)
	if ok {
		*p = list
	}
	return ok
}

// texts reads a list of texts.
func texts(v any) (out []string, ok bool) {
	switch v := v.(type) {
	case text:
		for part := range strings.SplitSeq(string(v), ",") {
			if part = strings.TrimSpace(part); part != "" {
				out = append(out, part)
			}
		}
		return out, true
	case []any:
		for _, one := range v {
			s, isString := one.(string)
			if !isString {
				return nil, false
			}
			out = append(out, s)
		}
		return out, true
	}
	return nil, false
}

// assignPublishers takes a table of lists, or text. A layer replaces the whole
// of what those below it said: trust that adds up unseen is none.
func assignPublishers(p *Publishers, v any) bool {
	all := Publishers{}
	switch v := v.(type) {
	case map[string]any:
		for prefix, keys := range v {
			list, ok := texts(keys)
			if !ok {
				return false
			}
			all[prefix] = list
		}
	case text:
		for part := range strings.SplitSeq(string(v), ";") {
			if part = strings.TrimSpace(part); part == "" {
				continue
			}
			prefix, keys, ok := strings.Cut(part, "=")
			prefix = strings.TrimSpace(prefix)
			if _, twice := all[prefix]; !ok || twice {
				return false
			}
			all[prefix], _ = texts(text(keys))
		}
	default:
		return false
	}
	*p = nil
	if len(all) > 0 {
		*p = all
	}
	return true
}

// whole are the tables that are one value: their keys are the operator's.
var whole = []string{"trust.publishers"}

func (l List) String() string {
	quoted := make([]string, len(l))
	for i, s := range l {
		quoted[i] = strconv.Quote(s)
	}
	return "[" + strings.Join(quoted, ", ") + "]"
}

// String returns the table as TOML has it on one line.
func (p Publishers) String() string {
	var lines []string
	for _, prefix := range slices.Sorted(maps.Keys(p)) {
		lines = append(lines, strconv.Quote(prefix)+" = "+List(p[prefix]).String())
	}
	return "{" + strings.Join(lines, ", ") + "}"
}
