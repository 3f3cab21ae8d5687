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
it at once.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := s.load()
			if err != nil {
				return err
			}
			sig := make(chan os.Signal, 2)
			signal.Notify(sig, os.Interrupt, syscall.SIGTERM)
			defer signal.Stop(sig)
			return serve(cfg, newLogger(cfg.Log, cmd.ErrOrStderr()), sig, cmd.OutOrStdout())
		},
	}
	s.flags(cmd)
	return strict(cmd)
}

// errForced says that a second signal cut the drain short.
var errForced = errors.New("ended by a second signal, before the drain was over")

// serve runs a house until the first signal.
func serve(cfg config.Config, log *slog.Logger, sig <-chan os.Signal, out io.Writer) error {
	h, err := build(cfg, log, rigSeams(log))
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "svc-index listens on http://%s, admin on http://%s\n", h.addr, h.admin.Addr())
	log.Info("serving", "listen", h.addr.String(), "admin", h.admin.Addr(), "data", cfg.DataDir,
		"uds", cfg.UDS.Path, "version", version, "commit", commit)
	got := <-sig
	log.Info("draining", "signal", got.String(), "limit", time.Duration(cfg.Limits.Drain).String())
	ctx, cancel := context.WithTimeout(context.Background(), time.Duration(cfg.Limits.Drain))
	defer cancel()
	closed := make(chan error, 1)
	go func() { closed <- h.close(ctx) }()
	select {
	case err := <-closed:
		log.Info("closed", "err", err)
		return err
	case <-sig:
		return errForced
	}
}

// newLogger returns the process's logger. It speaks of states, not of events:
// no line per request.
func newLogger(l config.Log, w io.Writer) *slog.Logger {
	var level slog.Level
	if err := level.UnmarshalText([]byte(l.Level)); err != nil {
		level = slog.LevelInfo // config.Check has refused anything else
	}
	opts := &slog.HandlerOptions{Level: level}
	if l.Format == "text" {
		return slog.New(slog.NewTextHandler(w, opts))
	}
	return slog.New(slog.NewJSONHandler(w, opts))
}
