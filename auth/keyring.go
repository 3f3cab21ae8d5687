package auth

import (
	"bytes"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

const (
	// KeysFile is where the root keys are when nobody chose another place.
	KeysFile = "root.keys"

	keyBytes   = 32
	keyIDBytes = 5
	keysMost   = 2    // live at once: the one that signs, and the one before it
	revokedMax = 2048 // capabilities revoked before their time; secretMax fits them all

	// RotateGrace is how long a new key waits before it signs, so that every
	// server has it when the first capability under it is shown.
	RotateGrace = 10 * time.Second
	// rotateCalm is how soon a key may be rotated again: the one before it is
	// dropped then, and ordinary capabilities under it must have ended.
	rotateCalm = LifeDefault + time.Minute

	watchEvery = time.Second
)

const keysNote = "# Root keys of svc-index. Whoever reads this can do everything: mode 0600, never copied.\n" +
	"# The newest key whose time has come signs, both are believed. Edited by: svc-index token rotate|revoke\n"

// A rootKey signs capabilities from a time on.
type rootKey struct {
	id     string
	from   time.Time
	secret []byte
}

// keys are what a file of root keys says. Never changed once read.
type keys struct {
	live    []rootKey            // oldest first
	revoked map[string]time.Time // id of a capability -> when it would have ended
}

// A Keyring holds the root keys of a node, as its file had them last.
type Keyring struct {
	path string
	now  atomic.Pointer[keys]

	Reloads, Faults atomic.Uint64 // readings of the file that changed something, and that failed

	mu sync.Mutex // protects the fields below
	// changed is told after the keys have changed.
	changed []func()
	seen    fileMark

	quit chan struct{}
	busy sync.WaitGroup
}

// A fileMark tells one state of a file from the next without reading it.
type fileMark struct {
	inode uint64
	size  int64
	mtime time.Time
}

// OpenKeyring reads the root keys at path. With create, the first call makes
// the file; without, a file that is not there is fs.ErrNotExist.
func OpenKeyring(path string, create bool) (*Keyring, error) {
	if create {
		if _, err := os.Lstat(path); errors.Is(err, fs.ErrNotExist) {
			if err := createKeys(path); err != nil && !errors.Is(err, fs.ErrExist) {
				return nil, fmt.Errorf("the root keys: %w", err)
			}
		}
	}
	k := &Keyring{path: path, quit: make(chan struct{})}
	k.seen = markOf(path)
	now, err := readKeys(path)
	if err != nil {
		return nil, fmt.Errorf("the root keys: %w", err)
	}
	k.now.Store(now)
	return k, nil
}

func createKeys(path string) error {
	key, err := newRootKey(time.Now())
	if err != nil {
		return err
	}
	return createSecret(path, (&keys{live: []rootKey{key}}).text())
}

func newRootKey(from time.Time) (rootKey, error) {
	var b [keyIDBytes + keyBytes]byte
	if _, err := rand.Read(b[:]); err != nil {
		return rootKey{}, err
	}
	return rootKey{id: idText(b[:keyIDBytes]), from: from.UTC().Truncate(time.Second), secret: b[keyIDBytes:]}, nil
}

const idDigits = "0123456789abcdefghjkmnpqrstvwxyz"

// idText writes an id so that people can read it out: five bits a letter.
func idText(b []byte) string { return base32ids.EncodeToString(b) }

// Reload reads the file again. A file that is not sound changes nothing.
func (k *Keyring) Reload() error {
	k.mu.Lock()
	defer k.mu.Unlock()
	mark := markOf(k.path)
	now, err := readKeys(k.path)
	k.seen = mark
	if err != nil {
		// To be tried again: what a file lacked may have been its mode or its
		// owner, and of neither its mark tells; or it was ours, a descriptor.
		k.seen = fileMark{}
		k.Faults.Add(1)
		return fmt.Errorf("the root keys stay as they were: %w", err)
	}
	if now.same(k.now.Load()) {
		return nil
	}
	k.now.Store(now)
	k.Reloads.Add(1)
	for _, f := range k.changed {
		f()
	}
	return nil
}

// OnChange has f called whenever the keys were read anew.
func (k *Keyring) OnChange(f func()) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.changed = append(k.changed, f)
}

