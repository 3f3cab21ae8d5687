package faults

import (
	"flag"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

var full = flag.Bool("full", false, "the long sizes: about 20 minutes in all")

// binary is the server under test, built once with the rig's seams in it.
var binary string

func TestMain(m *testing.M) {
	flag.Parse()
	os.Exit(run(m))
}

func run(m *testing.M) int {
	dir, err := os.MkdirTemp("", "svc-index-faults-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	watchSource()
	binary = filepath.Join(dir, "svc-index")
	build := exec.Command("go", "build", "-tags", "rig", "-o", binary, "svcindex/cmd/svc-index")
	if out, err := build.CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "building the server: %v\n%s", err, out)
		return 1
	}
	return m.Run()
}

// watchSource looks at every source file of the module. go test notes what a
// test looked at, and so will not repeat a cached verdict on another server.
func watchSource() {
	_ = filepath.WalkDir("../..", func(path string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() && strings.HasSuffix(path, ".go") {
			_, _ = os.Stat(path)
		}
		return nil
	})
}

// size returns the short or the full size of a test.
func size[T any](short, long T) T {
	if *full {
		return long
	}
	return short
}
