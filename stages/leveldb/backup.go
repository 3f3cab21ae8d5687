package leveldb

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/syndtr/goleveldb/leveldb/opt"
	"github.com/syndtr/goleveldb/leveldb/util"

	"svcindex/durable"
	"svcindex/index"
)

// A backup is a head line, rows as length, key, length, value (with its digest,
// as in the store), a length of 0, the number of rows, and the BLAKE3 of all
// that. What is cut short, changed or mixed up shows.
const (
	backupHead = "svc-index backup 1\n"

	stepRows    = 1024 // rows read in one go
	stepBytes   = 1 << 20
	keyMost     = 1 << 10
	restoreRows = 1000 // rows of a batch
	valueMost   = index.ManifestMax + 1<<10
)

// Backup writes the store as it is at one moment, while it goes on. A snapshot
// holds the moment; rows are read in steps, and between them nothing is held
// that keeps the store from healing: a backup that meets that fails. Every row
// is held to its digest.
func (d *DB) Backup(ctx context.Context, w io.Writer) (rows uint64, err error) {
	e := d.use()
	if e == nil {
		return 0, errAway
	}
	snap, err := e.db.GetSnapshot()
	e.mu.RUnlock()
	if err != nil {
		return 0, readError(err)
	}
	defer snap.Release()
	out := &backupWriter{w: w, sum: index.NewHash()}
	out.write([]byte(backupHead))
	var from []byte
	for more := true; more && out.err == nil; {
		if err := ctx.Err(); err != nil {
			return out.rows, err
		}
		out.buf = out.buf[:0]
		if d.engine.Load() != e || !e.mu.TryRLock() {
			return out.rows, errAway
		}
		it := snap.NewIterator(&util.Range{Start: from}, &opt.ReadOptions{DontFillCache: true})
		n := 0
		for n < stepRows && len(out.buf) < stepBytes && it.Next() {
			n++
			if _, sound := unframe(it.Key(), it.Value()); !sound {
				err = fmt.Errorf("leveldb: row %s does not match its digest: nothing that holds it is a backup; put it again, or see svc-index db verify: %w", show(it.Key()), index.Broken)
				break
			}
			out.row(it.Key(), it.Value())
			from = append(append(from[:0], it.Key()...), 0)
		}
		more = n > 0
		if err == nil {
			err = it.Error()
		}
		it.Release()
		e.mu.RUnlock()
		if err != nil {
			return out.rows, err
		}
		out.write(out.buf)
	}
	return out.rows, out.end()
}

type backupWriter struct {
	w    io.Writer
	sum  hash.Hash
	buf  []byte
	rows uint64
	err  error
}

func (b *backupWriter) row(key, value []byte) {
	b.buf = append(binary.AppendUvarint(b.buf, uint64(len(key))), key...)
	b.buf = append(binary.AppendUvarint(b.buf, uint64(len(value))), value...)
	b.rows++
}

func (b *backupWriter) write(p []byte) {
	if b.err == nil {
		_, _ = b.sum.Write(p)
		_, b.err = b.w.Write(p)
	}
}

func (b *backupWriter) end() error {
	b.write(binary.LittleEndian.AppendUint64([]byte{0}, b.rows))
	if b.err == nil {
		_, b.err = b.w.Write(b.sum.Sum(nil))
	}
	return b.err
}

func notBackup(what string) error {
	return fmt.Errorf("this is no whole backup: %s: %w", what, index.Broken)
}

// ReadBackup reads a backup to its end and shows each row, whose digest
// matched, to f, which may be nil. Only without an error was all of it whole.
func ReadBackup(ctx context.Context, r io.Reader, f func(key, value []byte) error) (rows uint64, err error) {
	in := &summed{r: bufio.NewReaderSize(r, 1<<20), sum: index.NewHash()}
	head := make([]byte, len(backupHead))
	if in.full(head); in.err != nil || string(head) != backupHead {
		return 0, notBackup("it does not begin with " + backupHead[:len(backupHead)-1])
	}
	key, value := []byte{}, []byte{}
	for {
		if rows%stepRows == 0 && ctx.Err() != nil {
			return rows, ctx.Err()
		}
		key = in.piece(key, keyMost)
		if in.err == nil && len(key) == 0 {
			return rows, in.end(rows)
		}
		value = in.piece(value, valueMost)
		if in.err != nil {
			return rows, notBackup(fmt.Sprintf("it breaks off after %d rows: %v", rows, in.err))
		}
		if _, sound := unframe(key, value); !sound {
			return rows, notBackup("row " + show(key) + " does not match its digest")
		}
		rows++
		if f != nil {
			if err := f(key, value); err != nil {
				return rows, err
			}
		}
	}
}

// summed reads, and hashes what it has read. After the first error all is
// empty.
type summed struct {
	r   *bufio.Reader
	sum hash.Hash
	err error
}

func (s *summed) full(b []byte) {
	if s.err == nil {
		if _, s.err = io.ReadFull(s.r, b); s.err == nil {
			_, _ = s.sum.Write(b)
		}
	}
}

// ReadByte implements io.ByteReader.
func (s *summed) ReadByte() (byte, error) {
	c, err := s.r.ReadByte()
	if err == nil {
		_, _ = s.sum.Write([]byte{c})
	}
	return c, err
}

func (s *summed) piece(b []byte, most int) []byte {
	if s.err != nil {
		return nil
	}
	n, err := binary.ReadUvarint(s)
	if err != nil || n > uint64(most) {
		s.err = errors.Join(err, io.ErrUnexpectedEOF)
		return nil
	}
	if uint64(cap(b)) < n {
		b = make([]byte, n)
	}
	b = b[:n]
	s.full(b)
	return b
}

