package main

import (
	"cmp"
	"context"
	"debug/buildinfo"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"svcindex/loadgen"
	"svcindex/testing/performance/lab"
)

// The resources that are promised at any load.
const (
	memoryMax = 1536.0 // MiB resident
	filesMax  = 0.30   // of the limit on descriptors
)

// unlimited takes away the limits that a load from one address would meet
// first. A scenario that is about one sets it again: the last one counts.
var unlimited = []string{"limits.rps=0", "limits.rps_per_ip=0", "limits.conns_per_ip=0", "quota.resolves_per_min=0", "quota.providers_per_min=0"}

// A stay is a scenario under way.
type stay struct {
	b      *bench
	plan   *scenario
	found  *result
	server *lab.Server
	devnet *devnet // nil: none
	token  string
	bomb   []byte  // a body for the act of that name; nil: nobody needs it
	band   float64 // p95 in microseconds that has to be come back to

	mu sync.Mutex // protects the result while loads and acts run
}

func (b *bench) binaryOf(s *scenario) string {
	if s.Server.Rig {
		return b.rig
	}
	return b.binary
}

// run does a scenario. An error means that there is no result.
func (b *bench) run(ctx context.Context, s *scenario) (*result, error) {
	binary := b.binaryOf(s)
	r, err := newResult(s, binary)
	if err != nil {
		return nil, err
	}
	r.Scale = b.scale
	if r.Missing = missing(ctx, binary, s.Needs); len(r.Missing) > 0 {
		r.Verdict = verdictNotRun
		return r, nil
	}
	st := &stay{b: b, plan: s, found: r}
	log, err := os.Create(filepath.Join(b.work, s.name+".log"))
	if err != nil {
		return nil, err
	}
	defer log.Close()
	defer st.leave()
	if err := st.open(ctx, binary, log); err != nil {
		return nil, fmt.Errorf("%w%s", err, lastWords(log.Name()))
	}
	err = st.do(ctx)
	if stopErr := st.server.Stop(); stopErr != nil {
		r.check("", "the server ends in good order", false, "%v%s", stopErr, lastWords(log.Name()))
	}
	r.conclude()
	return r, errors.Join(err, ctx.Err())
}

func newResult(s *scenario, binary string) (*result, error) {
	r := &result{Schema: schema, Scenario: s.name, Hash: s.hash, Why: firstLine(s.Why), Started: time.Now(), Host: lab.ThisHost()}
	info, err := buildinfo.ReadFile(binary)
	if err != nil {
		return nil, fmt.Errorf("%w; build it first, see make perf", err)
	}
	r.Go = goOf(info)
	out, err := exec.Command(binary, "version", "--json").Output()
	var v struct{ Version, Commit string }
	if err == nil && json.Unmarshal(out, &v) == nil && v.Commit != "" {
		r.Version, r.Commit = v.Version, v.Commit
		return r, nil
	}
	out, err = exec.Command(binary, "version").Output()
	if err != nil {
		return nil, err
	}
	r.Version = strings.TrimSpace(string(out))
	for word := range strings.FieldsSeq(strings.NewReplacer("(", " ", ")", " ", ",", " ").Replace(r.Version)) {
		if len(word) >= 7 && len(word) <= 40 && strings.Trim(word, "0123456789abcdef") == "" {
			r.Commit = word
		}
	}
	return r, nil
}

// missing returns what a build lacks of what a scenario needs.
func missing(ctx context.Context, binary string, needs []string) (lacks []string) {
	for _, need := range needs {
		kind, what, _ := strings.Cut(need, " ")
		args := map[string][]string{
			"key":     {"config", "check", "--set", what},
			"command": {what, "--help"},
			"profile": {"config", "check", "--profile", what},
		}[kind]
		command, flag, _ := strings.Cut(what, " ")
		if kind == "flag" {
			args = []string{command, "--help"}
		}
		if args == nil {
			lacks = append(lacks, need+" (which nobody understands)")
			continue
		}
		out, err := exec.CommandContext(ctx, binary, args...).CombinedOutput()
		if err != nil || kind == "flag" && !strings.Contains(string(out), flag+" ") {
			lacks = append(lacks, need)
		}
	}
	return lacks
}

