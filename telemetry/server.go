package telemetry

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"svcindex/index"
)

const (
	headTimeout  = 5 * time.Second  // for a request's head
	readTimeout  = 10 * time.Second // for all of it; no request here has a body
	writeTimeout = 30 * time.Second // for an answer; profiles get their own time on top
	idleTimeout  = 60 * time.Second
	headMax      = 16 << 10
	connsMax     = 32 // operators and scrapers; the sums of config count on it
)

var errNotLoopback = errors.New("expected a loopback address, such as 127.0.0.1:9108: " +
	"profiles and figures are for operators of this machine only")

// A Server is the admin listener.
type Server struct {
	// Immutable.
	src  Sources
	log  *slog.Logger
	book *book
	http *http.Server
	wg   sync.WaitGroup // the accept loop and the clock

	// Ends long answers (profiles, live pages) and the clock when the server closes.
	ctx  context.Context
	stop context.CancelFunc

	rates rates

	streams   atomic.Int32 // /events under way
	backingUp atomic.Bool
	live      *live

	scrape sync.Mutex // protects the fields below
	view   *view
	size   int // of the last exposition; the next is about as long

	mu       sync.Mutex // protects the fields below
	listener net.Listener
}

// New returns a Server of src that does not listen yet.
func New(src Sources, log *slog.Logger) *Server {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	s := &Server{src: src.orZero(), log: log, book: newBook(), view: newView()}
	enter(s.book, s.src, s.view)
	s.live = newLive(s.src, s.book)
	s.ctx, s.stop = context.WithCancel(context.Background())
	s.http = &http.Server{
		Handler:           s.routes(),
		ReadHeaderTimeout: headTimeout,
		ReadTimeout:       readTimeout,
		WriteTimeout:      writeTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    headMax,
		ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelWarn),
		BaseContext:       func(net.Listener) context.Context { return s.ctx },
	}
	return s
}

// Listen serves on addr, host:port, until Close; port 0 takes any free one. It
// returns once connections are accepted.
func (s *Server) Listen(addr string) error {
	if err := s.allowed(addr); err != nil {
		return fmt.Errorf("admin = %q: %w", addr, err)
	}
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return fmt.Errorf("admin = %q: %w; is another server running? set admin to a free port", addr, err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.listener != nil || s.ctx.Err() != nil {
		l.Close()
		return errors.New("telemetry: Listen is for once, before Close")
	}
	s.listener = l
	s.src.Ready.Set(MetricsLive, nil)
	s.wg.Go(func() { s.serve(l) })
	s.wg.Go(func() { s.observe(s.ctx) })
	return nil
}

// allowed refuses addresses others can reach, unless the Sources say so.
func (s *Server) allowed(addr string) error {
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return fmt.Errorf("expected host:port, such as 127.0.0.1:9108: %w", err)
	}
	ip := net.ParseIP(host)
	if s.src.AnyAddress || host == "localhost" || ip != nil && ip.IsLoopback() {
		return nil
	}
	return errNotLoopback
}

func (s *Server) serve(l net.Listener) {
	err := s.http.Serve(newCapped(l, connsMax))
	s.src.Ready.Set(MetricsLive, err)
	if !errors.Is(err, http.ErrServerClosed) {
		s.log.Error("the admin listener stopped; metrics and profiles are gone until a restart", "err", err)
	}
}

// Addr returns where it listens, or "" when it does not.
func (s *Server) Addr() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.listener == nil {
		return ""
	}
	return s.listener.Addr().String()
}

// Close stops listening, ends profiles under way, and waits for other answers
// until ctx is done.
func (s *Server) Close(ctx context.Context) error {
	s.mu.Lock()
	s.stop()
	s.mu.Unlock()
	err := s.http.Shutdown(ctx)
	if err != nil {
		s.http.Close()
	}
	s.wg.Wait()
	return err
}

// links is what a person without a browser finds at /.
const links = `svc-index, admin listener

/metrics        figures, Prometheus text format
/healthz        the process turns
/readyz         whether it keeps all its promises, and if not, which
/version        what runs here
/debug/stages   each stage: queue, workers, breaker, rates; what stands still
/debug/dht      the network: routing table, last look-ups with hops and hedges
/debug/explain/KEY  what each place knows of a key, and how the last look-up ended; ?ask=true asks the DHT. With auth.required it needs a capability with index.read
/debug/live     the same each second, as server-sent events; / in a browser draws it
/debug/pprof/   profiles
/events         what changes, as it does, as server-sent events; needs a capability with index.admin
/backup         the database, whole; needs a capability with index.admin. svc-index db backup asks for it
/debug/flight   a trace of the last seconds, if watch.flight is on
/debug/config   what it runs with
`

