// Package config is what operators may choose, and the only reader of flags
// and environment in the house.
//
// Load lays defaults, profile, file, environment and flags over each other;
// Check does the sums and refuses a promise that cannot be kept. A key nobody
// knows is an error, never ignored: a misspelt limit is no limit. Other
// packages do not import this one; they take plain structs of their own.
package config

import (
	"fmt"
	"io"
	"net"
	"path/filepath"
	"runtime"
	"strconv"
	"time"

	"github.com/pelletier/go-toml/v2"
)

// A Config is every choice. Keys documents each of them.
type Config struct {
	Listen       string `toml:"listen"`
	Admin        string `toml:"admin"`
	DataDir      string `toml:"data_dir"`
	Profile      string `toml:"profile"`
	InsecureBind bool   `toml:"insecure_bind"`

	Auth   Auth   `toml:"auth"`
	Audit  Audit  `toml:"audit"`
	UDS    UDS    `toml:"uds"`
	Limits Limits `toml:"limits"`
	Quota  Quota  `toml:"quota"`
	Budget Budget `toml:"budget"`
	Stages Stages `toml:"stages"`
	Cache  Cache  `toml:"cache"`
	DB     DB     `toml:"db"`
	DHT    DHT    `toml:"dht"`
	Rank   Rank   `toml:"rank"`
	Watch  Watch  `toml:"watch"`
	Trust  Trust  `toml:"trust"`
	Log    Log    `toml:"log"`

	Compression Compression `toml:"compression"`

	Amnesia Amnesia `toml:"amnesia"`
}

// Auth is who may do what.
type Auth struct {
	RootKeys string `toml:"root_keys"` // KeysPath is where they are
	Required bool   `toml:"required"`
}

// Audit is the record of who changed what.
type Audit struct {
	Enabled bool   `toml:"enabled"`
	Dir     string `toml:"dir"` // AuditDir is where it is
}

// UDS is the Unix socket beside the TCP listener.
type UDS struct {
	Path      string `toml:"path"`
	AllowUIDs List   `toml:"allow_uids"` // UIDs are the numbers
}

// UIDs returns the users who may connect; none: whoever the file modes let.
// What is not a number is for Check to find.
func (u UDS) UIDs() (uids []uint32) {
	for _, s := range u.AllowUIDs {
		if n, err := strconv.ParseUint(s, 10, 32); err == nil {
			uids = append(uids, uint32(n))
		}
	}
	return uids
}

// Limits bound what clients may cost. 0 switches a limit off, except where
// Check says that it cannot be.
type Limits struct {
	RequestTimeout  Duration `toml:"request_timeout"`
	WriteTimeout    Duration `toml:"write_timeout"`
	Inflight        int      `toml:"inflight"`
	Joined          int      `toml:"joined"`
	RPS             int      `toml:"rps"`
	RPSPerIP        int      `toml:"rps_per_ip"`
	Body            Bytes    `toml:"body"`
	DecompressRatio int      `toml:"decompress_ratio"`
	BufferedBytes   Bytes    `toml:"buffered_bytes"`
	MaxConns        Conns    `toml:"max_conns"` // Limits.Conns is the number
	ConnsPerIP      int      `toml:"conns_per_ip"`
	HeadBytes       Bytes    `toml:"head_bytes"`
	TargetBytes     Bytes    `toml:"target_bytes"`
	IdleTimeout     Duration `toml:"idle_timeout"`
	Drain           Duration `toml:"drain"`
}

// Quota is what one address may ask for in a minute.
type Quota struct {
	ResolvesPerMin  int `toml:"resolves_per_min"`
	ProvidersPerMin int `toml:"providers_per_min"`
}

// Compression is of what clients send; answers go out as they are.
type Compression struct {
	Enabled bool `toml:"enabled"`
}

// Amnesia keeps everything in memory and forgets it.
type Amnesia struct {
	Enabled       bool     `toml:"enabled"`
	Bytes         Bytes    `toml:"bytes"`
	PurgeInterval Duration `toml:"purge_interval"`
}

// Budget is the time a look-up has in all.
type Budget struct {
	Resolve Duration `toml:"resolve"`
}

// Stages are the rooms of the pipeline.
type Stages struct {
	Cache Stage `toml:"cache"`
	DB    Stage `toml:"db"`
	DHT   Stage `toml:"dht"`
	Write Stage `toml:"write"`
}

