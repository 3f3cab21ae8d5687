package index

import (
	"context"
	"sync/atomic"
	"time"
)

// Ask is the question a job carries.
type Ask uint8

const (
	AskResolve Ask = iota + 1
	AskProviders
	AskManifest
	AskWrite // the Op says which
	AskTask  // state of a background task
)

// IsLookup reports whether places are asked in turn for the answer: the cache,
// the store, the network. What is written, and what became of it, has one place.
func (a Ask) IsLookup() bool { return a != AskWrite && a != AskTask }

// Format is the encoding the client wants.
type Format uint8

const (
	JSON Format = iota
	CBOR
)

// Source says which place an answer came from.
type Source uint8

const (
	FromNowhere Source = iota
	FromCache
	FromDB
	FromDHT
)

var sourceNames = [...]string{"", "cache", "db", "dht"}

func (s Source) String() string { return sourceNames[s] }

// A Job is one question on its way through the house. It has exactly one
// owner: pushing it into a queue or finishing it gives it away, and the giver
// must not look back. That is the whole of our synchronization, and the reason
// Job has no mutex.
type Job struct {
	// What every look-up touches stands together and first, here and in
	// Answer: jobs pass through by the thousand, and each line of memory that
	// a hit does not need is one less to wait for.

	// The question. Set before the first push, then only read.
	Ask    Ask
	Op     Op // AskWrite
	Format Format
	Fresh  bool // skip the cache, treat stored rows as past their time
	Gzip   bool // of Body
	IsJSON bool // Content-Type was application/json

	// Belong to whoever holds the job.
	Hit     bool // the cache appended the answer to what Open lent
	InOrder bool // every earlier job of the flight is answered, by this same worker
	Result  Kind // OK until finished
	Doubt   Kind // the strongest reason a room could not look; OK if all could

	Noted    Generation // of Key, before anything was read for this asker
	Hash     uint64     // Generations.Hash of Key
	Home     Replier    // who takes the finished job
	Tuning   *Tuning    // the configuration it began under; nil: the one in force
	Entered  time.Time  // when it entered the queue it is in
	Deadline time.Time  // when the client stops caring; nobody extends it
	CorrID   []byte     // for log lines; belongs to the flight
	Seq      uint64     // DeleteName: ?seq=, 0 when absent
	Query    ProviderQuery
	Key      Key

	Answer Answer    // belongs to whoever holds the job, as do these
	Due    time.Time // when its slice ends
	Stage  string    // the room that refused or doubted
	Write  *Mutation // AskWrite: what the body said

	Who         string // the capability that let it in; empty: it needed none
	Text        string // provider id of a DeleteProvider; task id of an AskTask
	Body        []byte // of a write, as it came
	Idempotency string // Idempotency-Key
}

// Finish ends the job and gives it home.
func (j *Job) Finish(k Kind) {
	j.Result = k
	j.Home.Reply(j)
}

// ProviderQuery narrows and orders a provider set for one asker.
type ProviderQuery struct {
	Region       string
	Limit        int   // 1..32
	MinFreshness int64 // seconds since last seen, at most; 0: any
}

// DefaultLimit is how many providers an asker gets that names no limit.
const DefaultLimit = 5

// IsDefault reports whether q is what an asker gets that asks for nothing
// special: the one form that is kept rendered.
func (q *ProviderQuery) IsDefault() bool {
	return q.Limit == DefaultLimit && q.Region == "" && q.MinFreshness == 0
}

// An Answer is what a place knew. It belongs to the job that carries it.
type Answer struct {
	Page     []byte        // rendered entity head and body; see netio
	Age      time.Duration // since the place of origin gave it
	From     Source
	Negative bool // a proven absence, from the cache
	Aging    bool // from the cache, and near its end: worth renewing
	Stale    bool // past its time; the fresh source could not be asked
	Partial  bool // some place could not be asked
	Past     bool // it is past its time: the network has to be asked
	Created  bool // a write: it was not there before

	Name      NameRecord // AskResolve of a name
	Hint      int        // AskResolve: live local provider rows, at most HintMax
	Providers []Provider // AskProviders: the whole live set, sorted by id
	Body      []byte     // AskManifest: the bytes
	Doc       any        // a write or task: the document to encode
	Location  string     // a write: where what was written is found

	Until      time.Time     // it must not be served past this; zero: no such bound
	FreshUntil time.Time     // past this it is stale; zero: the cache's own time counts
	Checked    int64         // AskProviders: unix seconds when the network last told of the set; 0: never
	Seq        uint64        // Conflict: the sequence that stands
	RetryAfter time.Duration // of a refusal
	Reason     string        // a constant, for people
}

// A Flight is the requests of one connection that travel together: parsed in
// one go, answered in order, written in one go.
type Flight struct {
	Jobs    []*Job      // nil where a slot was answered before take-off
	Entered time.Time   // when it was pushed
	Gone    atomic.Bool // nobody is there to read the answers any more
}

// The ports. Rooms know each other only through these.

// A Resolver takes flights of look-ups from an event loop.
type Resolver interface {
	// Push hands over flights in order and returns how many it took; the rest
	// are still the caller's. It never waits.
	Push(lane int, fs []*Flight) int
	// Await returns when the lane's worker is through with what was pushed.
	// That worker looks in memory and waits for nobody.
	Await(lane int)
	// Refused tells it that a job Push did not take, tried again, was turned
	// away for good.
	Refused(jobs int)
	// Write hands over one job with AskWrite or AskTask. False: no room, and
	// j is still the caller's, with Answer.RetryAfter filled.
	Write(j *Job) bool
}

// A Replier takes finished jobs. It must not block.
//
// What j.Answer.Page points to is the Replier's to read until Reply returns:
// after that its memory is used again.
type Replier interface {
	// Open lends j.Answer.Page to the cache: a hit is appended to it. A job
	// that goes on without a hit gives it back by setting it to nil.
	Open(*Job)
	Reply(*Job)
	// Gone reports whether nobody waits for the answer any more.
	Gone() bool
}

// A Renderer turns the record in j.Answer into j.Answer.Page, once for all who
// asked. It writes into the memory that j.Answer.Page brings along, if that is
// enough.
type Renderer interface{ Render(*Job) }

// A Store is a shelf to look on.
type Store interface {
	// Get fills j.Answer. Three things might happen: nil, it is filled;
	// Missing, the store looked and has not got it; any other error, it could
	// not look, and j.Answer is as it was.
	Get(j *Job) error
}

// A Cache is a Store that keeps what later rooms find.
type Cache interface {
	Store
	// GetStale is Get for answers past their time that may still be served
	// when the fresh source cannot be asked.
	GetStale(j *Job) error
	// PutIf keeps j's answer (Result OK or Missing) unless the key was
	// written since j.Noted; false: a newer write won, or it does not fit.
	PutIf(j *Job) bool
	// Forget drops everything kept about the key.
	Forget(hash uint64, k *Key)
}

// A Blender holds what the network found against what is stored.
type Blender interface {
	// Blend makes of j.Answer, which the network filled, what may be given
	// out: what is stored and later stands, what was deleted here stays so.
	// Missing: nothing is left. news: Commit of it, as Found, would change
	// what is stored. Any other error: it could not look, and j.Answer is as
	// it was.
	Blend(j *Job) (news bool, err error)
}

// A Writer makes mutations durable.
type Writer interface {
	// Commit returns nil only when every mutation that was not refused (its
	// Err) is on disk and synced. One call is atomic.
	Commit([]*Mutation) error
}

// A Discoverer asks the network.
type Discoverer interface {
	Discover(ctx context.Context, j *Job) error
}
