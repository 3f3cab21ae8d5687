// Package audit keeps the record of who changed what in files that only grow.
//
// The store makes an entry for each mutation, in the same batch as the write.
// A Keeper takes the entries from there to files of lines, each chained to the
// line before it, and tells the store which are safe; after a crash it goes on
// with the first that is in no file. Verify holds the files to their chain and
// to what the store holds. The package never changes a line that was written,
// and never deletes a file.
package audit

import (
	"bufio"
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"svcindex/durable"
	"svcindex/index"
)

const (
	fileMax   = 64 << 20 // bytes after which the next file is begun
	lineMax   = 64 << 10 // an entry of 64 providers has under 10,000 bytes
	roundMost = 4096     // entries written with one sync
	bufKept   = 2 << 20  // bytes of lines for which memory is kept: a round of usual entries has 1.3 MB
	linger    = time.Second
	retryIn   = 5 * time.Second
	nameForm  = "audit-%019d.jsonl" // by the time it was begun: sorted, they are in order
)

// Options say where the files are. Only Dir must be set.
type Options struct {
	Dir     string        // made 0700, its files 0600
	FileMax int64         // bytes; 0: 64 MiB
	Linger  time.Duration // how long entries gather before they are written; 0: a second
	Log     *slog.Logger
}

// A Keeper takes entries from a store to files.
type Keeper struct {
	opt Options
	src index.Auditor

	Written, Faults atomic.Uint64 // entries, and rounds that failed

	quit chan struct{}
	busy sync.WaitGroup

	// Belong to the goroutine.
	file *os.File
	path string // where it was begun
	size int64
	name int64    // of the file
	last position // what the files end with
	buf  []byte   // lines being made
	said string   // the fault that was logged last
}

// A position is an entry and its chain.
type position struct {
	n     uint64
	chain index.CID
}

// A header is the first line of a file: which entry follows, and the chain
// before it.
type header struct {
	V     int    `json:"v"`
	First uint64 `json:"first"`
	Prev  string `json:"prev"`
}