// Watch reloads whenever the file changes, until Close.
func (k *Keyring) Watch(log *slog.Logger) {
	k.busy.Go(func() {
		tick := time.NewTicker(watchEvery)
		defer tick.Stop()
		said := "" // the fault that was logged last
		for {
			select {
			case <-k.quit:
				return
			case <-tick.C:
			}
			if !k.stale() {
				continue
			}
			if err := k.Reload(); err != nil {
				if said != err.Error() {
					said = err.Error()
					log.Error("root keys not reloaded", "err", err)
				}
			} else {
				said = ""
				log.Info("root keys reloaded", "live", len(k.now.Load().live), "revoked", len(k.now.Load().revoked))
			}
		}
	})
}

// stale reports whether the file is another than the one that was read.
func (k *Keyring) stale() bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return markOf(k.path) != k.seen
}

// Close ends Watch.
func (k *Keyring) Close() {
	close(k.quit)
	k.busy.Wait()
}

func markOf(path string) (m fileMark) {
	fi, err := os.Stat(path)
	if err != nil {
		return m
	}
	m.size, m.mtime = fi.Size(), fi.ModTime()
	if st, ok := fi.Sys().(*syscall.Stat_t); ok {
		m.inode = st.Ino
	}
	return m
}

// same reports whether k says what o says.
func (k *keys) same(o *keys) bool {
	return maps.EqualFunc(k.revoked, o.revoked, time.Time.Equal) &&
		slices.EqualFunc(k.live, o.live, func(a, b rootKey) bool {
			return a.id == b.id && a.from.Equal(b.from) && bytes.Equal(a.secret, b.secret)
		})
}

// key returns the key with an id, nil when none has it.
func (k *keys) key(id string) *rootKey {
	for i := range k.live {
		if k.live[i].id == id {
			return &k.live[i]
		}
	}
	return nil
}

// signer returns the newest key whose time has come; before all times, the
// first there is.
func (k *keys) signer(now time.Time) *rootKey {
	best := &k.live[0]
	for i := range k.live {
		if !k.live[i].from.After(now) {
			best = &k.live[i]
		}
	}
	return best
}

// Rotate puts a new key into the file at path, which will sign after grace; of
// the old ones only the last stays. It names what was dropped. Without force it
// refuses when the last rotation is so near that capabilities under the key to
// be dropped may still be in use.
func Rotate(path string, now time.Time, grace time.Duration, force bool) (added, dropped string, err error) {
	err = edit(path, func(k *keys) error {
		last := k.live[len(k.live)-1]
		if age := now.Sub(last.from); len(k.live) == keysMost && age < rotateCalm && !force {
			return fmt.Errorf("key %s signs since %v only: capabilities of %s, which another rotation would drop, may be in use; wait until it is %v old, or say --force",
				last.id, age.Round(time.Second), k.live[0].id, rotateCalm)
		}
		key, err := newRootKey(now.Add(grace + time.Second - 1))
		if err != nil {
			return err
		}
		if len(k.live) == keysMost {
			dropped = k.live[0].id
			k.live = k.live[1:]
		}
		for i := range k.live {
			if k.live[i].from.After(key.from) { // it was made while the clock was ahead
				k.live[i].from = key.from
			}
		}
		k.live = append(k.live, key)
		added = key.id
		return nil
	})
	return added, dropped, err
}

// Revoke puts the id of a capability on the list of those that end before
// their time, until when it would have ended by itself.
func Revoke(path, id string, now, until time.Time) error {
	if _, _, ok := cutID(id); !ok {
		return fmt.Errorf("%q is not the id of a capability: svc-index token inspect shows it", id)
	}
	return edit(path, func(k *keys) error {
		for id, end := range k.revoked {
			if end.Before(now) {
				delete(k.revoked, id)
			}
		}
		if len(k.revoked) >= revokedMax {
			return fmt.Errorf("%d capabilities are revoked already: rotate the keys twice instead, which ends all", revokedMax)
		}
		k.revoked[id] = until.UTC().Truncate(time.Second)
		return nil
	})
}

