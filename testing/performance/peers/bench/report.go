package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
)

// A Result is all that is known. Sections measured anew replace those of
// before, and each says when, of which commit and by which command it was.
type Result struct {
	Host     Host       `json:"host"`
	Sections []*Section `json:"sections"`
}

// A Host is where it was measured.
type Host struct {
	Machine string   `json:"machine"`
	Kernel  string   `json:"kernel"`
	Commit  string   `json:"commit"`
	Peers   []string `json:"peers"`
}

// A Section is one part of the report.
type Section struct {
	Name      string   `json:"name"`
	Title     string   `json:"title"`
	Commit    string   `json:"commit"`
	Date      string   `json:"date"`
	Command   string   `json:"command"`
	Rows      []Row    `json:"rows,omitempty"`
	Text      []string `json:"text,omitempty"`
	Tables    []Table  `json:"tables,omitempty"`
	Plots     []string `json:"plots,omitempty"`
	Runs      int      `json:"runs"`
	Repeated  int      `json:"repeated"`  // for others disturbed them
	Disturbed int      `json:"disturbed"` // in every try
	Samples   Samples  `json:"samples,omitempty"`

	out *output
}

// A Table is text in rows.
type Table struct {
	Title string     `json:"title"`
	Head  []string   `json:"head"`
	Rows  [][]string `json:"rows"`
}

// count keeps the books of disturbed runs.
func (s *Section) count(x Sample) {
	s.Runs++
	s.Repeated += max(x.Tries-1, 0)
	if x.Disturbed {
		s.Disturbed++
	}
}

// plot writes a picture beside the report.
func (s *Section) plot(name string, p Plot) error {
	if err := os.MkdirAll(s.out.dir, 0o755); err != nil {
		return err
	}
	file := name + ".svg"
	s.Plots = append(s.Plots, file)
	return os.WriteFile(filepath.Join(s.out.dir, file), []byte(p.SVG()), 0o644)
}

// An output is where the report goes.
type output struct{ doc, dir, json, captures string }

func newOutput(root string, quick bool) *output {
	docs, captures := filepath.Join(root, "docs"), filepath.Join(root, "profiles", "captures", "peers")
	if quick {
		docs = filepath.Join(root, "bin", "bench-peers", "quick")
		captures = docs
	}
	dir := filepath.Join(docs, "performance")
	return &output{doc: docs + "/performance.md", dir: dir, json: filepath.Join(dir, "peers.json"), captures: captures}
}

// write lays new sections over what the figures file has, and renders all into
// the document, between its marks.
func (o *output) write(fresh *Result) error {
	all, err := o.read()
	if err != nil {
		return err
	}
	if fresh.Host.Commit != "" {
		all.Host = fresh.Host
	}
	all.Sections = merge(all.Sections, fresh.Sections)
	text, err := json.MarshalIndent(all, "", " ")
	if err != nil {
		return err
	}
	if err := os.MkdirAll(o.dir, 0o755); err != nil {
		return err
	}
	if err := os.WriteFile(o.json, append(text, '\n'), 0o644); err != nil {
		return err
	}
	doc, err := os.ReadFile(o.doc)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	var b bytes.Buffer
	all.render(&b)
	return os.WriteFile(o.doc, between(doc, b.Bytes()), 0o644)
}

func (o *output) read() (r Result, err error) {
	b, err := os.ReadFile(o.json)
	if errors.Is(err, fs.ErrNotExist) {
		return r, nil
	}
	if err == nil {
		err = json.Unmarshal(b, &r)
	}
	return r, err
}

// merge replaces sections by name, and keeps the order of parts.
func merge(old, fresh []*Section) (all []*Section) {
	for _, p := range parts() {
		var found *Section
		for _, list := range [][]*Section{old, fresh} {
			for _, s := range list {
				if s.Name == p.name {
					found = s
				}
			}
		}
		if found != nil {
			all = append(all, found)
		}
	}
	return all
}

const (
	markFrom = "<!-- figures: written by make bench-peers -->"
	markTo   = "<!-- end of figures -->"
)

// between puts text between the marks of a document, or after it.
func between(doc, text []byte) []byte {
	before, rest, ok := bytes.Cut(doc, []byte(markFrom))
	_, after, ends := bytes.Cut(rest, []byte(markTo))
	if !ok || !ends {
		before, after = doc, []byte("\n")
	}
	return bytes.Join([][]byte{before, []byte(markFrom + "\n\n"), text, []byte(markTo), after}, nil)
}

