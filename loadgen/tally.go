package loadgen

import (
	"bytes"
	"cmp"
	"time"
)

const (
	sourcesMax = 8   // distinct sources kept apart; more are "other"
	statusMax  = 600 // statuses are below
	sampleMax  = 240 // bytes kept of the first example of each error
)

// A Failure is why a request, or a connection, came to nothing.
type Failure uint8

// Failures.
const (
	NotConnected Failure = iota // a connection could not be made
	Unasked                     // the server sent something nobody had asked for
	Closed                      // the connection ended before the answer
	Malformed                   // the answer made no sense
	TimedOut                    // no answer in time
	Unsent                      // no connection was free before the run ended
	failures
)

func (f Failure) String() string {
	return [failures]string{"connect", "unasked", "closed", "malformed", "timeout", "unsent"}[f]
}

// ofConnection tells failures of a connection from those of a request.
func (f Failure) ofConnection() bool { return f <= Unasked }

// A tally is what one thread has seen. Only that thread touches it while the
// run lasts.
type tally struct {
	response, service, first, lag hist
	codes                         [statusMax]hist
	samples                       [statusMax]string // first answer of each status from 400 up
	sources                       [sourcesMax]sourceTally
	failed                        [failures]failureTally

	due, sent, answered, late int64
	cut                       int64 // due, and neither answered nor failed when the run was interrupted
	warm                      int64 // before the measured time, and in no other count
	bodyBytes                 int64
	opened, reopened          int64 // connections
	unmade                    int64 // connections that this machine had no room for
	unmadeWhy                 string

	window window
}

type sourceTally struct {
	label
	hist hist
}

// A label is the name of a source. The zero one is nobody's yet.
type label struct {
	name [24]byte
	used int
}

// take reports whether a label, the last of its table or not, is that of name.
// One that is nobody's becomes it; the last is everybody's whom no other took.
func (s *label) take(name []byte, last bool) bool {
	if s.used == 0 {
		if last {
			name = []byte("other")
		}
		s.used = copy(s.name[:], name)
	}
	return last || bytes.Equal(s.name[:s.used], name[:min(len(name), len(s.name))])
}

func (s *label) String() string { return clip(string(s.name[:s.used])) }

type failureTally struct {
	n       int64
	example string
}

func newTally() *tally {
	return &tally{
		response: newHist(histDigits), service: newHist(histDigits),
		first: newHist(histDigits), lag: newHist(histDigits),
		window: newWindow(),
	}
}

// answer counts one answered request.
func (t *tally) answer(f *flight, a *reply, done int64) {
	response := done - f.intended
	t.answered++
	t.bodyBytes += a.length
	t.response.record(response)
	t.service.record(done - f.sent)
	t.first.record(f.first - f.sent)
	t.code(a.status).record(response)
	if s := t.source(a.source[:a.sourceLen]); s != nil {
		s.record(response)
	}
	t.window.answer(a.status, response)
	t.window.source(a.source[:a.sourceLen], 1)
}

// code returns the histogram of a status. They are made when first needed:
// there are six hundred.
func (t *tally) code(status int) hist {
	if t.codes[status].h == nil {
		t.codes[status] = newHist(histDigits)
	}
	return t.codes[status]
}

// source returns the histogram of a source, or nil for none.
func (t *tally) source(name []byte) *hist {
	if len(name) == 0 {
		return nil
	}
	for i := range t.sources {
		s := &t.sources[i]
		if !s.take(name, i == sourcesMax-1) {
			continue
		}
		if s.hist.h == nil {
			s.hist = newHist(histDigits)
		}
		return &s.hist
	}
	return nil
}

// fail counts a failure. The example is made only for the first.
func (t *tally) fail(why Failure, example func() string) {
	f := &t.failed[why]
	if f.n++; f.n == 1 {
		f.example = clip(example())
	}
	t.window.failed++
}

