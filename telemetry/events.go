package telemetry

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"time"

	"svcindex/index"
)

const (
	streamsMax   = 8                // listeners to events at once: each holds one of connsMax
	heartbeat    = 15 * time.Second // so that proxies and listeners know a quiet stream from a dead one
	eventGrace   = 5 * time.Second  // for a listener to take an event before it is given up
	backupTakes  = time.Hour        // a snapshot keeps what was deleted meanwhile from being freed
	backupGrace  = 30 * time.Second // for the client to take the next piece
	realm        = `Bearer realm="svc-index"`
	refusalsBody = `{"code":%q,"message":%q,"reason":%q}` + "\n"
)

// authorized judges a request by its capability, and refuses it if need be.
func (s *Server) authorized(w http.ResponseWriter, r *http.Request, want index.Scope) (index.Grant, bool) {
	fields := r.Header.Values("Authorization")
	if len(fields) > 1 {
		refuse(w, http.StatusBadRequest, "bad_request", "send Authorization once", "")
		return index.Grant{}, false
	}
	g := s.judge(r, want)
	if g.Access == index.Granted {
		return g, true
	}
	s.src.Net.Rejected[index.RejectUnauth].Add(1)
	switch g.Access {
	case index.Unscoped:
		refuse(w, http.StatusForbidden, "forbidden", "this capability lacks the scope that reason names", want.String())
	case index.OutOfPlay:
		refuse(w, http.StatusForbidden, "forbidden", "this capability is for other methods or paths", "method_or_path")
	default:
		w.Header().Set("WWW-Authenticate", realm)
		refuse(w, http.StatusUnauthorized, "unauthorized", "send Authorization: Bearer with a capability: svc-index token mint --scope "+want.String(), "")
	}
	return g, false
}

// judge says what the capability of a request allows now.
func (s *Server) judge(r *http.Request, want index.Scope) index.Grant {
	field := r.Header.Get("Authorization")
	if s.src.Guard == nil || field == "" {
		return index.Grant{}
	}
	path, _, _ := strings.Cut(r.RequestURI, "?")
	return s.src.Guard.Judge(&index.Claim{
		Authorization: []byte(field), Method: index.MethodGet, Path: []byte(path), Want: want, Now: time.Now(),
	})
}

// refuse sends a constant refusal.
func refuse(w http.ResponseWriter, status int, code, message, reason string) {
	send(w, status, "application/json", fmt.Appendf(nil, refusalsBody, code, message, reason))
}

// events streams what changes to one listener, until it leaves, is too slow,
// its capability ends or the server does.
func (s *Server) events(w http.ResponseWriter, r *http.Request) {
	grant, ok := s.authorized(w, r, index.ScopeAdmin)
	if !ok {
		return
	}
	if s.src.Events == nil {
		refuse(w, http.StatusNotImplemented, "not_implemented", "this server was built without events", "")
		return
	}
	if s.streams.Add(1) > streamsMax {
		s.streams.Add(-1)
		w.Header().Set("Retry-After", "5")
		refuse(w, http.StatusServiceUnavailable, "upstream_unready", "as many listen to events as may", "streams")
		return
	}
	defer s.streams.Add(-1)
	events, cancel := s.src.Events()
	defer cancel()
	st := &stream{w: w, c: http.NewResponseController(w), kinds: kinds(r)}
	w.Header().Set("Content-Type", "text/event-stream")
	w.Header().Set("X-Accel-Buffering", "no") // nginx would wait for more
	_ = st.c.SetReadDeadline(time.Time{})
	// Listening is one request, which may last for days: longer than its
	// capability, if that is revoked.
	st.run(r.Context(), events, grant.Until, func() bool { return s.judge(r, index.ScopeAdmin).Access == index.Granted })
}

// kinds are the kinds of events a listener asked for with ?kind=a,b; none: all.
func kinds(r *http.Request) []string {
	if k := r.FormValue("kind"); k != "" {
		return strings.Split(k, ",")
	}
	return nil
}

// A stream is one listener.
type stream struct {
	w     http.ResponseWriter
	c     *http.ResponseController
	kinds []string
	last  uint64 // event before, 0: none yet
}

