package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"svcindex/auth"
	"svcindex/durable"
	"svcindex/index"
	"svcindex/stages/leveldb"
)

const dbBackupLong = `Backup writes the database of a running server, as it is at one moment, into one
file, while the server goes on. It asks the admin listener, with a capability of
index.admin that it mints from the data directory, and checks every record and
the whole as they arrive: a file that is there is a backup.

With --offline it reads the database of a server that does not run.

The keys are not in it: copy root.keys and identity.key apart, and the audit's
files too.`

// backupOptions are the flags of db backup.
type backupOptions struct {
	settings
	out, url, token string
	offline         bool
}

func dbBackupCmd() *cobra.Command {
	var o backupOptions
	cmd := &cobra.Command{
		Use:     "backup --out FILE",
		Short:   "Write the database of a running server into one file",
		Long:    dbBackupLong,
		Example: "  svc-index db backup --out /var/backups/svc-index-$(date +%F).bak\n  svc-index db verify --backup FILE\n  svc-index db restore FILE --data NEWDIR",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx, stop := interruptible(cmd)
			defer stop()
			return o.backup(ctx, cmd.OutOrStdout())
		},
	}
	o.flags(cmd)
	f := cmd.Flags()
	f.StringVar(&o.out, "out", "", "`FILE` to write; there must be none (required)")
	f.StringVar(&o.url, "admin-url", "", "`URL` of the admin listener (default that of the configuration)")
	f.StringVar(&o.token, "token", "", "capability with index.admin (default $"+envToken+", else minted with the root keys)")
	f.BoolVar(&o.offline, "offline", false, "read the database of a server that does not run")
	return strict(cmd)
}

func (o *backupOptions) backup(ctx context.Context, out io.Writer) error {
	if o.out == "" {
		return usagef("db backup wants --out FILE")
	}
	if _, err := os.Lstat(o.out); err == nil {
		return fmt.Errorf("%s is there already, and a backup replaces nothing: choose another --out", o.out)
	}
	began := time.Now()
	from := o.online
	if o.offline {
		from = o.stopped
	}
	rows, size, err := writeBackup(o.out, func(w io.Writer) error { return from(ctx, w) })
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "%s rows, %s bytes in %v: %s\n", commas(int64(rows)), commas(size), time.Since(began).Round(time.Millisecond), o.out)
	return nil
}

// writeBackup puts what from writes at path, if it is a whole backup.
func writeBackup(path string, from func(io.Writer) error) (rows uint64, size int64, err error) {
	// A file of our own: one that lies there may be another's, or a link.
	f, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".partial*")
	if err != nil {
		return 0, 0, err
	}
	defer func() {
		err = errors.Join(err, f.Close())
		if err != nil {
			_ = os.Remove(f.Name())
		}
	}()
	if err := from(f); err != nil {
		return 0, 0, err
	}
	if size, err = f.Seek(0, io.SeekStart); err != nil {
		return 0, 0, err
	}
	if rows, err = leveldb.ReadBackup(context.Background(), f, nil); err != nil {
		return 0, 0, err
	}
	if size, err = f.Seek(0, io.SeekEnd); err != nil {
		return 0, 0, err
	}
	if err := f.Sync(); err != nil {
		return 0, 0, err
	}
	return rows, size, durable.Rename(f.Name(), path)
}

// online asks the admin listener of a running server.
func (o *backupOptions) online(ctx context.Context, w io.Writer) error {
	cfg, err := o.load()
	if err != nil {
		return err
	}
	token := cmp.Or(o.token, os.Getenv(envToken))
	if token == "" {
		m, err := newMinter(cfg.KeysPath(), cfg.DataDir, auth.Wish{
			Scope: index.ScopeAdmin, Life: auth.LifeDefault, Methods: []index.Method{index.MethodGet}, Paths: []string{"/backup"},
		})
		if err != nil {
			return fmt.Errorf("%w; --data says where the server's data is, or give --token", err)
		}
		token = m.last
	}
	url := cmp.Or(o.url, "http://"+cfg.Admin)
	req, err := http.NewRequestWithContext(ctx, "GET", url+"/backup", nil)
	if err != nil {
		return usagef("--admin-url: %w", err)
	}
	req.Header.Set("Authorization", "Bearer "+token)
	resp, err := adminClient().Do(req)
	if err != nil {
		return fmt.Errorf("%w; is the server running? --offline reads the database of one that is not", err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		why, _ := io.ReadAll(io.LimitReader(resp.Body, 4<<10))
		return fmt.Errorf("%s/backup: %s: %s", url, resp.Status, printable(string(why)))
	}
	if _, err := io.Copy(w, resp.Body); err != nil {
		return fmt.Errorf("the server broke off (%w): its log says why", err)
	}
	return nil
}

// stopped reads the database of a server that does not run.
func (o *backupOptions) stopped(ctx context.Context, w io.Writer) error {
	cfg, err := o.load()
	if err != nil {
		return err
	}
	if _, err := os.Stat(filepath.Join(cfg.DBPath(), "CURRENT")); err != nil {
		return fmt.Errorf("%s holds no database: --data says where it is", cfg.DBPath())
	}
	d, err := leveldb.Open(leveldb.Options{Path: cfg.DBPath(), Sync: true})
	if err != nil {
		return err
	}
	_, err = d.Backup(ctx, w)
	return errors.Join(err, d.Close())
}

func dbRestoreCmd() *cobra.Command {
	var s settings
	cmd := &cobra.Command{
		Use:   "restore FILE",
		Short: "Make a database from a backup, in a data directory that has none",
		Long: `Restore makes a database from a backup. It replaces nothing: the data directory
must have no database. Every record, every signature of a name and the whole are
checked before it takes its place. Copy identity.key and root.keys into the directory to go on as the
same node; without them the server makes new ones.`,
		Args: oneArg("backup file"),
		RunE: func(cmd *cobra.Command, args []string) error {
			cfg, err := s.load()
			if err != nil {
				return err
			}
			f, err := os.Open(args[0])
			if err != nil {
				return err
			}
			defer f.Close()
			ctx, stop := interruptible(cmd)
			defer stop()
			r, err := leveldb.Restore(ctx, cfg.DBPath(), f, auth.VerifyName)
			if err != nil {
				return err
			}
			fmt.Fprintf(cmd.OutOrStdout(), "%s rows, %s manifests restored into %s\n", commas(int64(r.Rows)), commas(int64(r.Manifests)), cfg.DBPath())
			return nil
		},
	}
	s.flags(cmd)
	return strict(cmd)
}

// verifyBackup reads a backup and restores nothing.
func verifyBackup(cmd *cobra.Command, path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	ctx, stop := interruptible(cmd)
	defer stop()
	rows, err := leveldb.ReadBackup(ctx, f, nil)
	if err != nil {
		return err
	}
	fmt.Fprintf(cmd.OutOrStdout(), "%s rows, each as its digest says\nsound\n", commas(int64(rows)))
	return nil
}