// routes is every path. The mux is our own: nothing that other packages hang
// on http.DefaultServeMux is served here or anywhere.
func (s *Server) routes() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", s.index)
	mux.HandleFunc("GET /metrics", s.metrics)
	mux.HandleFunc("GET /healthz", s.healthz)
	mux.HandleFunc("GET /readyz", s.readyz)
	mux.HandleFunc("GET /version", s.version)
	mux.HandleFunc("GET /debug/stages", s.stages)
	mux.HandleFunc("GET /debug/dht", s.network)
	mux.HandleFunc("GET /debug/explain/{key...}", s.explain)
	mux.HandleFunc("GET /debug/live", s.watchLive)
	mux.HandleFunc("GET /events", s.events)
	mux.HandleFunc("GET /backup", s.backup)
	mux.HandleFunc("GET /debug/flight", func(w http.ResponseWriter, _ *http.Request) {
		whole(w, "application/octet-stream", s.src.Recording)
	})
	mux.HandleFunc("GET /debug/config", func(w http.ResponseWriter, _ *http.Request) {
		whole(w, "application/toml", s.src.Config)
	})
	profileRoutes(mux, new(contention))
	return plain(s.forOperators(mux))
}

// forOperators refuses what a page of somebody else's makes an operator's
// browser ask: a name that was made to mean this machine (DNS rebinding), and
// requests from another site. A listener that others may reach has a name of
// its own.
func (s *Server) forOperators(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch site := r.Header.Get("Sec-Fetch-Site"); {
		case site != "" && site != "none" && site != "same-origin":
			http.Error(w, "this listener is not for other sites' pages", http.StatusForbidden)
		case !s.src.AnyAddress && !loopbackName(r.Host):
			http.Error(w, "expected a Host of this machine, such as 127.0.0.1 or localhost", http.StatusForbidden)
		default:
			next.ServeHTTP(w, r)
		}
	})
}

// loopbackName reports whether a Host field names this machine to itself.
func loopbackName(host string) bool {
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	ip := net.ParseIP(strings.Trim(host, "[]"))
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

// plain sets what all answers share: they are of the moment, and no browser is
// to guess what they are.
func plain(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "no-store")
		w.Header().Set("X-Content-Type-Options", "nosniff")
		next.ServeHTTP(w, r)
	})
}

// metrics renders under the lock and sends after: a slow scraper holds up
// nobody.
func (s *Server) metrics(w http.ResponseWriter, _ *http.Request) {
	send(w, http.StatusOK, textType, s.exposition())
}

func (s *Server) exposition() []byte {
	s.scrape.Lock()
	defer s.scrape.Unlock()
	s.view.look(s.src.Rooms())
	text := s.book.appendText(make([]byte, 0, s.size+s.size/8))
	s.size = len(text)
	return text
}

func (s *Server) healthz(w http.ResponseWriter, _ *http.Request) {
	send(w, http.StatusOK, "application/json", []byte(`{"ok":true}`))
}

func (s *Server) readyz(w http.ResponseWriter, _ *http.Request) {
	ready, body, retryAfter := s.src.Ready.Body()
	status := http.StatusOK
	if !ready {
		status = http.StatusServiceUnavailable
		w.Header().Set("Retry-After", strconv.Itoa(retryAfter))
	}
	send(w, status, "application/json", body)
}

func (s *Server) version(w http.ResponseWriter, _ *http.Request) { sendJSON(w, s.src.Version) }

func (s *Server) stages(w http.ResponseWriter, _ *http.Request) {
	page := stagesPage{Stages: s.rates.dress(s.src.Rooms())}
	if s.src.Watch != nil {
		page.Watch = s.src.Watch()
	}
	if s.src.Stages != nil {
		page.Extra = s.src.Stages()
	}
	sendJSON(w, page)
}

func (s *Server) explain(w http.ResponseWriter, r *http.Request) {
	if s.src.AuthReads {
		if _, ok := s.authorized(w, r, index.ScopeRead); !ok {
			return
		}
	}
	if s.src.Explain == nil {
		http.Error(w, "nobody here can explain", http.StatusNotFound)
		return
	}
	v, err := s.src.Explain(r.Context(), r.PathValue("key"), r.URL.Query().Get("ask") == "true")
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	sendJSON(w, v)
}

func (s *Server) network(w http.ResponseWriter, _ *http.Request) {
	if s.src.Network == nil {
		http.Error(w, "the DHT is switched off (dht.enabled)", http.StatusNotFound)
		return
	}
	sendJSON(w, s.src.Network())
}

func sendJSON(w http.ResponseWriter, v any) {
	body, err := json.Marshal(v)
	if err != nil {
		http.Error(w, "cannot be shown as JSON: "+err.Error(), http.StatusInternalServerError)
		return
	}
	send(w, http.StatusOK, "application/json", body)
}

// whole sends what write writes, or why it could not.
func whole(w http.ResponseWriter, mediaType string, write func(io.Writer) error) {
	if write == nil {
		http.Error(w, "this server was built without it", http.StatusNotFound)
		return
	}
	var b bytes.Buffer
	if err := write(&b); err != nil {
		http.Error(w, err.Error(), http.StatusConflict)
		return
	}
	send(w, http.StatusOK, mediaType, b.Bytes())
}

// send writes a whole answer. A client that left is not our fault and not
// worth a line.
func send(w http.ResponseWriter, status int, mediaType string, body []byte) {
	w.Header().Set("Content-Type", mediaType)
	w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	w.WriteHeader(status)
	_, _ = w.Write(body)
}
