package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"net"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"svcindex/loadgen"
)

const loadgenLong = `Loadgen asks a server at a fixed rate, whatever the server does, and says how
long each answer took, from the instant at which its request was due. If the
server stalls, the requests that fell due meanwhile are charged their wait.

It measures itself as well: if it was the limit, the run is INVALID, and the
exit code is 3. With --slo the exit code is 1 if a clause was broken.

Keys are numbered names and the content ids of small manifests; --prepare N
puts them into the server first, over HTTP (that needs a token), or, with
--offline, straight into the data directory of a server that does not run:
a million names in some ten seconds.

  --rate 5000                          with --profile constant or poisson
  --rate 1000,2000,4000                with --profile step: equal parts of the time
  --rate 1000..20000                   with --profile ramp
  --rate 0                             a closed loop: as fast as connections allow`

const loadgenExample = `  svc-index loadgen --prepare 10000
  svc-index loadgen --prepare 1000000 --offline --data ./data
  svc-index loadgen --rate 5000 --duration 30s --slo 'p95<80ms,p99<200ms,error<0.1%'
  svc-index loadgen --rate 2000 --profile poisson --mix resolve=8,providers=1 --absent 0.05 --html page.html
  svc-index loadgen --rate 1000,2000,4000 --profile step --duration 30s --json -
  svc-index loadgen --rate 1000 --find-max --slo 'p99<20ms,error<0.1%,throttled<1%'`

// What is asked for, in the words of the specification.
const (
	loadNames  = "name:load/"
	loadAbsent = "name:load-absent/"
	loadField  = "X-Index-Source"

	loadProvider = "load" // serves every key
	loadAddr     = "http://127.0.0.1:1/"
	loadRegion   = "load"
	loadKeys     = 10_000
	loadMax      = 10_000_000 // keys that are made up
	loadSLO      = "p95<80ms,p99<200ms,error<0.1%,throttled<1%"
)

// loadOptions are the flags of loadgen.
type loadOptions struct {
	remote
	cfg                         loadgen.Config
	rate, profile               string
	keys, dist, mix, slo        string
	absent, fresh, writes       float64
	prepare                     int
	offline, findMax            bool
	jsonFile, hdrFile, htmlFile string

	objective loadgen.Objective
	writesAt  int64 // sequence numbers of a run's writes begin here; set before each
	stdout    io.Writer
	stderr    io.Writer
}

func loadgenCmd() *cobra.Command {
	var o loadOptions
	cmd := &cobra.Command{
		Use:     "loadgen --rate N --duration D",
		Short:   "Ask a server at a fixed rate and say how long it took",
		Long:    loadgenLong,
		Example: loadgenExample,
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			o.stdout, o.stderr = cmd.OutOrStdout(), cmd.ErrOrStderr()
			ctx, stop := interruptible(cmd)
			defer stop()
			return o.do(ctx)
		},
	}
	o.writeFlags(cmd)
	o.paceFlags(cmd)
	o.demandFlags(cmd)
	return strict(cmd)
}

