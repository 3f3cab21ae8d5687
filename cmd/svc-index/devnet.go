package main

import (
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"svcindex/auth"
	"svcindex/stages/kaddht"
)

func devnetCmd() *cobra.Command {
	var (
		s     settings
		nodes int
		port  int
		also  bool
	)
	cmd := &cobra.Command{
		Use:   "devnet",
		Short: "Start a private DHT on loopback, to try things",
		Long: `Start a private DHT of real nodes on loopback, TCP and TLS, in this process,
and print the line that starts a server in it. The nodes keep records in memory
and end with the command. With --serve a server of this process joins, too,
with the flags of serve. Nothing here is secret: the nodes' keys come from
their numbers.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			sig := make(chan os.Signal, 2)
			signal.Notify(sig, os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
			defer signal.Stop(sig)
			return devnet(cmd, &s, nodes, port, also, sig)
		},
	}
	s.flags(cmd)
	cmd.Flags().IntVar(&nodes, "nodes", 8, "how many nodes, at most 200")
	cmd.Flags().IntVar(&port, "port", 4401, "port of the first node, the others follow; 0: any free ones")
	cmd.Flags().BoolVar(&also, "serve", false, "run a server in it, too")
	return strict(cmd)
}

func devnet(cmd *cobra.Command, s *settings, nodes, port int, also bool, sig <-chan os.Signal) error {
	cfg, err := s.load()
	if err != nil {
		return err
	}
	level := new(slog.LevelVar)
	log := newLogger(cfg.Log, level, cmd.ErrOrStderr())
	d, err := kaddht.OpenDevnet(kaddht.DevnetPlan{Nodes: nodes, Port: port, Prefix: cfg.DHT.Prefix, Verify: auth.VerifyName, Log: log})
	if err != nil {
		return err
	}
	defer d.Close()
	out, list := cmd.OutOrStdout(), strings.Join(d.Bootstrap(), ",")
	fmt.Fprintf(out, "devnet of %d nodes, until Ctrl-C. A server in it:\n  svc-index serve --set dht.bootstrap=%s\nor, for a shell: NETWORK=dht.bootstrap=%s\n", nodes, list, list)
	if also {
		s.set = append(s.set, "dht.enabled=true", "dht.allow_private=true", "dht.bootstrap="+list)
		if cfg, err = s.load(); err != nil {
			return err
		}
		return serve(newReloader(s.input(), cfg, level), log, sig, out)
	}
	for got := range sig {
		if got != syscall.SIGHUP {
			break
		}
	}
	return nil
}
