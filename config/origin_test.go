package config

import (
	"bytes"
	"errors"
	"flag"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"svcindex/profiles"
)

var update = flag.Bool("update", false, "write docs/config.md instead of comparing it")

func TestEachValueSaysWhereItCameFrom(t *testing.T) {
	path := file(t, "admin = \"127.0.0.1:1\"\n[limits]\ninflight = 1\njoined = 1\nbody = 1\n\n[stages]\ndb = {depth = 5, breaker = {probes = 2}}\nwrite.depth = 7\n")
	c, from, err := LoadOrigins(Input{
		File: path, Env: []string{"SVC_INDEX_LIMITS_JOINED=2"}, Set: []string{"limits.body=3KiB"},
	})
	if err != nil {
		t.Fatal(err)
	}
	for key, want := range map[string]string{
		"cache.ttl":                "default",
		"log.format":               "profile dev",
		"admin":                    "file " + path + ":1",
		"limits.inflight":          "file " + path + ":3",
		"limits.joined":            "environment variable SVC_INDEX_LIMITS_JOINED",
		"limits.body":              "flags",
		"stages.db.depth":          "file " + path + ":8",
		"stages.db.breaker.probes": "file " + path + ":8",
		"stages.write.depth":       "file " + path + ":9",
	} {
		if got := from.Of(key); got != want {
			t.Errorf("%s came from %q, want %q", key, got, want)
		}
	}
	var out bytes.Buffer
	if err := c.PrintOrigins(&out, from); err != nil {
		t.Fatal(err)
	}
	for _, k := range Keys() {
		if !strings.Contains(out.String(), "\n"+k.Name+" = ") && !strings.HasPrefix(out.String(), k.Name+" = ") {
			t.Errorf("%s is not printed", k.Name)
		}
	}
	again, err := Load(Input{File: file(t, out.String())})
	if err != nil {
		t.Fatalf("%v, of:\n%s", err, out.String())
	}
	if diff := cmp.Diff(c, again); diff != "" {
		t.Errorf("-printed +read:\n%s", diff)
	}
}

func TestAFaultNamesWhereItsValuesCameFrom(t *testing.T) {
	path := file(t, "[stages.db]\nmax_wait = \"500ms\"\n")
	c, from, err := LoadOrigins(Input{File: path, Set: []string{"stages.db.slice=170ms", "log.level=loud"}})
	if err != nil {
		t.Fatal(err)
	}
	got := Explain(c.check(20000), from)
	for _, want := range []string{"[stages.db.slice: flags; stages.db.max_wait: file " + path + ":2]", "[log.level: flags]"} {
		if got == nil || !strings.Contains(got.Error(), want) {
			t.Errorf("%q lacks %q", got, want)
		}
	}
	if plain := errors.New("x"); Explain(plain, from) != plain || Explain(nil, from) != nil {
		t.Error("what is no list of faults is passed on as it is")
	}
}

func TestAReloadChangesWhatIsLiveAndSaysWhatIsNot(t *testing.T) {
	was, _ := Load(Input{})
	next, err := Load(Input{Set: []string{"limits.inflight=7", "stages.db.slice=100ms", "stages.db.max_wait=9ms", "listen=127.0.0.1:9", "cache.bytes=1MiB"}})
	if err != nil {
		t.Fatal(err)
	}
	merged, changes := was.Reload(next)
	if merged.Limits.Inflight != 7 || merged.Stages.DB.Slice != next.Stages.DB.Slice || merged.Listen != was.Listen || merged.Cache.Bytes != was.Cache.Bytes {
		t.Errorf("merged is %+v", merged)
	}
	if was.Limits.Inflight == 7 {
		t.Error("the old configuration was written to: somebody may be reading it")
	}
	var got []string
	for _, c := range changes {
		got = append(got, c.String())
	}
	want := []string{
		`listen: "127.0.0.1:8080" -> "127.0.0.1:9", after a restart`, "limits.inflight: 512 -> 7",
		"stages.db.slice: 180ms -> 100ms", "stages.db.max_wait: 150ms -> 9ms", "cache.bytes: 256MiB -> 1MiB, after a restart",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	if _, none := was.Reload(was); len(none) != 0 {
		t.Errorf("no change, and it says %v", none)
	}
}

// A slice in the struct would be shared by two configurations.
func TestNothingInAConfigIsShared(t *testing.T) {
	var c Config
	for _, k := range c.keys() {
		if kind := reflect.TypeOf(k.at).Elem().Kind(); kind == reflect.Pointer {
			t.Errorf("%s is a %v", k.name, kind)
		}
	}
}

func TestWhatIsLiveIsInTheTable(t *testing.T) {
	for _, l := range live {
		if !slices.ContainsFunc(Keys(), func(k KeyDoc) bool { return k.Name == l || strings.HasPrefix(k.Name, l+".") }) {
			t.Errorf("%s is live, but no key is called so", l)
		}
	}
}

func TestEveryProfilePassesItsOwnCheck(t *testing.T) {
	for _, name := range profiles.Names() {
		c, err := Load(Input{Profile: name})
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		for _, nofile := range []int{1024, 20000} {
			if err := c.check(nofile); err != nil {
				t.Errorf("%s with %d descriptors: %v", name, nofile, err)
			}
		}
	}
}

// The page is written from the table; `make docs` does it.
func TestThePageOfKeysIsTrue(t *testing.T) {
	var want bytes.Buffer
	if err := WriteDoc(&want); err != nil {
		t.Fatal(err)
	}
	const page = "../docs/config.md"
	if *update {
		if err := os.WriteFile(page, want.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want.String(), string(got)); diff != "" {
		t.Errorf("docs/config.md is not what the keys say; run make docs:\n%s", diff)
	}
}
