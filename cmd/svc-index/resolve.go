package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"svcindex/index"
	client "svcindex/sdk/go"
)

// providersMost is the largest --limit that a server takes.
const providersMost = 32

// resolveCmd, providersCmd and manifestCmd each ask one question.

func resolveCmd() *cobra.Command {
	var r remote
	var raw, fresh bool
	cmd := &cobra.Command{
		Use:     "resolve KEY",
		Short:   "Say which manifest a name or content id points to",
		Example: "  svc-index resolve name:go/src/fmt\n  svc-index resolve b3:af13..3262 --json",
		Args:    oneArg("KEY"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if _, err := index.ParseKey(args[0]); err != nil {
				return usagef("%q: %w", args[0], err)
			}
			return r.asking(cmd, func(ctx context.Context, c *client.Client) error {
				ask := c.Resolve
				if fresh {
					ask = c.ResolveFresh
				}
				v, err := ask(ctx, args[0])
				if err != nil {
					return r.failed(err)
				}
				return show(cmd.OutOrStdout(), raw, v.Meta, func(w io.Writer) { showResolved(w, v) })
			})
		},
	}
	r.flags(cmd)
	cmd.Flags().BoolVar(&raw, "json", false, "print the answer's body as it came")
	cmd.Flags().BoolVar(&fresh, "fresh", false, "look past the cache")
	return strict(cmd)
}

func providersCmd() *cobra.Command {
	var r remote
	var q client.ProviderQuery
	var raw bool
	var fresh seconds
	cmd := &cobra.Command{
		Use:     "providers CID",
		Short:   "List who can serve a content id, best first",
		Example: "  svc-index providers b3:af13..3262 --region eu-west --limit 10",
		Args:    oneArg("CID"),
		RunE: func(cmd *cobra.Command, args []string) error {
			cid, err := cidArg(args[0])
			if err != nil {
				return err
			}
			if cmd.Flags().Changed("limit") && (q.Limit < 1 || q.Limit > providersMost) {
				return usagef("--limit is %d, it must be 1 to %d", q.Limit, providersMost)
			}
			q.MinFreshness = int64(fresh)
			return r.asking(cmd, func(ctx context.Context, c *client.Client) error {
				v, err := c.Providers(ctx, cid, q)
				if err != nil {
					return r.failed(err)
				}
				return show(cmd.OutOrStdout(), raw, v.Meta, func(w io.Writer) { showProviders(w, v, time.Now()) })
			})
		},
	}
	r.flags(cmd)
	f := cmd.Flags()
	f.BoolVar(&raw, "json", false, "print the answer's body as it came")
	f.StringVar(&q.Region, "region", "", "prefer providers in this `region`")
	f.IntVar(&q.Limit, "limit", 0, fmt.Sprintf("at most so many, 1 to %d (default %d)", providersMost, index.DefaultLimit))
	f.Var(&fresh, "min-freshness", "only providers seen within this time")
	return strict(cmd)
}

func manifestCmd() *cobra.Command {
	var r remote
	var out string
	cmd := &cobra.Command{
		Use:   "manifest CID",
		Short: "Fetch a manifest, verify it and print its bytes",
		Example: "  svc-index manifest b3:af13..3262\n" +
			"  svc-index manifest b3:af13..3262 --out manifest.json",
		Args: oneArg("CID"),
		RunE: func(cmd *cobra.Command, args []string) error {
			cid, err := cidArg(args[0])
			if err != nil {
				return err
			}
			return r.asking(cmd, func(ctx context.Context, c *client.Client) error {
				m, err := c.Manifest(ctx, cid) // it has verified the bytes
				if err != nil {
					return r.failed(err)
				}
				return deliver(m.Body, out, cmd.OutOrStdout())
			})
		},
	}
	r.flags(cmd)
	cmd.Flags().StringVar(&out, "out", "", "write to `FILE` instead")
	cmd.Flags().Bool("json", false, "accepted for symmetry: the bytes are printed as they are in any case")
	return strict(cmd)
}

// asking runs one question with a client and a context that an interrupt ends.
func (r *remote) asking(cmd *cobra.Command, ask func(context.Context, *client.Client) error) error {
	c, err := r.reader()
	if err != nil {
		return err
	}
	defer c.Close()
	ctx, stop := interruptible(cmd)
	defer stop()
	return ask(ctx, c)
}

