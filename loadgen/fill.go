package loadgen

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"sync"
	"time"
)

const (
	fillRounds   = 10               // over what was refused for now
	fillPause    = time.Second      // between two
	fillPatience = 10 * time.Second // beyond the timeout, with a server that answers nothing
)

// errFinal is in the errors that trying again would not mend.
var errFinal = errors.New("trying again would not help")

// A Filling is the requests that put a set of keys into a server: each of the
// endpoints, in turn, for each of its keys.
type Filling struct {
	Endpoints []Endpoint
	Host      string
	Done      func(status int) bool // whether a status means that it is there
	Progress  func(done, all int64) // called once a second; may be nil
}

// Fill sends them, as fast as cfg's connections allow, and again what was
// refused for now. What cfg says about pace and demand is not used.
func Fill(ctx context.Context, cfg Config, f Filling) error {
	for _, e := range f.Endpoints {
		if err := f.fill(ctx, cfg, &e); err != nil {
			return fmt.Errorf("%s: %w", e.Name, err)
		}
	}
	return nil
}

// fill sends one endpoint's. Endpoints follow one another: a name that can be
// resolved points to something that can be had.
func (f *Filling) fill(ctx context.Context, cfg Config, e *Endpoint) error {
	all := int64(e.Keys.Len())
	left := make([]int64, all)
	for i := range left {
		left[i] = int64(i)
	}
	var why error
	for round := range fillRounds {
		if round > 0 && !pause(ctx, fillPause) {
			return ctx.Err()
		}
		left, why = f.sweep(ctx, cfg, e, left, all)
		switch {
		case len(left) == 0:
			return nil
		case ctx.Err() != nil:
			return ctx.Err()
		case errors.Is(why, errFinal):
			return fmt.Errorf("%d of %d were not taken: %w", len(left), all, why)
		}
	}
	return fmt.Errorf("%d of %d were not taken in %d rounds: %w", len(left), all, fillRounds, why)
}

// sweep sends the requests of keys and returns those that were not taken, and
// why the first was not.
func (f *Filling) sweep(ctx context.Context, cfg Config, e *Endpoint, keys []int64, all int64) (left []int64, why error) {
	var mu sync.Mutex // protects taken: threads report
	taken, done := make([]bool, len(keys)), all-int64(len(keys))
	cfg.Pacer, cfg.Random, cfg.Warmup = nil, false, 0
	cfg.Duration, cfg.Requests = DurationMax, int64(len(keys))
	cfg.NewAsker = func() Asker {
		return &sweeper{form: newForm(e, f.Host, nil, 1), keys: keys}
	}
	cfg.Done = func(e End) {
		if f.Done(e.Status) {
			mu.Lock()
			taken[e.N] = true
			mu.Unlock()
		}
	}
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	silence := silence{since: time.Now(), most: cmp.Or(cfg.Timeout, DefaultTimeout) + fillPatience}
	cfg.Live = func(v Live) {
		if silence.over(v.Answered, time.Now()) {
			stop()
		}
		if f.Progress != nil {
			f.Progress(done+v.Answered, all)
		}
	}
	r, err := Run(ctx, cfg)
	if err != nil { // it was there for nobody
		return keys, fmt.Errorf("%w; %w", err, errFinal)
	}
	for i, ok := range taken {
		if !ok {
			left = append(left, keys[i])
		}
	}
	why = r.firstRefusal(f.Done)
	if silence.broken {
		why = fmt.Errorf("nothing was answered for %v: %w; %w", silence.most, why, errFinal)
	}
	return slices.Clip(left), why
}

// A silence watches a server that may be gone: a closed loop would wait for it
// as long as a run may last.
type silence struct {
	answered int64
	since    time.Time // that many were
	most     time.Duration
	broken   bool
}

// over reports whether it has lasted too long, now that so many were answered.
func (s *silence) over(answered int64, now time.Time) bool {
	if answered != s.answered {
		s.answered, s.since = answered, now
	}
	s.broken = s.broken || now.Sub(s.since) > s.most
	return s.broken
}

// firstRefusal says what went wrong first, for a report in which not all was
// well. Statuses that mean success went right.
func (r *Report) firstRefusal(success func(status int) bool) error {
	for _, s := range r.Codes {
		status, _ := strconv.Atoi(s.Name)
		switch {
		case s.Example == "" || success(status):
		case status < 500 && status != 408 && status != 429:
			return fmt.Errorf("%s: %s; %w", s.Name, s.Example, errFinal)
		default:
			return fmt.Errorf("%s: %s", s.Name, s.Example)
		}
	}
	for _, e := range r.Errors {
		return errors.New(e.Example)
	}
	return errors.New("no reason was seen")
}

func pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}

// A sweeper asks for each key once.
type sweeper struct {
	form
	keys []int64
	body []byte
}

// Ask implements Asker.
func (s *sweeper) Ask(dst []byte, n int64) ([]byte, bool) {
	return s.render(dst, s.Keys, int(s.keys[n]), n, false, &s.body), s.headless
}
