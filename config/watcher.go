package config

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/fsnotify/fsnotify"
)

// A Watcher tells when the text of a configuration file has changed. It
// watches the directory: editors and deployments put a new file in the place
// of the old one, and whoever watches the old one sees nothing.
type Watcher struct {
	path    string
	fs      *fsnotify.Watcher
	changed chan struct{}
	quit    chan struct{}
	busy    sync.WaitGroup
}

// settle is how long a file must have been left alone: half of a new one is
// not what its writer meant.
const settle = 100 * time.Millisecond

// settleMost is how long a directory in which something happens all the time is
// waited for.
const settleMost = time.Second

// WatchFile begins to watch. Close ends it.
func WatchFile(path string) (*Watcher, error) {
	fs, err := fsnotify.NewWatcher()
	if err == nil {
		if err = fs.Add(filepath.Dir(path)); err != nil {
			_ = fs.Close()
		}
	}
	if err != nil {
		return nil, fmt.Errorf("watching %s: %w; send SIGHUP after a change instead", path, err)
	}
	w := &Watcher{path: path, fs: fs, changed: make(chan struct{}, 1), quit: make(chan struct{})}
	was, _ := os.ReadFile(path)
	w.busy.Go(func() { w.run(was) })
	return w, nil
}

// Changed receives after a change. Several changes in short order are one.
func (w *Watcher) Changed() <-chan struct{} {
	if w == nil {
		return nil
	}
	return w.changed
}

// Close ends the watching.
func (w *Watcher) Close() error {
	if w == nil {
		return nil
	}
	close(w.quit)
	err := w.fs.Close()
	w.busy.Wait()
	return err
}

func (w *Watcher) run(was []byte) {
	quiet := time.NewTimer(time.Hour)
	quiet.Stop()
	restless := time.Time{} // since when something happens; zero: nothing does
	stir := func() {
		if restless.IsZero() {
			restless = time.Now()
		}
		if time.Since(restless) < settleMost {
			quiet.Reset(settle)
		}
	}
	for {
		select {
		case <-w.quit:
			return
		case <-w.fs.Events:
			stir()
		case <-w.fs.Errors: // events were lost; look
			stir()
		case <-quiet.C:
			restless = time.Time{}
			now, err := os.ReadFile(w.path)
			if err != nil || bytes.Equal(now, was) {
				continue // another file of the directory, or ours is on its way
			}
			was = now
			select {
			case w.changed <- struct{}{}:
			default: // it has not been looked at since the last one
			}
		}
	}
}
