package config

import (
	"encoding"
	"errors"
	"fmt"
	"math"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/pelletier/go-toml/v2"

	"svcindex/profiles"
)

// Input is what a command was given to find its configuration.
type Input struct {
	Profile string   // --profile; empty: as the lower layers say
	File    string   // --config, TOML; empty: none
	Env     []string // os.Environ()
	Set     []string // key=value, from --set and the named flags; later ones win
}

const envPrefix = "SVC_INDEX_"

// envForeign are variables under our prefix that are not configuration: the
// commands that talk to a server read them.
var envForeign = []string{"SVC_INDEX_TOKEN", "SVC_INDEX_SERVER", "SVC_INDEX_ADMIN_URL"}

// A setting is one value on its way into the Config.
type setting struct {
	key    string
	value  any    // as TOML has it, or text
	origin string // as Origins has it
	table  bool   // it is an empty table: nothing to set, but the name must be known
}

// text is a value from the environment or a flag: it has no type yet.
type text string

// Load returns the configuration that in describes. It does not Check it.
func Load(in Input) (Config, error) {
	c, _, err := LoadOrigins(in)
	return c, err
}

// LoadOrigins is Load, and says of every key where its value came from. An
// error tells everything that is wrong, each with its place.
func LoadOrigins(in Input) (Config, Origins, error) {
	upper, err := above(in)
	if err != nil {
		return Config{}, nil, err
	}
	// The layers above name the profile that lies below them, so they are laid
	// down twice: once to learn its name, once for good.
	draft := Defaults()
	if err := draft.apply(upper, Origins{}); err != nil {
		return Config{}, nil, err
	}
	lower, err := fromProfile(draft.Profile)
	if err != nil {
		return Config{}, nil, err
	}
	c, from := Defaults(), Origins{}
	if err := c.apply(slices.Concat(lower, upper), from); err != nil {
		return Config{}, nil, err
	}
	return c, from, nil
}

// above returns what the layers over the profile say, lowest first.
func above(in Input) ([]setting, error) {
	file, err1 := fromFile(in.File)
	env, err2 := fromEnv(in.Env)
	flags, err3 := fromFlags(in)
	return slices.Concat(file, env, flags), errors.Join(err1, err2, err3)
}

func fromProfile(name string) ([]setting, error) {
	doc, err := profiles.Read(name)
	if err != nil {
		return nil, err
	}
	return fromTOML(doc, "profile "+name, nil)
}

func fromFile(path string) ([]setting, error) {
	if path == "" {
		return nil, nil
	}
	doc, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("reading the configuration file: %w", err)
	}
	return fromTOML(doc, "file "+path, lines(doc))
}

// fromTOML returns the settings of a document, sorted, so that of several
// faults always the same one is told first. at says on which line each key is.
func fromTOML(doc []byte, origin string, at map[string]int) ([]setting, error) {
	var tree map[string]any
	if err := toml.Unmarshal(doc, &tree); err != nil {
		if at, ok := errors.AsType[*toml.DecodeError](err); ok {
			line, column := at.Position()
			return nil, fmt.Errorf("%s, line %d, column %d: not TOML: %w", origin, line, column, err)
		}
		return nil, fmt.Errorf("%s: not TOML: %w", origin, err)
	}
	out := flatten(nil, "", tree, origin)
	for i := range out {
		if n := at[out[i].key]; n > 0 {
			out[i].origin += ":" + strconv.Itoa(n)
		}
	}
	slices.SortFunc(out, func(a, b setting) int { return strings.Compare(a.key, b.key) })
	return out, nil
}

// flatten appends the leaves of tree as dotted keys. An empty table is a leaf:
// nobody may name a table that does not exist.
func flatten(out []setting, path string, tree map[string]any, origin string) []setting {
	for name, v := range tree {
		if strings.Contains(name, ".") {
			name = strconv.Quote(name) // "a.b" in quotes is not a.b: the two could be at odds
		}
		full := strings.TrimPrefix(path+"."+name, ".")
		sub, isTable := v.(map[string]any)
		if isTable && len(sub) > 0 && !slices.Contains(whole, full) {
			out = flatten(out, full, sub, origin)
			continue
		}
		out = append(out, setting{full, v, origin, isTable})
	}
	return out
}

// fromEnv returns the settings of the environment. Names are built from the
// known keys and compared, never split: keys contain underscores themselves.
func fromEnv(env []string) ([]setting, error) {
	var c Config
	known := map[string]string{}
	names := []string{}
	for _, k := range c.keys() {
		known[envName(k.name)] = k.name
		names = append(names, envName(k.name))
	}
	var out []setting
	var bad []error
	for _, kv := range env {
		name, value, _ := strings.Cut(kv, "=")
		if !strings.HasPrefix(name, envPrefix) || slices.Contains(envForeign, name) {
			continue
		}
		k, ok := known[name]
		switch {
		case ok:
			out = append(out, setting{key: k, value: text(value), origin: "environment variable " + name})
		case comesLater(name, "_", envName):
			bad = append(bad, fmt.Errorf("environment variable %s is not in this version; unset it until the part it belongs to arrives", name))
		default:
			bad = append(bad, fmt.Errorf("unknown environment variable %s; the nearest known one is %s", name, nearest(name, names)))
		}
	}
	return out, errors.Join(bad...)
}

// envName returns the variable that sets key.
func envName(key string) string {
	return envPrefix + strings.ToUpper(strings.ReplaceAll(key, ".", "_"))
}

