// Command floor is the least that any server on gnet can do: it counts the
// ends of request heads and answers each with the same bytes.
package main

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"runtime"

	"github.com/panjf2000/gnet/v2"
	"github.com/panjf2000/gnet/v2/pkg/logging"

	"svcindex/testing/performance/peers/answer"
)

// many is how many replies go into one write.
const many = 64

type floor struct {
	gnet.BuiltinEventEngine
	replies []byte // the same one, many times
	size    int    // of one
	addr    string
}

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run() error {
	if len(os.Args) != 2 {
		return fmt.Errorf("usage: %s REPLY", os.Args[0])
	}
	reply, err := os.ReadFile(os.Args[1])
	if err != nil {
		return err
	}
	// gnet does not say which port it got: one is asked for and given back.
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		return err
	}
	f := &floor{replies: bytes.Repeat(reply, many), size: len(reply), addr: l.Addr().String()}
	l.Close()
	return gnet.Run(f, "tcp4://"+f.addr, gnet.WithNumEventLoop(runtime.GOMAXPROCS(0)), gnet.WithReuseAddr(true),
		gnet.WithReadBufferCap(64<<10), gnet.WithWriteBufferCap(64<<10), gnet.WithLogLevel(logging.ErrorLevel))
}

// OnBoot implements gnet.EventHandler.
func (f *floor) OnBoot(gnet.Engine) gnet.Action {
	answer.Say(f.addr)
	return gnet.None
}

// OnTraffic implements gnet.EventHandler.
func (f *floor) OnTraffic(c gnet.Conn) gnet.Action {
	in, _ := c.Peek(-1)
	end := []byte("\r\n\r\n")
	n := bytes.Count(in, end)
	if n == 0 {
		return gnet.None
	}
	_, _ = c.Discard(bytes.LastIndex(in, end) + len(end))
	for ; n > 0; n -= many {
		_, _ = c.Write(f.replies[:min(n, many)*f.size])
	}
	return gnet.None
}
