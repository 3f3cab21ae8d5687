package config

import (
	"fmt"
	"slices"
	"strings"
)

// A KeyDoc is what there is to know about one key.
type KeyDoc struct {
	Name    string // limits.inflight
	Env     string // SVC_INDEX_LIMITS_INFLIGHT
	Type    string // string, bool, integer, number, duration, bytes, count, list, table
	Unit    string // what a bare number counts; "" where the value carries its unit
	Default string
	Live    bool // a reload changes it under way
	Doc     string
}

// Keys returns every key of this version, in the order of Config.
func Keys() []KeyDoc {
	c := Defaults()
	docs := []KeyDoc{}
	for _, k := range c.keys() {
		d := KeyDoc{k.name, envName(k.name), typeName(k.at), k.unit, show(k.at), isLive(k.name), k.doc}
		if k.name == "stages.cache.workers_max" {
			d.Default = "the number of cores" // not that of the machine the page was written on
		}
		docs = append(docs, d)
	}
	return docs
}

// A key is one row of the table of all keys.
type key struct {
	name string
	at   any // a pointer into the Config
	unit string
	doc  string
}

// keys is the table: every layer writes through it, so what is not here cannot
// be set.
func (c *Config) keys() []key {
	l := &c.Limits
	return slices.Concat([]key{
		{"listen", &c.Listen, "", "address of the public HTTP listener; another than loopback needs insecure_bind"},
		{"admin", &c.Admin, "", "address of the admin listener (metrics, profiles); loopback only"},
		{"data_dir", &c.DataDir, "", "directory of everything that must survive a restart"},
		{"profile", &c.Profile, "", "deployment profile laid over the defaults"},
		{"insecure_bind", &c.InsecureBind, "", "allow the public listener, which has no TLS, on another address than loopback"},
		{"auth.root_keys", &c.Auth.RootKeys, "", "file of the root keys that capabilities are signed with, mode 0600; empty: root.keys in data_dir"},
		{"auth.required", &c.Auth.Required, "", "look-ups need a capability with index.read, too"},
		{"audit.enabled", &c.Audit.Enabled, "", "every mutation leaves an entry: who, when, what"},
		{"audit.dir", &c.Audit.Dir, "", "directory of the audit's files, which only grow; empty: audit in data_dir"},
		{"uds.allow_uids", &c.UDS.AllowUIDs, "", "numbers of the users who may connect to uds.path, known by SO_PEERCRED; empty: only who the file modes let, which is the server's own user and root"},
		{"uds.path", &c.UDS.Path, "", "Unix socket that serves the same as listen; empty: none"},

		{"limits.request_timeout", &l.RequestTimeout, "", "longest time from a request's first byte to its last, else 408"},
		{"limits.write_timeout", &l.WriteTimeout, "", "longest time a write may take, else 504"},
		{"limits.inflight", &l.Inflight, "requests", "distinct look-ups and writes past the cache stage, else 429; 0: no limit"},
		{"limits.joined", &l.Joined, "requests", "askers waiting on look-ups of others, else 429; 0: no limit"},
		{"limits.rps", &l.RPS, "requests a second", "requests of all clients together, else 429; 0: no limit"},
		{"limits.rps_per_ip", &l.RPSPerIP, "requests a second", "requests of one address (IPv6: one /64), else 429; 0: no limit"},
		{"limits.body", &l.Body, "", "longest request body, else 413; 0: no limit"},
		{"limits.decompress_ratio", &l.DecompressRatio, "times", "how much larger than it came a gzip body may become, else 413; 0: no limit"},
		{"limits.buffered_bytes", &l.BufferedBytes, "", "request bodies and unsent answers held in all, else 503; 0: no limit"},
		{"limits.max_conns", &l.MaxConns, "connections", "open connections in all, else 503 and close; auto: 28 % of the descriptor limit, at most 8192"},
		{"limits.conns_per_ip", &l.ConnsPerIP, "connections", "open connections of one address, else 503 and close; 0: no limit"},
		{"limits.head_bytes", &l.HeadBytes, "", "longest request head, else 431"},
		{"limits.target_bytes", &l.TargetBytes, "", "longest request target, else 414; a longer head is 431 before that"},
		{"limits.idle_timeout", &l.IdleTimeout, "", "how long a connection may stay open without a request"},
		{"limits.drain", &l.Drain, "", "how long a stop waits for requests in flight"},

		{"quota.resolves_per_min", &c.Quota.ResolvesPerMin, "requests a minute", "resolves of one address, else 429; 0: no limit"},
		{"quota.providers_per_min", &c.Quota.ProvidersPerMin, "requests a minute", "provider look-ups of one address, else 429; 0: no limit"},

		{"budget.resolve", &c.Budget.Resolve, "", "time a look-up has in all, from the request's last byte, else 504"},
	},
		c.Stages.Cache.keys("stages.cache"),
		c.Stages.DB.keys("stages.db"),
		c.Stages.DHT.keys("stages.dht"),
		c.Stages.Write.keys("stages.write"),
		[]key{
			{"cache.bytes", &c.Cache.Bytes, "", "memory of the cache, taken at start"},
			{"cache.ttl", &c.Cache.TTL, "", "how long an answer is fresh"},
			{"cache.neg_ttl", &c.Cache.NegTTL, "", "how long a proven absence is remembered"},
			{"cache.stale_for", &c.Cache.StaleFor, "", "how long past its time an answer may be served when the fresh source cannot be asked"},
			{"cache.refresh_ahead", &c.Cache.RefreshAhead, "0..1", "share of an answer's life, at its end, in which being asked for renews it in the background, as long as the stages have little to do; 0: never"},
			{"cache.warmup_keys", &c.Cache.WarmupKeys, "answers", "answers asked for last that are remembered over a restart, and read from the database into the cache before it begins, for two seconds at most; 0: none"},

			{"db.sync", &c.DB.Sync, "", "wait for the disk before a write is acknowledged; false loses acknowledged writes in a power cut"},
			{"db.path", &c.DB.Path, "", "directory of the database; empty: db in data_dir"},
			{"db.min_free", &c.DB.MinFree, "", "free space on the disk below which writes are refused with 507"},
			{"db.refresh_after", &c.DB.RefreshAfter, "", "how long a row that came from the DHT, and a name under a trusted prefix, is an answer before the DHT is asked again"},

			{"dht.enabled", &c.DHT.Enabled, "", "ask the network for what neither memory nor disk has, and tell it what this node has"},
			{"dht.mode", &c.DHT.Mode, "", "client: only ask and tell; server: answer others, too, and keep records for them"},
			{"dht.listen", &c.DHT.Listen, "", "address the node answers others at, TCP; port 0: any free one; empty: nowhere"},
			{"dht.bootstrap", &c.DHT.Bootstrap, "", "multiaddrs of nodes to begin with, each with its /p2p/ id; empty: the node is its own network until others find it"},
			{"dht.prefix", &c.DHT.Prefix, "", "prefix of the protocol; who has another is in another network"},
			{"dht.alpha", &c.DHT.Alpha, "requests", "requests of one look-up in flight"},
			{"dht.beta", &c.DHT.Beta, "requests", "and as many more each time nothing comes back for dht.hedge; 0: none"},
			{"dht.hedge", &c.DHT.Hedge, "", "longest a look-up waits for progress before it asks more peers; less where answers are quick; 0: for ever"},
			{"dht.hedge_jitter", &c.DHT.HedgeJitter, "0..1", "share of dht.hedge by which it varies"},
			{"dht.hedge_budget", &c.DHT.HedgeBudget, "0..1", "extra requests of a minute, as a share of the others; 0: none"},
			{"dht.announce_addrs", &c.DHT.AnnounceAddrs, "", "multiaddrs at which clients find what this node serves; empty: from listen"},
			{"dht.allow_private", &c.DHT.AllowPrivate, "", "deal with private, loopback and link-local addresses: for a network of one's own"},

			{"rank.region_bias", &c.Rank.RegionBias, "0..1", "weight of a provider's region in its score; the rest is freshness"},
			{"rank.freshness_half_life", &c.Rank.FreshnessHalfLife, "", "age at which a provider's freshness counts half"},
			{"rank.allowed_regions", &c.Rank.AllowedRegions, "", "only providers of these regions are given out; \"\" in the list stands for those that name none; empty: all"},
			{"rank.deny", &c.Rank.Deny, "", "providers that are never given out: an id, or region: and a region"},

			{"trust.publishers", &c.Trust.Publishers, "", "for each name prefix the public keys, in base64url or hex, at most 4, one of which has to sign a name under it; the longest prefix counts"},

			{"watch.stall", &c.Watch.Stall, "", "time in which a stage with work gets none done, a step or an event loop does not end, a job waits: a stall; 0: not looked for"},
			{"watch.sched", &c.Watch.Sched, "", "p99 of how long goroutines wait for a processor that is a stall; 0: not looked for"},
			{"watch.slow", &c.Watch.Slow, "", "time of a request that is a stall, rounded up to a bound of request_latency_seconds; 0: not looked for"},
			{"watch.dumps", &c.Watch.Dumps, "", "a stall leaves goroutines and a trace on the disk"},
			{"watch.dir", &c.Watch.Dir, "", "directory of these dumps; empty: flight in data_dir"},
			{"watch.keep", &c.Watch.Keep, "", "size of all dumps together; the oldest go first"},
			{"watch.gap", &c.Watch.Gap, "", "least time between two dumps"},
			{"watch.flight", &c.Watch.Flight, "", "record a trace in memory all the time, so that a dump shows what led to the stall; without it, the half second after"},
			{"watch.window", &c.Watch.Window, "", "how far back the recording goes, if buffer holds so much"},
			{"watch.buffer", &c.Watch.Buffer, "", "memory of the recording"},

			{"compression.enabled", &c.Compression.Enabled, "", "take request bodies in Content-Encoding: gzip, else 415; answers are always sent as they are"},

			{"log.level", &c.Log.Level, "", "least severe lines that are written: debug, info, warn or error"},
			{"log.format", &c.Log.Format, "", "form of log lines: text or json"},

			{"amnesia.enabled", &c.Amnesia.Enabled, "", "keep everything in memory, wipe it at shutdown, write no file after start"},
			{"amnesia.bytes", &c.Amnesia.Bytes, "", "with amnesia, the memory records may take, beyond which writes are refused with 507"},
			{"amnesia.purge_interval", &c.Amnesia.PurgeInterval, "", "with amnesia, how often the cache and what is left of it in memory are wiped; 0: only at shutdown"},
		})
}