// render writes the report as Markdown.
func (r *Result) render(w io.Writer) {
	fmt.Fprintf(w, "Host: %s; %s. Peers: %s.\n\n", r.Host.Machine, r.Host.Kernel, strings.Join(r.Host.Peers, ", "))
	fmt.Fprintf(w, "### Goals\n\n| goal | wanted | found: median (min to max) | verdict |\n|---|---|---|---|\n")
	for _, s := range r.Sections {
		for _, row := range s.Rows {
			fmt.Fprintf(w, "| %s | %s | %s%s | %s |\n", row.What, row.Aim(), row.Found, unit(row.Unit), bold(row))
		}
	}
	fmt.Fprintln(w)
	for _, s := range r.Sections {
		s.render(w)
	}
}

func bold(r Row) string {
	if v := r.Verdict(); strings.HasPrefix(v, "missed") {
		return "**" + v + "**"
	} else {
		return v
	}
}

func (s *Section) render(w io.Writer) {
	fmt.Fprintf(w, "### %s\n\n", s.Title)
	fmt.Fprintf(w, "`%s`, commit %s, %s.", s.Command, s.Commit, s.Date)
	if s.Runs > 0 {
		fmt.Fprintf(w, " %d runs; %d were done again because others disturbed them, %d were disturbed in every try.", s.Runs, s.Repeated, s.Disturbed)
	}
	fmt.Fprint(w, "\n\n")
	for _, t := range s.Text {
		fmt.Fprintf(w, "%s\n\n", t)
	}
	for _, t := range s.Tables {
		fmt.Fprintf(w, "**%s**\n\n| %s |\n|%s\n", t.Title, strings.Join(t.Head, " | "), strings.Repeat("---|", len(t.Head)))
		for _, row := range t.Rows {
			fmt.Fprintf(w, "| %s |\n", strings.Join(row, " | "))
		}
		fmt.Fprintln(w)
	}
	for _, p := range s.Plots {
		fmt.Fprintf(w, "![%s](performance/%s)\n\n", strings.TrimSuffix(p, ".svg"), p)
	}
}

// print says how a section's goals came out.
func (s *Section) print(w io.Writer) {
	for _, r := range s.Rows {
		fmt.Fprintf(w, "%-72s %-10s %-36s %s\n", r.What, r.Aim(), r.Found.String()+unit(r.Unit), r.Verdict())
	}
	for _, t := range s.Tables {
		fmt.Fprintf(w, "-- %s\n", t.Title)
		for _, row := range t.Rows {
			fmt.Fprintf(w, "   %s\n", strings.Join(row, "  |  "))
		}
	}
}

// hostOf describes the machine and what was compared.
func hostOf(b *bench) Host {
	line := func(path string, args ...string) string {
		cmd := exec.Command(path, args...)
		cmd.Dir = b.root
		out, _ := cmd.CombinedOutput()
		first, _, _ := strings.Cut(strings.TrimSpace(string(out)), "\n")
		return first
	}
	h := Host{
		Machine: fmt.Sprintf("%s, %d processors", cpuModel(), runtime.NumCPU()),
		Kernel:  line("uname", "-sr") + ", " + runtime.Version(),
		Commit:  line("git", "rev-parse", "--short", "HEAD"),
	}
	if line("git", "status", "--porcelain", "--untracked-files=no") != "" {
		h.Commit += " (changed)"
	}
	_, version, _ := strings.Cut(line(b.nginxPath, "-v"), "nginx/")
	h.Peers = append([]string{"nginx " + version}, libraries(filepath.Join(b.bin, "fasthttp"), filepath.Join(b.bin, "floor"))...)
	fields := strings.Fields(line(b.wrkPath, "-v"))
	if len(fields) > 1 {
		h.Peers = append(h.Peers, "client wrk "+fields[1])
	}
	return h
}

func cpuModel() string {
	b, _ := os.ReadFile("/proc/cpuinfo")
	for line := range strings.Lines(string(b)) {
		if name, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(name) == "model name" {
			return strings.TrimSpace(value)
		}
	}
	return runtime.GOARCH
}
