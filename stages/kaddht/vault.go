package kaddht

import (
	"bufio"
	"cmp"
	"container/heap"
	"context"
	"encoding/base32"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"

	ds "github.com/ipfs/go-datastore"
	dsq "github.com/ipfs/go-datastore/query"
	recpb "github.com/libp2p/go-libp2p-record/pb"
	"google.golang.org/protobuf/proto"

	"svcindex/durable"
	"svcindex/index"
)

// What others may have us keep.
const (
	rowsMax         = 128 << 10 // provider records
	rowsPerKey      = index.ProvidersMax
	rowsPerPeer     = rowsMax / 4
	valuesMax       = 64 << 10
	valueBytesMax   = 64 << 20
	valuesPerSigner = 8 << 10 // names of one key
	valueMax        = ManifestMax + 1024
)

var errVaultFull = errors.New("dht: there is no room for this record")

// A vault keeps the records that the network wants us to keep: so many in all,
// so many of one key and of one owner. When it is full, what is new takes the
// place of the oldest record of whoever has most; nobody can take more than
// his share by asking for more. When a key has all the providers it may, a
// newcomer takes a place of the neighbourhood that has most of them: who makes
// up peer ids by the dozen cannot keep others out, only his neighbours.
//
// It is in memory, and written to one file now and then and at the end.
type vault struct {
	// Immutable once in use.
	where func(who string) string // the network a provider announces from; "": not known

	mu sync.Mutex
	// Fields below are protected by mu.
	rows  map[string]*row
	under map[string]map[string]*row // provider records by key
	kinds [2]part                    // provider records, values
}

// A part is one kind of records.
type part struct {
	n, bytes int
	owners   map[string]*owner
	ranks    ranks
}

// Ranks are the owners as a heap, the one that takes most on top: to look at
// them all for each record would be worth an attacker's while.
type ranks struct {
	of    []*owner
	looks int // comparisons ever made; tests hold them to a bound
}

func (r *ranks) Len() int { return len(r.of) }

func (r *ranks) Less(i, j int) bool {
	r.looks++
	return r.of[i].weight() > r.of[j].weight()
}

func (r *ranks) Swap(i, j int) {
	r.of[i], r.of[j] = r.of[j], r.of[i]
	r.of[i].rank, r.of[j].rank = i, j
}

func (r *ranks) Push(x any) {
	o := x.(*owner)
	o.rank = len(r.of)
	r.of = append(r.of, o)
}

func (r *ranks) Pop() any {
	last := len(r.of) - 1
	o := r.of[last]
	r.of[last] = nil
	r.of = r.of[:last]
	return o
}

// heaviest returns the owner that takes most, nil if there is none.
func (p *part) heaviest() *owner {
	if len(p.ranks.of) == 0 {
		return nil
	}
	return p.ranks.of[0]
}

// An owner is a peer, a publisher, or all manifests together.
type owner struct {
	name        string
	n, bytes    int
	rank        int  // its place in the heap
	first, last *row // oldest first
}

// A row is one record.
type row struct {
	key        string
	value      []byte
	kind       int
	net        string // a provider's network when it announced itself, or else itself
	owner      *owner
	prev, next *row
}

const (
	kindProvider = iota
	kindValue
)

var _ ds.Batching = (*vault)(nil)

func newVault() *vault {
	v := &vault{rows: make(map[string]*row), under: make(map[string]map[string]*row), where: func(string) string { return "" }}
	for i := range v.kinds {
		v.kinds[i].owners = make(map[string]*owner)
	}
	return v
}

// ownerOf returns what kind of record a key is and whom it counts against.
func ownerOf(key string) (kind int, who string, err error) {
	part := strings.Split(key, "/") // "", namespace, ...
	switch {
	case len(part) == 4 && part[1] == "providers":
		return kindProvider, part[3], nil
	case len(part) == 3 && part[1] == nsManifest:
		return kindValue, nsManifest, nil
	case len(part) == 3 && (part[1] == nsName || part[1] == nsProvider):
		full, err := base32.StdEncoding.WithPadding(base32.NoPadding).DecodeString(part[2])
		if err != nil {
			return 0, "", err
		}
		in := strings.Split(string(full), "/")
		if len(in) < 3 {
			return 0, "", errNotKey
		}
		return kindValue, in[1] + "/" + in[2], nil
	}
	return 0, "", errNotKey
}

// Put implements ds.Write.
func (v *vault) Put(_ context.Context, k ds.Key, value []byte) error {
	return v.put(k.String(), value)
}