// open fills a data directory and starts the server on it.
func (st *stay) open(ctx context.Context, binary string, log io.Writer) (err error) {
	if slices.ContainsFunc(st.plan.Phases, func(p phase) bool { return slices.ContainsFunc(p.Acts, func(a act) bool { return a.Do == "bomb" }) }) {
		if st.bomb, err = makeBomb(); err != nil {
			return err
		}
	}
	dir := filepath.Join(st.b.work, st.plan.name)
	if n := st.plan.Fill.Keys; n > 0 {
		mix := st.plan.Fill.Mix
		if mix == "" {
			mix = "resolve"
		}
		if _, err := lab.Run(ctx, -1, binary, "loadgen", "--prepare", strconv.Itoa(n), "--offline", "--data", dir, "--mix", mix); err != nil {
			return err
		}
	}
	if net := st.plan.Server.Devnet; len(net) > 0 {
		if st.devnet, err = openDevnet(binary, net, log); err != nil {
			return err
		}
		st.plan.Server.Set = append(st.plan.Server.Set, "dht.bootstrap="+st.devnet.bootstrap)
	}
	set := append(slices.Clone(unlimited), st.plan.Server.Set...)
	st.server, err = lab.Start(ctx, lab.Options{
		Binary: binary, Dir: dir, Profile: st.plan.Server.Profile, Set: known(ctx, binary, set),
		Env: st.plan.Server.Env, Processor: st.b.server, Log: log,
	})
	if err != nil {
		return err
	}
	st.token, err = st.server.Mint(ctx, binary)
	return err
}

func (st *stay) leave() {
	if st.devnet != nil {
		st.devnet.close()
	}
}

// known leaves out what switches off a limit that the build does not have.
func known(ctx context.Context, binary string, set []string) (kept []string) {
	for _, s := range set {
		if !slices.Contains(unlimited, s) || exec.CommandContext(ctx, binary, "config", "check", "--set", s).Run() == nil {
			kept = append(kept, s)
		}
	}
	return kept
}

func lastWords(log string) string {
	b, err := os.ReadFile(log)
	if err != nil || len(b) == 0 {
		return ""
	}
	return "; the server's last words:\n" + string(b[max(len(b)-2<<10, 0):])
}

// do goes through the phases while the watch looks on.
func (st *stay) do(ctx context.Context) error {
	before, err := lab.UsageOf(st.server.PID)
	if err != nil {
		return err
	}
	w := startWatch(ctx, st.server)
	for i := range st.plan.Phases {
		p := &st.plan.Phases[i]
		if err := st.phase(ctx, p); err != nil {
			w.close()
			return fmt.Errorf("phase %s: %w", p.Name, err)
		}
	}
	w.close()
	w.judge(st.found, st.plan.Checks.MayBeUnready)
	return st.account(before)
}

// phase runs everything that belongs to a phase at once.
func (st *stay) phase(ctx context.Context, p *phase) error {
	addr, leave, err := st.way(p)
	if err != nil {
		return err
	}
	defer leave()
	var wg sync.WaitGroup
	errs := make([]error, len(p.Loads)+len(p.Acts))
	for i := range p.Loads {
		wg.Go(func() { errs[i] = st.load(ctx, p, &p.Loads[i], addr) })
	}
	for i, a := range p.Acts {
		wg.Go(func() { errs[len(p.Loads)+i] = acts[a.Do](ctx, st, p, a) })
	}
	wg.Wait()
	return errors.Join(errs...)
}

// way is where the clients of a phase find the server.
func (st *stay) way(p *phase) (addr string, leave func(), err error) {
	if p.PathDelay == 0 {
		return st.server.Addr, func() {}, nil
	}
	path, err := openPath(st.server.Addr, time.Duration(p.PathDelay))
	if err != nil {
		return "", nil, err
	}
	return path.addr, path.close, nil
}

// length is how long the loads of a phase take. What prepares is not cut short:
// a cache that is half warm would break what is promised of a warm one.
func (b *bench) length(p *phase) time.Duration {
	if p.Warm {
		return time.Duration(float64(p.For) * max(b.scale, 1))
	}
	return time.Duration(float64(p.For) * b.scale)
}

