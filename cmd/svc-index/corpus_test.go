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
				out, err := exec.Command("python3", filepath.Join(dir, "run.py"), "--addr", addr, "--split", split, "--jobs", "16").CombinedOutput()
				passed := regexp.MustCompile(`(?m)^(\d+) passed, 0 failed, 0 skipped$`).FindSubmatch(out)
				if err != nil || passed == nil {
					t.Errorf("%v\n%s", err, out)
				} else {
					t.Logf("%s", passed[0])
				}
			})
		}
	}
}