// run shows events until the listener leaves, may listen no longer, or all is
// over. Whether he still may is asked with each beat.
func (st *stream) run(ctx context.Context, events <-chan index.Event, until time.Time, still func() bool) {
	beat := time.NewTicker(heartbeat)
	defer beat.Stop()
	end := time.NewTimer(time.Until(until))
	defer end.Stop()
	if st.write(": listening\n\n") != nil {
		return
	}
	for {
		var err error
		select {
		case <-ctx.Done():
			st.finish(events)
			return
		case <-end.C:
			st.expire()
			return
		case <-beat.C:
			if !still() {
				st.expire()
				return
			}
			err = st.write(": beat\n\n")
		case e, open := <-events:
			if !open {
				st.goodbye()
				return
			}
			err = st.show(e)
		}
		if err != nil {
			return
		}
	}
}

// finish sends what is left when the server ends, and says so. Of a listener
// who has left nothing more is heard.
func (st *stream) finish(events <-chan index.Event) {
	for {
		select {
		case e, open := <-events:
			if !open {
				st.goodbye()
				return
			}
			if st.show(e) != nil {
				return
			}
		default:
			return
		}
	}
}

func (st *stream) expire() {
	_ = st.write("event: end\ndata: {\"why\":\"the capability has ended\"}\n\n")
}

func (st *stream) goodbye() {
	_ = st.write("event: end\ndata: {\"why\":\"the server is shutting down\"}\n\n")
}

// show sends an event. A gap in the numbers is what this listener was too slow
// for, and it is told.
func (st *stream) show(e index.Event) error {
	missed := uint64(0)
	if st.last != 0 {
		missed = e.N - st.last - 1
	}
	st.last = e.N
	var b bytes.Buffer
	if missed > 0 {
		fmt.Fprintf(&b, "event: lagged\ndata: {\"missed\":%d}\n\n", missed)
	}
	if st.kinds == nil || slices.Contains(st.kinds, e.Kind) {
		data, err := json.Marshal(struct {
			Key string    `json:"key"`
			At  time.Time `json:"at"`
		}{e.Key, e.At.UTC()})
		if err != nil {
			return err
		}
		fmt.Fprintf(&b, "id: %d\nevent: %s\ndata: %s\n\n", e.N, e.Kind, data)
	}
	if b.Len() == 0 {
		return nil
	}
	return st.write(b.String())
}

// write sends text, or gives the listener up.
func (st *stream) write(text string) error {
	if err := st.c.SetWriteDeadline(time.Now().Add(eventGrace)); err != nil {
		return err
	}
	if _, err := io.WriteString(st.w, text); err != nil {
		return err
	}
	return st.c.Flush()
}

// backup sends the database. The stream says itself whether it is whole; one
// that fails is cut off.
func (s *Server) backup(w http.ResponseWriter, r *http.Request) {
	grant, ok := s.authorized(w, r, index.ScopeAdmin)
	if !ok {
		return
	}
	if s.src.Backup == nil {
		refuse(w, http.StatusNotImplemented, "not_implemented", "this server has no database to back up", "")
		return
	}
	if !s.backingUp.CompareAndSwap(false, true) {
		refuse(w, http.StatusConflict, "conflict", "a backup is under way", "backup")
		return
	}
	defer s.backingUp.Store(false)
	ctx, cancel := context.WithTimeout(r.Context(), backupTakes)
	defer cancel()
	w.Header().Set("Content-Type", "application/octet-stream")
	out := &patient{w: w, c: http.NewResponseController(w)}
	_ = out.c.SetReadDeadline(time.Time{})
	began := time.Now()
	err := s.src.Backup(ctx, out)
	if err != nil && out.n == 0 {
		refuse(w, http.StatusServiceUnavailable, "upstream_unready", "the database cannot be read now; see the log", "")
	}
	if err != nil {
		s.log.Error("backup failed", "who", grant.Who, "bytes", out.n, "err", err)
		panic(http.ErrAbortHandler) // a client must not take this for the end
	}
	s.log.Info("backup sent", "who", grant.Who, "bytes", out.n, "took", time.Since(began).Round(time.Millisecond))
}

// patient gives each piece its own time to be taken.
type patient struct {
	w io.Writer
	c *http.ResponseController
	n int64
}

func (p *patient) Write(b []byte) (int, error) {
	if err := p.c.SetWriteDeadline(time.Now().Add(backupGrace)); err != nil {
		return 0, err
	}
	n, err := p.w.Write(b)
	p.n += int64(n)
	return n, err
}
