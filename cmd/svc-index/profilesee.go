package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"html"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"svcindex/flame"
)

// folderPage is index.html of a folder of profiles.
func folderPage(summary string) []byte {
	var b bytes.Buffer
	b.WriteString(`<!doctype html><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>profiles</title>
<style>body{font:15px/1.5 system-ui,sans-serif;max-width:80rem;margin:1rem auto;padding:0 1rem;color-scheme:light dark}
object,pre{width:100%;overflow:auto}summary{cursor:pointer;font-weight:600;padding:.3rem 0}</style>
<h1>profiles</h1>
`)
	for i, g := range graphs {
		open := ""
		if i == 0 {
			open = " open"
		}
		fmt.Fprintf(&b, "<details%s><summary>%s</summary><object type=\"image/svg+xml\" data=\"%s.svg\"></object><a href=\"%s.svg\">alone</a></details>\n",
			open, html.EscapeString(g.what), g.name, g.name)
	}
	fmt.Fprintf(&b, "<h2>in figures</h2>\n<pre>%s</pre>\n<h2>files</h2>\n<p>", html.EscapeString(summary))
	for _, name := range []string{loadFile, noteFile, "config.toml", "stages.json", "metrics.txt"} {
		fmt.Fprintf(&b, "<a href=\"%s\">%s</a> ", name, name)
	}
	b.WriteString("<p><code>go tool pprof FILE.pb.gz</code>, <code>go tool trace trace.out</code>\n")
	return b.Bytes()
}

func profileOpenCmd() *cobra.Command {
	var listen string
	var text bool
	cmd := &cobra.Command{
		Use:   "open DIR",
		Short: "Serve a folder of profiles to a browser on this machine, or print what is in it",
		Args:  oneArg("DIR"),
		RunE: func(cmd *cobra.Command, args []string) error {
			dir := args[0]
			sum, err := os.ReadFile(filepath.Join(dir, summaryFile))
			if err != nil {
				return fmt.Errorf("%w; %s is no folder that svc-index profile has made", err, dir)
			}
			if text {
				_, err := cmd.OutOrStdout().Write(sum)
				return err
			}
			ctx, stop := interruptible(cmd)
			defer stop()
			return serveDir(ctx, cmd, dir, listen)
		},
	}
	cmd.Flags().StringVar(&listen, "listen", "127.0.0.1:0", "`address` to serve on")
	cmd.Flags().BoolVar(&text, "print", false, "print the summary instead")
	return strict(cmd)
}

// serveDir serves a folder until it is interrupted.
func serveDir(ctx context.Context, cmd *cobra.Command, dir, listen string) error {
	l, err := net.Listen("tcp", listen)
	if err != nil {
		return usagef("--listen: %w", err)
	}
	s := &http.Server{Handler: http.FileServerFS(os.DirFS(dir)), ReadHeaderTimeout: 5 * time.Second}
	context.AfterFunc(ctx, func() { _ = s.Close() })
	fmt.Fprintf(cmd.OutOrStdout(), "http://%s/ shows %s until it is interrupted\n", l.Addr(), dir)
	if err := s.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

func profileDiffCmd() *cobra.Command {
	d := profileDiff{}
	cmd := &cobra.Command{
		Use:   "diff BEFORE AFTER",
		Short: "Say what changed between two folders of profiles: a table, and a flame graph in red and blue",
		RunE: func(cmd *cobra.Command, args []string) error {
			return d.run(cmd, args[0], args[1])
		},
	}
	cmd.Args = func(_ *cobra.Command, args []string) error {
		if len(args) != 2 {
			return usagef("diff wants two folders, BEFORE and AFTER, not %d arguments", len(args))
		}
		return nil
	}
	f := cmd.Flags()
	f.StringVar(&d.of, "of", "cpu", "cpu, allocs, heap, mutex, block or goroutine")
	f.IntVar(&d.rows, "rows", 25, "lines of the table")
	f.StringVar(&d.svg, "svg", "", "`FILE` of the flame graph (default diff-OF.svg in AFTER)")
	f.BoolVar(&d.raw, "raw", false, "compare what is in the files, not what each request cost")
	return strict(cmd)
}

// A profileDiff compares two folders.
type profileDiff struct {
	of, svg string
	rows    int
	raw     bool
}

// values are which of a profile's values counts.
var values = map[string]string{
	"cpu": "cpu", "allocs": "alloc_space", "heap": "inuse_space", "mutex": "delay", "block": "delay", "goroutine": "goroutine",
}

func (d *profileDiff) run(cmd *cobra.Command, a, b string) error {
	if values[d.of] == "" {
		return usagef("--of: there is no %q; there are cpu, allocs, heap, mutex, block, goroutine", d.of)
	}
	perA, perB := 1.0, 1.0
	if !d.raw && d.of != "heap" && d.of != "goroutine" {
		if x, y := requestsOf(a), requestsOf(b); x > 0 && y > 0 {
			perA, perB = x, y
		}
	}
	was, err := d.read(a, perA)
	if err != nil {
		return err
	}
	is, err := d.read(b, perB)
	if err != nil {
		return err
	}
	out, unit := cmd.OutOrStdout(), "in all"
	if perA != 1 {
		unit = "for each request"
	}
	fmt.Fprintf(out, "%s, %s, from %s to %s\n", d.of, unit, a, b)
	flame.WriteDiff(out, was, is, flame.TopDiff(was, is, d.rows))
	var svg bytes.Buffer
	title := fmt.Sprintf("%s %s: %s against %s; red grew, blue shrank", d.of, unit, filepath.Base(b), filepath.Base(a))
	if err := flame.DrawDiff(&svg, was, is, title); err != nil {
		return err
	}
	name := d.svg
	if name == "" {
		name = filepath.Join(b, "diff-"+d.of+".svg")
	}
	if err := deliver(svg.Bytes(), name, out); err != nil {
		return err
	}
	fmt.Fprintf(out, "\nthe flame graph is %s\n", name)
	return nil
}

func (d *profileDiff) read(dir string, per float64) (*flame.Tree, error) {
	b, err := os.ReadFile(filepath.Join(dir, d.of+".pb.gz"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%w; %s is no folder that svc-index profile has made", err, dir)
	}
	if err != nil {
		return nil, err
	}
	t, err := flame.Read(bytes.NewReader(b), flame.How{Of: values[d.of], Per: per, ByStage: true, Rules: stageRules})
	if err != nil {
		return nil, fmt.Errorf("%s: %w", strings.TrimSuffix(dir, "/"), err)
	}
	return t, nil
}

// requestsOf returns how many requests the load of a folder had answered; 0: not
// known.
func requestsOf(dir string) float64 {
	var n profileNote
	b, err := os.ReadFile(filepath.Join(dir, noteFile))
	if err != nil || json.Unmarshal(b, &n) != nil {
		return 0
	}
	return float64(n.Requests)
}