func (v *vault) put(key string, value []byte) error {
	kind, who, err := ownerOf(key)
	if err != nil || len(value) > valueMax {
		return errors.Join(errVaultFull, err)
	}
	r := &row{key: key, value: append([]byte(nil), value...), kind: kind}
	if kind == kindProvider {
		r.net = cmp.Or(v.where(who), who)
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	old := v.rows[key]
	if old != nil {
		v.drop(old)
	}
	if !v.room(r, who) {
		if old != nil {
			v.add(old, who)
		}
		return errVaultFull
	}
	v.add(r, who)
	return nil
}

// room makes room for r. False: there is none for it, and nothing was dropped.
func (v *vault) room(r *row, who string) bool {
	p := &v.kinds[r.kind]
	mine, size := p.owners[who], len(r.value)
	if mine != nil && who != nsManifest && mine.n >= perOwner(r.kind) {
		return false
	}
	if at := v.under[parent(r.key)]; r.kind == kindProvider && len(at) >= rowsPerKey {
		v.drop(crowded(at))
	}
	over := max(p.bytes+size-valueBytesMax, 0)
	switch {
	case !p.full(r.kind, size):
	case mayTake(mine, p.heaviest(), size+over):
		for p.full(r.kind, size) {
			v.drop(p.heaviest().first)
		}
	case who == nsManifest && mine != nil && mine.bytes >= over:
		for p.full(r.kind, size) {
			v.drop(mine.first)
		}
	default:
		return false
	}
	return true
}

// crowded returns the record of one key that a newcomer replaces: any one of
// the network that has most of them. Which, is left to chance: the oldest are
// those who have been there before the flood, the newest those who come to be
// seen beside it.
func crowded(rows map[string]*row) (out *row) {
	of := make(map[string]int, len(rows))
	most := 0
	for _, r := range rows {
		of[r.net]++
		most = max(most, of[r.net])
	}
	chance := 0
	for _, r := range rows {
		if of[r.net] < most {
			continue
		}
		if chance++; rand.IntN(chance) == 0 {
			out = r
		}
	}
	return out
}

// mayTake reports whether mine (nil: nobody yet) may have so much of the
// heaviest owner's place. Manifests are all in one pot: there the new displace
// the old.
func mayTake(mine, heaviest *owner, size int) bool {
	switch {
	case mine == heaviest:
		return mine.name == nsManifest
	case mine == nil:
		return heaviest.n > 1
	}
	return heaviest.weight() > mine.weight()+size+rowCost
}

// rowCost is about what a record takes beside its value.
const rowCost = 256

func (o *owner) weight() int { return o.bytes + o.n*rowCost }

func perOwner(kind int) int {
	if kind == kindProvider {
		return rowsPerPeer
	}
	return valuesPerSigner
}

func (p *part) full(kind, more int) bool {
	if kind == kindProvider {
		return p.n >= rowsMax
	}
	return p.n >= valuesMax || p.bytes+more > valueBytesMax
}

func parent(key string) string { return key[:strings.LastIndexByte(key, '/')] }

func (v *vault) add(r *row, who string) {
	p := &v.kinds[r.kind]
	o := p.owners[who]
	if o == nil {
		o = &owner{name: who}
		p.owners[who] = o
		heap.Push(&p.ranks, o)
	}
	r.owner, r.prev = o, o.last
	if o.last == nil {
		o.first = r
	} else {
		o.last.next = r
	}
	o.last = r
	v.count(r, 1)
	v.rows[r.key] = r
	if r.kind == kindProvider {
		at := parent(r.key)
		if v.under[at] == nil {
			v.under[at] = make(map[string]*row, 1)
		}
		v.under[at][r.key] = r
	}
}

func (v *vault) count(r *row, n int) {
	p := &v.kinds[r.kind]
	p.n += n
	p.bytes += n * len(r.value)
	r.owner.n += n
	r.owner.bytes += n * len(r.value)
	heap.Fix(&p.ranks, r.owner.rank)
}

func (v *vault) drop(r *row) {
	o := r.owner
	if r.prev == nil {
		o.first = r.next
	} else {
		r.prev.next = r.next
	}
	if r.next == nil {
		o.last = r.prev
	} else {
		r.next.prev = r.prev
	}
	v.count(r, -1)
	if p := &v.kinds[r.kind]; o.n == 0 {
		delete(p.owners, o.name)
		heap.Remove(&p.ranks, o.rank)
	}
	delete(v.rows, r.key)
	if r.kind == kindProvider {
		at := parent(r.key)
		delete(v.under[at], r.key)
		if len(v.under[at]) == 0 {
			delete(v.under, at)
		}
	}
}

// Delete implements ds.Write.
func (v *vault) Delete(_ context.Context, k ds.Key) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	if r := v.rows[k.String()]; r != nil {
		v.drop(r)
	}
	return nil
}