// keys is the part of the table that every stage repeats.
func (s *Stage) keys(at string) []key {
	b := &s.Breaker
	return []key{
		{at + ".depth", &s.Depth, "jobs", "jobs that may wait; one more is refused with 429"},
		{at + ".workers_min", &s.WorkersMin, "workers", "fewest workers"},
		{at + ".workers_max", &s.WorkersMax, "workers", "most workers"},
		{at + ".batch", &s.Batch, "jobs", "most jobs a worker takes at once"},
		{at + ".slice", &s.Slice, "", "longest stay of a job, waiting included"},
		{at + ".max_wait", &s.MaxWait, "", "queue wait above which new work is refused before the queue is full; 0: never"},
		{at + ".breaker.window", &b.Window, "", "time over which failures are counted"},
		{at + ".breaker.trip_ratio", &b.TripRatio, "0..1", "share of failures in the window at which the breaker opens"},
		{at + ".breaker.min_requests", &b.MinRequests, "attempts", "attempts in the window below which it never opens"},
		{at + ".breaker.cooldown", &b.Cooldown, "", "how long it stays open before probes are let through"},
		{at + ".breaker.probes", &b.Probes, "attempts", "probes that must succeed to close it"},
	}
}

// live are the keys and tables that a reload changes under way. All others
// need a restart: somebody has taken them at start, and does not look again.
var live = []string{
	"dht.alpha", "dht.beta", "dht.hedge", "dht.hedge_jitter", "dht.hedge_budget",
	"limits", "quota", "budget", "stages", "cache.ttl", "cache.neg_ttl", "cache.stale_for", "cache.refresh_ahead",
	"rank", "compression", "log.level", "amnesia.purge_interval",
}