func (st *stay) load(ctx context.Context, p *phase, l *load, addr string) error {
	args := append(strings.Fields(l.Args), "--server", "http://"+addr, "--data", st.server.Dir, "--duration", st.b.length(p).String(), "--spin", "50us")
	if l.SLO != "" {
		args = append(args, "--slo", l.SLO)
	}
	r, err := lab.Load(ctx, st.b.binary, st.b.client, args...)
	if err != nil {
		return err
	}
	st.mu.Lock()
	defer st.mu.Unlock()
	st.found.Loads = append(st.found.Loads, loadResult{Phase: p.Name, Load: l.Name, Args: l.Args, Valid: r.Valid || p.Warm, Reason: r.Reason,
		Figures: figuresOf(r), Codes: countsOf(r.Codes), Sources: countsOf(r.Sources)})
	for _, c := range r.SLO {
		st.found.check(p.Name, l.Name+" "+c.Clause, c.Held, "%s", c.Figure)
	}
	st.judgeCodes(p, l, r)
	if p.Band {
		st.band = bandOf(r.Response.P95)
	}
	if p.Recover > 0 {
		at, ok := recovered(r.Seconds, st.band)
		st.found.check(p.Name, fmt.Sprintf("p95 back in its band (%s) within %v", micro(st.band), time.Duration(p.Recover)),
			ok && at <= time.Duration(p.Recover), "after %v, for good: %v", at, ok)
	}
	return nil
}

// judgeCodes holds a load's answers to the statuses that were expected, and
// their first examples to the code that the status always has.
func (st *stay) judgeCodes(p *phase, l *load, r *loadgen.Report) {
	may := l.Codes
	if len(may) == 0 {
		may = []int{200}
	}
	var strange []string
	for _, c := range r.Codes {
		status, _ := strconv.Atoi(c.Name)
		if !slices.Contains(may, status) {
			strange = append(strange, fmt.Sprintf("%d times %s, the first: %s", c.Response.Count, c.Name, c.Example))
		}
		if status >= 400 && !strings.Contains(c.Example, fmt.Sprintf(`"code":%q`, codeOf[status])) {
			strange = append(strange, fmt.Sprintf("a %d without its code %s: %s", status, codeOf[status], c.Example))
		}
	}
	for _, e := range r.Errors {
		if e.Kind != "unsent" {
			strange = append(strange, fmt.Sprintf("%d times %s, the first: %s", e.Count, e.Kind, e.Example))
		}
	}
	if r.Requests.Answered == 0 {
		strange = append(strange, "nothing was answered")
	}
	st.found.check(p.Name, fmt.Sprintf("%s is answered only %v, each with its code", l.Name, may), len(strange) == 0, "%s",
		orText(strings.Join(strange, "; "), fmt.Sprint(countsOf(r.Codes))))
}

func orText(s, other string) string {
	if s == "" {
		return other
	}
	return s
}

// bandOf is what counts as a p95 back to normal: half as much again, and what
// a scheduler may add.
func bandOf(p95 float64) float64 { return 1.5*p95 + 1000 }

// recovered returns the first second from which on p95 stays in the band, but
// for one second in twenty: a neighbour is not the server's doing. A second in
// which something was due and nothing answered is out of any band.
func recovered(seconds []loadgen.Second, band float64) (at time.Duration, ok bool) {
	out := 0
	for i := len(seconds) - 1; i >= 0; i-- {
		switch s := &seconds[i]; {
		case s.P95 > band, s.Answered == 0 && s.Target > 0:
			out++
		case out*20 <= len(seconds)-i:
			at, ok = time.Duration(s.At*float64(time.Second)), true
		}
	}
	return at, ok
}

// account holds the whole scenario to what is promised of the process.
func (st *stay) account(before lab.Usage) error {
	after, err := lab.UsageOf(st.server.PID)
	if err != nil {
		return err
	}
	m, err := st.server.Metrics()
	if err != nil {
		return err
	}
	wall := after.At.Sub(before.At).Seconds()
	limit := cmp.Or(st.plan.Checks.MemoryMiB, memoryMax)
	peak := float64(after.Peak) / (1 << 20)
	st.found.Server = map[string]float64{
		"cpu": (after.CPU - before.CPU).Seconds() / wall, "seconds": wall, "memory_peak_mib": peak,
		"files": float64(after.Files), "files_limit": float64(after.FilesMax),
	}
	st.found.check("", fmt.Sprintf("memory < %.0f MiB", limit), peak < limit, "%.0f MiB at most", peak)
	st.found.check("", "descriptors < 30 % of the limit, when all is over", float64(after.Files) < filesMax*float64(after.FilesMax), "%d of %d", after.Files, after.FilesMax)
	for name, v := range networkFigures(m) {
		st.found.Server[name] = v
	}
	for name, what := range map[string]string{
		integrityMetric: "integrity failures",
		negativesMetric: "absences served after a write",
	} {
		n, there := lab.Sum(m, name)
		st.found.check("", "no "+what, n == 0 && there, "%.0f%s", n, absentText(there))
	}
	if errs, there := errorsOf(m); !st.plan.Checks.ErrorsOK {
		st.found.check("", "no 5xx but 503", errs == 0 && there, "%.0f%s", errs, absentText(there))
	}
	return nil
}

