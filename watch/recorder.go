package watch

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"runtime/pprof"
	"runtime/trace"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"svcindex/index"
)

// Files say what a stall leaves on the disk.
type Files struct {
	Dir    string        // "": nothing, but Flight still records for who asks
	Keep   int64         // bytes in all; the oldest files go first
	Gap    time.Duration // between two dumps
	Flight bool          // record all the time, so that a dump shows the time before
	Window time.Duration // of the recording, if Buffer holds so much
	Buffer int64         // bytes in memory of the recording
}

const (
	after    = 500 * time.Millisecond // traced after a stall when nothing was recorded before
	textMost = 8 << 20                // bytes of one list of goroutines
	prefix   = "flight-"
)

// A recorder writes dumps, one at a time, on a goroutine of their own: the disk
// may be what stands still.
type recorder struct {
	files  Files
	counts *index.WatchCounts
	log    *slog.Logger
	flight *trace.FlightRecorder // nil: not recording

	ctx  context.Context
	stop context.CancelFunc
	work sync.WaitGroup
	busy atomic.Bool
	last atomic.Int64 // when the last dump began, unix ns; 0: none
}

func newRecorder(f Files, counts *index.WatchCounts, log *slog.Logger) (*recorder, error) {
	r := &recorder{files: f, counts: counts, log: log}
	r.ctx, r.stop = context.WithCancel(context.Background())
	if f.Dir != "" {
		if err := os.MkdirAll(f.Dir, 0o700); err != nil {
			return nil, fmt.Errorf("watch.dir: %w; choose another", err)
		}
	}
	if f.Flight {
		fr := trace.NewFlightRecorder(trace.FlightRecorderConfig{MinAge: f.Window, MaxBytes: uint64(f.Buffer)})
		if err := fr.Start(); err != nil {
			return nil, fmt.Errorf("watch.flight: %w", err)
		}
		r.flight = fr
	}
	return r, nil
}

// dump has written what b left, unless it is too soon after the one before.
func (r *recorder) dump(b Breach, now time.Time) {
	if r.files.Dir == "" {
		return
	}
	if last := r.last.Load(); last != 0 && now.Sub(time.Unix(0, last)) < r.files.Gap || !r.busy.CompareAndSwap(false, true) {
		r.counts.Skipped.Add(1)
		return
	}
	r.last.Store(now.UnixNano())
	r.work.Go(func() {
		defer r.busy.Store(false)
		if err := r.write(b, now); err != nil {
			r.counts.Skipped.Add(1)
			r.log.Warn("no dump of what stands still; is there room in watch.dir?", "err", err)
			return
		}
		r.counts.Dumps.Add(1)
	})
}

// write writes the goroutines, then the trace, then drops what is too old.
func (r *recorder) write(b Breach, now time.Time) error {
	name := prefix + now.UTC().Format("20060102T150405.000") + "-" + b.Name
	if b.Where != "" {
		name += "-" + b.Where
	}
	base := filepath.Join(r.files.Dir, name)
	err := errors.Join(
		writeFile(base+".goroutines.txt", textMost, func(w io.Writer) error { return goroutines(w, b) }),
		writeFile(base+".trace", r.files.Keep, r.trace),
		r.prune(),
	)
	if err == nil {
		r.log.Warn("wrote what was going on", "files", base+".{goroutines.txt,trace}")
	}
	return err
}

// goroutines writes every goroutine twice: together, with their labels, and
// each for itself, with how long it has waited.
func goroutines(w io.Writer, b Breach) error {
	fmt.Fprintf(w, "%s %s: %s\n\n", b.Name, b.Where, b.Found)
	err := pprof.Lookup("goroutine").WriteTo(w, 1)
	return errors.Join(err, pprof.Lookup("goroutine").WriteTo(w, 2))
}

// trace writes what was recorded; or, if nothing was, what happens next.
func (r *recorder) trace(w io.Writer) error {
	if r.flight != nil {
		_, err := r.flight.WriteTo(w)
		return err
	}
	fr := trace.NewFlightRecorder(trace.FlightRecorderConfig{MinAge: 2 * after, MaxBytes: uint64(r.files.Buffer)})
	if err := fr.Start(); err != nil {
		return err
	}
	defer fr.Stop()
	select {
	case <-time.After(after):
	case <-r.ctx.Done():
	}
	_, err := fr.WriteTo(w)
	return err
}

// writeFile writes a file that appears when it is whole, or, past limit bytes,
// cut off.
func writeFile(path string, limit int64, write func(io.Writer) error) error {
	f, err := os.OpenFile(path+".part", os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	defer os.Remove(path + ".part")
	err = write(&limited{w: f, left: limit})
	if errors.Is(err, errFull) {
		err = nil
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	return os.Rename(path+".part", path)
}

var errFull = errors.New("the file has reached its limit")

// A limited writes so much and no more.
type limited struct {
	w    io.Writer
	left int64
}

func (l *limited) Write(p []byte) (int, error) {
	if int64(len(p)) > l.left {
		n, _ := l.w.Write(p[:l.left])
		l.left -= int64(n)
		return n, errFull
	}
	n, err := l.w.Write(p)
	l.left -= int64(n)
	return n, err
}

// prune removes the oldest dumps until the rest may stay.
func (r *recorder) prune() error {
	names, sizes, sum, err := r.kept()
	if err != nil {
		return err
	}
	for i, name := range names {
		if sum <= r.files.Keep {
			break
		}
		if err := os.Remove(filepath.Join(r.files.Dir, name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		sum -= sizes[i]
	}
	return nil
}

// kept returns the dumps on the disk, oldest first: their names begin with when
// they were made.
func (r *recorder) kept() (names []string, sizes []int64, sum int64, err error) {
	all, err := os.ReadDir(r.files.Dir)
	if err != nil {
		return nil, nil, 0, err
	}
	for _, e := range all {
		if !strings.HasPrefix(e.Name(), prefix) || !e.Type().IsRegular() {
			continue
		}
		names = append(names, e.Name())
	}
	slices.Sort(names)
	for _, name := range names {
		size := int64(0)
		if fi, err := os.Stat(filepath.Join(r.files.Dir, name)); err == nil {
			size = fi.Size()
		}
		sizes, sum = append(sizes, size), sum+size
	}
	return names, sizes, sum, nil
}

// A Flight is what there is of recordings.
type Flight struct {
	Recording bool   `json:"recording"`
	Dir       string `json:"dir"`
	Dumps     uint64 `json:"dumps_total"`
	Skipped   uint64 `json:"skipped_total"`
}

func (r *recorder) status() Flight {
	return Flight{r.flight != nil, r.files.Dir, r.counts.Dumps.Load(), r.counts.Skipped.Load()}
}

// Recording writes what the flight recorder holds now.
func (w *Watch) Recording(out io.Writer) error {
	if w.recorder.flight == nil {
		return errors.New("nothing is being recorded; set watch.flight = true")
	}
	var b bytes.Buffer // whoever reads slowly must not hold the recorder
	if _, err := w.recorder.flight.WriteTo(&b); err != nil {
		return err
	}
	_, err := b.WriteTo(out)
	return err
}

func (r *recorder) close(ctx context.Context) error {
	r.stop()
	done := make(chan struct{})
	go func() { r.work.Wait(); close(done) }()
	var err error
	select {
	case <-done:
	case <-ctx.Done():
		err = errors.New("watch: a dump is still being written; does the disk of watch.dir hang?")
	}
	if r.flight != nil {
		r.flight.Stop()
	}
	return err
}
