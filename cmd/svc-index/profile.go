package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"github.com/spf13/cobra"
)

const profileLong = `Profile takes all profiles of a running server over one span of time, and puts
them into one folder: processor, memory, allocations, waits for mutexes and
channels, goroutines, an execution trace; flame graphs of them by function and
by stage; what the load measured; configuration and machine. index.html there
shows them all, and so does svc-index profile open.

With --during a load runs meanwhile: the words of svc-index loadgen. The span is
then its measured time, without its warm-up. Waits are recorded, which costs
the server a little, only as long as it takes.`

const profileExample = `  svc-index profile --out before --during 'loadgen --rate 5000 --duration 10s'
  svc-index profile --out now --seconds 5          (whatever load there is)
  svc-index profile diff before after
  svc-index profile open after`

const (
	defaultAdmin = "http://127.0.0.1:9108"
	envAdmin     = "SVC_INDEX_ADMIN_URL"
)

// A profiling is one taking of profiles.
type profiling struct {
	admin, out, during string
	seconds            int
	trace              int

	stdout, stderr io.Writer
	http           *http.Client
	words          []string // of the load; nil: none
	warmup         time.Duration
	begun          time.Time
}

func profileCmd() *cobra.Command {
	var p profiling
	cmd := &cobra.Command{
		Use:     "profile --out DIR [--during 'loadgen ...']",
		Short:   "Take all profiles of a running server into one folder, with flame graphs",
		Long:    profileLong,
		Example: profileExample,
		Args:    cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			p.stdout, p.stderr = cmd.OutOrStdout(), cmd.ErrOrStderr()
			ctx, stop := interruptible(cmd)
			defer stop()
			if err := p.prepare(args); err != nil {
				return err
			}
			return p.run(ctx)
		},
	}
	f := cmd.Flags()
	f.StringVar(&p.admin, "admin", "", "`URL` of the server's admin listener (default $"+envAdmin+", else "+defaultAdmin+")")
	f.StringVar(&p.out, "out", "", "`directory` for what is found; made if it is not there")
	f.StringVar(&p.during, "during", "", "`words` of a load to run meanwhile, such as 'loadgen --rate 5000 --duration 10s'; or give them after --")
	f.IntVar(&p.seconds, "seconds", 10, "how long, when no load says")
	f.IntVar(&p.trace, "trace", 1, "seconds of execution trace, from a third of the time on; 0 none")
	cmd.AddCommand(profileDiffCmd(), profileOpenCmd())
	return strict(cmd)
}

// prepare reads what was asked for.
func (p *profiling) prepare(args []string) (err error) {
	p.admin = strings.TrimSuffix(cmp.Or(p.admin, os.Getenv(envAdmin), defaultAdmin), "/")
	p.http = &http.Client{} // profiles take their time; the context ends it
	switch {
	case p.out == "":
		return usagef("say where to put it with --out DIR")
	case p.during != "" && len(args) > 0:
		return usagef("%q: the load is said twice, with --during and after --", args)
	case p.trace < 0:
		return usagef("--trace is %d, expected 0 or more seconds", p.trace)
	}
	p.words = args
	if p.during != "" {
		if p.words, err = splitWords(p.during); err != nil {
			return usagef("--during: %w", err)
		}
	}
	if p.words != nil {
		err = p.span()
	}
	if err == nil && (p.seconds < 1 || p.seconds > 300) {
		err = usagef("%d s is no time to profile for; expected 1 to 300", p.seconds)
	}
	return err
}

// span takes from the load's own flags when its measured time is.
func (p *profiling) span() error {
	if p.words[0] != "loadgen" {
		return usagef("a load is svc-index loadgen; %q is not", p.words[0])
	}
	load := loadgenCmd()
	if err := load.ParseFlags(p.words[1:]); err != nil {
		return usagef("--during: %w", err)
	}
	d, err := load.Flags().GetDuration("duration")
	warm, bad := load.Flags().GetDuration("warmup")
	if err = errors.Join(err, bad); err != nil {
		return err
	}
	p.warmup, p.seconds = warm, int(d/time.Second)
	return nil
}

