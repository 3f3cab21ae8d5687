package main

import (
	"bytes"
	"context"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/spf13/cobra"

	"svcindex/auth"
	"svcindex/index"
)

// run executes a command and returns what it printed and its exit code.
func run(t *testing.T, cmd *cobra.Command, args ...string) (stdout string, code int, err error) {
	t.Helper()
	var out, errOut bytes.Buffer
	cmd.SilenceErrors, cmd.SilenceUsage = true, true
	cmd.SetOut(&out)
	cmd.SetErr(&errOut)
	cmd.SetArgs(args)
	err = cmd.ExecuteContext(t.Context())
	return out.String(), exitCode(err), err
}

var smallTree = map[string]string{"a.go": "1", "d/b": "2", "d/e/c": "3", "d/e/a copy": "1", "empty": "/", "empty2": "/"}

func TestPublish(t *testing.T) {
	s := newFakeServer(t)
	root := plant(t, smallTree)
	out, code, err := run(t, publishCmd(), root, "--prefix", "name:x/y", "--region", "eu", "--ttl", "1h")
	if code != exitOK {
		t.Fatal(err)
	}
	wantNames := []string{"name:x/y", "name:x/y/d", "name:x/y/d/e", "name:x/y/empty", "name:x/y/empty2"}
	if got := slices.Sorted(maps.Keys(s.names)); !slices.Equal(got, wantNames) {
		t.Errorf("names %v, want %v", got, wantNames)
	}
	for name, n := range s.names {
		if n.Seq != 1 || s.manifests[n.ManifestCID] == nil {
			t.Errorf("%s: %+v, or its manifest is missing", name, n)
		}
	}
	// 4 manifests (the empty directories share one) and 3 contents (two files share one).
	if len(s.manifests) != 4 || len(s.rows) != 7 {
		t.Errorf("%d manifests, %d cids with rows; want 4 and 7", len(s.manifests), len(s.rows))
	}
	want := map[string]any{"id": fakeNode, "addr": s.URL, "region": "eu", "ttl_s": 3600.}
	for _, content := range []string{"1", "2", "3"} {
		if rows := s.rows[index.Sum([]byte(content)).String()]; len(rows) != 1 || !maps.Equal(rows[0], want) {
			t.Errorf("rows of %q: %v, want %v", content, rows, want)
		}
	}
	for _, want := range []string{"name:x/y -> " + s.names["name:x/y"].ManifestCID, "directories   5", "files         4", "5 new, 0 changed, 0 unchanged", "7 rows"} {
		if !strings.Contains(out, want) {
			t.Errorf("the summary lacks %q:\n%s", want, out)
		}
	}
}

// A signature with the highest sequence would end a name for everybody, and for
// ever: no server's word is enough for that.
func TestPublishSignsNoSequenceThatEndsAName(t *testing.T) {
	key := filepath.Join(t.TempDir(), "key")
	if _, err := auth.NewPublisherKey(key); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		why    string
		stands fakeName
		args   []string
		ok     bool
	}{
		{"as it goes", fakeName{ManifestCID: cidOfNothing, Seq: 1_795_822_956_000}, []string{"--key", key}, true},
		{"the last but one", fakeName{ManifestCID: cidOfNothing, Seq: index.SeqMax - 1}, []string{"--key", key}, false},
		{"said of a tombstone", fakeName{Seq: index.SeqMax - 1, Deleted: true}, []string{"--key", key}, false},
		{"unsigned it is that server's name only", fakeName{ManifestCID: cidOfNothing, Seq: index.SeqMax - 1}, nil, true},
	} {
		s := newFakeServer(t)
		s.names["name:x"] = tt.stands
		_, code, err := run(t, publishCmd(), append([]string{plant(t, map[string]string{"a": "1"}), "--prefix", "x"}, tt.args...)...)
		if (code == exitOK) != tt.ok || !tt.ok && !strings.Contains(err.Error(), "by hand") {
			t.Errorf("%s: code %d, %v", tt.why, code, err)
		}
		if changed := s.names["name:x"] != tt.stands; changed != tt.ok {
			t.Errorf("%s: the name stands at %d", tt.why, s.names["name:x"].Seq)
		}
	}
}

