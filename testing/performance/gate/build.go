package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"

	"svcindex/testing/performance/compare"
)

// A build is one binary, with the rig in it: the network of the inter-region
// look-ups is a rig's.
type build struct {
	rev, path string
	env       []string
	set       []string // keys of the configuration that it knows
}

// builds are the two that are compared, and the client of both.
type builds struct {
	dir       string
	base, now build
	client    string
	worktree  string // of the base revision; "" for none
	disturbed int    // halves of rounds, in every try
}

func goVersion() string { return runtime.Version() }

// output runs a command and returns what it says.
func output(ctx context.Context, name string, args ...string) (string, error) {
	out, err := exec.CommandContext(ctx, name, args...).Output()
	if e, ok := errors.AsType[*exec.ExitError](err); ok {
		err = fmt.Errorf("%s %s: %w: %s", name, strings.Join(args, " "), err, strings.TrimSpace(string(e.Stderr)))
	}
	return strings.TrimSpace(string(out)), err
}

// makeBuilds builds the base revision in a worktree of its own, and the working
// tree where it is.
func makeBuilds(ctx context.Context, o *options) (*builds, error) {
	dir, err := os.MkdirTemp("", "gate")
	if err != nil {
		return nil, err
	}
	b := &builds{dir: dir}
	if err := b.make(ctx, o); err != nil {
		b.remove()
		return nil, err
	}
	return b, nil
}

func (b *builds) make(ctx context.Context, o *options) (err error) {
	b.now = build{path: filepath.Join(b.dir, "new"), env: o.env}
	if b.now.rev, err = output(ctx, "git", "describe", "--always", "--dirty"); err != nil {
		return err
	}
	if err := compile(ctx, ".", b.now.path); err != nil {
		return err
	}
	b.client, b.base = b.now.path, b.now
	b.base.env = nil
	if !o.null {
		if err := b.makeBase(ctx, o.base); err != nil {
			return err
		}
	}
	for _, at := range []*build{&b.base, &b.now} {
		at.set = known(ctx, at.path)
	}
	return nil
}

func (b *builds) makeBase(ctx context.Context, rev string) (err error) {
	if rev == "" {
		if rev, err = output(ctx, "git", "describe", "--tags", "--abbrev=0"); err != nil {
			rev = "main" // there is no tag
		}
	}
	if b.base.rev, err = output(ctx, "git", "rev-parse", "--short", rev+"^{commit}"); err != nil {
		return fmt.Errorf("%w; say which revision with BASE=", err)
	}
	tree := filepath.Join(b.dir, "tree")
	if _, err := output(ctx, "git", "worktree", "add", "--detach", tree, b.base.rev); err != nil {
		return err
	}
	b.worktree = tree
	b.base.path = filepath.Join(b.dir, "base")
	return compile(ctx, tree, b.base.path)
}

func compile(ctx context.Context, dir, path string) error {
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-tags", "rig", "-o", path, "./cmd/svc-index")
	cmd.Dir, cmd.Stderr = dir, os.Stderr
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("building %s: %w", dir, err)
	}
	return nil
}

// wanted are settings that make figures of one round like those of another:
// no disk to wait for, no network but the rig's, no dump in between.
var wanted = []string{"cache.bytes=16MiB", "db.sync=false", "dht.enabled=false", "watch.dumps=false", "limits.rps=0", "limits.inflight=0"}

// known returns those of wanted that a build has keys for.
func known(ctx context.Context, path string) (set []string) {
	for _, s := range wanted {
		if exec.CommandContext(ctx, path, "config", "check", "--set", s).Run() == nil {
			set = append(set, s)
		}
	}
	return set
}

func (b *builds) remove() {
	if b.worktree != "" {
		_ = exec.Command("git", "worktree", "remove", "--force", b.worktree).Run()
	}
	_ = os.RemoveAll(b.dir)
}

// thisHost says what machine this is.
func thisHost() compare.Host {
	h := compare.Host{Cores: runtime.NumCPU(), CPU: procField("/proc/cpuinfo", "model name"), Memory: procField("/proc/meminfo", "MemTotal")}
	if b, err := os.ReadFile("/proc/sys/kernel/osrelease"); err == nil {
		h.Kernel = strings.TrimSpace(string(b))
	}
	h.Class = compare.ClassOf(runtime.GOOS+"-"+runtime.GOARCH, h.CPU, h.Cores)
	return h
}

// procField returns what a file of /proc says of name.
func procField(path, name string) string {
	b, _ := os.ReadFile(path)
	for line := range strings.Lines(string(b)) {
		if k, v, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(k) == name {
			return strings.TrimSpace(v)
		}
	}
	return ""
}
