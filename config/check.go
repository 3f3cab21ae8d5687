package config

import (
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// What the sums of Check are made of.
const (
	memoryAllowed  = 1536 << 20 // bytes; what one process may take of a machine
	memoryOverhead = 384 << 20  // bytes; the store's buffers, stacks, jobs, code, garbage not yet collected
	memoryDHT      = 192 << 20  // bytes; peers, connections, and the records kept for others when their caps are reached

	fdShare     = 30   // percent of the descriptor limit we may want: acceptance fails badly when it is reached
	fdConns     = 28   // percent of it that "auto" gives to connections
	fdStore     = 64   // descriptors the store may hold open
	fdOther     = 64   // listeners, event loops, admin connections, journal, log
	autoConns   = 8192 // most "auto" gives; more is a decision
	autoConnMin = 16   // fewest it gives, however small the limit: a server nobody can reach is none
	headMin     = 1 << 10
	headMax     = 1 << 20
	targetMin   = 1 << 10
)

var (
	logLevels  = []string{"debug", "info", "warn", "error"}
	logFormats = []string{"text", "json"}
)

// Check refuses a configuration that cannot keep its promises. It returns all
// it finds at once, each with what was found, what was expected, and the knob.
func (c Config) Check() error { return c.check(descriptors()) }

// check is Check on a system whose limit on descriptors is nofile.
func (c Config) check(nofile int) error {
	return errors.Join(slices.Concat(
		c.checkAddresses(),
		c.checkPlaces(),
		c.checkLimits(),
		c.checkStages(),
		c.checkKnobs(),
		c.checkAmnesia(),
		c.checkWatch(),
		c.checkDHT(),
		c.checkTime(),
		c.checkMemory(nofile),
		c.checkDescriptors(nofile),
	)...)
}

// Conns returns how many connections may be open: max_conns, or what "auto"
// comes to under the system's limit on descriptors.
func (l Limits) Conns() int { return l.conns(descriptors()) }

func (l Limits) conns(nofile int) int {
	if l.MaxConns != Auto {
		return int(l.MaxConns)
	}
	n := min(nofile*fdConns/100, nofile*fdShare/100-fdStore-fdOther, autoConns)
	return max(n, autoConnMin)
}

// descriptors returns the system's limit on open files.
func descriptors() int {
	var r syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &r); err != nil {
		return 1024 // what POSIX systems commonly start with
	}
	return int(min(uint64(r.Cur), 1<<30)) // "unlimited" is a number too large to do sums with
}

func (c Config) checkAddresses() (bad []error) {
	for _, a := range []struct {
		key, addr string
		allowed   bool
		advice    string
	}{
		{"listen", c.Listen, c.InsecureBind, "there is no TLS here: put a proxy in front, or set insecure_bind = true to allow it"},
		{"admin", c.Admin, false, "other addresses need a token, which comes in a later version: set admin to 127.0.0.1:9108"},
	} {
		host, _, err := net.SplitHostPort(a.addr)
		switch {
		case err != nil:
			bad = append(bad, fmt.Errorf("%s = %q: expected host:port, such as 127.0.0.1:8080", a.key, a.addr))
		case !loopback(host) && !a.allowed:
			bad = append(bad, fmt.Errorf("%s = %q: expected a loopback address; %s", a.key, a.addr, a.advice))
		}
	}
	if c.Listen == c.Admin && !strings.HasSuffix(c.Listen, ":0") {
		bad = append(bad, fmt.Errorf("listen and admin are both %q: expected two addresses; change one of them", c.Listen))
	}
	return bad
}

// loopback reports whether only this machine can reach host. An empty host
// means every interface.
func loopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

// udsMax is the longest path a socket address holds on Linux, less its zero.
const udsMax = 107

