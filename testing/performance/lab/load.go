package lab

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os/exec"
	"syscall"

	"svcindex/loadgen"
)

// exitInvalid is what the generator ends with when it was the limit.
const exitInvalid = 3

// Load runs the generator, as a user would, and returns its report. A run that
// broke an objective or is invalid has a report, too: the report says so.
func Load(ctx context.Context, binary string, processor int, args ...string) (*loadgen.Report, error) {
	line := pinned(processor, append([]string{binary, "loadgen", "--json", "-"}, args...))
	cmd := exec.CommandContext(ctx, line[0], line[1:]...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	var out, diag bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &diag
	err := cmd.Run()
	exit, failed := errors.AsType[*exec.ExitError](err)
	if err != nil && !failed {
		return nil, err
	}
	r := new(loadgen.Report)
	if jsonErr := json.Unmarshal(out.Bytes(), r); jsonErr != nil {
		return nil, fmt.Errorf("loadgen %v: %w: %s", args, err, bytes.TrimSpace(diag.Bytes()))
	}
	if r.Interrupted {
		return nil, fmt.Errorf("loadgen %v: it was interrupted: its report is of a part", args)
	}
	if failed && exit.ExitCode() != 1 && exit.ExitCode() != exitInvalid {
		return nil, fmt.Errorf("loadgen %v: %w: %s", args, err, bytes.TrimSpace(diag.Bytes()))
	}
	return r, nil
}

// Run runs any program on a processor and returns what it printed.
func Run(ctx context.Context, processor int, args ...string) ([]byte, error) {
	line := pinned(processor, args)
	cmd := exec.CommandContext(ctx, line[0], line[1:]...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	var diag bytes.Buffer
	cmd.Stderr = &diag
	out, err := cmd.Output()
	if err != nil {
		return out, fmt.Errorf("%v: %w: %s", args, err, bytes.TrimSpace(diag.Bytes()))
	}
	return out, nil
}
