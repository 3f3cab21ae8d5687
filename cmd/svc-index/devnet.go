package main

import (
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"svcindex/auth"
	"svcindex/stages/kaddht"
)

// publishMost is how many keys a devnet publishes at most: no node may be
// provider of more records than the others keep of one peer.
const publishMost = 20_000

// A devnetPlan is what devnet's own flags say.
type devnetPlan struct {
	nodes, port, slow, publish int
	delay                      time.Duration
	serve                      bool
}

func devnetCmd() *cobra.Command {
	var (
		s settings
		p devnetPlan
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
			return devnet(cmd, &s, p, sig)
		},
	}
	s.flags(cmd)
	cmd.Flags().IntVar(&p.nodes, "nodes", 8, "how many nodes, at most 200")
	cmd.Flags().IntVar(&p.port, "port", 4401, "port of the first node, the others follow; 0: any free ones")
	cmd.Flags().BoolVar(&p.serve, "serve", false, "run a server in it, too")
	cmd.Flags().DurationVar(&p.delay, "delay", 0, "how long nodes take for each answer, to see what distance does")
	cmd.Flags().IntVar(&p.slow, "slow", 0, "how many nodes take so long, the last ones; 0: all")
	cmd.Flags().IntVar(&p.publish, "publish", 0, "how many of the keys that loadgen asks for are found in it: manifests and providers")
	return strict(cmd)
}

func devnet(cmd *cobra.Command, s *settings, p devnetPlan, sig <-chan os.Signal) error {
	if p.slow < 0 || p.slow > p.nodes || p.delay < 0 {
		return usagef("--slow is 0 to --nodes, and --delay not negative: %d, %v", p.slow, p.delay)
	}
	if p.publish < 0 || p.publish > publishMost {
		return usagef("--publish is 0 to %s keys, not %d", commas(publishMost), p.publish)
	}
	cfg, err := s.load()
	if err != nil {
		return err
	}
	level := new(slog.LevelVar)
	log := newLogger(cfg.Log, level, cmd.ErrOrStderr())
	d, err := kaddht.OpenDevnet(kaddht.DevnetPlan{Nodes: p.nodes, Port: p.port, Prefix: cfg.DHT.Prefix, Verify: auth.VerifyName, Log: log})
	if err != nil {
		return err
	}
	defer d.Close()
	for i, n := range d.Nodes() {
		if p.slow == 0 || i >= p.nodes-p.slow {
			n.Slow(p.delay)
		}
	}
	for i := range p.publish {
		if err := d.Publish(i, contentOf(nil, i)); err != nil {
			return fmt.Errorf("devnet: publishing key %d: %w", i, err)
		}
	}
	out, list := cmd.OutOrStdout(), strings.Join(d.Bootstrap(), ",")
	fmt.Fprintf(out, "devnet of %d nodes, until Ctrl-C. A server in it:\n  svc-index serve --set dht.bootstrap=%s\nor, for a shell: NETWORK=dht.bootstrap=%s\n", p.nodes, list, list)
	if p.serve {
		s.set = append(s.set, "dht.enabled=true", "dht.allow_private=true", "dht.bootstrap="+list)
		file := watchFile(s.file)
		defer file.Close()
		file.warn(log)
		if cfg, err = s.load(); err != nil {
			return err
		}
		return serve(newReloader(s.input(), cfg, level), file.Watcher, log, sig, out)
	}
	for got := range sig {
		if got != syscall.SIGHUP {
			break
		}
	}
	return nil
}