func (c Config) checkPlaces() (bad []error) {
	if c.DataDir == "" {
		bad = append(bad, errors.New(`data_dir = "": expected a directory; set data_dir`))
	}
	for _, p := range []struct{ key, path string }{{"data_dir", c.DataDir}, {"db.path", c.DBPath()}} {
		if fi, err := os.Stat(p.path); err == nil && !fi.IsDir() {
			bad = append(bad, fmt.Errorf("%s = %q: found a file, expected a directory or nothing yet", p.key, p.path))
		}
	}
	return append(bad, c.checkUDS()...)
}

// checkUDS refuses paths the listener must not touch: gnet removes whatever is
// there before it binds.
func (c Config) checkUDS() []error {
	for _, uid := range c.UDS.AllowUIDs {
		if _, err := strconv.ParseUint(uid, 10, 32); err != nil {
			return []error{fmt.Errorf("uds.allow_uids: found %q, expected the number of a user, as id -u shows it", uid)}
		}
	}
	p := c.UDS.Path
	if p == "" {
		return nil
	}
	if len(p) > udsMax || p[0] == '@' || p[0] == 0 {
		return []error{fmt.Errorf("uds.path = %q: expected a path in a directory of its own, of at most %d bytes "+
			"(abstract sockets have no file mode); set uds.path", p, udsMax)}
	}
	if fi, err := os.Lstat(p); err == nil && fi.Mode().Type() != os.ModeSocket {
		return []error{fmt.Errorf("uds.path = %q: found something that is not a socket, expected nothing or "+
			"a socket left behind; it would be removed: set uds.path", p)}
	}
	return nil
}

func (c Config) checkLimits() (bad []error) {
	l := c.Limits
	for _, d := range []struct {
		key string
		is  Duration
	}{
		{"limits.request_timeout", l.RequestTimeout}, {"limits.write_timeout", l.WriteTimeout},
		{"limits.idle_timeout", l.IdleTimeout}, {"limits.drain", l.Drain}, {"budget.resolve", c.Budget.Resolve},
	} {
		if d.is <= 0 {
			bad = append(bad, fmt.Errorf("%s = %v: expected more than 0; without it a client can hold what it was given for ever", d.key, d.is))
		}
	}
	if l.MaxConns == 0 {
		bad = append(bad, errors.New(`limits.max_conns = 0: expected "auto" or at least 1; this limit cannot be off, `+
			"since running out of descriptors stops the listener"))
	}
	if l.HeadBytes < headMin || l.HeadBytes > headMax {
		bad = append(bad, fmt.Errorf("limits.head_bytes = %v: expected %v..%v", l.HeadBytes, Bytes(headMin), Bytes(headMax)))
	}
	if l.TargetBytes < targetMin || l.TargetBytes > headMax {
		bad = append(bad, fmt.Errorf("limits.target_bytes = %v: expected %v..%v; a name alone may take 600 bytes of it, percent-encoded",
			l.TargetBytes, Bytes(targetMin), Bytes(headMax)))
	}
	if l.BufferedBytes > 0 && l.Body > l.BufferedBytes {
		bad = append(bad, fmt.Errorf("limits.body = %v is over limits.buffered_bytes = %v: the longest body could "+
			"never be held; lower the one or raise the other", l.Body, l.BufferedBytes))
	}
	return bad
}

func (c Config) checkStages() (bad []error) {
	for _, s := range []struct {
		key string
		Stage
	}{
		{"stages.cache", c.Stages.Cache}, {"stages.db", c.Stages.DB},
		{"stages.dht", c.Stages.DHT}, {"stages.write", c.Stages.Write},
	} {
		bad = append(bad, s.check(s.key)...)
		bad = append(bad, s.Breaker.check(s.key+".breaker")...)
	}
	return bad
}

