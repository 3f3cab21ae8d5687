package config

import (
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/pelletier/go-toml/v2"
	"github.com/pelletier/go-toml/v2/unstable"
)

// Origins says where the value of a key came from: "profile dev", "file
// /etc/svc-index.toml:12", "environment variable SVC_INDEX_LISTEN", "flags". A
// key that is not in it has its default.
type Origins map[string]string

// Of returns where the value of key came from.
func (o Origins) Of(key string) string {
	if at, ok := o[key]; ok {
		return at
	}
	return "default"
}

// PrintOrigins writes c as TOML that Load reads back, one line a key, each with
// a comment that says where the value came from.
func (c Config) PrintOrigins(w io.Writer, from Origins) error {
	var b strings.Builder
	for _, k := range c.keys() {
		value, err := toml.Marshal(map[string]any{"v": k.at})
		if err != nil {
			return fmt.Errorf("printing %s: %w", k.name, err)
		}
		if p, isTable := k.at.(*Publishers); isTable {
			value = []byte("v = " + p.String())
		}
		line := k.name + strings.TrimSuffix(strings.TrimPrefix(string(value), "v"), "\n")
		fmt.Fprintf(&b, "%-48s # %s\n", line, from.Of(k.name))
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// Explain adds to each fault that Check found where the values it speaks of
// came from.
func Explain(err error, from Origins) error {
	if err == nil {
		return nil
	}
	if all, many := err.(interface{ Unwrap() []error }); many {
		var told []error
		for _, e := range all.Unwrap() {
			told = append(told, Explain(e, from))
		}
		return errors.Join(told...)
	}
	if at := from.spokenOf(err.Error()); at != "" {
		return fmt.Errorf("%w [%s]", err, at)
	}
	return err
}

// spokenOf lists the origins of the keys that text names, defaults left out.
func (o Origins) spokenOf(text string) string {
	var at []string
	var c Config
	for _, k := range c.keys() {
		if from, set := o[k.name]; set && mentions(text, k.name) {
			at = append(at, k.name+": "+from)
		}
	}
	return strings.Join(at, "; ")
}

// mentions reports whether text names key, and not only one that begins or
// ends like it.
func mentions(text, key string) bool {
	for at := 0; ; {
		i := strings.Index(text[at:], key)
		if i < 0 {
			return false
		}
		at += i + len(key)
		if (at == len(text) || !inKey(text[at])) && (at == len(key) || !inKey(text[at-len(key)-1])) {
			return true
		}
	}
}

func inKey(b byte) bool { return b >= 'a' && b <= 'z' || b >= '0' && b <= '9' || b == '_' || b == '.' }

// lines returns on which line of doc each key is set.
func lines(doc []byte) map[string]int {
	at := map[string]int{}
	var p unstable.Parser
	p.Reset(doc)
	table := ""
	for p.NextExpression() {
		switch e := p.Expression(); e.Kind {
		case unstable.Table, unstable.ArrayTable:
			table = keyOf(&p, "", e, at)
		case unstable.KeyValue:
			inline(&p, keyOf(&p, table, e, at), e.Value(), at)
		}
	}
	return at
}

// inline notes the keys of an inline table.
func inline(p *unstable.Parser, path string, v *unstable.Node, at map[string]int) {
	if v.Kind != unstable.InlineTable {
		return
	}
	for it := v.Children(); it.Next(); {
		if e := it.Node(); e.Kind == unstable.KeyValue {
			inline(p, keyOf(p, path, e, at), e.Value(), at)
		}
	}
}

// keyOf returns the dotted key of an expression under path, and notes its line.
func keyOf(p *unstable.Parser, path string, e *unstable.Node, at map[string]int) string {
	line := 0
	for it := e.Key(); it.Next(); {
		k := it.Node()
		path = strings.TrimPrefix(path+"."+string(k.Data), ".")
		line = p.Shape(k.Raw).Start.Line
	}
	at[path] = line
	return path
}