// charge counts the wait of a request that will have no answer. It is a lower
// bound, and leaving it out would flatter the server.
func (t *tally) charge(wait int64) {
	t.response.record(wait)
	t.window.wait(wait)
}

// merge adds what another thread has seen.
func (t *tally) merge(o *tally) {
	t.response.merge(o.response)
	t.service.merge(o.service)
	t.first.merge(o.first)
	t.lag.merge(o.lag)
	for status := range o.codes {
		if o.codes[status].h != nil {
			t.code(status).merge(o.codes[status])
			if t.samples[status] == "" {
				t.samples[status] = o.samples[status]
			}
		}
	}
	for i := range o.sources {
		if s := &o.sources[i]; s.used > 0 {
			t.source(s.name[:s.used]).merge(s.hist)
		}
	}
	for why := range o.failed {
		if t.failed[why].n == 0 {
			t.failed[why].example = o.failed[why].example
		}
		t.failed[why].n += o.failed[why].n
	}
	t.due, t.sent, t.answered = t.due+o.due, t.sent+o.sent, t.answered+o.answered
	t.late, t.cut, t.warm, t.bodyBytes = t.late+o.late, t.cut+o.cut, t.warm+o.warm, t.bodyBytes+o.bodyBytes
	t.opened, t.reopened = t.opened+o.opened, t.reopened+o.reopened
	t.unmade, t.unmadeWhy = t.unmade+o.unmade, cmp.Or(t.unmadeWhy, o.unmadeWhy)
}

// clip makes text that a stranger wrote safe to show and short.
func clip(s string) string {
	if len(s) > sampleMax {
		s = s[:sampleMax] + "..."
	}
	b := []byte(s)
	for i, c := range b {
		if c < ' ' || c > '~' {
			b[i] = '.'
		}
	}
	return string(b)
}

// A window is what was answered in one second of the run.
type window struct {
	hist    hist
	codes   [statusMax]int32
	sources [sourcesMax]sourceCount
	failed  int64
	n       int64
}

type sourceCount struct {
	label
	n int64
}

func newWindow() window { return window{hist: newHist(windowDigits)} }

func (w *window) answer(status int, ns int64) {
	w.n++
	w.codes[status]++
	w.hist.record(ns)
}

// source counts n answers of a source, which may be none.
func (w *window) source(name []byte, n int64) {
	if len(name) == 0 {
		return
	}
	for i := range w.sources {
		if s := &w.sources[i]; s.take(name, i == sourcesMax-1) {
			s.n += n
			return
		}
	}
}

func (w *window) wait(ns int64) { w.hist.record(ns) }

func (w *window) merge(o *window) {
	w.hist.merge(o.hist)
	for i := range o.codes {
		w.codes[i] += o.codes[i]
	}
	for i := range o.sources {
		s := &o.sources[i]
		w.source(s.name[:s.used], s.n)
	}
	w.failed += o.failed
	w.n += o.n
}

func (w *window) reset() {
	w.hist.reset()
	w.codes, w.sources, w.failed, w.n = [statusMax]int32{}, [sourcesMax]sourceCount{}, 0, 0
}

// second returns what a window looks like from outside.
func (w *window) second(at time.Duration, target float64) Second {
	s := Second{At: at.Seconds(), Target: target, Answered: w.n, Failed: w.failed, Codes: map[int]int64{}, Sources: map[string]int64{}}
	if w.hist.count() > 0 {
		p := w.hist.percentiles(50, 90, 95, 99)
		s.P50, s.P90, s.P95, s.P99, s.Max = us(p[0]), us(p[1]), us(p[2]), us(p[3]), us(w.hist.h.Max())
	}
	for status, n := range w.codes {
		if n > 0 {
			s.Codes[status] = int64(n)
		}
	}
	for i := range w.sources {
		if c := &w.sources[i]; c.n > 0 {
			s.Sources[c.String()] = c.n
		}
	}
	return s
}