// edit changes the file at path, one editor at a time.
func edit(path string, change func(*keys) error) error {
	lock, err := openLock(filepath.Join(filepath.Dir(path), "."+filepath.Base(path)+".lock"))
	if err != nil {
		return fmt.Errorf("the root keys: %w; the server makes them at its first start, --data says where", err)
	}
	defer lock.Close()
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX); err != nil {
		return fmt.Errorf("the root keys: %w", err)
	}
	k, err := readKeys(path)
	if err == nil {
		err = change(k)
	}
	if err == nil {
		_, err = parseKeys(k.text()) // what no server could read must not take the place of what they can
	}
	if err == nil {
		err = replaceSecret(path, k.text())
	}
	if err != nil {
		return fmt.Errorf("the root keys: %w", err)
	}
	return nil
}

// openLock opens the file that editors lock, and follows no link to it: root
// edits in directories of others. A new one is for whoever owns the directory.
func openLock(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_RDWR, secretMode)
	if errors.Is(err, fs.ErrExist) {
		return os.OpenFile(path, os.O_RDWR|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
	}
	if err != nil {
		return nil, err
	}
	if err := keepOwner(f, filepath.Dir(path)); err != nil {
		return nil, errors.Join(err, f.Close(), os.Remove(path))
	}
	return f, nil
}

func readKeys(path string) (*keys, error) {
	text, err := readSecret(path)
	if err != nil {
		return nil, err
	}
	k, err := parseKeys(text)
	if err != nil {
		return nil, fmt.Errorf("%s: %w; restore it from a backup, or move it away and start the server, which makes new ones: then every capability has to be minted again", path, err)
	}
	return k, nil
}

const (
	formKey     = "key ID from TIME SECRET"
	formRevoked = "revoked ID until TIME"
)

// parseKeys reads the text of a file of root keys, a line at a time. What a
// line holds is never repeated in an error: it may be a secret.
func parseKeys(text []byte) (*keys, error) {
	k := &keys{revoked: map[string]time.Time{}}
	n := 0
	for line := range bytes.Lines(text) {
		n++
		words := strings.Fields(string(line))
		if len(words) == 0 || words[0][0] == '#' {
			continue
		}
		ok := false
		switch words[0] {
		case "key":
			ok = k.takeKey(words)
		case "revoked":
			ok = k.takeRevoked(words)
		}
		if !ok {
			return nil, fmt.Errorf("line %d is neither %q nor %q", n, formKey, formRevoked)
		}
	}
	switch {
	case len(k.live) == 0:
		return nil, errors.New("it holds no key")
	case len(k.live) > keysMost:
		return nil, fmt.Errorf("it holds %d keys, %d may be live at once: take out the oldest", len(k.live), keysMost)
	case len(k.revoked) > revokedMax:
		return nil, fmt.Errorf("it revokes more than %d capabilities", revokedMax)
	}
	return k, nil
}

func (k *keys) takeKey(words []string) bool {
	if len(words) != 5 || words[2] != "from" || !validKeyID(words[1]) || k.key(words[1]) != nil {
		return false
	}
	from, err := time.Parse(time.RFC3339, words[3])
	if err != nil {
		return false
	}
	secret, err := base64.RawURLEncoding.Strict().DecodeString(words[4])
	if err != nil || len(secret) != keyBytes {
		return false
	}
	if n := len(k.live); n > 0 && from.Before(k.live[n-1].from) {
		return false // oldest first: of two orders one is a mistake
	}
	k.live = append(k.live, rootKey{words[1], from, secret})
	return true
}

func (k *keys) takeRevoked(words []string) bool {
	if len(words) != 4 || words[2] != "until" {
		return false
	}
	if _, _, ok := cutID(words[1]); !ok {
		return false
	}
	until, err := time.Parse(time.RFC3339, words[3])
	if err != nil {
		return false
	}
	k.revoked[words[1]] = until
	return true
}

// text is what parseKeys reads.
func (k *keys) text() []byte {
	b := []byte(keysNote)
	for i := range k.live {
		r := &k.live[i]
		b = fmt.Appendf(b, "key %s from %s %s\n", r.id, r.from.Format(time.RFC3339), base64.RawURLEncoding.EncodeToString(r.secret))
	}
	for id, until := range k.revoked {
		b = fmt.Appendf(b, "revoked %s until %s\n", id, until.Format(time.RFC3339))
	}
	return b
}