func fromFlags(in Input) ([]setting, error) {
	var out []setting
	if in.Profile != "" {
		out = append(out, setting{key: "profile", value: text(in.Profile), origin: "flags"})
	}
	var bad []error
	for _, kv := range in.Set {
		k, v, ok := strings.Cut(kv, "=")
		if !ok {
			bad = append(bad, fmt.Errorf("flags: found %q, expected key=value, such as limits.inflight=512", kv))
			continue
		}
		out = append(out, setting{key: strings.TrimSpace(k), value: text(strings.TrimSpace(v)), origin: "flags"})
	}
	return out, errors.Join(bad...)
}

// apply lays settings over c in order, and notes in from whose word stands.
func (c *Config) apply(settings []setting, from Origins) error {
	known := c.keys()
	var bad []error
	for _, s := range settings {
		if s.table && isTable(s.key, known) {
			continue
		}
		i := slices.IndexFunc(known, func(k key) bool { return k.name == s.key })
		switch {
		case i < 0 && isTable(s.key, known):
			bad = append(bad, fmt.Errorf("%s: %q is a table; found %s, expected keys in it", s.origin, s.key, found(s.value)))
		case i < 0:
			bad = append(bad, fmt.Errorf("%s: %w", s.origin, unknown(s.key, known)))
		case !assign(known[i].at, s.value):
			bad = append(bad, fmt.Errorf("%s: %s: found %s, expected %s", s.origin, s.key, found(s.value), expected(known[i])))
		default:
			from[s.key] = s.origin
		}
	}
	return errors.Join(bad...)
}

func isTable(name string, known []key) bool {
	return slices.ContainsFunc(known, func(k key) bool { return strings.HasPrefix(k.name, name+".") })
}

// assign stores v where at points and reports whether v is of its kind. A file
// must use TOML's own types; text is taken for whatever it can be.
func assign(at, v any) bool {
	switch p := at.(type) {
	case *string:
		return assignString(p, v)
	case *bool:
		return assignBool(p, v)
	case *int:
		return assignInt(p, v)
	case *float64:
		return assignFloat(p, v)
	case *List:
		return assignList(p, v)
	case *Publishers:
		return assignPublishers(p, v)
	case encoding.TextUnmarshaler:
		return assignText(p, v)
	}
	return false
}

func assignString(p *string, v any) (ok bool) {
	if t, isText := v.(text); isText {
		v = string(t)
	}
	s, ok := v.(string)
	if ok {
		*p = s
	}
	return ok
}

func assignBool(p *bool, v any) (ok bool) {
	if v == text("true") || v == text("false") {
		v = v == text("true")
	}
	b, ok := v.(bool)
	if ok {
		*p = b
	}
	return ok
}

func assignInt(p *int, v any) bool {
	if t, ok := v.(text); ok {
		n, err := strconv.ParseInt(string(t), 10, 64)
		if err != nil {
			return false
		}
		v = n
	}
	n, ok := v.(int64)
	if !ok || n < 0 || n > math.MaxInt32 {
		return false
	}
	*p = int(n)
	return true
}

func assignFloat(p *float64, v any) bool {
	f, ok := 0.0, true
	switch v := v.(type) {
	case float64:
		f = v
	case int64:
		f = float64(v)
	case text:
		n, err := strconv.ParseFloat(string(v), 64)
		f, ok = n, err == nil
	default:
		ok = false
	}
	if !ok || math.IsNaN(f) || math.IsInf(f, 0) {
		return false
	}
	*p = f
	return true
}

// assignText serves the types of units.go. A bare number is good for all but a
// Duration: nobody can tell seconds from milliseconds.
func assignText(p encoding.TextUnmarshaler, v any) bool {
	var s string
	switch v := v.(type) {
	case string:
		s = v
	case text:
		s = string(v)
	case int64:
		if _, isDuration := p.(*Duration); isDuration {
			return false
		}
		s = strconv.FormatInt(v, 10)
	default:
		return false
	}
	return p.UnmarshalText([]byte(s)) == nil
}

// foundMax keeps a value that is not ours from filling an operator's screen.
const foundMax = 80

// found shows a value in an error.
func found(v any) string {
	s := fmt.Sprint(v)
	if t, ok := v.(text); ok {
		s = strconv.Quote(string(t))
	} else if t, ok := v.(string); ok {
		s = strconv.Quote(t)
	} else if _, ok := v.(map[string]any); ok {
		s = "a table"
	}
	if len(s) > foundMax {
		s = s[:foundMax] + ".."
	}
	return s
}

// expected says what a key takes.
func expected(k key) string {
	s := map[string]string{
		"string":   "a string",
		"bool":     "true or false",
		"integer":  "a whole number from 0 to 2147483647",
		"number":   "a number",
		"duration": `a duration with its unit, like "180ms", "2s" or "10m", of at most a year`,
		"bytes":    `a size like "64MiB", or a whole number of bytes`,
		"count":    `"auto" or a whole number`,
		"list":     `a list of texts like ["a", "b"], or "a,b" in the environment and in flags`,
		"table":    `a table of lists like {"name:a" = ["KEY"]}, or "name:a=KEY,KEY;name:b=KEY" in the environment and in flags`,
	}[typeName(k.at)]
	if k.unit != "" {
		s += " (" + k.unit + ")"
	}
	return s
}

func typeName(at any) string {
	switch at.(type) {
	case *bool:
		return "bool"
	case *int:
		return "integer"
	case *float64:
		return "number"
	case *Duration:
		return "duration"
	case *Bytes:
		return "bytes"
	case *Conns:
		return "count"
	case *List:
		return "list"
	case *Publishers:
		return "table"
	}
	return "string"
}

// show returns the value at points to, for documentation.
func show(at any) string {
	switch p := at.(type) {
	case *string:
		return strconv.Quote(*p)
	case *bool:
		return strconv.FormatBool(*p)
	case *int:
		return strconv.Itoa(*p)
	case *float64:
		return strconv.FormatFloat(*p, 'g', -1, 64)
	}
	return fmt.Sprint(at)
}
