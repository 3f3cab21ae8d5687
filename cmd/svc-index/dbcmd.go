package main

import (
	"errors"
	"fmt"
	"io"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"svcindex/config"
	"svcindex/stages/leveldb"
)

func dbCmd() *cobra.Command {
	var s settings
	backup := ""
	verify := &cobra.Command{
		Use:   "verify",
		Short: "Check the journal, every record's digest and every manifest's hash",
		Long: `Check the journal, every record's digest, every manifest against its content
id, and that no batch of writes is missing. It changes nothing. The server must
not run on the same data.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if backup != "" {
				return verifyBackup(cmd, backup)
			}
			cfg, err := s.load()
			if err != nil {
				return err
			}
			return verifyDB(cmd, cfg)
		},
	}
	verify.Flags().StringVar(&backup, "backup", "", "check this backup `FILE` instead of a database")
	stat := &cobra.Command{
		Use:   "stat",
		Short: "Print what the database holds",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := s.load()
			if err != nil {
				return err
			}
			return statDB(cmd.OutOrStdout(), cfg)
		},
	}
	s.flags(verify)
	s.flags(stat)
	return group("db", "Look at the database, back it up, restore it", strict(verify), strict(stat), dbBackupCmd(), dbRestoreCmd())
}

var errDamaged = errors.New("the database is damaged: restore a backup, or publish again what is listed above")

func verifyDB(cmd *cobra.Command, cfg config.Config) error {
	ctx, stop := interruptible(cmd)
	defer stop()
	out := cmd.OutOrStdout()
	r, err := leveldb.Verify(ctx, cfg.DBPath(), func(p leveldb.Progress) {
		fmt.Fprintf(cmd.ErrOrStderr(), "%d rows checked\n", p.Rows)
	})
	if err != nil {
		return err
	}
	for _, f := range r.Findings {
		fmt.Fprintln(out, "damaged:", f)
	}
	if r.More > 0 {
		fmt.Fprintf(out, "damaged: and %d more\n", r.More)
	}
	table(out, [][2]any{
		{"rows", r.Rows}, {"manifests", r.Manifests}, {"last batch", r.Batch}, {"batches in the journal", r.Batches},
		{"torn tail, bytes (normal after a crash)", r.Torn}, {"tables", r.Tables}, {"quarantined", r.Quarantined},
	})
	if len(r.Findings) > 0 {
		return errDamaged
	}
	fmt.Fprintln(out, "sound")
	return nil
}

func statDB(out io.Writer, cfg config.Config) error {
	d, err := leveldb.Open(leveldb.Options{Path: cfg.DBPath(), Sync: true})
	if err != nil {
		return err
	}
	s := d.Stats()
	table(out, [][2]any{
		{"names", s.Names}, {"tombstones", s.Tombstones}, {"manifests", s.Manifests},
		{"content ids with providers", s.Sets}, {"provider rows", s.Providers}, {"pins", s.Pins},
		{"quarantined", s.Quarantined}, {"last batch", s.Batch}, {"bytes on disk", s.Bytes}, {"bytes free", s.Free},
	})
	return d.Close()
}

// table prints what and how many, aligned.
func table(out io.Writer, rows [][2]any) {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	for _, r := range rows {
		fmt.Fprintf(w, "%v\t%v\n", r[0], r[1])
	}
	_ = w.Flush()
}