// Start begins to keep the entries of src.
func Start(o Options, src index.Auditor) (*Keeper, error) {
	if o.FileMax == 0 {
		o.FileMax = fileMax
	}
	if o.Linger == 0 {
		o.Linger = linger
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	k := &Keeper{opt: o, src: src, quit: make(chan struct{})}
	if err := os.MkdirAll(o.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("audit.dir: %w", err)
	}
	if err := k.resume(); err != nil {
		return nil, fmt.Errorf("audit.dir: %w", err)
	}
	k.busy.Go(k.run)
	return k, nil
}

// Close writes what is left and ends.
func (k *Keeper) Close() error {
	close(k.quit)
	k.busy.Wait()
	err := k.round()
	if k.file != nil {
		err = errors.Join(err, k.file.Close())
	}
	return err
}

func (k *Keeper) run() {
	wait := time.NewTimer(0) // what an earlier run has left
	defer wait.Stop()
	for due := true; ; {
		select {
		case <-k.quit:
			return
		case <-k.src.Audited():
			if !due { // or a stream of writes would put the round off for ever
				due = true
				wait.Reset(k.opt.Linger)
			}
			continue
		case <-wait.C:
			due = false
		}
		if err := k.round(); err != nil {
			k.Faults.Add(1)
			if k.said != err.Error() {
				k.said = err.Error()
				k.opt.Log.Error("audit: entries wait in the store; they are not lost, but writes end when too many wait", "dir", k.opt.Dir, "err", err)
			}
			due = true
			wait.Reset(retryIn)
			continue
		}
		k.said = ""
	}
}

// round writes what waits, syncs it, and tells the store.
func (k *Keeper) round() error {
	for {
		es, err := k.src.AuditAfter(k.last.n, roundMost)
		if err != nil {
			return err
		}
		if len(es) == 0 {
			return k.tell()
		}
		if err := k.write(es); err != nil {
			return errors.Join(err, k.abandon())
		}
		if err := k.tell(); err != nil {
			return err
		}
		k.Written.Add(uint64(len(es)))
	}
}

// tell lets the store drop what is in the files.
func (k *Keeper) tell() error {
	if k.src.AuditMark().Kept >= k.last.n {
		return nil
	}
	return k.src.AuditKept(index.AuditEntry{N: k.last.n, Chain: k.last.chain})
}

// write appends entries and syncs them.
func (k *Keeper) write(es []index.AuditEntry) error {
	if k.file != nil && !k.there() {
		k.opt.Log.Error("audit: the newest file was taken away; another is begun", "file", k.path)
		_ = k.file.Close() // synced after every round
		k.file = nil
	}
	if k.file == nil || k.size >= k.opt.FileMax {
		if err := k.begin(); err != nil {
			return err
		}
	}
	k.buf = k.buf[:0]
	for i := range es {
		k.buf = index.AppendAuditLine(k.buf, &es[i])
	}
	_, err := k.file.Write(k.buf)
	if err == nil {
		err = k.file.Sync()
	}
	if err != nil {
		return err
	}
	k.size += int64(len(k.buf))
	end := &es[len(es)-1]
	k.last = position{end.N, end.Chain}
	if cap(k.buf) > bufKept {
		k.buf = nil
	}
	return nil
}

// there reports whether the file is still where it was begun. Who cleans up may
// have removed it, and nobody would find what goes into it then.
func (k *Keeper) there() bool {
	is, err := k.file.Stat()
	if err != nil {
		return false
	}
	at, err := os.Lstat(k.path)
	return err == nil && os.SameFile(is, at)
}

// begin starts the next file.
func (k *Keeper) begin() error {
	name := max(time.Now().UnixNano(), k.name+1)
	path := filepath.Join(k.opt.Dir, fmt.Sprintf(nameForm, name))
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	line, _ := json.Marshal(header{1, k.last.n + 1, hex.EncodeToString(k.last.chain[:])})
	n, err := f.Write(append(line, '\n'))
	if err == nil {
		err = errors.Join(f.Sync(), durable.SyncDir(k.opt.Dir))
	}
	if err != nil {
		return errors.Join(err, f.Close(), os.Remove(path))
	}
	if k.file != nil {
		_ = k.file.Close() // synced after every round
	}
	k.file, k.path, k.size, k.name = f, path, int64(n), name
	return nil
}

// abandon gives up a file that could not be written or synced: what of it was
// not synced is cut off, for nobody was told of it, and the next round begins
// another.
func (k *Keeper) abandon() error {
	f := k.file
	if f == nil {
		return nil
	}
	k.file = nil
	return errors.Join(f.Truncate(k.size), f.Close())
}

// newest returns the file that was written last. One that a crash has left
// without a header never held an entry, and goes.
func (k *Keeper) newest() (path string, err error) {
	names, err := files(k.opt.Dir)
	for i := len(names) - 1; i >= 0 && err == nil; i-- {
		path = filepath.Join(k.opt.Dir, names[i])
		_, _ = fmt.Sscanf(names[i], nameForm, &k.name)
		var begun bool
		if begun, err = hasLine(path); begun || err != nil {
			return path, err
		}
		err = os.Remove(path)
	}
	return "", err
}

// hasLine reports whether a file holds a whole line, or more than any line of
// ours: then something was written there, and damaged.
func hasLine(path string) (bool, error) {
	f, err := os.Open(path)
	if err != nil {
		return false, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, lineMax))
	return bytes.IndexByte(b, '\n') >= 0 || len(b) == lineMax, err
}