func cidArg(text string) (index.CID, error) {
	cid, err := index.ParseCID(text)
	if err != nil {
		return cid, usagef("%q: %w", text, err)
	}
	return cid, nil
}

// show prints an answer: its body as it came, or what pretty makes of it.
func show(w io.Writer, raw bool, m client.Meta, pretty func(io.Writer)) error {
	if raw {
		_, err := w.Write(m.Body)
		return err
	}
	tw := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	pretty(tw)
	fmt.Fprintf(tw, "source\t%s\n", sourceText(m))
	return tw.Flush()
}

func showResolved(w io.Writer, v *client.Resolved) {
	fmt.Fprintf(w, "key\t%s\n", printable(v.Key))
	fmt.Fprintf(w, "manifest\t%s\n", v.ManifestCID)
	if v.Seq > 0 {
		fmt.Fprintf(w, "seq\t%d\n", v.Seq)
	}
	if v.ExpiresAt > 0 {
		fmt.Fprintf(w, "expires\t%s\n", stamp(v.ExpiresAt))
	}
	if v.Signed {
		fmt.Fprintf(w, "signed\tyes\n")
	}
	fmt.Fprintf(w, "providers\t%s\n", hintText(v.ProvidersHint))
}

// hintText says what a hint is worth: it is capped, and zero proves nothing.
func hintText(n int) string {
	switch {
	case n == 0:
		return "none known here"
	case n >= index.HintMax:
		return fmt.Sprintf("%d or more known here", n)
	}
	return fmt.Sprintf("%d known here", n)
}

func showProviders(w io.Writer, v *client.ProviderSet, now time.Time) {
	fmt.Fprintf(w, "ID\tADDRESS\tREGION\tCLASS\tSCORE\tLAST SEEN\n")
	for _, p := range v.Providers {
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%.2f\t%s ago\n", printable(p.ID), printable(p.Addr),
			cmp.Or(printable(p.Region), "-"), printable(p.Class), p.Score,
			max(now.Sub(time.Unix(p.LastSeen, 0)), 0).Round(time.Second))
	}
	fmt.Fprintln(w)
	if v.Truncated {
		fmt.Fprintf(w, "more\tthere are more than shown: raise --limit\n")
	}
}

// sourceText says where an answer came from and how far to trust it.
func sourceText(m client.Meta) string {
	s := cmp.Or(printable(m.Source), "unknown") + ", " + m.Age.String() + " old"
	if m.Stale {
		s += ", stale: the fresh source could not be asked"
	}
	if !m.Complete {
		s += ", partial: some place could not be asked"
	}
	return s
}

func stamp(unix int64) string { return time.Unix(unix, 0).UTC().Format(time.RFC3339) }

// deliver writes b to stdout, or to the file out, which then is whole or as it
// was before.
func deliver(b []byte, out string, stdout io.Writer) error {
	if out == "" {
		_, err := stdout.Write(b)
		return err
	}
	if fi, err := os.Stat(out); err == nil && !fi.Mode().IsRegular() {
		return os.WriteFile(out, b, 0o644) // a device or a pipe: written to, never replaced
	}
	f, err := os.CreateTemp(filepath.Dir(out), filepath.Base(out)+".tmp")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name()) // when renamed, it is gone already
	_, err = f.Write(b)
	if err == nil {
		err = f.Chmod(0o644)
	}
	if bad := f.Close(); err == nil {
		err = bad
	}
	if err == nil {
		err = os.Rename(f.Name(), out)
	}
	return err
}

// writable says what would keep deliver from writing a file, before the work is
// done that it would be of.
func writable(out string) error {
	if out == "-" {
		return errors.New("it needs a file")
	}
	fi, err := os.Stat(out)
	switch {
	case err == nil && fi.IsDir():
		return fmt.Errorf("%s is a directory", out)
	case err == nil && !fi.Mode().IsRegular():
		return nil
	}
	f, err := os.CreateTemp(filepath.Dir(out), filepath.Base(out)+".tmp")
	if err != nil {
		return err
	}
	return errors.Join(f.Close(), os.Remove(f.Name()))
}