func (s *summed) end(rows uint64) error {
	var n [8]byte
	s.full(n[:])
	want := s.sum.Sum(nil)
	got := make([]byte, len(want))
	if s.err == nil {
		_, s.err = io.ReadFull(s.r, got)
	}
	switch {
	case s.err != nil:
		return notBackup("its end is missing")
	case binary.LittleEndian.Uint64(n[:]) != rows:
		return notBackup(fmt.Sprintf("it has %d rows and says %d", rows, binary.LittleEndian.Uint64(n[:])))
	case !bytes.Equal(got, want):
		return notBackup("it does not match its digest")
	}
	if _, err := s.r.ReadByte(); err != io.EOF {
		return notBackup("something follows its end")
	}
	return nil
}

// Restore makes a store at path from a backup. There must be none: it replaces
// nothing. What it has read so far stands beside path until all of it was found
// whole; then it takes its place. A store believes what it holds, and a backup
// has no seal: vouch, which may be nil, says whether the signature of a signed
// name is good.
func Restore(ctx context.Context, path string, r io.Reader, vouch Vouch) (Report, error) {
	return restore(ctx, Options{Path: path}, r, vouch)
}

// A Vouch returns why a signed record is not one of its name.
type Vouch func(name *index.Key, r *index.NameRecord) error

func restore(ctx context.Context, o Options, r io.Reader, vouch Vouch) (Report, error) {
	path := filepath.Clean(o.Path)
	if names, err := os.ReadDir(path); err == nil && len(names) > 0 {
		return Report{}, fmt.Errorf("leveldb: %s is not empty, and a restore replaces nothing: choose another directory or move it away: %w", path, index.Invalid)
	} else if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return Report{}, err
	}
	draft := path + ".restoring"
	o.Path = draft
	if _, err := os.Lstat(draft); err == nil {
		return Report{}, fmt.Errorf("leveldb: %s is there, of a restore that did not end or still runs: remove it first: %w", draft, index.Invalid)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return Report{}, err
	}
	if err := restoreTo(ctx, o, r, vouch); err != nil {
		return Report{}, errors.Join(err, os.RemoveAll(draft))
	}
	report, err := Verify(ctx, draft, nil)
	if err == nil && !report.Sound() {
		err = fmt.Errorf("leveldb: what was restored is not sound: %s: %w", report.Findings[0], index.Broken)
	}
	if err != nil {
		return report, errors.Join(err, os.RemoveAll(draft))
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return report, err
	}
	return report, durable.Rename(draft, path)
}

func restoreTo(ctx context.Context, o Options, r io.Reader, vouch Vouch) (err error) {
	d, err := newDB(o)
	if err != nil {
		return err
	}
	e, t, err := d.openEngine(false)
	if err != nil {
		return err
	}
	if err := d.adopt(e, t); err != nil { // no writer runs: this goroutine is it
		return errors.Join(err, e.retire(nil))
	}
	re := restorer{db: d, vouch: vouch}
	re.begin()
	if _, err = ReadBackup(ctx, r, re.row); err == nil {
		err = re.end()
	}
	if err != nil {
		return errors.Join(err, e.retire(nil))
	}
	return e.retire(d.markClosed)
}

type restorer struct {
	db    *DB
	vouch Vouch
	txn   *txn
	tally tally
	bytes int
}

func (r *restorer) row(key, value []byte) error {
	payload, _ := unframe(key, value)
	switch string(key) {
	case keyFormat:
		if len(payload) != 1 || payload[0] < formatMin || payload[0] > format {
			return fmt.Errorf("leveldb: the backup has format %v, this program knows %d to %d: use the program that wrote it: %w", payload, formatMin, format, index.Invalid)
		}
		return nil
	case keyBatch:
		var ok bool
		if r.tally, ok = parseTally(payload); !ok {
			return notBackup("what it says it holds cannot be read")
		}
		return nil
	case keyCanary:
		return nil
	case keyAudit:
		m, ok := parseMark(payload)
		if !ok {
			return notBackup("how far its audit goes cannot be read")
		}
		r.txn.mark = m
		r.db.auditMark.Store(&m)
	}
	if key[0] == rowName && r.vouch != nil {
		if err := r.signed(key, payload); err != nil {
			return err
		}
	}
	r.txn.put(key, payload)
	r.bytes += len(value)
	if len(r.txn.ops) < restoreRows && r.bytes < stepBytes {
		return nil
	}
	r.bytes = 0
	if err := r.flush(); err != nil {
		return err
	}
	r.begin()
	return nil
}

// signed holds a signed name to its signature.
func (r *restorer) signed(key, payload []byte) error {
	n, ok := parseName(payload)
	if !ok || len(n.PubKey) == 0 && len(n.Sig) == 0 {
		return nil // what is of no known shape is found when all is verified
	}
	name, err := index.ParseKey(append([]byte("name:"), key[1:]...))
	if err == nil {
		err = r.vouch(&name, &n)
	}
	if err != nil {
		return fmt.Errorf("leveldb: %s in the backup: %w; no server wrote that: use another backup: %w", show(key), err, index.Invalid)
	}
	return nil
}

func (r *restorer) begin() {
	r.txn = new(txn)
	r.txn.begin(r.db.engine.Load(), nil, *r.db.tally.Load(), *r.db.auditMark.Load())
}

func (r *restorer) flush() error {
	r.txn.seal()
	return r.db.flush(r.txn)
}

// end writes what is left, with what the store holds in all, and syncs it.
func (r *restorer) end() error {
	if r.tally.Batch == 0 {
		return notBackup("it does not say what it holds")
	}
	last := r.txn.tally.Batch
	r.txn.tally = r.tally
	r.txn.tally.Batch = last
	r.txn.put([]byte(keyCanary), []byte("restored"))
	r.db.opt.Sync = true
	return r.flush()
}