// splitWords takes a line apart as a shell would, quotes included, and nothing else
// of what a shell does.
func splitWords(line string) (all []string, err error) {
	var word strings.Builder
	var quote rune
	open := false
	for _, c := range line {
		switch {
		case quote != 0 && c == quote:
			quote = 0
		case quote == 0 && (c == '\'' || c == '"'):
			quote, open = c, true
		case quote == 0 && (c == ' ' || c == '\t' || c == '\n'):
			if open || word.Len() > 0 {
				all = append(all, word.String())
			}
			word.Reset()
			open = false
		default:
			word.WriteRune(c)
		}
	}
	if quote != 0 {
		return nil, fmt.Errorf("a %c is never closed", quote)
	}
	if open || word.Len() > 0 {
		all = append(all, word.String())
	}
	if len(all) == 0 {
		return nil, errors.New("there are no words")
	}
	return all, nil
}

// load runs the load, in this process: it is the client, whom we do not profile.
func (p *profiling) load(ctx context.Context, more ...string) error {
	root := rootCmd()
	root.SetArgs(append(p.words[:len(p.words):len(p.words)], more...))
	root.SetOut(p.stderr)
	root.SetErr(p.stderr)
	return root.ExecuteContext(ctx)
}

// fill runs the part of the load that puts keys into the server, and takes it
// out of the words: it is not what is to be profiled.
func (p *profiling) fill(ctx context.Context) error {
	load := loadgenCmd()
	if err := load.ParseFlags(p.words[1:]); err != nil {
		return err
	}
	n, err := load.Flags().GetInt("prepare")
	if err != nil || n == 0 {
		return err
	}
	if err := p.load(ctx, "--rate="); err != nil {
		return err
	}
	p.words = append(p.words, "--prepare=0", fmt.Sprintf("--keys=%d", n))
	return nil
}

// path is a file of the folder.
func (p *profiling) path(name string) string { return filepath.Join(p.out, name) }

// get fetches a page of the admin listener.
func (p *profiling) get(ctx context.Context, page string) ([]byte, error) {
	var b strings.Builder
	err := p.stream(ctx, page, &b)
	return []byte(b.String()), err
}

func (p *profiling) stream(ctx context.Context, page string, w io.Writer) error {
	req, err := http.NewRequestWithContext(ctx, "GET", p.admin+page, nil)
	if err != nil {
		return usagef("--admin: %w", err)
	}
	resp, err := p.http.Do(req)
	if err != nil {
		return fmt.Errorf("%w; is that a running server's admin listener? say which with --admin", err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		why, _ := io.ReadAll(io.LimitReader(resp.Body, 512))
		return fmt.Errorf("%s: %s: %s", req.URL, resp.Status, strings.TrimSpace(string(why)))
	}
	_, err = io.Copy(w, resp.Body)
	return err
}

// fetch puts a page into a file.
func (p *profiling) fetch(ctx context.Context, page, name string) error {
	f, err := os.Create(p.path(name))
	if err != nil {
		return err
	}
	return errors.Join(p.stream(ctx, page, f), f.Close())
}

// A profileNote is profile.json: what the folder holds the profiles of.
type profileNote struct {
	Taken     time.Time `json:"taken"`
	Seconds   int       `json:"seconds"`
	Admin     string    `json:"admin"`
	During    []string  `json:"during,omitempty"`
	Requests  int64     `json:"requests_answered,omitempty"`
	CPU       float64   `json:"cpu_s"` // of the server, by the kernel's account
	CPUEach   float64   `json:"cpu_us_per_request,omitempty"`
	Server    any       `json:"server"`
	Profiler  string    `json:"profiler"`
	Host      hostNote  `json:"host"`
	LoadEnded string    `json:"load_ended,omitempty"` // "" is well
}

// A hostNote is the machine the profiler ran on, which is the server's when the
// admin listener is on loopback.
type hostNote struct {
	OS     string `json:"os"`
	Kernel string `json:"kernel"`
	CPU    string `json:"cpu"`
	Cores  int    `json:"cores"`
	Memory string `json:"memory"`
}

func hostFacts() hostNote {
	h := hostNote{OS: runtime.GOOS + "/" + runtime.GOARCH, Cores: runtime.NumCPU()}
	h.Kernel = strings.TrimSpace(fileField("/proc/sys/kernel/osrelease", ""))
	h.CPU = fileField("/proc/cpuinfo", "model name")
	h.Memory = fileField("/proc/meminfo", "MemTotal")
	return h
}

// fileField returns what a file of /proc says of name; all of it for "".
func fileField(path, name string) string {
	b, err := os.ReadFile(path)
	if err != nil || name == "" {
		return string(b)
	}
	for line := range strings.Lines(string(b)) {
		if k, v, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(k) == name {
			return strings.TrimSpace(v)
		}
	}
	return ""
}

func (p *profiling) writeJSON(name string, v any) error {
	b, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(p.path(name), append(b, '\n'), 0o644)
}
