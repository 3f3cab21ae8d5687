package config

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func Example() {
	c, err := Load(Input{
		Env: []string{"SVC_INDEX_LIMITS_MAX_CONNS=1000"},
		Set: []string{"stages.db.slice=150ms"},
	})
	fmt.Println(c.Limits.Conns(), c.Stages.DB.Slice, c.Limits.Body, err)
	// Output: 1000 150ms 1MiB <nil>
}

// file writes a configuration file and returns its path.
func file(t *testing.T, toml string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "svc-index.toml")
	if err := os.WriteFile(path, []byte(toml), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestTheDefaultsPassTheirOwnCheck(t *testing.T) {
	for _, nofile := range []int{256, 1024, 20000, 1 << 30} {
		if err := Defaults().check(nofile); err != nil {
			t.Errorf("with %d descriptors: %v", nofile, err)
		}
	}
	c, err := Load(Input{})
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Check(); err != nil {
		t.Errorf("profile dev: %v", err)
	}
}

// The table must name every field and nothing else, under the field's own toml
// name, or Print and Load would disagree.
func TestTheTableIsTheStruct(t *testing.T) {
	var c Config
	fields := map[string]any{}
	walk(reflect.ValueOf(&c).Elem(), "", fields)
	envs := map[string]string{}
	for _, k := range c.keys() {
		if fields[k.name] != k.at {
			t.Errorf("key %s does not point at the field of that name", k.name)
		}
		delete(fields, k.name)
		if other, taken := envs[envName(k.name)]; taken {
			t.Errorf("%s and %s share the variable %s", k.name, other, envName(k.name))
		}
		envs[envName(k.name)] = k.name
		if comesLater(k.name, ".", strings.ToLower) {
			t.Errorf("key %s is listed as of a later version", k.name)
		}
	}
	for name := range fields {
		t.Errorf("field %s is not in the table: nobody can set it", name)
	}
}

// walk collects pointers to the leaves of v by their dotted toml names.
func walk(v reflect.Value, path string, out map[string]any) {
	for i := range v.NumField() {
		name := strings.TrimPrefix(path+"."+v.Type().Field(i).Tag.Get("toml"), ".")
		if v.Field(i).Kind() == reflect.Struct {
			walk(v.Field(i), name, out)
			continue
		}
		out[name] = v.Field(i).Addr().Interface()
	}
}

func TestEveryKeyIsDocumented(t *testing.T) {
	for _, k := range Keys() {
		if k.Doc == "" || k.Type == "" || k.Env == "" {
			t.Errorf("%+v lacks something", k)
		}
		if numeric := k.Type == "integer" || k.Type == "number" || k.Type == "count"; numeric && k.Unit == "" {
			t.Errorf("%s is a bare number without a unit", k.Name)
		}
	}
}

func TestLaterLayersWin(t *testing.T) {
	in := Input{
		File: file(t, "[limits]\ninflight = 1\njoined = 1\nbody = \"1KiB\"\n"),
		Env:  []string{"PATH=/bin", "SVC_INDEX_LIMITS_JOINED=2", "SVC_INDEX_LIMITS_BODY=2KiB", "SVC_INDEX_TOKEN=t", "SVC_INDEX_SERVER=u", "SVC_INDEX_ADMIN_URL=v"},
		Set:  []string{"limits.body=2KiB", "limits.body=3KiB"},
	}
	got, err := Load(in)
	if err != nil {
		t.Fatal(err)
	}
	want := Defaults()
	want.Log.Format = "text" // profile over defaults
	want.Limits.RPS = 0
	want.DHT.Enabled, want.DHT.Mode, want.DHT.Listen, want.DHT.AllowPrivate = true, DHTServer, "127.0.0.1:0", true
	want.Limits.Inflight = 1 // file over profile
	want.Limits.Joined = 2   // environment over file
	want.Limits.Body = 3072  // flags over all, the last of them
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

// Whatever a layer may say, it says through the same table; so it is enough to
// show that each layer reaches every key.
func TestEveryLayerReachesEveryKey(t *testing.T) {
	sample := map[string]string{
		"string": "x", "bool": "true", "integer": "7", "number": "0.25", "duration": "7ms", "bytes": "7KiB", "count": "7",
		"list": "a,b", "table": "name:a=K,L;name:b=M",
	}
	inForce := []string{"db.sync", "profile", "dht.enabled", "dht.allow_private"} // the profile says the same
	for _, k := range Keys() {
		v := sample[k.Type]
		if k.Name == "profile" {
			v = "dev"
		}
		quoted := v
		if k.Type == "string" || k.Type == "duration" || k.Type == "bytes" {
			quoted = `"` + v + `"`
		}
		switch k.Type {
		case "list":
			quoted = `["a", "b"]`
		case "table":
			quoted = `{"name:a" = ["K", "L"], "name:b" = ["M"]}`
		}
		byFile, err1 := Load(Input{File: file(t, k.Name+" = "+quoted)})
		byEnv, err2 := Load(Input{Env: []string{k.Env + "=" + v}})
		byFlag, err3 := Load(Input{Set: []string{k.Name + "=" + v}})
		if err1 != nil || err2 != nil || err3 != nil {
			t.Errorf("%s: %v, %v, %v", k.Name, err1, err2, err3)
			continue
		}
		plain, _ := Load(Input{})
		if cmp.Diff(plain, byFlag) == "" && k.Default != v && !slices.Contains(inForce, k.Name) {
			t.Errorf("%s: setting it changes nothing", k.Name)
		}
		if diff := cmp.Diff(byFile, byEnv) + cmp.Diff(byEnv, byFlag); diff != "" {
			t.Errorf("%s: layers differ:\n%s", k.Name, diff)
		}
	}
}

func TestPrintIsReadBack(t *testing.T) {
	want, err := Load(Input{Set: []string{
		"rank.deny=a,region:x", "trust.publishers=name:a.b=K,L;name:c=M", "limits.max_conns=99", "cache.bytes=1000001", "cache.ttl=1h30m", "cache.neg_ttl=1.5s", "uds.path=/run/x y/\"s\"", "rank.region_bias=0.125",
	}})
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	if err := want.Print(&out); err != nil {
		t.Fatal(err)
	}
	got, err := Load(Input{File: file(t, out.String())})
	if err != nil {
		t.Fatalf("%v, of:\n%s", err, out.String())
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-printed +read:\n%s", diff)
	}
}

func TestLoadRefuses(t *testing.T) {
	for _, tt := range []struct {
		why  string
		in   Input
		want []string // all of these are in the message
	}{
		{"a misspelt key names its neighbour", Input{Set: []string{"limits.inflght=5"}},
			[]string{"flags", `unknown key "limits.inflght"`, `"limits.inflight"`}},
		{"a bare word finds its table", Input{Set: []string{"neg_ttl=5s"}}, []string{`"cache.neg_ttl"`}},
		{"a stage that does not exist", Input{Set: []string{"stages.dbb.depth=5"}}, []string{`"stages.db.depth"`}},
		{"a key of a later part is not a misspelling", Input{Set: []string{"tls.cert=x"}},
			[]string{`"tls.cert" is not in this version`}},
		{"so is a later key of a table we have", Input{Set: []string{"dht.pq=true"}}, []string{"not in this version"}},
		{"but not what only begins like one", Input{Set: []string{"dht.pqx=5"}}, []string{"unknown key"}},
		{"an empty later table", Input{File: file(t, "[tls]\n")}, []string{`"tls" is not in this version`}},
		{"an unknown empty table", Input{File: file(t, "[limit]\n")}, []string{`unknown key "limit"`}},
		{"a file says which file, and which line", Input{File: file(t, "# x\n\nlisen = \"x\"\n")}, []string{"svc-index.toml:3:", `"listen"`}},
		{"a line in a table", Input{File: file(t, "[limits]\nbody = 1\ninflght = 2\n")}, []string{"svc-index.toml:3:", `"limits.inflight"`}},
		{"a line in an inline table", Input{File: file(t, "admin = \"\"\nlimits = {inflght = 2}\n")}, []string{"svc-index.toml:2:", `"limits.inflight"`}},
		{"all faults at once", Input{File: file(t, "lisen = \"\"\n[limits]\nbdy = 1\n"), Set: []string{"nonsense"}, Env: []string{"SVC_INDEX_X=1"}},
			[]string{`"nonsense"`, "SVC_INDEX_X"}},
		{"all faults of the layers", Input{File: file(t, "lisen = \"\"\n[limits]\nbdy = 1\n"), Set: []string{"cache.tll=1s"}},
			[]string{"svc-index.toml:1:", "svc-index.toml:3:", `"cache.ttl"`}},
		{"a key in quotes is another key", Input{File: file(t, `"limits.body" = 5`)}, []string{"unknown key"}},
		{"a value where a table is", Input{File: file(t, "limits = 5\n")}, []string{`"limits" is a table`, "found 5"}},
		{"a table where a value is", Input{File: file(t, "[listen]\nx = 1\n")}, []string{`unknown key "listen.x"`}},
		{"an empty table where a value is", Input{File: file(t, "[listen]\n")}, []string{"listen: found a table, expected a string"}},
		{"not TOML says where", Input{File: file(t, "listen = \"a\"\nadmin = \n")}, []string{"line 2", "not TOML"}},
		{"a file that is not there", Input{File: "/nowhere/x.toml"}, []string{"/nowhere/x.toml"}},
		{"an unknown variable names its neighbour", Input{Env: []string{"SVC_INDEX_LIMITS_MAXCONNS=5"}},
			[]string{"SVC_INDEX_LIMITS_MAXCONNS", "SVC_INDEX_LIMITS_MAX_CONNS"}},
		{"a variable of a later part", Input{Env: []string{"SVC_INDEX_TRACING_RATIO=5"}}, []string{"not in this version"}},
		{"a bad value from the environment", Input{Env: []string{"SVC_INDEX_LIMITS_INFLIGHT=many"}},
			[]string{"environment variable SVC_INDEX_LIMITS_INFLIGHT", `limits.inflight: found "many"`, "whole number", "requests"}},
		{"a flag without a value", Input{Set: []string{"limits.inflight"}}, []string{"expected key=value"}},
		{"a profile nobody knows", Input{Profile: "prod"}, []string{`"prod"`, "expected one of: dev, macronode, micronode"}},
		{"a duration without a unit", Input{Set: []string{"cache.ttl=60"}}, []string{`found "60"`, "with its unit"}},
		{"a number for a duration", Input{File: file(t, "cache.ttl = 60\n")}, []string{"found 60", "with its unit"}},
		{"a duration below zero", Input{Set: []string{"cache.ttl=-1s"}}, []string{`found "-1s"`}},
		{"a duration that would wrap", Input{Set: []string{"cache.ttl=2000000h"}}, []string{"at most a year"}},
		{"a size in unknown units", Input{Set: []string{"limits.body=1Mi"}}, []string{"64MiB"}},
		{"a size that would wrap", Input{Set: []string{"limits.body=9000000000GiB"}}, []string{"limits.body"}},
		{"a size below zero", Input{File: file(t, "limits.body = -1\n")}, []string{"found -1"}},
		{"a string for a number", Input{File: file(t, "limits.inflight = \"5\"\n")}, []string{`found "5"`, "whole number"}},
		{"a number below zero", Input{Set: []string{"limits.inflight=-1"}}, []string{`found "-1"`}},
		{"a number too large", Input{Set: []string{"limits.inflight=99999999999"}}, []string{"2147483647"}},
		{"a string for a bool", Input{File: file(t, "insecure_bind = \"true\"\n")}, []string{"true or false"}},
		{"yes is not true", Input{Set: []string{"insecure_bind=yes"}}, []string{"true or false"}},
		{"not a number", Input{Set: []string{"rank.region_bias=NaN"}}, []string{"a number"}},
		{"a list", Input{File: file(t, "listen = [\"a\"]\n")}, []string{"expected a string"}},
		{"a text for a list", Input{File: file(t, "rank.deny = \"a\"\n")}, []string{"expected a list"}},
		{"a list of numbers", Input{File: file(t, "rank.deny = [1]\n")}, []string{"expected a list"}},
		{"trust in a text", Input{File: file(t, "[trust.publishers]\n\"name:a\" = \"K\"\n")}, []string{"svc-index.toml:1:", "a table of lists"}},
		{"trust in a table of tables", Input{File: file(t, "[trust.publishers.\"name:a\"]\nx = 1\n")}, []string{"a table of lists"}},
		{"trust without a key", Input{Set: []string{"trust.publishers=name:a"}}, []string{"a table of lists", "name:a=KEY"}},
		{"a prefix twice", Input{Set: []string{"trust.publishers=name:a=K;name:a=L"}}, []string{"a table of lists"}},
		{"a key beside the table", Input{Set: []string{"trust.publisher=name:a=K"}}, []string{`"trust.publishers"`}},
		{"a number of connections in words", Input{Set: []string{"limits.max_conns=all"}}, []string{`"auto" or a whole number`}},
	} {
		_, err := Load(tt.in)
		if err == nil {
			t.Errorf("%s: accepted", tt.why)
			continue
		}
		for _, w := range tt.want {
			if !strings.Contains(err.Error(), w) {
				t.Errorf("%s: %q lacks %q", tt.why, err, w)
			}
		}
	}
}

func TestUnits(t *testing.T) {
	for in, want := range map[string]Bytes{
		"0": 0, "0B": 0, "17": 17, "1KiB": 1024, "64MiB": 64 << 20, "2GiB": 2 << 30, "1TiB": 1 << 40, "10kB": 10000, "3 MB": 3e6,
	} {
		var b Bytes
		if err := b.UnmarshalText([]byte(in)); err != nil || b != want {
			t.Errorf("%q is %d, %v; want %d", in, int64(b), err, int64(want))
		}
		var again Bytes
		if err := again.UnmarshalText([]byte(b.String())); err != nil || again != b {
			t.Errorf("%q is printed %q, which is %d, %v", in, b, int64(again), err)
		}
	}
	for in, want := range map[string]string{
		"180ms": "180ms", "60s": "1m", "10m": "10m", "1h": "1h", "90m": "1h30m", "1m30s": "1m30s", "1h0m5s": "1h0m5s", "0": "0s", "100s": "1m40s",
	} {
		var d Duration
		if err := d.UnmarshalText([]byte(in)); err != nil || d.String() != want {
			t.Errorf("%q is printed %q, %v; want %q", in, d, err, want)
		}
	}
}

func FuzzLoadFile(f *testing.F) {
	var out bytes.Buffer
	if err := Defaults().Print(&out); err != nil {
		f.Fatal(err)
	}
	f.Add(out.String())
	f.Add("limits.body = \"1KiB\"\n[dht]\n")
	f.Add("a.\"b.c\" = [1, {x = 1}]\n")
	// No file may panic, and what was accepted survives being printed.
	f.Fuzz(func(t *testing.T, doc string) {
		settings, err := fromTOML([]byte(doc), "file", lines([]byte(doc)))
		if err != nil {
			return
		}
		c := Defaults()
		if c.apply(settings, Origins{}) != nil {
			return
		}
		var out bytes.Buffer
		if err := c.Print(&out); err != nil {
			t.Fatal(err)
		}
		settings, err = fromTOML(out.Bytes(), "printed", nil)
		if err != nil {
			t.Fatalf("%v, of:\n%s", err, out.String())
		}
		again := Defaults()
		if err := again.apply(settings, Origins{}); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(c, again); diff != "" {
			t.Error(diff)
		}
	})
}
