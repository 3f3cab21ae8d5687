package config

import (
	"os"
	"path/filepath"
	"testing"
	"time"
)

func TestAWatcherSeesEveryWayAFileIsReplaced(t *testing.T) {
	path := file(t, "a = 1\n")
	dir := filepath.Dir(path)
	w, err := WatchFile(path)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	write := func(name, text string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, tt := range []struct {
		why string
		do  func()
	}{
		{"written in place", func() { write("svc-index.toml", "a = 2\n") }},
		{"replaced by another", func() {
			write("new", "a = 3\n")
			if err := os.Rename(filepath.Join(dir, "new"), path); err != nil {
				t.Fatal(err)
			}
		}},
		{"removed, and back", func() {
			if err := os.Remove(path); err != nil {
				t.Fatal(err)
			}
			write("svc-index.toml", "a = 4\n")
		}},
	} {
		tt.do()
		select {
		case <-w.Changed():
		case <-time.After(20 * time.Second):
			t.Errorf("%s: not seen", tt.why)
		}
	}
	write("other", "x")
	write("svc-index.toml", "a = 4\n") // touched, and the same
	select {
	case <-w.Changed():
		t.Error("nothing changed, and it says so")
	case <-time.After(3 * settle):
	}
}

func TestARestlessDirectoryDoesNotHideAChange(t *testing.T) {
	path := file(t, "a = 1\n")
	w, err := WatchFile(path)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	if err := os.WriteFile(path, []byte("a = 2\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	tick := time.NewTicker(settle / 10)
	defer tick.Stop()
	for end := time.After(20 * time.Second); ; { // somebody writes a log beside it
		select {
		case <-w.Changed():
			return
		case <-end:
			t.Fatal("the change is never seen")
		case <-tick.C:
			if err := os.WriteFile(filepath.Join(filepath.Dir(path), "log"), []byte("x"), 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
}

func TestThereMayBeNothingToWatch(t *testing.T) {
	var none *Watcher
	if none.Changed() != nil || none.Close() != nil {
		t.Error("no watcher is one that never says anything")
	}
	if _, err := WatchFile("/nowhere/at/all"); err == nil {
		t.Error("a directory that is not there is watched")
	}
}
