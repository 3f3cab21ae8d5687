// Command bench measures our server and its peers in turn, round after round,
// and holds what it finds to the goals.
//
// Every figure it judges is a ratio, or a difference, of runs that followed one
// another on the same machine: what slows the machine down slows both. A run
// that others disturbed is done again. The figure that counts is processor
// time a request, as the kernel accounts for it; the client's own processor
// limits requests a second.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

// A bench is one measurement of everything.
type bench struct {
	// What was asked for.
	root    string // of the project
	bin     string // the programs
	work    string // data that outlives the run
	quick   bool
	rounds  int
	span    time.Duration // of one run
	command string

	// What was found on the machine, and made.
	wrkPath, nginxPath string
	hasDHT             bool
	dir                string // of this run
	few                string // data directory with the few hot keys
	keys               []string
	keyFile, script    string
	answers, reply     string
	constant           []byte // an answer of ours, whole

	launched int
	running  map[*server]bool
	log      func(format string, args ...any)
}

const hotKeys = 64

// A part is a section of the report.
type part struct {
	name  string
	title string
	do    func(b *bench, ctx context.Context, s *Section) error
}

func parts() []part {
	return []part{
		{"hits", "Hits, closed loop", (*bench).hits},
		{"open", "Hits, open loop", (*bench).open},
		{"shed", "False refusals", (*bench).shed},
		{"db", "Database hits", (*bench).db},
		{"writes", "Durable writes", (*bench).writes},
		{"idle", "Idle connections", (*bench).idle},
		{"profile", "Where the time goes", (*bench).profile},
		{"keys", "As keys grow", (*bench).moreKeys},
		{"conns", "As connections grow", (*bench).moreConns},
		{"heads", "As heads grow", (*bench).longerHeads},
	}
}

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	b := &bench{running: map[*server]bool{}}
	f := flag.NewFlagSet("bench", flag.ContinueOnError)
	f.StringVar(&b.root, "root", ".", "of the project")
	f.BoolVar(&b.quick, "quick", false, "two minutes: fewer and shorter rounds, and nothing written into docs")
	f.IntVar(&b.rounds, "rounds", 0, "of each comparison (default 5, or 1 when quick)")
	var names []string
	for _, p := range parts() {
		names = append(names, p.name)
	}
	which := f.String("parts", strings.Join(names, ","), "what to measure; the other sections of the report stay as they are")
	render := f.Bool("render", false, "measure nothing, write the report anew from its figures")
	if err := f.Parse(args); err != nil {
		return err
	}
	b.span = 2 * time.Second
	b.command = "make bench-peers"
	if b.quick {
		b.span = time.Second
		b.command += " QUICK=1"
	}
	if b.rounds > 0 {
		b.command += fmt.Sprintf(" ROUNDS=%d", b.rounds)
	} else {
		b.rounds = map[bool]int{true: 1, false: 5}[b.quick]
	}
	if *which != strings.Join(names, ",") {
		b.command += " PARTS=" + *which
	}
	wanted := strings.Split(*which, ",")
	for _, w := range wanted {
		if !slices.Contains(names, w) {
			return fmt.Errorf("there is no part %q; there are %s", w, strings.Join(names, ", "))
		}
	}
	out := newOutput(b.root, b.quick)
	if *render {
		return out.write(&Result{})
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	return b.all(ctx, wanted, out)
}

// all prepares, measures the wanted parts, and writes the report after each.
func (b *bench) all(ctx context.Context, wanted []string, out *output) error {
	began := time.Now()
	b.log = func(format string, args ...any) {
		fmt.Fprintf(os.Stderr, "%6.1fs  %s\n", time.Since(began).Seconds(), fmt.Sprintf(format, args...))
	}
	defer b.clean()
	if err := b.prepare(ctx); err != nil {
		return err
	}
	host := hostOf(b)
	var failed []error
	for _, p := range parts() {
		if !slices.Contains(wanted, p.name) {
			continue
		}
		b.log("== %s", p.title)
		s := &Section{Name: p.name, Title: p.title, Commit: host.Commit, Date: time.Now().UTC().Format("2006-01-02 15:04 MST"),
			Command: b.command, out: out}
		if err := p.do(b, ctx, s); err != nil {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			b.log("%s: %v", p.name, err)
			failed = append(failed, fmt.Errorf("%s: %w", p.name, err))
			continue // the others can still be measured
		}
		s.print(os.Stdout)
		if err := out.write(&Result{Host: host, Sections: []*Section{s}}); err != nil {
			return err
		}
	}
	b.log("done: %s", out.doc)
	return errors.Join(failed...)
}

