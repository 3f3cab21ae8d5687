// Package svcindex holds nothing but the test of the laws of the house.
package svcindex

import (
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

const module = "svcindex/"

// floors is the house, from the ground up. A package may import those on the
// floors below its own, never one beside it. Sub-packages stand on a floor of
// their own only if they are named.
var floors = [][]string{
	{"index", "queue", "durable"},
	{"audit", "auth", "bus", "config", "netio", "stages", "stages/ram", "stages/leveldb", "stages/kaddht", "stages/fakenet",
		"telemetry", "watch", "flame", "loadgen", "sdk/go", "profiles"},
	{"cmd/svc-index"},
	{"testing/faults", "testing/performance/rig", "testing/performance/compare"},
	{"testing/performance/lab"},
	{"testing/performance/loadcheck", "testing/performance/gate", "testing/performance/perf"},
}

// beside lists the few imports on one floor that are meant, with the reason.
var beside = map[[2]string]string{
	{"config", "profiles"}: "profiles are the embedded files config reads, nothing else",
}

// doors names the one package that may import a library.
var doors = map[string]string{
	"github.com/panjf2000/gnet":               "netio",
	"github.com/panjf2000/ants":               "stages",
	"github.com/sony/gobreaker":               "stages",
	"github.com/coocood/freecache":            "stages/ram",
	"github.com/syndtr/goleveldb":             "stages/leveldb",
	"github.com/rcrowley/go-metrics":          "telemetry",
	"github.com/google/pprof":                 "flame",
	"github.com/libp2p":                       "stages/kaddht",
	"github.com/multiformats":                 "stages/kaddht",
	"github.com/ipfs":                         "stages/kaddht",
	"github.com/pelletier/go-toml":            "config",
	"gopkg.in/macaroon.v2":                    "auth",
	"github.com/fsnotify/fsnotify":            "config",
	"github.com/zeebo/blake3":                 "index",
	"github.com/fxamacker/cbor":               "index",
	"github.com/spf13/cobra":                  "cmd/svc-index",
	"github.com/HdrHistogram/hdrhistogram-go": "loadgen",
}

// also lists the few who may use a library beside its door, with the reason.
var also = map[[2]string]string{
	{"testing/performance/perf", "github.com/pelletier/go-toml"}: "scenarios are TOML, and config reads nothing but configuration",
}

// An importing is one import line.
type importing struct {
	from, path string
	at         token.Position
	test       bool
}

func imports(t *testing.T) (all []importing) {
	t.Helper()
	files := token.NewFileSet()
	err := filepath.WalkDir(".", func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && (strings.HasPrefix(d.Name(), ".") && path != "." || d.Name() == "testdata" || d.Name() == "bin" || otherModule(path)) {
			return filepath.SkipDir
		}
		if !strings.HasSuffix(path, ".go") {
			return nil
		}
		f, err := parser.ParseFile(files, path, nil, parser.ImportsOnly)
		if err != nil {
			return err
		}
		for _, i := range f.Imports {
			p, err := strconv.Unquote(i.Path.Value)
			if err != nil {
				return err
			}
			all = append(all, importing{
				from: filepath.ToSlash(filepath.Dir(path)), path: p,
				at: files.Position(i.Pos()), test: strings.HasSuffix(path, "_test.go"),
			})
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// otherModule reports whether a directory is the root of a module of its own,
// as that of the peers is: it can import nothing of ours, and its libraries are
// no part of the house.
func otherModule(dir string) bool {
	_, err := os.Stat(filepath.Join(dir, "go.mod"))
	return dir != "." && err == nil
}

func floorOf(pkg string) int {
	for n, names := range floors {
		for _, name := range names {
			if pkg == name {
				return n
			}
		}
	}
	return -1
}

func TestFloorsImportsGoDownNeverSideways(t *testing.T) {
	for _, i := range imports(t) {
		to, ours := strings.CutPrefix(i.path, module)
		if !ours || i.from == "." || to == i.from {
			continue
		}
		here, there := floorOf(i.from), floorOf(to)
		switch {
		case here < 0:
			t.Errorf("%s: package %s stands on no floor; give it one in floors_test.go", i.at, i.from)
		case there < 0:
			t.Errorf("%s: package %s stands on no floor; give it one in floors_test.go", i.at, to)
		case there > here:
			t.Errorf("%s: %s imports %s, which is upstairs; let them meet in an interface in index", i.at, i.from, to)
		case there == here && here > 0 && beside[[2]string{i.from, to}] == "":
			t.Errorf("%s: %s imports %s, which is beside it; let them meet in an interface in index", i.at, i.from, to)
		}
	}
}

func TestFloorsGroundStandsOnTheStandardLibrary(t *testing.T) {
	allowed := map[string]bool{"github.com/zeebo/blake3": true, "github.com/fxamacker/cbor/v2": true}
	for _, i := range imports(t) {
		if floorOf(i.from) != 0 || i.test || strings.HasPrefix(i.path, module) {
			continue
		}
		if strings.Contains(strings.SplitN(i.path, "/", 2)[0], ".") && !allowed[i.path] {
			t.Errorf("%s: the ground floor imports %s; only the standard library, BLAKE3 and CBOR belong there", i.at, i.path)
		}
	}
}

func TestDoorsEachLibraryHasOne(t *testing.T) {
	for _, i := range imports(t) {
		for library, door := range doors {
			if (i.path == library || strings.HasPrefix(i.path, library+"/")) && i.from != door && also[[2]string{i.from, library}] == "" {
				t.Errorf("%s: %s imports %s, whose one door is %s", i.at, i.from, i.path, door)
			}
		}
	}
}

func TestEveryPackageOpensWithItsPromiseOnce(t *testing.T) {
	docs := make(map[string][]string)
	files := token.NewFileSet()
	err := filepath.WalkDir(".", func(path string, d fs.DirEntry, err error) error {
		if err != nil || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
			return err
		}
		f, err := parser.ParseFile(files, path, nil, parser.PackageClauseOnly|parser.ParseComments)
		if err != nil {
			return err
		}
		dir := filepath.Dir(path)
		if docs[dir] == nil {
			docs[dir] = []string{}
		}
		if f.Doc != nil {
			docs[dir] = append(docs[dir], path)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for dir, in := range docs {
		if len(in) != 1 {
			t.Errorf("package %s has %d package comments (%v), want one: the promise it makes", dir, len(in), in)
		}
	}
}
