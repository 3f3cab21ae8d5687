package main

import (
	"fmt"
	"io"
	"os"
	"strconv"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

const (
	liveEvery  = 100 * time.Millisecond // on a terminal, over the same line
	plainEvery = 5 * time.Second        // elsewhere, a new line each
)

// progress shows how far a publish has come. Workers add, one goroutine shows.
type progress struct {
	files, hashed, bytes atomic.Int64
	sends, sent          atomic.Int64

	w    io.Writer
	live bool
	quit chan struct{}
	done chan struct{}
}

// startProgress begins to show. Stop it before anything else writes to w.
func startProgress(w io.Writer) *progress {
	p := &progress{w: w, live: isTerminal(w), quit: make(chan struct{}), done: make(chan struct{})}
	go p.run()
	return p
}

// stop takes the live line away and returns when nothing more will be shown.
func (p *progress) stop() {
	close(p.quit)
	<-p.done
}

func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok || os.Getenv("TERM") == "dumb" {
		return false
	}
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}

// columnsDefault is the width of a terminal that does not say.
const columnsDefault = 80

// columnsOf is how many characters a terminal's line has.
func columnsOf(w io.Writer) int {
	if f, ok := w.(*os.File); ok {
		if size, err := unix.IoctlGetWinsize(int(f.Fd()), unix.TIOCGWINSZ); err == nil && size.Col > 0 {
			return int(size.Col)
		}
	}
	return columnsDefault
}

func (p *progress) run() {
	defer close(p.done)
	every := plainEvery
	if p.live {
		every = liveEvery
	}
	tick := time.NewTicker(every)
	defer tick.Stop()
	last, lastAt := p.look(), time.Now()
	for {
		select {
		case <-p.quit:
			p.erase()
			return
		case now := <-tick.C:
			s := p.look()
			p.print(s.line(last, now.Sub(lastAt)))
			if now.Sub(lastAt) > time.Second { // a rate over less would jump about
				last, lastAt = s, now
			}
		}
	}
}

func (p *progress) print(line string) {
	if p.live {
		fmt.Fprintf(p.w, "\r%s\x1b[K", line)
		return
	}
	fmt.Fprintln(p.w, line)
}

func (p *progress) erase() {
	if p.live {
		fmt.Fprint(p.w, "\r\x1b[K")
	}
}

// A snapshot is what progress had counted at a moment.
type snapshot struct{ files, hashed, bytes, sends, sent int64 }

func (p *progress) look() snapshot {
	return snapshot{p.files.Load(), p.hashed.Load(), p.bytes.Load(), p.sends.Load(), p.sent.Load()}
}

// line describes s, and how fast it goes since last, d ago. It fits in 80
// columns for all but astronomic trees.
func (s snapshot) line(last snapshot, d time.Duration) string {
	per := func(n int64) int64 { return int64(float64(n) / max(d.Seconds(), .001)) }
	hashed := fmt.Sprintf("hashed %s/%s files, %s", commas(s.hashed), commas(s.files), bytesText(s.bytes))
	if s.sends == 0 {
		return fmt.Sprintf("%s, %s/s", hashed, bytesText(per(s.bytes-last.bytes)))
	}
	return fmt.Sprintf("%s; published %s/%s, %s/s", hashed, commas(s.sent), commas(s.sends), commas(per(s.sent-last.sent)))
}

// commas writes n with a comma before every three digits.
func commas(n int64) string {
	s := strconv.FormatInt(n, 10)
	for i := len(s) - 3; i > 0 && s[i-1] != '-'; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

// bytesText writes n as people say sizes, in powers of a thousand.
func bytesText(n int64) string {
	if n < 1000 {
		return fmt.Sprintf("%d B", n)
	}
	f, unit := float64(n)/1000, 0
	for f >= 999.95 && unit < len("kMGTP")-1 {
		f, unit = f/1000, unit+1
	}
	return fmt.Sprintf("%.1f %cB", f, "kMGTP"[unit])
}