// Get implements ds.Read.
func (v *vault) Get(_ context.Context, k ds.Key) ([]byte, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if r := v.rows[k.String()]; r != nil {
		return r.value, nil
	}
	return nil, ds.ErrNotFound
}

// Has implements ds.Read.
func (v *vault) Has(ctx context.Context, k ds.Key) (bool, error) {
	_, err := v.Get(ctx, k)
	return err == nil, nil
}

// GetSize implements ds.Read.
func (v *vault) GetSize(ctx context.Context, k ds.Key) (int, error) {
	b, err := v.Get(ctx, k)
	return len(b), err
}

// Query implements ds.Read. The providers of one key, which is what servers
// are asked for, are found without a walk.
func (v *vault) Query(_ context.Context, q dsq.Query) (dsq.Results, error) {
	prefix := strings.TrimSuffix(q.Prefix, "/")
	var out []dsq.Entry
	v.mu.Lock()
	in := v.rows
	if strings.Count(prefix, "/") == 2 {
		in = v.under[prefix]
	}
	for key, r := range in {
		if strings.HasPrefix(key, prefix+"/") {
			out = append(out, dsq.Entry{Key: key, Value: r.value, Size: len(r.value)})
		}
	}
	v.mu.Unlock()
	return dsq.ResultsWithEntries(q, out), nil
}

// Sync implements ds.Datastore.
func (v *vault) Sync(context.Context, ds.Key) error { return nil }

// Close implements io.Closer.
func (v *vault) Close() error { return nil }

// Batch implements ds.Batching.
func (v *vault) Batch(context.Context) (ds.Batch, error) { return ds.NewBasicBatch(v), nil }

// value returns what is kept under the record key, or nil.
func (v *vault) value(key string) []byte {
	ns, _, _ := strings.Cut(key[1:], "/")
	enc := base32.StdEncoding.WithPadding(base32.NoPadding).EncodeToString([]byte(key))
	b, err := v.Get(context.Background(), ds.RawKey("/"+ns+"/"+enc))
	if err != nil {
		return nil
	}
	var r recpb.Record
	if proto.Unmarshal(b, &r) != nil || string(r.GetKey()) != key {
		return nil
	}
	return r.GetValue()
}

// counts returns how many provider records and values there are, and the bytes
// of the values.
func (v *vault) counts() (rows, values, bytes int) {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.kinds[kindProvider].n, v.kinds[kindValue].n, v.kinds[kindValue].bytes
}

// vaultMagic opens the file of a vault.
const vaultMagic = "svc-index dht records 1\n"

// save writes all records to path: the magic, then length and bytes of each
// key and value, then the BLAKE3 of it all.
func (v *vault) save(path string) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(path), ".records-*")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name()) // gone by then if all went well
	if err = errors.Join(v.write(f), f.Sync(), f.Close()); err != nil {
		return err
	}
	return durable.Rename(f.Name(), path)
}

// write writes what there is now. A disk that hangs must not hold up those who
// ask, so nothing is written under the lock: a record never changes, it is only
// replaced.
func (v *vault) write(f io.Writer) error {
	v.mu.Lock()
	rows := make([]*row, 0, len(v.rows))
	for _, r := range v.rows {
		rows = append(rows, r)
	}
	v.mu.Unlock()
	h := index.NewHash()
	w := bufio.NewWriterSize(io.MultiWriter(f, h), 256<<10)
	_, _ = w.WriteString(vaultMagic)
	for _, r := range rows {
		var n [2 * binary.MaxVarintLen64]byte
		b := binary.AppendUvarint(binary.AppendUvarint(n[:0], uint64(len(r.key))), uint64(len(r.value)))
		_, _ = w.Write(b)
		_, _ = w.WriteString(r.key)
		_, _ = w.Write(r.value)
	}
	err := w.Flush()
	_, sumErr := f.Write(h.Sum(nil))
	return errors.Join(err, sumErr)
}

// load reads what save wrote. A file that is not whole is left out: the network
// will tell us again.
func (v *vault) load(path string) error {
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	at := len(b) - len(index.CID{})
	if at < len(vaultMagic) || string(b[:len(vaultMagic)]) != vaultMagic || index.Sum(b[:at]) != index.CID(b[at:]) {
		return fmt.Errorf("%s is damaged and is left out; the network will tell us again", path)
	}
	for b = b[len(vaultMagic):at]; len(b) > 0; {
		k, i := binary.Uvarint(b)
		n, j := binary.Uvarint(b[max(i, 0):])
		if i <= 0 || j <= 0 || k+n > uint64(len(b)-i-j) {
			return fmt.Errorf("%s is not in the form this version writes; it is left out", path)
		}
		b = b[i+j:]
		_ = v.put(string(b[:k]), b[k:k+n]) // what no longer fits is left out
		b = b[k+n:]
	}
	return nil
}