func TestPublishSendsEachThingOnceAndNamesLast(t *testing.T) {
	s := newFakeServer(t)
	if _, _, err := run(t, publishCmd(), plant(t, smallTree), "--prefix", "x"); err != nil {
		t.Fatal(err)
	}
	last := map[string]int{}
	first := map[string]int{}
	for i, a := range s.asked {
		kind := strings.Join(strings.SplitN(a, "/", 3)[:2], "/")
		last[kind] = i
		if _, ok := first[kind]; !ok {
			first[kind] = i
		}
	}
	if last["PUT /manifests"] > first["PUT /providers"] || last["PUT /providers"] > first["PUT /names"] {
		t.Errorf("out of order: %v", s.asked)
	}
	n := s.forget()
	if n["PUT /manifests"] != 4 || n["PUT /providers"] != 7 || n["PUT /names"] != 5 {
		t.Errorf("asked %v", n)
	}
}

func TestPublishingAgainChangesNothing(t *testing.T) {
	s := newFakeServer(t)
	root := plant(t, smallTree)
	if _, _, err := run(t, publishCmd(), root, "--prefix", "x"); err != nil {
		t.Fatal(err)
	}
	before := maps.Clone(s.names)
	s.forget()
	out, _, err := run(t, publishCmd(), root, "--prefix", "x")
	if err != nil {
		t.Fatal(err)
	}
	if n := s.forget(); n["PUT /names"] != 0 || n["PUT /providers"] != 7 {
		t.Errorf("the second run asked %v; want no names, and all rows renewed", n)
	}
	if !maps.Equal(before, s.names) || !strings.Contains(out, "0 new, 0 changed, 5 unchanged") {
		t.Errorf("the second run changed something:\n%s", out)
	}
	if err := os.WriteFile(filepath.Join(root, "d/b"), []byte("22"), 0o644); err != nil {
		t.Fatal(err)
	}
	if out, _, err = run(t, publishCmd(), root, "--prefix", "x"); err != nil || !strings.Contains(out, "0 new, 2 changed, 3 unchanged") {
		t.Errorf("a changed file changes the directories above it, no others (%v):\n%s", err, out)
	}
	if s.names["name:x"].Seq != 2 || s.names["name:x/d"].Seq != 2 || s.names["name:x/d/e"].Seq != 1 {
		t.Errorf("names %v", s.names)
	}
}

func TestATombstoneIsPassed(t *testing.T) {
	s := newFakeServer(t)
	s.names["name:x"] = fakeName{Seq: 41, Deleted: true}
	if _, _, err := run(t, publishCmd(), plant(t, map[string]string{"a": "1"}), "--prefix", "x"); err != nil {
		t.Fatal(err)
	}
	if n := s.names["name:x"]; n.Seq != 42 {
		t.Errorf("got %+v, want seq 42", n)
	}
}

func TestFacetsAndFileArguments(t *testing.T) {
	s := newFakeServer(t)
	root := plant(t, smallTree)
	_, _, err := run(t, publishCmd(), filepath.Join(root, "d"), filepath.Join(root, "a.go"),
		"--prefix", "x", "--facet", "lang=go", "--facet", "b=2=3", "--provider", "/ip4/192.0.2.1/tcp/80")
	if err != nil {
		t.Fatal(err)
	}
	text := func(name string) string { return string(s.manifests[s.names[name].ManifestCID]) }
	want := `{"dirs":[],"facets":{"b":"2=3","lang":"go"},"files":[{"b3":"` + index.Sum([]byte("1")).String() + `","path":"a.go","size":1}],"v":1}`
	if got := text("name:x/a.go"); got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	if !strings.Contains(text("name:x/d"), `"facets"`) || strings.Contains(text("name:x/d/e"), `"facets"`) {
		t.Error("facets describe the arguments, not what is in them")
	}
	if a := s.rows[index.Sum([]byte("1")).String()][0]["addr"]; a != "/ip4/192.0.2.1/tcp/80" {
		t.Errorf("addr %v", a)
	}
}