func (s Stage) check(at string) (bad []error) {
	for _, n := range []struct {
		key string
		is  int
	}{
		{"depth", s.Depth}, {"workers_min", s.WorkersMin}, {"workers_max", s.WorkersMax}, {"batch", s.Batch},
	} {
		bad = append(bad, atLeastOne(at+"."+n.key, n.is)...)
	}
	if s.WorkersMin > s.WorkersMax {
		bad = append(bad, fmt.Errorf("%s.workers_min = %d is over %s.workers_max = %d: lower the one or raise the other",
			at, s.WorkersMin, at, s.WorkersMax))
	}
	if s.Slice <= 0 {
		bad = append(bad, fmt.Errorf("%s.slice = %v: expected more than 0; a stage without time answers nothing", at, s.Slice))
	}
	if s.MaxWait > s.Slice {
		bad = append(bad, fmt.Errorf("%s.max_wait = %v is over %s.slice = %v: a job that waits longer than its slice "+
			"is not worked on; lower max_wait, or set it to 0 to switch it off", at, s.MaxWait, at, s.Slice))
	}
	return bad
}

func (b Breaker) check(at string) (bad []error) {
	if b.Window <= 0 {
		bad = append(bad, fmt.Errorf("%s.window = %v: expected more than 0; failures would never be forgotten", at, b.Window))
	}
	if b.Cooldown <= 0 {
		bad = append(bad, fmt.Errorf("%s.cooldown = %v: expected more than 0; the breaker would never rest", at, b.Cooldown))
	}
	if b.TripRatio <= 0 || b.TripRatio > 1 {
		bad = append(bad, fmt.Errorf("%s.trip_ratio = %v: expected more than 0 and at most 1", at, b.TripRatio))
	}
	bad = append(bad, atLeastOne(at+".min_requests", b.MinRequests)...)
	return append(bad, atLeastOne(at+".probes", b.Probes)...)
}

func atLeastOne(key string, n int) []error {
	if n >= 1 {
		return nil
	}
	return []error{fmt.Errorf("%s = %d: expected at least 1", key, n)}
}

// cacheMin is the least freecache can be told to take; less it would round up
// behind our back.
const cacheMin = 512 << 10

// warmupMost is more than two seconds of reading.
const warmupMost = 1_000_000

func (c Config) checkKnobs() (bad []error) {
	if c.Cache.Bytes < cacheMin {
		bad = append(bad, fmt.Errorf("cache.bytes = %v: expected at least %v", c.Cache.Bytes, Bytes(cacheMin)))
	}
	if c.Cache.TTL <= 0 {
		bad = append(bad, fmt.Errorf("cache.ttl = %v: expected more than 0; an answer without a time would never be fresh", c.Cache.TTL))
	}
	if c.Cache.RefreshAhead < 0 || c.Cache.RefreshAhead > 1 {
		bad = append(bad, fmt.Errorf("cache.refresh_ahead = %v: expected 0..1", c.Cache.RefreshAhead))
	}
	if c.Cache.WarmupKeys > warmupMost {
		bad = append(bad, fmt.Errorf("cache.warmup_keys = %d: expected at most %d; more cannot be read in the time there is", c.Cache.WarmupKeys, warmupMost))
	}
	if c.Rank.RegionBias < 0 || c.Rank.RegionBias > 1 {
		bad = append(bad, fmt.Errorf("rank.region_bias = %v: expected 0..1", c.Rank.RegionBias))
	}
	if c.Rank.FreshnessHalfLife <= 0 {
		bad = append(bad, fmt.Errorf("rank.freshness_half_life = %v: expected more than 0", c.Rank.FreshnessHalfLife))
	}
	bad = append(bad, oneOf("log.level", c.Log.Level, logLevels)...)
	return append(bad, oneOf("log.format", c.Log.Format, logFormats)...)
}

// flightMin and flightMax bound the recording: the runtime keeps less badly, and
// more is memory that answers could have.
const (
	flightMin = 1 << 20
	flightMax = 128 << 20
)

