package main

import (
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// The corpus has 310 requests, good and hostile; each way of cutting them into
// segments must come to the same.
func TestCorpus(t *testing.T) {
	dir := sharedDir(t)
	sock := filepath.Join(t.TempDir(), "run", "index.sock")
	h := openHouse(t, seams{}, "uds.path="+sock)
	for _, addr := range []string{h.addr.String(), "unix:" + sock} {
		for _, split := range []string{"whole", "byte", "crlf", "rand:7"} {
			t.Run(strings.Split(addr, ":")[0]+"/"+split, func(t *testing.T) {
				runCorpus(t, dir, "--addr", addr, "--split", split, "--jobs", "16")
			})
		}
	}
}

var (
	corpusFailed  = regexp.MustCompile(`(?m)^(?:FAIL|LENIENT) +(\S+)`)
	corpusVerdict = regexp.MustCompile(`(?m)^\d+ passed, \d+ failed, 0 skipped$`)
)

// runCorpus runs the corpus, and what failed a second and third time by itself:
// the runner looks for an answer before its sender is done and, on a busy
// machine, not always after. What fails every time has failed.
func runCorpus(t *testing.T, dir string, args ...string) {
	t.Helper()
	only := ""
	for try := 1; ; try++ {
		run := append([]string{filepath.Join(dir, "run.py")}, args...)
		if only != "" {
			run = append(run, "--only", only)
		}
		out, err := exec.Command("python3", run...).CombinedOutput()
		verdict := corpusVerdict.Find(out)
		if err == nil && verdict != nil {
			t.Logf("%s", verdict)
			return
		}
		var ids []string
		for _, m := range corpusFailed.FindAllSubmatch(out, -1) {
			ids = append(ids, regexp.QuoteMeta(string(m[1])))
		}
		if try == 3 || len(ids) == 0 {
			t.Fatalf("%v\n%s", err, out)
		}
		t.Logf("%s; again: %v", verdict, ids)
		only = "^(" + strings.Join(ids, "|") + ")$"
	}
}