// refuseFirst refuses the first n requests of a kind.
func refuseFirst(n, status int, kind string) func(*http.Request) int {
	return func(r *http.Request) int {
		if n > 0 && strings.HasPrefix(r.Method+" "+r.URL.Path, kind) {
			n--
			return status
		}
		return 0
	}
}

func TestPublishWaitsOutABusyServer(t *testing.T) {
	for _, status := range []int{429, 503} {
		s := newFakeServer(t)
		s.refuse = refuseFirst(5, status, "PUT")
		if _, _, err := run(t, publishCmd(), plant(t, smallTree), "--prefix", "x"); err != nil {
			t.Errorf("%d: %v", status, err)
		}
		if len(s.names) != 5 || len(s.rows) != 7 {
			t.Errorf("%d: %d names, %d cids with rows", status, len(s.names), len(s.rows))
		}
	}
}

func TestFailuresAreCountedAndTheRestIsPublished(t *testing.T) {
	tree := map[string]string{"a": "1", "bad/f": "2", "good/f": "3"}
	for _, tt := range []struct {
		why    string
		refuse func(*http.Request) int
		before func(root string) error
		names  []string
		want   string // in the error
	}{
		{"a row that is refused costs a row", refuseFirst(1, 500, "PUT /providers"), nil,
			[]string{"name:x", "name:x/bad", "name:x/good"}, "providers of b3:"},
		{"a name that cannot be read is not overwritten", refuseFirst(1, 504, "GET /resolve/name:x/good"), nil,
			[]string{"name:x", "name:x/bad"}, "name:x/good: 504"},
		{"a directory that is not UTF-8 fails those above it", nil,
			func(root string) error { return os.Mkdir(filepath.Join(root, "bad/\xff"), 0o755) },
			[]string{"name:x/good"}, "not UTF-8"},
		{"a name over 200 bytes", nil,
			func(root string) error {
				return os.Mkdir(filepath.Join(root, "good", strings.Repeat("ü", 40)), 0o755)
			},
			[]string{"name:x", "name:x/bad", "name:x/good"}, "247 bytes, 200 are the most"},
	} {
		s := newFakeServer(t)
		if tt.refuse != nil {
			s.refuse = tt.refuse
		}
		root := plant(t, tree)
		if tt.before != nil {
			if err := tt.before(root); err != nil {
				t.Fatal(err)
			}
		}
		out, code, err := run(t, publishCmd(), root, "--prefix", "x")
		if code != exitFailed || !strings.Contains(err.Error(), tt.want) || !strings.Contains(out, "failures      1\n") {
			t.Errorf("%s: code %d, %v\n%s", tt.why, code, err, out)
		}
		if got := slices.Sorted(maps.Keys(s.names)); !slices.Equal(got, tt.names) {
			t.Errorf("%s: names %v, want %v", tt.why, got, tt.names)
		}
	}
}

func TestANameIsNotTurnedToAManifestThatWasRefused(t *testing.T) {
	s := newFakeServer(t)
	s.refuse = refuseFirst(1, 500, "PUT /manifests")
	// With one connection, the deepest manifest goes first.
	_, code, _ := run(t, publishCmd(), plant(t, map[string]string{"d/e/f": "1", "g/h": "2"}), "--prefix", "x", "--conns", "1")
	if got := slices.Sorted(maps.Keys(s.names)); code != exitFailed || !slices.Equal(got, []string{"name:x/g"}) {
		t.Errorf("code %d, names %v; want only name:x/g", code, got)
	}
}

