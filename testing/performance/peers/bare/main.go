// Command bare is goleveldb without a server: what its reads and its synced
// batches cost alone, on the rows that a server has written.
package main

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"time"

	"github.com/syndtr/goleveldb/leveldb"
	"github.com/syndtr/goleveldb/leveldb/filter"
	"github.com/syndtr/goleveldb/leveldb/opt"
	"golang.org/x/sys/unix"
)

// options are those of stages/leveldb. A difference here would be a difference
// in the figures.
func options(readOnly bool) *opt.Options {
	return &opt.Options{
		Filter: filter.NewBloomFilter(10), BlockCacheCapacity: 32 << 20, OpenFilesCacheCapacity: 64,
		WriteBuffer: 8 << 20, CompactionTableSize: 8 << 20, Compression: opt.SnappyCompression,
		DisableLargeBatchTransaction: true, NoWriteMerge: true, DisableSeeksCompaction: true,
		ReadOnly: readOnly, ErrorIfMissing: readOnly,
	}
}

// A Result is what a loop has done.
type Result struct {
	Ops     int64   `json:"ops"`
	Seconds float64 `json:"seconds"`
	CPU     float64 `json:"cpu_seconds"`
}

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "bare:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	if len(args) == 0 {
		return errors.New("usage: bare get|put|count [flags]")
	}
	f := flag.NewFlagSet(args[0], flag.ContinueOnError)
	db := f.String("db", "", "directory of the database to read")
	keys := f.Int("keys", 1_000_000, "names load/00000000 and on in it")
	hint := f.Bool("hint", false, "look for the providers of each name as well, as a resolve does")
	warm := f.Duration("warm", time.Second, "before the measured time")
	span := f.Duration("for", 3*time.Second, "the measured time")
	to := f.String("to", "", "directory of the database to write")
	rows := f.Float64("rows", 1, "rows in a batch, on average")
	if err := f.Parse(args[1:]); err != nil {
		return err
	}
	var r Result
	var err error
	switch args[0] {
	case "get":
		r, err = get(*db, *keys, *hint, *warm, *span)
	case "count":
		var all [][2][]byte
		all, err = rowsOf(*db)
		r.Ops = int64(len(all))
	case "put":
		r, err = put(*db, *to, *rows)
	default:
		err = fmt.Errorf("there is no %q", args[0])
	}
	if err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(r)
}

// meter measures f.
func meter(f func() (int64, error)) (r Result, err error) {
	from, cpu := time.Now(), used()
	r.Ops, err = f()
	r.Seconds, r.CPU = time.Since(from).Seconds(), (used() - cpu).Seconds()
	return r, err
}

func used() time.Duration {
	var u unix.Rusage
	_ = unix.Getrusage(unix.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// Where a name's row has the content id it points to: after a version, a
// digest and flags.
const cidAt, cidLen = 1 + 16 + 1, 32

// get reads names at random.
func get(dir string, keys int, hint bool, warm, span time.Duration) (Result, error) {
	db, err := leveldb.OpenFile(dir, options(true))
	if err != nil {
		return Result{}, fmt.Errorf("%s: %w", dir, err)
	}
	defer db.Close()
	r := rand.New(rand.NewPCG(1, 1))
	key, set := make([]byte, 0, 64), make([]byte, 0, 64)
	loop := func(d time.Duration) (n int64, err error) {
		for end := time.Now().Add(d); ; n++ {
			if n%64 == 0 && time.Now().After(end) {
				return n, nil
			}
			key = fmt.Appendf(key[:0], "nload/%08d", r.IntN(keys))
			v, err := db.Get(key, nil)
			if err != nil {
				return n, fmt.Errorf("%s: %w", key, err)
			}
			if hint {
				set = append(append(set[:0], 'p'), v[cidAt:cidAt+cidLen]...)
				if _, err := db.Get(set, nil); err != nil && !errors.Is(err, leveldb.ErrNotFound) {
					return n, err
				}
			}
		}
	}
	if _, err := loop(warm); err != nil {
		return Result{}, err
	}
	return meter(func() (int64, error) { return loop(span) })
}

// put writes the rows of one database into another, in random order and in
// synced batches.
func put(from, to string, perBatch float64) (Result, error) {
	rows, err := rowsOf(from)
	if err != nil {
		return Result{}, err
	}
	db, err := leveldb.OpenFile(to, options(false))
	if err != nil {
		return Result{}, fmt.Errorf("%s: %w", to, err)
	}
	defer db.Close()
	rand.New(rand.NewPCG(1, 1)).Shuffle(len(rows), func(i, j int) { rows[i], rows[j] = rows[j], rows[i] })
	return meter(func() (int64, error) {
		var b leveldb.Batch
		due := 0.
		for i, r := range rows {
			b.Put(r[0], r[1])
			if float64(b.Len()) < due+perBatch && i < len(rows)-1 {
				continue
			}
			due += perBatch - float64(b.Len()) // what a whole number of rows is short of the mean
			if err := db.Write(&b, &opt.WriteOptions{Sync: true, NoWriteMerge: true}); err != nil {
				return int64(i), err
			}
			b.Reset()
		}
		return int64(len(rows)), nil
	})
}

// rowsOf returns the rows of a database but for the store's own.
func rowsOf(dir string) (rows [][2][]byte, err error) {
	db, err := leveldb.OpenFile(dir, options(true))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", dir, err)
	}
	defer db.Close()
	it := db.NewIterator(nil, nil)
	defer it.Release()
	for it.Next() {
		if k := it.Key(); k[0] != '!' {
			rows = append(rows, [2][]byte{append([]byte(nil), k...), append([]byte(nil), it.Value()...)})
		}
	}
	return rows, it.Error()
}