func (c Config) checkWatch() (bad []error) {
	w, s := c.Watch, c.Stages
	longest := max(s.Cache.Slice, s.DB.Slice, s.DHT.Slice, s.Write.Slice)
	if w.Stall != 0 && w.Stall <= longest {
		bad = append(bad, fmt.Errorf("watch.stall = %v: expected more than the longest slice, %v, or 0: a step may take its "+
			"slice; raise watch.stall or lower a stages.*.slice", w.Stall, longest))
	}
	if w.Buffer < flightMin || w.Buffer > flightMax {
		bad = append(bad, fmt.Errorf("watch.buffer = %v: expected %v..%v", w.Buffer, Bytes(flightMin), Bytes(flightMax)))
	}
	if w.Keep < 2*w.Buffer {
		bad = append(bad, fmt.Errorf("watch.keep = %v: expected at least twice watch.buffer = %v, or a dump would remove itself; "+
			"raise the one or lower the other", w.Keep, w.Buffer))
	}
	for _, d := range []struct {
		key string
		is  Duration
	}{{"watch.gap", w.Gap}, {"watch.window", w.Window}} {
		if d.is < Duration(time.Second) {
			bad = append(bad, fmt.Errorf("%s = %v: expected at least 1s", d.key, d.is))
		}
	}
	return bad
}

// checkDHT holds the network to what it can be. Addresses are looked at by
// whoever uses them.
func (c Config) checkDHT() (bad []error) {
	d := &c.DHT
	bad = append(bad, oneOf("dht.mode", d.Mode, []string{DHTClient, DHTServer})...)
	if d.Alpha < 1 || d.Alpha > dhtWidest {
		bad = append(bad, fmt.Errorf("dht.alpha = %d: expected 1 to %d", d.Alpha, dhtWidest))
	}
	if d.Beta > dhtWidest {
		bad = append(bad, fmt.Errorf("dht.beta = %d: expected 0 to %d", d.Beta, dhtWidest))
	}
	for _, share := range []struct {
		key string
		is  float64
	}{{"dht.hedge_jitter", d.HedgeJitter}, {"dht.hedge_budget", d.HedgeBudget}} {
		if share.is < 0 || share.is > 1 {
			bad = append(bad, fmt.Errorf("%s = %v: expected 0..1", share.key, share.is))
		}
	}
	if !strings.HasPrefix(d.Prefix, "/") || strings.HasSuffix(d.Prefix, "/") {
		bad = append(bad, fmt.Errorf("dht.prefix = %q: expected a path, such as /svc-index", d.Prefix))
	}
	if d.Enabled && d.Mode == DHTServer && d.Listen == "" {
		bad = append(bad, errors.New("dht.mode = server, and dht.listen is empty: nobody could ask it; set dht.listen, or dht.mode = client"))
	}
	host, _, err := net.SplitHostPort(d.Listen)
	switch ip := net.ParseIP(host); {
	case d.Listen == "":
	case err != nil || ip == nil:
		bad = append(bad, fmt.Errorf("dht.listen = %q: expected an IP address and a port, such as 127.0.0.1:4001", d.Listen))
	case (ip.IsPrivate() || ip.IsLoopback() || ip.IsLinkLocalUnicast()) && !d.AllowPrivate:
		bad = append(bad, fmt.Errorf("dht.listen = %q is not a public address, and no other node would dial it: set dht.allow_private "+
			"for a network of your own, or listen on a public address (0.0.0.0 for all)", d.Listen))
	}
	return bad
}

// dhtWidest is most requests one look-up may have in flight.
const dhtWidest = 16

func oneOf(key, is string, of []string) []error {
	if slices.Contains(of, is) {
		return nil
	}
	return []error{fmt.Errorf("%s = %q: expected one of: %s", key, is, strings.Join(of, ", "))}
}

// amnesiaMin is what a store in memory needs to work at all: journals, tables,
// and room to write them anew.
const amnesiaMin = 16 << 20