func TestPublishStopsWhenTheRestIsHopeless(t *testing.T) {
	s := newFakeServer(t)
	t.Setenv(envToken, "wrong")
	_, code, err := run(t, publishCmd(), plant(t, smallTree), "--prefix", "x", "--conns", "1")
	if code != exitFailed || !strings.Contains(err.Error(), "401") || !strings.Contains(err.Error(), "--token") {
		t.Errorf("code %d, %v", code, err)
	}
	if n := s.forget(); n["PUT /manifests"] != 1 || n["PUT /providers"] != 0 {
		t.Errorf("asked %v after the token was refused", n)
	}
}

func TestPublishGivesUpAfterTooManyFailures(t *testing.T) {
	s := newFakeServer(t)
	s.refuse = refuseFirst(1<<30, 500, "PUT")
	tree := map[string]string{}
	for i := range 3 * failuresMax {
		tree[strings.Repeat("x", i+1)[i/2:]+commas(int64(i))] = commas(int64(i))
	}
	_, code, err := run(t, publishCmd(), plant(t, tree), "--prefix", "x", "--conns", "4")
	if code != exitFailed || !strings.Contains(err.Error(), "gave up after 100") {
		t.Errorf("code %d, %v", code, err)
	}
	if n := s.forget()["/providers"]; n > failuresMax+8 {
		t.Errorf("%d more requests", n)
	}
}

func TestAnInterruptStopsCleanly(t *testing.T) {
	s := newFakeServer(t)
	ctx, cancel := context.WithCancel(t.Context())
	s.refuse = func(r *http.Request) int {
		if strings.HasPrefix(r.URL.Path, "/providers") {
			cancel()
		}
		return 0
	}
	o := publishOptions{prefix: "x", ttl: index.TTLDefault, conns: 2, hashers: 2}
	var out, errOut bytes.Buffer
	err := publish(ctx, &o, []string{plant(t, smallTree)}, &out, &errOut)
	if exitCode(err) != exitFailed || !strings.Contains(err.Error(), "interrupted") {
		t.Errorf("got %v", err)
	}
	if len(s.names) != 0 || !strings.Contains(out.String(), "failures      0\n") {
		t.Errorf("names %v\n%s", s.names, out.String())
	}
}

func TestPublishUsage(t *testing.T) {
	newFakeServer(t)
	root := plant(t, smallTree)
	for _, tt := range []struct {
		why  string
		args []string
		want string
	}{
		{"nothing to publish", []string{"--prefix", "x"}, "at least one"},
		{"no prefix", []string{root}, "--prefix is missing"},
		{"a flag that is not one", []string{root, "--prefx", "x"}, "--help"},
		{"a short ttl", []string{root, "--prefix", "x", "--ttl", "59"}, "1m to 48h"},
		{"a ttl that is no time", []string{root, "--prefix", "x", "--ttl", "soon"}, "whole seconds"},
		{"a provider that is no address", []string{root, "--prefix", "x", "--provider", "host:80"}, "multiaddr"},
		{"a socket is no address", []string{root, "--prefix", "x", "--server", "unix:/run/x"}, "--provider"},
		{"a server that is no URL", []string{root, "--prefix", "x", "--provider", "/ip4/1.2.3.4", "--server", "h:1"}, "--server"},
		{"a facet without value", []string{root, "--prefix", "x", "--facet", "lang"}, "key=value"},
		{"a facet twice", []string{root, "--prefix", "x", "--facet", "a=1", "--facet", "a=2"}, "twice"},
		{"no connections", []string{root, "--prefix", "x", "--conns", "0"}, "--conns"},
		{"a region too long", []string{root, "--prefix", "x", "--region", strings.Repeat("r", 65)}, "--region"},
	} {
		_, code, err := run(t, publishCmd(), tt.args...)
		if code != exitUsage || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: code %d, %v; want it to say %q", tt.why, code, err, tt.want)
		}
	}
}

