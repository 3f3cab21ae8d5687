package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"svcindex/audit"
	"svcindex/config"
	"svcindex/index"
	"svcindex/stages/leveldb"
)

const auditVerifyLong = `Verify reads the audit's files and finds every line that was removed, moved or
changed. It then holds them to the database: an entry without its write, a
write without its entry, and the last entries cut off show there. It changes
nothing. The server must not run on the same data; --files-only looks at the
files of one that runs, and finds all but what only the database can tell.`

func auditCmd() *cobra.Command {
	var s settings
	filesOnly := false
	verify := &cobra.Command{
		Use:   "verify",
		Short: "Find what was removed, moved, changed or made up",
		Long:  auditVerifyLong,
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := s.load()
			if err != nil {
				return err
			}
			ctx, stop := interruptible(cmd)
			defer stop()
			return verifyAudit(ctx, cfg, filesOnly, cmd.OutOrStdout())
		},
	}
	s.flags(verify)
	verify.Flags().BoolVar(&filesOnly, "files-only", false, "do not open the database")
	return group("audit", "Look at the record of who changed what", strict(verify))
}

var errAudit = errors.New("the audit and the database are not what they were when they were written: keep a copy of both, and look closer at what is listed above")

func verifyAudit(ctx context.Context, cfg config.Config, filesOnly bool, out io.Writer) error {
	v := audit.NewVerifier(time.Now())
	if err := v.Files(cfg.AuditDir()); err != nil {
		return err
	}
	if !filesOnly {
		r, err := leveldb.Audit(ctx, cfg.DBPath(), v.Mark, func(e index.AuditEntry) { v.Entry(e) }, v.Fact)
		if err != nil {
			return fmt.Errorf("%w; a server that runs has the database open: --files-only looks at the files alone", err)
		}
		if !r.Sound() {
			return fmt.Errorf("the database itself is damaged (%s): run svc-index db verify first", r.Findings[0])
		}
		v.End()
	}
	r := &v.Report
	for _, f := range r.Findings {
		fmt.Fprintln(out, "found:", printable(f))
	}
	if r.More > 0 {
		fmt.Fprintf(out, "found: and %d more\n", r.More)
	}
	for _, n := range r.Notes {
		fmt.Fprintln(out, "note:", printable(n))
	}
	table(out, [][2]any{{"files", r.Files}, {"entries", r.Entries}, {"first", r.First}, {"last", r.Last}, {"records held against them", r.Facts}})
	if !r.Sound() {
		return errAudit
	}
	fmt.Fprintln(out, "sound")
	return nil
}