// isLive reports whether a reload changes the key under way.
func isLive(name string) bool {
	return slices.ContainsFunc(live, func(l string) bool { return name == l || strings.HasPrefix(name, l+".") })
}

// later are keys and tables of the product that this version does not have
// yet. They are told apart from misspelt ones: the advice is another.
var later = []string{
	"dht.pq", "facets", "tls", "proxy", "tracing",
	"db.engine",
}

// comesLater reports whether name, whose parts are joined by sep, is one of
// later or in one of its tables.
func comesLater(name, sep string, spell func(string) string) bool {
	return slices.ContainsFunc(later, func(l string) bool {
		l = spell(l)
		return name == l || strings.HasPrefix(name, l+sep)
	})
}

// unknown is the error for a key that is not in the table.
func unknown(name string, known []key) error {
	if comesLater(name, ".", func(s string) string { return s }) {
		return fmt.Errorf("key %q is not in this version; remove it until the part it belongs to arrives", name)
	}
	names := make([]string, len(known))
	for i, k := range known {
		names[i] = k.name
	}
	return fmt.Errorf("unknown key %q; the nearest known key is %q", name, nearest(name, names))
}

// nearest returns the name with the smallest edit distance from s, the first
// of equals. A bare word is also held against the last part of each name:
// whoever writes "ttl" means "cache.ttl".
func nearest(s string, names []string) string {
	best, least := "", 1<<30
	for _, n := range names {
		d := distance(s, n)
		if !strings.Contains(s, ".") {
			d = min(d, 1+distance(s, n[strings.LastIndexByte(n, '.')+1:]))
		}
		if d < least {
			best, least = n, d
		}
	}
	return best
}

// distance is the Levenshtein distance of a and b in bytes.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			swap := diagonal
			if a[i] != b[j] {
				swap++
			}
			diagonal = row[j+1]
			row[j+1] = min(swap, diagonal+1, row[j]+1)
		}
	}
	return row[len(b)]
}