func (o *loadOptions) paceFlags(cmd *cobra.Command) {
	f, c := cmd.Flags(), &o.cfg
	f.StringVar(&o.rate, "rate", "", "requests a `second`; see above for profiles")
	f.StringVar(&o.profile, "profile", "constant", "constant, poisson, step or ramp")
	f.DurationVar(&c.Duration, "duration", 10*time.Second, "of the measured time; of each try with --find-max")
	f.DurationVar(&c.Warmup, "warmup", 0, "before it, at the first rate, counted nowhere")
	f.Int64Var(&c.Requests, "max-requests", loadgen.RequestsMax, "end after so many, whatever --duration says")
	f.IntVar(&c.Connections, "connections", 64, "kept open")
	f.IntVar(&c.Threads, "threads", 1, "of the generator, each of which may use a processor")
	f.IntVar(&c.Pipeline, "pipeline", 1, "requests on one connection at once")
	f.IntVar(&c.Inflight, "inflight", 0, "requests at once in all (default connections x pipeline)")
	f.IntVar(&c.Churn, "churn", 0, "replace a connection after so many requests; 0 never")
	f.DurationVar(&c.Timeout, "timeout", loadgen.DefaultTimeout, "for an answer, from when its request was sent")
	f.DurationVar(&c.Drain, "drain", loadgen.DefaultDrain, "after the end, to send what was due and found no free connection")
	f.DurationVar(&c.Spin, "spin", 0, fmt.Sprintf("poll for so long before a request is due; negative never "+
		"(default %v if there are more processors than threads)", loadgen.DefaultSpin))
	f.Uint64Var(&c.Seed, "seed", 1, "of all that is random: the same seed, the same requests")
	f.StringVar(&o.slo, "slo", "", "what must hold, such as '"+loadSLO+",hit>0.8'")
	f.BoolVar(&o.findMax, "find-max", false, "look for the highest rate at which --slo holds, from --rate up (default slo "+loadSLO+")")
	f.StringVar(&o.jsonFile, "json", "", "write the report as JSON to `FILE`; - is stdout, instead of the text")
	f.StringVar(&o.hdrFile, "hdr", "", "write an HDR histogram log to `FILE`")
	f.StringVar(&o.htmlFile, "html", "", "write a page with charts to `FILE`")
}

func (o *loadOptions) demandFlags(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVar(&o.keys, "keys", strconv.Itoa(loadKeys), "`N` numbered keys, or a file with a key a line, the hot ones first")
	f.StringVar(&o.dist, "dist", "hotcold", "hotcold (1 % of the keys take 80 %), zipf, zipf:POWER, uniform")
	f.StringVar(&o.mix, "mix", "resolve=1", "endpoints by `weight`: resolve, providers, manifests")
	f.Float64Var(&o.absent, "absent", 0, "`share` of keys that are not there, 0 to 1")
	f.Float64Var(&o.fresh, "fresh", 0, "`share` of resolves with fresh=true, 0 to 1")
	f.Float64Var(&o.writes, "writes", 0, "`share` of requests that write a name, 0 to 1")
	f.IntVar(&o.prepare, "prepare", 0, "put `N` keys into the server first; without --rate nothing else is done")
	f.BoolVar(&o.offline, "offline", false, "with --prepare: write into the database under --data of a server that does not run")
}

// do does what the flags say.
func (o *loadOptions) do(ctx context.Context) error {
	if err := o.sensible(); err != nil {
		return err
	}
	if o.offline {
		if o.rate != "" || o.findMax {
			return usagef("--offline only prepares: start the server, then run again without it")
		}
		return o.fillOffline(ctx)
	}
	if err := o.address(); err != nil {
		return err
	}
	if err := o.objectives(); err != nil {
		return err
	}
	if err := o.cfg.Check(); err != nil {
		return usagef("%w; see svc-index loadgen --help", err)
	}
	mix, fill, err := o.demand()
	if err != nil {
		return err
	}
	if o.prepare > 0 {
		if err := o.fill(ctx, fill); err != nil || o.rate == "" && !o.findMax {
			return err
		}
	}
	pacer, err := parsePace(o.profile, cmp.Or(o.rate, map[bool]string{true: "1000"}[o.findMax]), o.cfg.Duration)
	if err != nil {
		return err
	}
	o.cfg.Pacer, o.cfg.Random = pacer, o.profile == "poisson"
	if o.cfg.NewAsker, err = mix.Asker(); err != nil {
		return usagef("%w", err)
	}
	if o.findMax {
		return o.search(ctx)
	}
	return o.once(ctx)
}