// resume finds out where the files end, and holds that to the store. A line
// that a crash has torn is cut off: nothing was promised of it. Files that end
// elsewhere than the store's own account, or cannot be read, are another
// history (a backup was restored, or somebody changed them): they are left
// alone, and a new file is begun, which Verify will tell.
func (k *Keeper) resume() error {
	mark := k.src.AuditMark()
	k.last = position{mark.Kept, mark.KeptChain}
	newest, err := k.newest()
	if newest == "" || err != nil {
		return err
	}
	end, whole, err := tail(newest)
	same := false
	switch {
	case errors.Is(err, errHeader), errors.Is(err, errLine):
		k.opt.Log.Error("audit: a file was changed", "err", err)
	case err != nil:
		return err
	default:
		if same, err = k.ours(end, mark); err != nil {
			return err
		}
	}
	if !same {
		k.opt.Log.Error("audit: the files are not those of this store; a new one is begun, see svc-index audit verify",
			"file", newest, "ends_with", end.n, "store_kept", mark.Kept, "store_last", mark.Last)
		return nil
	}
	f, err := os.OpenFile(newest, os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		return err
	}
	if err := errors.Join(f.Truncate(whole), f.Sync()); err != nil {
		return errors.Join(err, f.Close())
	}
	k.file, k.path, k.size, k.last = f, newest, whole, end
	return nil
}

// ours reports whether the entry a file ends with is one of the store's.
func (k *Keeper) ours(end position, mark index.AuditMark) (bool, error) {
	switch {
	case end.n < mark.Kept, end.n > mark.Last:
		return false, nil
	case end.n == mark.Kept:
		return end.chain == mark.KeptChain, nil
	}
	for n := mark.Kept; n < end.n; {
		es, err := k.src.AuditAfter(n, roundMost)
		if err != nil || len(es) == 0 {
			return false, err
		}
		for i := range es {
			if n = es[i].N; n == end.n {
				return es[i].Chain == end.chain, nil
			}
		}
	}
	return false, nil
}

// files returns the names of the audit's files, oldest first.
func files(dir string) (names []string, err error) {
	all, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	for _, e := range all {
		if strings.HasPrefix(e.Name(), "audit-") && strings.HasSuffix(e.Name(), ".jsonl") {
			names = append(names, e.Name())
		}
	}
	slices.Sort(names)
	return names, err
}

// tail returns the last whole entry of a file, or what its header says goes
// before the first, and how many bytes are whole.
func tail(path string) (end position, whole int64, err error) {
	f, err := os.Open(path)
	if err != nil {
		return end, 0, err
	}
	defer f.Close()
	r := bufio.NewReaderSize(f, lineMax)
	for first := true; ; first = false {
		line, err := r.ReadSlice('\n')
		if err == io.EOF {
			return end, whole, nil
		}
		if errors.Is(err, bufio.ErrBufferFull) {
			err = errLine // no line of ours is so long: zeros after a power cut, or somebody's hand
		}
		if err != nil {
			return end, 0, fmt.Errorf("%s: %w", path, err)
		}
		if first {
			end, err = parseHeader(line)
		} else {
			end, _, err = parseLine(line)
		}
		if err != nil {
			return end, 0, fmt.Errorf("%s, after entry %d: %w; see svc-index audit verify", path, end.n, err)
		}
		whole += int64(len(line))
	}
}

var (
	errHeader = errors.New("not a header")
	errLine   = errors.New("not an entry")
)

func parseHeader(line []byte) (p position, err error) {
	var h header
	if json.Unmarshal(line, &h) != nil || h.V != 1 || h.First == 0 {
		return p, errHeader
	}
	prev, err := hex.DecodeString(h.Prev)
	if err != nil || len(prev) != len(p.chain) {
		return p, errHeader
	}
	return position{h.First - 1, index.CID(prev)}, nil
}

// parseLine takes a line apart: its text is part of it.
func parseLine(line []byte) (p position, text []byte, err error) {
	rest, ok := bytes.CutSuffix(line, []byte("\"}\n"))
	at := len(rest) - 2*len(p.chain)
	if !ok || at < 0 {
		return p, nil, errLine
	}
	if _, err := hex.Decode(p.chain[:], rest[at:]); err != nil {
		return p, nil, errLine
	}
	text, ok = bytes.CutSuffix(rest[:at], []byte(index.AuditTail))
	if !ok {
		return p, nil, errLine
	}
	if _, err := fmt.Sscanf(string(text[:min(len(text), 30)]), `{"n":%d,`, &p.n); err != nil || p.n == 0 {
		return p, nil, errLine
	}
	return p, text, nil
}