// checkAmnesia holds amnesia to its word: nothing is written after start.
func (c Config) checkAmnesia() (bad []error) {
	if !c.Amnesia.Enabled {
		return nil
	}
	if c.Amnesia.Bytes < amnesiaMin {
		bad = append(bad, fmt.Errorf("amnesia.bytes = %v: expected at least %v", c.Amnesia.Bytes, Bytes(amnesiaMin)))
	}
	for _, w := range []struct {
		key string
		on  bool
	}{{"audit.enabled", c.Audit.Enabled}, {"watch.dumps", c.Watch.Dumps}} {
		if w.on {
			bad = append(bad, fmt.Errorf("%s = true and amnesia.enabled = true: the one writes files, the other promises that none "+
				"is written after start; set %s = false", w.key, w.key))
		}
	}
	if c.Cache.WarmupKeys > 0 {
		bad = append(bad, fmt.Errorf("cache.warmup_keys = %d and amnesia.enabled = true: what was asked would be on the disk; "+
			"set cache.warmup_keys = 0", c.Cache.WarmupKeys))
	}
	return bad
}

// checkTime holds the slices to the budgets they are cut from.
func (c Config) checkTime() (bad []error) {
	s := c.Stages
	if sum := s.Cache.Slice + s.DB.Slice + s.DHT.Slice; sum > c.Budget.Resolve {
		bad = append(bad, fmt.Errorf("stages.cache.slice %v + stages.db.slice %v + stages.dht.slice %v = %v, over budget.resolve = %v: "+
			"the last stage would never get its full slice; lower a stages.*.slice or raise budget.resolve",
			s.Cache.Slice, s.DB.Slice, s.DHT.Slice, sum, c.Budget.Resolve))
	}
	if s.Write.Slice > c.Limits.WriteTimeout {
		bad = append(bad, fmt.Errorf("stages.write.slice = %v is over limits.write_timeout = %v: the client would be "+
			"gone before the slice is; lower the one or raise the other", s.Write.Slice, c.Limits.WriteTimeout))
	}
	return bad
}

// checkMemory adds up what may be held at once.
func (c Config) checkMemory(nofile int) []error {
	l := c.Limits
	conns := l.conns(nofile)
	// In floats, which cannot wrap: a sum that does would pass.
	sum := float64(conns)*float64(l.HeadBytes) + float64(l.BufferedBytes) + float64(c.Cache.Bytes) + memoryOverhead
	other, records := memoryOverhead, ""
	if c.Amnesia.Enabled {
		sum += float64(c.Amnesia.Bytes)
		records = fmt.Sprintf("amnesia.bytes %v, ", c.Amnesia.Bytes)
	}
	if c.DHT.Enabled {
		other += memoryDHT
		sum += memoryDHT
	}
	if sum <= memoryAllowed {
		return nil
	}
	return []error{fmt.Errorf("memory wanted is %.0f MiB (%d connections x limits.head_bytes %v, limits.buffered_bytes %v, "+
		"cache.bytes %v, %s%v for all else), over the %v allowed: lower cache.bytes, limits.buffered_bytes or limits.max_conns",
		sum/(1<<20), conns, l.HeadBytes, l.BufferedBytes, c.Cache.Bytes, records, Bytes(other), Bytes(memoryAllowed))}
}

// checkDescriptors holds the number of files to a share of the limit. "auto"
// fits itself into that share; under a very small limit it takes more than its
// share rather than refuse to start, as long as all fit.
func (c Config) checkDescriptors(nofile int) []error {
	conns, allowed, share := c.Limits.conns(nofile), nofile*fdShare/100, fmt.Sprintf("%d %%", fdShare)
	if c.Limits.MaxConns == Auto {
		allowed, share = nofile, "all"
	}
	wanted := conns + fdStore + fdOther
	if wanted <= allowed {
		return nil
	}
	return []error{fmt.Errorf("descriptors wanted are %d (%d connections, %d for the database, %d for all else), over the %d "+
		"that are %s of the limit of %d: lower limits.max_conns or raise the limit (ulimit -n, LimitNOFILE=)",
		wanted, conns, fdStore, fdOther, allowed, share, nofile)}
}