// A Stage is what may be chosen of one room.
type Stage struct {
	Depth      int      `toml:"depth"`
	WorkersMin int      `toml:"workers_min"`
	WorkersMax int      `toml:"workers_max"`
	Batch      int      `toml:"batch"`
	Slice      Duration `toml:"slice"`
	MaxWait    Duration `toml:"max_wait"`
	Breaker    Breaker  `toml:"breaker"`
}

// A Breaker is when a room stops being asked, and when it is tried again.
type Breaker struct {
	Window      Duration `toml:"window"`
	TripRatio   float64  `toml:"trip_ratio"`
	MinRequests int      `toml:"min_requests"`
	Cooldown    Duration `toml:"cooldown"`
	Probes      int      `toml:"probes"`
}

// Cache is the cache in memory.
type Cache struct {
	Bytes    Bytes    `toml:"bytes"`
	TTL      Duration `toml:"ttl"`
	NegTTL   Duration `toml:"neg_ttl"`
	StaleFor Duration `toml:"stale_for"`

	RefreshAhead float64 `toml:"refresh_ahead"`
	WarmupKeys   int     `toml:"warmup_keys"`
}

// DB is the store on disk.
type DB struct {
	Sync    bool   `toml:"sync"`
	Path    string `toml:"path"` // DBPath is where it is
	MinFree Bytes  `toml:"min_free"`

	RefreshAfter Duration `toml:"refresh_after"`
}

// DHT is the network of other nodes.
type DHT struct {
	Enabled       bool     `toml:"enabled"`
	Mode          string   `toml:"mode"`
	Listen        string   `toml:"listen"`
	Bootstrap     List     `toml:"bootstrap"`
	Prefix        string   `toml:"prefix"`
	Alpha         int      `toml:"alpha"`
	Beta          int      `toml:"beta"`
	Hedge         Duration `toml:"hedge"`
	HedgeJitter   float64  `toml:"hedge_jitter"`
	HedgeBudget   float64  `toml:"hedge_budget"`
	AnnounceAddrs List     `toml:"announce_addrs"` // Announced is what they come to
	AllowPrivate  bool     `toml:"allow_private"`
}

// Modes of the DHT.
const (
	DHTClient = "client" // asks, and tells what it has
	DHTServer = "server" // answers others, too, and keeps records for them
)

// Rank orders providers, and leaves some out.
type Rank struct {
	RegionBias        float64  `toml:"region_bias"`
	FreshnessHalfLife Duration `toml:"freshness_half_life"`
	AllowedRegions    List     `toml:"allowed_regions"`
	Deny              List     `toml:"deny"`
}

// Trust is whose word counts for a name.
type Trust struct {
	Publishers Publishers `toml:"publishers"`
}

// Watch is when something counts as standing still, and what that leaves on
// the disk. A limit of 0 is not looked for.
type Watch struct {
	Stall  Duration `toml:"stall"`
	Sched  Duration `toml:"sched"`
	Slow   Duration `toml:"slow"`
	Dumps  bool     `toml:"dumps"`
	Dir    string   `toml:"dir"` // WatchDir is where it is
	Keep   Bytes    `toml:"keep"`
	Gap    Duration `toml:"gap"`
	Flight bool     `toml:"flight"`
	Window Duration `toml:"window"`
	Buffer Bytes    `toml:"buffer"`
}

// Log is what is logged, and how.
type Log struct {
	Level  string `toml:"level"`
	Format string `toml:"format"`
}

