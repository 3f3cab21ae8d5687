package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"svcindex/config"
	"svcindex/index"
	"svcindex/loadgen"
	"svcindex/stages/leveldb"
)

// fillBatch is how many records share one commit, and one sync, offline.
const fillBatch = 2000

// fillOffline puts the keys into the database of a server that does not run.
// The records are those that fill would send.
func (o *loadOptions) fillOffline(ctx context.Context) error {
	weights, err := parseMix(o.mix)
	if err != nil {
		return err
	}
	if o.prepare < 1 || o.prepare > loadMax {
		return usagef("--prepare takes 1 to %s keys, not %d", commas(loadMax), o.prepare)
	}
	dir := cmp.Or(o.data, os.Getenv(envData), defaultData)
	cfg, err := config.Load(config.Input{Env: os.Environ(), Set: []string{"data_dir=" + dir}})
	if err != nil {
		return exitError{exitUsage, err}
	}
	if err := os.MkdirAll(cfg.DataDir, 0o700); err != nil {
		return fmt.Errorf("--data: %w", err)
	}
	db, err := leveldb.Open(leveldb.Options{Path: cfg.DBPath(), Sync: true, MinFree: int64(cfg.DB.MinFree)})
	if err != nil {
		return fmt.Errorf("%w; with --offline the server must not run", err)
	}
	begun := time.Now()
	err = o.commitAll(ctx, db, weights)
	if err := errors.Join(err, db.Close()); err != nil {
		return err
	}
	fmt.Fprintf(o.stderr, "prepared %s keys in %s in %v\n", commas(int64(o.prepare)), cfg.DBPath(), time.Since(begun).Round(10*time.Millisecond))
	return nil
}

// commitAll writes all keys, a batch at a time.
func (o *loadOptions) commitAll(ctx context.Context, w index.Writer, weights map[string]float64) error {
	show := o.shower()
	defer show.end()
	names := loadgen.Numbered{Prefix: loadNames, N: o.prepare}
	var batch []*index.Mutation
	for i := range o.prepare {
		of, err := records(names, i, weights)
		if err != nil {
			return err
		}
		batch = append(batch, of...)
		if len(batch) < fillBatch && i+1 < o.prepare {
			continue
		}
		if ctx.Err() != nil {
			return errors.New("interrupted: what was put in stays; run it again for the rest")
		}
		if err := commitBatch(w, batch); err != nil {
			return fmt.Errorf("preparing key %d: %w", i, err)
		}
		batch = batch[:0]
		show.line(fmt.Sprintf("preparing: %s of %s", commas(int64(i+1)), commas(int64(o.prepare))))
	}
	return nil
}

func commitBatch(w index.Writer, batch []*index.Mutation) error {
	if err := w.Commit(batch); err != nil {
		return err
	}
	for _, m := range batch {
		// A conflict is there already: a run with writes has been here before.
		if m.Err != nil && index.KindOf(m.Err) != index.Conflict {
			return m.Err
		}
	}
	return nil
}

// records are what the database holds of key i: its name always, its manifest
// and its provider if the mix will ask for them.
func records(names loadgen.Keyset, i int, weights map[string]float64) ([]*index.Mutation, error) {
	content := contentOf(nil, i)
	cid := index.Sum(content)
	name, err := index.ParseKey(names.Append(nil, i))
	if err != nil {
		return nil, err
	}
	out := []*index.Mutation{{Op: index.PutName, Key: name, Name: index.NameRecord{CID: cid, Seq: 1}}}
	if weights["manifests"] > 0 {
		out = append(out, &index.Mutation{Op: index.PutManifest, Key: index.CIDKey(cid), Manifest: content})
	}
	if weights["providers"] > 0 {
		now := time.Now().Unix()
		out = append(out, &index.Mutation{Op: index.PutProviders, Key: index.CIDKey(cid), Providers: []index.Provider{
			{ID: loadProvider, Addr: loadAddr, Region: loadRegion, LastSeen: now, Expires: now + index.TTLMax},
		}})
	}
	return out, nil
}