// sensible refuses, before anything is asked, what would end in nothing. A flag
// that is zero is not one that was left out.
func (o *loadOptions) sensible() error {
	c := &o.cfg
	for flag, n := range map[string]int64{"connections": int64(c.Connections), "threads": int64(c.Threads), "pipeline": int64(c.Pipeline),
		"max-requests": c.Requests, "timeout": int64(c.Timeout)} {
		if n <= 0 {
			return usagef("--%s has to be above 0", flag)
		}
	}
	if o.prepare < 0 {
		return usagef("--prepare takes 1 to %s keys, not %d", commas(loadMax), o.prepare)
	}
	c.Drain = cmp.Or(c.Drain, 1)
	for flag, file := range map[string]string{"json": o.jsonFile, "hdr": o.hdrFile, "html": o.htmlFile} {
		if file == "" || flag == "json" && file == "-" {
			continue
		}
		if err := writable(file); err != nil {
			return usagef("--%s: %w", flag, err)
		}
	}
	return nil
}

// address finds out where to connect.
func (o *loadOptions) address() error {
	network, addr, err := dialAddress(o.url())
	if err != nil {
		return usagef("--server: %w", err)
	}
	o.cfg.Network, o.cfg.Address, o.cfg.SourceField = network, addr, loadField
	return nil
}

// dialAddress turns a server's URL into what a socket connects to.
func dialAddress(server string) (network, addr string, err error) {
	if path, ok := strings.CutPrefix(server, "unix:"); ok {
		return "unix", strings.TrimPrefix(path, "//"), nil
	}
	u, err := url.Parse(server)
	switch {
	case err != nil || u.Scheme != "http" || u.Host == "" || strings.Trim(u.Path, "/") != "":
		return "", "", fmt.Errorf("%q: it must be http://HOST:PORT or unix:/PATH", server)
	case u.Port() == "":
		return "tcp", net.JoinHostPort(u.Hostname(), "80"), nil
	}
	return "tcp", u.Host, nil
}

func (o *loadOptions) objectives() (err error) {
	if o.findMax && o.slo == "" {
		o.slo = loadSLO
	}
	if o.objective, err = loadgen.ParseObjective(o.slo); err != nil {
		return usagef("--slo: %w", err)
	}
	if o.slo != "" && len(o.objective) == 0 {
		return usagef("--slo %q has no clause, such as p99<200ms", o.slo)
	}
	return nil
}

// parsePace reads --profile and --rate. A nil pacer is a closed loop.
func parsePace(profile, rate string, d time.Duration) (loadgen.Pacer, error) {
	if rate == "" {
		return nil, usagef("say how many requests a second with --rate; 0 is as fast as connections allow")
	}
	sep := map[string]string{"constant": "\x00", "poisson": "\x00", "step": ",", "ramp": ".."}[profile]
	if sep == "" {
		return nil, usagef("there is no --profile %q; there are constant, poisson, step, ramp", profile)
	}
	var rates []float64
	for text := range strings.SplitSeq(rate, sep) {
		v, err := strconv.ParseFloat(strings.TrimSpace(text), 64)
		if err != nil || !(v >= 0 && v <= 1e7) {
			return nil, usagef("--rate %q: with --profile %s it is such as %s, each from 0 to 10,000,000", rate, profile,
				map[string]string{"step": "1000,2000,4000", "ramp": "1000..20000"}[profile]+map[string]string{"\x00": "5000"}[sep])
		}
		rates = append(rates, v)
	}
	switch {
	case len(rates) == 1 && rates[0] == 0 && sep == "\x00":
		return nil, nil
	case profile == "ramp" && len(rates) == 2 && rates[1] > 0:
		return loadgen.Ramp{From: rates[0], To: rates[1], Over: d}, nil
	case profile == "ramp":
		return nil, usagef("--rate %q: a ramp is FROM..TO, and ends above 0", rate)
	case profile == "step":
		for _, v := range rates {
			if v == 0 {
				return nil, usagef("--rate %q: a step has a rate above 0", rate)
			}
		}
		return loadgen.Steps{Rates: rates, Each: d / time.Duration(len(rates))}, nil
	}
	return loadgen.Constant(rates[0]), nil
}
