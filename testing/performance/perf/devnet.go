package main

import (
	"bufio"
	"errors"
	"io"
	"os/exec"
	"strings"
	"syscall"
	"time"
)

// A devnet is a private network that runs beside the server, and gives way to
// it and to the generator.
type devnet struct {
	cmd       *exec.Cmd
	bootstrap string // for dht.bootstrap
	frozen    bool
	read      chan struct{} // closed when its output has ended
}

// openDevnet starts one and learns how to join it. It shares the generator's
// processor, and has to stand back at once: what it works on is time that others
// take, and a nice process may still finish its slice of some milliseconds.
func openDevnet(binary string, args []string, log io.Writer) (*devnet, error) {
	d := &devnet{cmd: exec.Command("chrt", append([]string{"-i", "0", binary, "devnet", "--port", "0"}, args...)...), read: make(chan struct{})}
	d.cmd.Stderr = log
	d.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	out, err := d.cmd.StdoutPipe()
	if err == nil {
		err = d.cmd.Start()
	}
	if err != nil {
		return nil, err
	}
	found := make(chan string, 1)
	go func() {
		defer close(d.read)
		lines := bufio.NewScanner(out)
		for lines.Scan() {
			if _, list, ok := strings.Cut(lines.Text(), "dht.bootstrap="); ok {
				found <- list
				break
			}
		}
		_, _ = io.Copy(io.Discard, out)
	}()
	select {
	case d.bootstrap = <-found:
		return d, nil
	case <-d.read:
	case <-time.After(time.Minute):
	}
	d.close()
	return nil, errors.New("the devnet did not say how to join it")
}

// freeze stops every node of it if they run, and lets them run if not.
func (d *devnet) freeze() error {
	if d.frozen {
		return d.thaw()
	}
	d.frozen = true
	return d.cmd.Process.Signal(syscall.SIGSTOP)
}

func (d *devnet) thaw() error {
	d.frozen = false
	return d.cmd.Process.Signal(syscall.SIGCONT)
}

func (d *devnet) close() {
	_ = d.cmd.Process.Kill()
	<-d.read
	_ = d.cmd.Wait()
}