// Defaults returns the configuration before anybody chose anything.
func Defaults() Config {
	return Config{
		Listen:  "127.0.0.1:8080",
		Admin:   "127.0.0.1:9108",
		DataDir: "data",
		Profile: "dev",
		Limits: Limits{
			RequestTimeout:  Duration(5 * time.Second),
			WriteTimeout:    Duration(2 * time.Second),
			Inflight:        512,
			Joined:          16384,
			RPS:             500,
			Body:            1 << 20,
			DecompressRatio: 10,
			BufferedBytes:   256 << 20,
			MaxConns:        Auto,
			ConnsPerIP:      256,
			HeadBytes:       16 << 10,
			TargetBytes:     8 << 10,
			IdleTimeout:     Duration(60 * time.Second),
			Drain:           Duration(10 * time.Second),
		},
		Budget: Budget{Resolve: Duration(1200 * time.Millisecond)},
		Stages: defaultStages(),
		Cache: Cache{
			Bytes:    256 << 20,
			TTL:      Duration(60 * time.Second),
			NegTTL:   Duration(5 * time.Second),
			StaleFor: Duration(10 * time.Minute),
		},
		Audit:   Audit{Enabled: true},
		Amnesia: Amnesia{Bytes: 32 << 20},
		DB:      DB{Sync: true, MinFree: 64 << 20, RefreshAfter: Duration(60 * time.Second)},
		Rank:    Rank{RegionBias: 0.5, FreshnessHalfLife: Duration(time.Hour)},
		DHT: DHT{
			Mode: DHTClient, Prefix: "/svc-index", Alpha: 3, Beta: 2, Hedge: Duration(150 * time.Millisecond), HedgeJitter: 0.2, HedgeBudget: 0.1,
		},
		Watch: Watch{
			Stall:  Duration(3 * time.Second),
			Sched:  Duration(250 * time.Millisecond),
			Slow:   Duration(2500 * time.Millisecond),
			Dumps:  true,
			Keep:   64 << 20,
			Gap:    Duration(time.Minute),
			Window: Duration(5 * time.Second),
			Buffer: 16 << 20,
		},
		Log:         Log{Level: "info", Format: "json"},
		Compression: Compression{Enabled: true},
	}
}

// defaultStages is the table of rooms. The cache has no max_wait: its slice is
// shorter than any wait worth refusing for.
func defaultStages() Stages {
	b := Breaker{
		Window:      Duration(10 * time.Second),
		TripRatio:   0.5,
		MinRequests: 20,
		Cooldown:    Duration(2 * time.Second),
		Probes:      3,
	}
	ms := func(n int) Duration { return Duration(time.Duration(n) * time.Millisecond) }
	return Stages{
		Cache: Stage{16384, 1, runtime.GOMAXPROCS(0), 256, ms(20), 0, b},
		DB:    Stage{256, 1, 8, 8, ms(180), ms(150), b},
		DHT:   Stage{256, 1, 64, 1, ms(900), ms(600), b},
		Write: Stage{1024, 1, 4, 64, ms(2000), ms(1000), b},
	}
}

// DBPath returns the directory of the store.
func (c Config) DBPath() string {
	if c.DB.Path != "" {
		return c.DB.Path
	}
	return filepath.Join(c.DataDir, "db")
}

// AuditDir returns the directory of the audit's files.
func (c Config) AuditDir() string {
	if c.Audit.Dir != "" {
		return c.Audit.Dir
	}
	return filepath.Join(c.DataDir, "audit")
}

// KeysPath returns the file of the root keys.
func (c Config) KeysPath() string {
	if c.Auth.RootKeys != "" {
		return c.Auth.RootKeys
	}
	return filepath.Join(c.DataDir, "root.keys")
}

// WatchDir returns the directory of what a stall leaves behind; "" for nothing.
func (c Config) WatchDir() string {
	switch {
	case !c.Watch.Dumps:
		return ""
	case c.Watch.Dir != "":
		return c.Watch.Dir
	}
	return filepath.Join(c.DataDir, "flight")
}

// DHTPath returns the directory of the records kept for other nodes, empty for
// none: then they are in memory only.
func (c Config) DHTPath() string {
	if c.Amnesia.Enabled || c.DHT.Mode != DHTServer {
		return ""
	}
	return filepath.Join(c.DataDir, "dht")
}

// Announced returns the addresses at which others find what this node serves:
// dht.announce_addrs, or else where it listens.
func (c Config) Announced() []string {
	if len(c.DHT.AnnounceAddrs) > 0 {
		return c.DHT.AnnounceAddrs
	}
	host, port, err := net.SplitHostPort(c.Listen)
	ip := net.ParseIP(host)
	if err != nil || ip == nil || ip.IsUnspecified() || port == "0" {
		return nil
	}
	if ip.To4() != nil {
		return []string{"/ip4/" + ip.String() + "/tcp/" + port + "/http"}
	}
	return []string{"/ip6/" + ip.String() + "/tcp/" + port + "/http"}
}

// Print writes c as TOML that Load reads back to the same Config.
func (c Config) Print(w io.Writer) error {
	if err := toml.NewEncoder(w).Encode(c); err != nil {
		return fmt.Errorf("printing the configuration: %w", err)
	}
	return nil
}