// prepare finds the programs and makes what all parts need.
func (b *bench) prepare(ctx context.Context) (err error) {
	if b.root, err = filepath.Abs(b.root); err != nil {
		return err
	}
	b.work = filepath.Join(b.root, "bin", "bench-peers")
	b.bin = filepath.Join(b.work, "bin")
	var missing []string
	for name, at := range map[string]*string{"wrk": &b.wrkPath, "nginx": &b.nginxPath} {
		path, err := exec.LookPath(name)
		if err != nil {
			path, err = exec.LookPath("/usr/sbin/" + name)
		}
		if err != nil {
			missing = append(missing, name)
		}
		*at = path
	}
	if len(missing) > 0 {
		return fmt.Errorf("there is no %s: install it (Debian: apt-get install nginx-light wrk)", strings.Join(missing, " and no "))
	}
	if b.dir, err = os.MkdirTemp("", "bench-peers"); err != nil {
		return err
	}
	if err := os.Chmod(b.dir, 0o755); err != nil { // nginx's workers are another user
		return err
	}
	b.script, b.keyFile = filepath.Join(b.dir, "wrk.lua"), filepath.Join(b.dir, "keys")
	b.answers, b.reply = filepath.Join(b.dir, "answers.json"), filepath.Join(b.dir, "reply")
	if err := os.WriteFile(b.script, wrkScript, 0o644); err != nil {
		return err
	}
	for i := range hotKeys {
		b.keys = append(b.keys, keyName(i))
	}
	if err := os.WriteFile(b.keyFile, []byte(strings.Join(b.keys, "\n")+"\n"), 0o644); err != nil {
		return err
	}
	cfg, _, err := b.run(ctx, together.cores, 1, filepath.Join(b.bin, "svc-index"), "config", "print")
	if err != nil {
		return err
	}
	b.hasDHT = strings.Contains(string(cfg), "[dht]")
	b.few = filepath.Join(b.dir, "few")
	if err := b.fill(ctx, b.few, hotKeys); err != nil {
		return err
	}
	return b.learn()
}

// keyName is a key of loadgen's.
func keyName(i int) string { return fmt.Sprintf("name:load/%08d", i) }

// fill puts n keys into a data directory.
func (b *bench) fill(ctx context.Context, dir string, n int) error {
	_, _, err := b.run(ctx, together.cores, 2, filepath.Join(b.bin, "svc-index"), "loadgen", "--prepare", fmt.Sprint(n), "--offline", "--data", dir)
	return err
}

// million returns a data directory with many keys. It is kept: to fill it
// takes a while.
func (b *bench) million(ctx context.Context) (dir string, n int, err error) {
	n = 1_000_000
	if b.quick {
		n = 100_000
	}
	dir = filepath.Join(b.work, fmt.Sprintf("keys-%d", n))
	if b.holds(ctx, dir, n) {
		return dir, n, nil
	}
	b.log("filling %s with %s keys", dir, thousands(int64(n)))
	if err := os.RemoveAll(dir); err != nil {
		return "", 0, err
	}
	if err := b.fill(ctx, dir, n); err != nil {
		return "", 0, err
	}
	if !b.holds(ctx, dir, n) {
		return "", 0, fmt.Errorf("%s does not hold the %d names that were put into it", dir, n)
	}
	return dir, n, nil
}

// stat returns a figure of `svc-index db stat`, -1 for none.
func (b *bench) stat(ctx context.Context, dir, what string) int64 {
	if _, err := os.Stat(dir); err != nil {
		return -1
	}
	out, _, err := b.run(ctx, together.cores, 2, filepath.Join(b.bin, "svc-index"), "db", "stat", "--data", dir)
	if err != nil {
		return -1
	}
	return statIn(string(out), what)
}

func statIn(out, what string) int64 {
	for line := range strings.Lines(out) {
		if after, ok := strings.CutPrefix(line, what+" "); ok {
			var n int64
			if _, err := fmt.Sscan(after, &n); err == nil {
				return n
			}
		}
	}
	return -1
}

func (b *bench) holds(ctx context.Context, dir string, n int) bool {
	return b.stat(ctx, dir, "names") == int64(n)
}

// clean ends what is left running and removes what is not kept.
func (b *bench) clean() {
	for s := range b.running {
		b.stop(s)
	}
	if b.dir != "" {
		_ = os.RemoveAll(b.dir)
	}
}

var errNothing = errors.New("nothing was measured")
