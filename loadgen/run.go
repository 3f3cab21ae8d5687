package loadgen

import (
	"context"
	"errors"
	"fmt"
	"net"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// Run does what cfg says and reports what was seen. An error means that there
// is nothing to report. If ctx ends, the report is of what was done by then.
func Run(ctx context.Context, cfg Config) (*Report, error) {
	cfg = cfg.withDefaults()
	if err := cfg.check(); err != nil {
		return nil, err
	}
	if cfg.NewAsker == nil {
		return nil, errors.New("there is nothing to ask")
	}
	addr, err := resolve(cfg.Network, cfg.Address)
	if err != nil {
		return nil, err
	}
	r := &running{cfg: &cfg, epoch: time.Now(), collector: &collector{}}
	for i := range cfg.Threads {
		l, err := r.newLoop(addr, i)
		if err != nil {
			r.close()
			return nil, err
		}
		r.loops = append(r.loops, l)
	}
	defer r.close()
	return r.run(ctx)
}

// running is a run under way.
type running struct {
	cfg       *Config
	epoch     time.Time
	loops     []*loop
	collector *collector
	stop      atomic.Bool
	t0        time.Duration // on the clock; set before started is closed
	cpu       int64         // of the process, from t0 on
}

// newLoop makes thread i, with its share of everything. Shares differ by one
// at most.
func (r *running) newLoop(addr unix.Sockaddr, i int) (*loop, error) {
	cfg := r.cfg
	share := func(n int) int { return (n*(i+1))/cfg.Threads - n*i/cfg.Threads }
	poll, err := newPoller(runtime.GOMAXPROCS(0) > cfg.Threads)
	if err != nil {
		return nil, fmt.Errorf("epoll: %w", err)
	}
	n := share(cfg.Connections)
	l := &loop{
		cfg: cfg, addr: own(addr), asker: cfg.NewAsker(), epoch: r.epoch, limit: share(cfg.Inflight),
		index: i, step: int64(cfg.Threads), due: never, n: int64(i), poll: poll,
		conns: make([]conn, n), ready: ring{slots: make([]int32, n)}, dirty: make([]int32, 0, n),
		buf: make([]byte, readSize+headMax), tally: newTally(), collector: r.collector, stop: &r.stop,
	}
	flights := make([]flight, n*cfg.Pipeline)
	for k := range l.conns {
		l.conns[k] = conn{slot: int32(k), flights: flights[k*cfg.Pipeline : (k+1)*cfg.Pipeline : (k+1)*cfg.Pipeline]}
	}
	l.arrivals = newArrivals(cfg.Pacer, cfg.Random && cfg.Pacer != nil, cfg.Seed, i, cfg.Threads)
	return l, nil
}

func (r *running) close() {
	for _, l := range r.loops {
		_ = unix.Close(l.poll.fd)
	}
}

// run connects, starts all threads at one instant, and waits for them.
func (r *running) run(ctx context.Context) (*Report, error) {
	defer context.AfterFunc(ctx, func() { r.stop.Store(true) })()
	var connected, finished sync.WaitGroup
	start := make(chan struct{})
	for _, l := range r.loops {
		connected.Add(1)
		finished.Go(func() {
			// Never unlocked, so that the thread, whose timers were sharpened,
			// ends with its goroutine.
			runtime.LockOSThread()
			sharpen()
			l.connect()
			connected.Done()
			<-start
			l.launch(r.t0)
			l.run()
		})
	}
	connected.Wait()
	err := r.anyone()
	if err != nil {
		r.stop.Store(true)
	}
	// A moment ahead, so that every thread is waiting when it comes.
	r.t0 = time.Since(r.epoch) + 10*time.Millisecond
	r.cpu = -processCPU()
	close(start)
	quit := r.watch()
	finished.Wait()
	quit()
	r.cpu += processCPU()
	if err != nil {
		return nil, err
	}
	return r.report(), nil
}

// launch sets a loop's clock going.
func (l *loop) launch(t0 time.Duration) {
	l.t0 = int64(t0)
	l.warmUntil = l.t0 + int64(l.cfg.Warmup)
	l.end = l.warmUntil + int64(l.cfg.Duration)
	l.now = l.clock()
	l.plan()
}

// anyone returns an error if not one connection came up.
func (r *running) anyone() error {
	example := "interrupted"
	for _, l := range r.loops {
		if l.ups > 0 {
			return nil
		}
		if f := &l.failed[NotConnected]; f.n > 0 {
			example = f.example
		}
	}
	return fmt.Errorf("%s: %s", r.cfg.Address, example)
}

// watch calls cfg.Live once a second until the function it returns is called.
func (r *running) watch() (quit func()) {
	if r.cfg.Live == nil {
		return func() {}
	}
	done, gone := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(gone)
		tick := time.NewTicker(time.Second)
		defer tick.Stop()
		for {
			select {
			case <-done:
				return
			case <-tick.C:
				r.cfg.Live(r.live())
			}
		}
	}()
	return func() { close(done); <-gone }
}

func (r *running) live() Live {
	v := Live{
		At:   time.Since(r.epoch) - r.t0 - r.cfg.Warmup,
		Of:   r.cfg.Duration,
		Last: r.collector.latest(),
	}
	for _, l := range r.loops {
		v.Inflight += l.live.inflight.Load()
		v.Due += l.live.due.Load()
		v.Answered += l.live.done.Load()
	}
	return v
}

// own copies an address: to connect, the library writes into it, and threads
// connect at once.
func own(addr unix.Sockaddr) unix.Sockaddr {
	switch a := addr.(type) {
	case *unix.SockaddrInet4:
		return &unix.SockaddrInet4{Port: a.Port, Addr: a.Addr}
	case *unix.SockaddrInet6:
		return &unix.SockaddrInet6{Port: a.Port, Addr: a.Addr}
	case *unix.SockaddrUnix:
		return &unix.SockaddrUnix{Name: a.Name}
	}
	return addr
}

// pathMax is what an address of the kernel's has room for.
const pathMax = 107

// resolve turns an address into what the kernel wants.
func resolve(network, address string) (unix.Sockaddr, error) {
	switch network {
	case "unix":
		if address == "" || len(address) > pathMax {
			return nil, fmt.Errorf("%q: a socket's path has 1 to %d bytes, not %d", address, pathMax, len(address))
		}
		return &unix.SockaddrUnix{Name: address}, nil
	case "tcp":
	default:
		return nil, fmt.Errorf("network %q: it must be tcp or unix", network)
	}
	a, err := net.ResolveTCPAddr("tcp", address)
	if err != nil {
		return nil, err
	}
	if ip := a.IP.To4(); ip != nil {
		return &unix.SockaddrInet4{Port: a.Port, Addr: [4]byte(ip)}, nil
	}
	if len(a.IP) != net.IPv6len {
		return nil, fmt.Errorf("%s: it names no host", address)
	}
	return &unix.SockaddrInet6{Port: a.Port, Addr: [16]byte(a.IP)}, nil
}
