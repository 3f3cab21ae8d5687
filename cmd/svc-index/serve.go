package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"svcindex/config"
)

func serveCmd() *cobra.Command {
	var s settings
	cmd := &cobra.Command{
		Use:   "serve",
		Short: "Run the server until it is interrupted",
		Long: `Run the server until SIGTERM or an interrupt. It then turns /readyz off,
answers what has arrived, and closes the database last; a second signal ends
it at once.

SIGHUP, or a change of the --config file, reloads the configuration: limits,
stages, times and log level change under way, listeners and paths at the next
start. What is not sound changes nothing.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			file := watchFile(s.file) // before it is read: no change in between is missed
			defer file.Close()
			cfg, err := s.load()
			if err != nil {
				return err
			}
			if cfg.Amnesia.Enabled {
				if err := forgetful(); err != nil {
					return err
				}
			}
			sig := make(chan os.Signal, 2)
			signal.Notify(sig, os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
			defer signal.Stop(sig)
			level := new(slog.LevelVar)
			log := newLogger(cfg.Log, level, cmd.ErrOrStderr())
			file.warn(log)
			return serve(newReloader(s.input(), cfg, level), file.Watcher, log, sig, cmd.OutOrStdout())
		},
	}
	s.flags(cmd)
	return strict(cmd)
}

// errForced says that a second signal cut the drain short.
var errForced = errors.New("ended by a second signal, before the drain was over")

// serve runs a house until the first signal.
func serve(r *reloader, watcher *config.Watcher, log *slog.Logger, sig <-chan os.Signal, out io.Writer) error {
	cfg := r.now()
	h, err := build(cfg, log, rigSeams(log))
	if err != nil {
		return err
	}
	r.attach(h)
	garbage := startGarbageMan(uint64(cfg.Cache.Bytes))
	defer garbage.close()
	fmt.Fprintf(out, "svc-index listens on http://%s, admin on http://%s\n", h.addr, h.admin.Addr())
	log.Info("serving", "listen", h.addr.String(), "admin", h.admin.Addr(), "data", cfg.DataDir,
		"uds", cfg.UDS.Path, "version", version, "commit", commit)
	got := untilEnd(r, watcher, sig)
	limit := time.Duration(r.now().Limits.Drain)
	log.Info("draining", "signal", got.String(), "limit", limit.String())
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	gone, closed := h.store.Released(), make(chan error, 1)
	go func() { closed <- h.close(ctx) }()
	for {
		select {
		case err := <-closed:
			log.Info("closed", "err", err)
			if cfg.Amnesia.Enabled {
				r.forget(gone)
				atEnd(log)
			}
			return err
		case s := <-sig:
			if s != syscall.SIGHUP {
				return errForced
			}
		}
	}
}

// untilEnd reloads when asked to, until the first signal to end.
func untilEnd(r *reloader, w *config.Watcher, sig <-chan os.Signal) os.Signal {
	for {
		select {
		case s := <-sig:
			if s != syscall.SIGHUP {
				return s
			}
			_ = r.safely("SIGHUP") // it has said so
		case <-w.Changed():
			_ = r.safely("the file changed")
		}
	}
}

// A lookout watches the configuration file. Where that is not possible there is
// still SIGHUP.
type lookout struct {
	*config.Watcher       // nil: nothing is watched
	err             error // why
}

// watchFile watches the configuration file, if there is one.
func watchFile(path string) (l lookout) {
	if path != "" {
		l.Watcher, l.err = config.WatchFile(path)
	}
	return l
}

func (l lookout) warn(log *slog.Logger) {
	if l.err != nil {
		log.Warn("the configuration file is not watched", "err", l.err)
	}
}

// newLogger returns the process's logger. It speaks of states, not of events:
// no line per request.
func newLogger(l config.Log, level *slog.LevelVar, w io.Writer) *slog.Logger {
	setLevel(level, l.Level)
	opts := &slog.HandlerOptions{Level: level}
	if l.Format == "text" {
		return slog.New(slog.NewTextHandler(w, opts))
	}
	return slog.New(slog.NewJSONHandler(w, opts))
}