func TestWhereTheTokenComesFrom(t *testing.T) {
	s := newFakeServer(t)
	data := t.TempDir()
	_, node, err := auth.Identity(data)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := auth.OpenKeyring(filepath.Join(data, auth.KeysFile), true); err != nil {
		t.Fatal(err)
	}
	t.Setenv(envData, "")
	for _, tt := range []struct {
		why, flag, env, data, want string
		minted                     bool
	}{
		{"the flag is first", "f", "e", data, "f", false},
		{"then the environment", "", "e", data, "e", false},
		{"then the data directory mints one", "", "", data, "", true},
		{"else it says so", "", "", filepath.Join(data, "none"), "", false},
	} {
		t.Setenv(envToken, tt.env)
		r := remote{token: tt.flag, data: tt.data}
		tokens, err := r.tokens(time.Minute)
		if err != nil {
			if tt.want != "" || tt.minted || !strings.Contains(err.Error(), "--token") {
				t.Errorf("%s: %v does not say what to do", tt.why, err)
			}
			continue
		}
		got, err := tokens()
		if err != nil {
			t.Fatal(err)
		}
		if !tt.minted && got != tt.want {
			t.Errorf("%s: %q", tt.why, got)
		}
		if again, _ := tokens(); again != got {
			t.Errorf("%s: another one each time", tt.why)
		}
		if d, err := auth.Inspect(got); tt.minted && (err != nil || d.Aud != node || d.Scope != writerScope || time.Until(d.Expires) > time.Minute+time.Second) {
			t.Errorf("%s: %+v, %v", tt.why, d, err)
		}
	}
	if n := s.forget(); len(n) != 0 {
		t.Errorf("asked %v", n)
	}
}

func TestProgressLine(t *testing.T) {
	for _, tt := range []struct {
		why     string
		s, last snapshot
		d       time.Duration
		want    string
	}{
		{"hashing", snapshot{files: 10233, hashed: 5120, bytes: 88_100_000}, snapshot{bytes: 8_100_000}, 2 * time.Second,
			"hashed 5,120/10,233 files, 88.1 MB, 40.0 MB/s"},
		{"publishing", snapshot{10233, 10233, 128_400_000, 14145, 3400}, snapshot{sent: 400}, time.Second,
			"hashed 10,233/10,233 files, 128.4 MB; published 3,400/14,145, 3,000/s"},
	} {
		if got := tt.s.line(tt.last, tt.d); got != tt.want {
			t.Errorf("%s: %q, want %q", tt.why, got, tt.want)
		}
	}
	for n, want := range map[int64]string{0: "0", 999: "999", 1000: "1,000", 1234567: "1,234,567", -1000: "-1,000", -100: "-100"} {
		if got := commas(n); got != want {
			t.Errorf("commas(%d) = %s", n, got)
		}
	}
	for n, want := range map[int64]string{0: "0 B", 999: "999 B", 1000: "1.0 kB", 999_949: "999.9 kB", 999_950: "1.0 MB", 5e12: "5.0 TB"} {
		if got := bytesText(n); got != want {
			t.Errorf("bytesText(%d) = %s, want %s", n, got, want)
		}
	}
}

func TestSeconds(t *testing.T) {
	for _, tt := range []struct {
		in   string
		want seconds
		ok   bool
	}{
		{"90", 90, true}, {"90s", 90, true}, {"24h", 86400, true}, {"1.5s", 0, false}, {"-1", 0, false}, {"-5s", 0, false}, {"", 0, false}, {"x", 0, false},
	} {
		var s seconds
		if err := s.Set(tt.in); s != tt.want || (err == nil) != tt.ok {
			t.Errorf("Set(%q) = %d, %v", tt.in, s, err)
		}
	}
}