func absentText(there bool) string {
	if there {
		return ""
	}
	return ", but nobody counts them: the metric is not there"
}

// networkFigures are what is promised of the DHT, if there is one.
func networkFigures(m map[string]float64) map[string]float64 {
	out := map[string]float64{}
	if n := m["index_dht_hops_count"]; n > 0 {
		out["dht_lookups"] = n
		out["dht_hops_p99"] = bucketOf(m, "index_dht_hops_bucket", 0.99*n)
	}
	win, lose, tie := m[`dht_hedged_requests_total{result="win"}`], m[`dht_hedged_requests_total{result="lose"}`], m[`dht_hedged_requests_total{result="tie"}`]
	if win+lose+tie > 0 {
		out["hedged"] = win + lose + tie
	}
	if win+lose > 0 { // of a key that is nowhere neither wave can win
		out["hedge_win_rate"] = win / (win + lose + tie)
	}
	return out
}

// bucketOf is the bound of the histogram's bucket that holds the nth value.
func bucketOf(m map[string]float64, name string, nth float64) float64 {
	best := math.Inf(1)
	for k, v := range m {
		le, ok := strings.CutPrefix(k, name+`{le="`)
		if !ok || v < nth {
			continue
		}
		if bound, err := strconv.ParseFloat(strings.TrimSuffix(le, `"}`), 64); err == nil {
			best = min(best, bound)
		}
	}
	return min(best, math.MaxFloat64) // which JSON can say
}

// errorsOf counts answered errors, if anybody does.
func errorsOf(m map[string]float64) (n float64, there bool) {
	for k, v := range m {
		if strings.HasPrefix(k, "http_requests_total{") {
			there = true
			if strings.Contains(k, `status="error"`) {
				n += v
			}
		}
	}
	return n, there
}

// A path delays what goes through it: so long there and back.
type path struct {
	addr string
	ln   net.Listener
	half time.Duration
	to   string
	wg   sync.WaitGroup

	mu   sync.Mutex // protects open
	open map[net.Conn]bool
}

func openPath(to string, delay time.Duration) (*path, error) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	p := &path{addr: ln.Addr().String(), ln: ln, half: delay / 2, to: to, open: map[net.Conn]bool{}}
	p.wg.Go(p.accept)
	return p, nil
}

func (p *path) accept() {
	for {
		near, err := p.ln.Accept()
		if err != nil {
			return
		}
		far, err := net.Dial("tcp", p.to)
		if err != nil {
			_ = near.Close()
			continue
		}
		p.mu.Lock()
		p.open[near], p.open[far] = true, true
		p.mu.Unlock()
		p.wg.Go(func() { p.carry(near, far) })
		p.wg.Go(func() { p.carry(far, near) })
	}
}

// A parcel is bytes on their way.
type parcel struct {
	at    time.Time
	bytes []byte
}

// parcelsMax bounds what is on its way in one direction of one connection.
const parcelsMax = 1024

// carry moves bytes from one side to the other, each after its delay.
func (p *path) carry(from, to net.Conn) {
	way := make(chan parcel, parcelsMax)
	var wg sync.WaitGroup
	wg.Go(func() {
		for c := range way {
			time.Sleep(time.Until(c.at))
			if _, err := to.Write(c.bytes); err != nil {
				break
			}
		}
		_ = to.Close()
		for range way { // let the reader end
		}
	})
	buf := make([]byte, 64<<10)
	for {
		n, err := from.Read(buf)
		if n > 0 {
			way <- parcel{time.Now().Add(p.half), slices.Clone(buf[:n])}
		}
		if err != nil {
			break
		}
	}
	close(way)
	wg.Wait()
}

func (p *path) close() {
	_ = p.ln.Close()
	p.mu.Lock()
	for c := range p.open {
		_ = c.Close()
	}
	p.mu.Unlock()
	p.wg.Wait()
}
