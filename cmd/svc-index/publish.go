package main

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"time"
	"unicode/utf8"

	"github.com/spf13/cobra"

	"svcindex/auth"
	"svcindex/index"
	client "svcindex/sdk/go"
)

const (
	publishConns   = 32               // requests in flight; the server commits them in groups
	publishRetries = 8                // of a request that is refused for now
	publishMaxWait = 30 * time.Second // between two of them
	nameTTL        = 30 * 24 * 3600   // seconds that a signed name is good, unless told otherwise
	nameTries      = 4                // of a name that others write too

	// seqBelieved is the highest sequence that a server is believed to hold when
	// the next is to be signed. One further up could be the last a name can have.
	seqBelieved = 1 << 48

	failuresShown = 5
	failuresMax   = 100     // after so many the rest is not tried
	facetsMax     = 4 << 10 // bytes of all facets: they share a page with what they describe
)

const publishLong = `Publish walks directories, stores a small manifest for each at the server,
points a name at it, and lists who serves it and each of its files. The files
themselves do not leave this machine.

One DIR is published as the prefix itself: with --prefix name:go/src, DIR is
name:go/src and DIR/fmt is name:go/src/fmt. Of several arguments each is
published as PREFIX/BASE, and a FILE always is, as a directory that holds only
that file. In names every byte other than A-Z a-z 0-9 . _ + - becomes ~ and two
hex digits.

Symbolic links and special files inside a directory are skipped and counted.
What cannot be read, changes while it is read, or has a name that is not UTF-8
is a failure: the directory that holds it and those above it are not published,
everything else is. Facets describe the arguments themselves, not what is in
them. Names are turned last, so that what they point to is already there.

Running it again is safe: what has not changed keeps its name, sequence and
content id, and its provider rows are renewed.

With --key every name is signed, and a signature that is past half its time is
made anew.`

// publishOptions is what publish is told.
type publishOptions struct {
	remote
	prefix, provider, region string
	ttl                      seconds
	keyFile                  string
	nameTTL                  seconds
	facets                   []string
	conns, hashers           int
}

func publishCmd() *cobra.Command {
	o := publishOptions{ttl: index.TTLDefault, nameTTL: nameTTL}
	cmd := &cobra.Command{
		Use:   "publish DIR|FILE... --prefix NAME",
		Short: "Publish directories: names, manifests and who serves them",
		Long:  publishLong,
		Example: "  svc-index publish /usr/local/go/src --prefix name:go/src\n" +
			"  svc-index publish docs pics --prefix site --provider https://files.example.org/ --facet lang=en",
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) == 0 {
				return usagef("publish wants at least one DIR or FILE; see publish --help")
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx, stop := interruptible(cmd)
			defer stop()
			return publish(ctx, &o, args, cmd.OutOrStdout(), cmd.ErrOrStderr())
		},
	}
	o.writeFlags(cmd)
	f := cmd.Flags()
	f.StringVar(&o.prefix, "prefix", "", "`NAME` to publish under, with or without its name: (required)")
	f.StringVar(&o.provider, "provider", "", "`address` under which the content can be had, a multiaddr or http(s) URL (default the server's URL)")
	f.StringVar(&o.region, "region", "", "`region` of that address")
	f.Var(&o.ttl, "ttl", "how long the provider rows live, 1m to 48h")
	f.StringVar(&o.keyFile, "key", "", "publisher's key `FILE`, from svc-index key new: sign every name")
	f.Var(&o.nameTTL, "name-ttl", "with --key, how long a signature is good; 0: for ever. Past its half, publishing again renews it")
	f.StringArrayVar(&o.facets, "facet", nil, "`key=value` tag for search; may be repeated")
	f.IntVar(&o.conns, "conns", publishConns, "requests in flight")
	f.IntVar(&o.hashers, "hashers", max(2, runtime.GOMAXPROCS(0)), "files hashed at once")
	return strict(cmd)
}

// publish does what publishLong says.
func publish(ctx context.Context, o *publishOptions, args []string, out, errOut io.Writer) error {
	start := time.Now()
	folders, err := o.check(args)
	if err != nil {
		return err
	}
	p, err := o.newPublisher(ctx)
	if err != nil {
		return err
	}
	defer p.client.Close()
	p.progress = startProgress(errOut)
	p.run(folders, o.hashers)
	p.progress.stop()
	p.summarize(out, folders, time.Since(start))
	return p.verdict(ctx)
}

// check refuses what the server would refuse ten thousand times.
func (o *publishOptions) check(args []string) ([]*folder, error) {
	switch {
	case o.ttl < index.TTLMin || o.ttl > index.TTLMax:
		return nil, usagef("--ttl is %v, it must be 1m to 48h", &o.ttl)
	case len(o.region) > index.RegionMax || !utf8.ValidString(o.region):
		return nil, usagef("--region must be UTF-8 of at most %d bytes", index.RegionMax)
	case o.conns < 1 || o.hashers < 1:
		return nil, usagef("--conns and --hashers must be at least 1")
	}
	if err := o.checkProvider(); err != nil {
		return nil, err
	}
	facets, err := parseFacets(o.facets)
	if err != nil {
		return nil, err
	}
	return arguments(args, o.prefix, facets)
}

// checkProvider settles the address of the rows.
func (o *publishOptions) checkProvider() error {
	if o.provider == "" {
		if o.provider = o.url(); strings.HasPrefix(o.provider, "unix:") {
			return usagef("the server is a Unix socket, which is no address for others: " +
				"say with --provider where the content can be had")
		}
	}
	for _, start := range [...]string{"http://", "https://", "/"} {
		if strings.HasPrefix(o.provider, start) && len(o.provider) <= index.ProviderAddrMax {
			return nil
		}
	}
	return usagef("--provider must be a multiaddr such as /ip4/192.0.2.1/tcp/80 or an http(s) URL, of at most %d bytes",
		index.ProviderAddrMax)
}

func parseFacets(texts []string) ([]facet, error) {
	var fs []facet
	seen, size := map[string]bool{}, 0
	for _, t := range texts {
		k, v, ok := strings.Cut(t, "=")
		if !ok || k == "" || v == "" || !utf8.ValidString(t) {
			return nil, usagef("--facet wants key=value in UTF-8, not %q", t)
		}
		if seen[k] {
			return nil, usagef("--facet %s is given twice", k)
		}
		seen[k] = true
		size += len(t)
		fs = append(fs, facet{k, v})
	}
	if size > facetsMax {
		return nil, usagef("the facets have %d bytes, %d are the most", size, facetsMax)
	}
	sortFacets(fs)
	return fs, nil
}

// A publisher carries one tree to one server.
type publisher struct {
	remote   *remote
	client   *client.Client
	row      client.Provider    // the row that each content id gets
	key      ed25519.PrivateKey // signs names; nil: they are not signed
	nameTTL  time.Duration
	conns    int
	ctx      context.Context
	giveUp   context.CancelCauseFunc
	progress *progress
	tally    tally
	scan     scan
	refused  sync.Map // content ids of manifests that the server has not got
}

// newPublisher meets the server, so that a wrong address costs no hashing.
func (o *publishOptions) newPublisher(ctx context.Context) (*publisher, error) {
	var key ed25519.PrivateKey
	if o.keyFile != "" {
		var err error
		if key, err = auth.PublisherKey(o.keyFile); err != nil {
			return nil, err
		}
	}
	c, err := o.writer(client.WithConns(o.conns), client.WithRetries(publishRetries, publishMaxWait))
	if err != nil {
		return nil, err
	}
	v, err := c.Version(ctx)
	if err != nil {
		return nil, o.failed(err)
	}
	if v.NodeID == "" {
		return nil, fmt.Errorf("%s does not say its node_id at /version: is it an svc-index server?", o.url())
	}
	p := &publisher{remote: &o.remote, client: c, conns: o.conns, key: key, nameTTL: time.Duration(o.nameTTL) * time.Second,
		row: client.Provider{ID: v.NodeID, Addr: o.provider, Region: o.region, TTL: int64(o.ttl)}}
	p.ctx, p.giveUp = context.WithCancelCause(ctx)
	p.tally.tooMany = func() {
		p.giveUp(fmt.Errorf("gave up after %d failures", failuresMax))
	}
	p.scan = scan{ctx: p.ctx, tally: &p.tally}
	return p, nil
}

// run reads the trees, then tells the server.
func (p *publisher) run(roots []*folder, hashers int) {
	defer p.giveUp(nil)
	var all []*folder
	for _, r := range roots {
		p.scan.fill(r)
		r.walk(func(f *folder) { all = append(all, f) })
	}
	p.progress.files.Store(p.scan.files)
	hashAll(p.ctx, all, hashers, &p.tally, p.progress)
	if p.ctx.Err() != nil {
		return // files not reached look empty, not bad
	}
	for _, r := range roots {
		r.seal()
	}
	p.send(roots, all)
}

// send stores manifests, then rows, then names: a name that can be resolved
// points to something that can be had.
func (p *publisher) send(roots, all []*folder) {
	pages, cids, names := gather(all)
	p.progress.sends.Store(int64(len(pages) + len(cids) + names))
	each(p.ctx, p.conns, pages, p.putManifest)
	each(p.ctx, p.conns, cids, p.putProviders)
	var whole []*folder
	for _, r := range roots {
		p.stored(r, &whole)
	}
	each(p.ctx, p.conns, whole, p.putName)
}

// gather returns the manifests and content ids of the folders that have a
// manifest, each once, and how many folders those are.
func gather(all []*folder) (pages []page, cids []index.CID, names int) {
	stored, listed := map[index.CID]bool{}, map[index.CID]bool{}
	list := func(c index.CID) {
		if !listed[c] {
			listed[c] = true
			cids = append(cids, c)
		}
	}
	for _, f := range all {
		if f.damaged {
			continue
		}
		names++
		for _, g := range f.pages {
			if !stored[g.cid] {
				stored[g.cid] = true
				pages = append(pages, g)
			}
			list(g.cid)
		}
		for i := range f.files {
			list(f.files[i].cid)
		}
	}
	return pages, cids, names
}

// stored appends to whole the folders below and including f whose manifests,
// and those of all below them, are at the server.
func (p *publisher) stored(f *folder, whole *[]*folder) bool {
	ok := !f.damaged
	for _, d := range f.dirs {
		ok = p.stored(d, whole) && ok
	}
	for _, g := range f.pages {
		if _, refused := p.refused.Load(g.cid); refused {
			ok = false
		}
	}
	if ok {
		*whole = append(*whole, f)
	}
	return ok
}

func (p *publisher) putManifest(g page) {
	s, err := p.client.PutManifest(p.ctx, g.text)
	p.progress.sent.Add(1)
	if err != nil {
		p.refused.Store(g.cid, true)
		p.fail("manifest "+g.cid.String(), err)
		return
	}
	if s.Created {
		p.tally.manifests.Add(1)
	}
}

func (p *publisher) putProviders(c index.CID) {
	n, err := p.client.PutProviders(p.ctx, c, p.row)
	p.progress.sent.Add(1)
	if err != nil {
		p.fail("providers of "+c.String(), err)
		return
	}
	p.tally.rows.Add(int64(n))
}

func (p *publisher) putName(f *folder) {
	count, err := p.turn(f.name, f.manifest().cid)
	p.progress.sent.Add(1)
	if err != nil {
		p.fail(f.name, err)
		return
	}
	f.published = true
	count.Add(1)
}

// turn points name at cid, unless it does already, and returns the counter of
// what that was.
func (p *publisher) turn(name string, cid index.CID) (*atomic.Int64, error) {
	if len(name) > index.NameMax {
		return nil, fmt.Errorf("it has %d bytes, %d are the most: use a shorter --prefix or rename the directory",
			len(name)-len("name:"), index.NameMax-len("name:"))
	}
	r, err := p.client.ResolveFresh(p.ctx, name)
	if p.key != nil && unready(err) { // the DHT is away: what the server has stored has a sequence, too
		r, err = p.client.Resolve(p.ctx, name)
	}
	switch {
	case client.IsNotFound(err):
		return &p.tally.created, p.put(name, cid, 1)
	case err != nil:
		return nil, err
	case r.ManifestCID == cid && !p.dueAgain(r, time.Now()):
		return &p.tally.unchanged, nil
	case r.ManifestCID == cid:
		return &p.tally.renewed, p.put(name, cid, r.Seq+1)
	}
	return &p.tally.changed, p.put(name, cid, r.Seq+1)
}

// unready reports whether err says that a place could not be asked in time.
func unready(err error) bool {
	e, ok := errors.AsType[*client.Error](err)
	return ok && (e.Status == 503 || e.Status == 504)
}

// dueAgain reports whether a name that points where it should has to be signed:
// it never was, or half of the time its signature is good for is over.
func (p *publisher) dueAgain(r *client.Resolved, now time.Time) bool {
	if p.key == nil {
		return false
	}
	return !r.Signed || r.ExpiresAt != 0 && time.Unix(r.ExpiresAt, 0).Sub(now) < p.nameTTL/2
}

// put writes a name with sequence seq, or one past what the server says stands
// in its way: a tombstone is not resolved, but it has a sequence.
func (p *publisher) put(name string, cid index.CID, seq uint64) (err error) {
	for range nameTries {
		r := client.NameRecord{ManifestCID: cid, Seq: seq}
		if p.key != nil {
			if seq-1 > seqBelieved {
				return fmt.Errorf("the server says that sequence %d stands, and what is signed beyond could be the last this name can have: "+
					"if it is so, sign it by hand with svc-index key sign", seq-1)
			}
			k, err := index.ParseKey(name)
			if err != nil {
				return err
			}
			r = signed(p.key, &k, index.NameRecord{CID: cid, Seq: seq}, p.nameTTL, time.Now())
		}
		err = p.client.PutName(p.ctx, name, r)
		current, conflict := client.IsConflict(err)
		if !conflict {
			return err
		}
		seq = current + 1
	}
	return err
}

// fail counts what went wrong with one thing. If everything else would go
// wrong in the same way it ends the whole.
func (p *publisher) fail(what string, err error) {
	if p.ctx.Err() != nil {
		return // the end of ctx is not this thing's fault
	}
	p.tally.fail(what, err)
	if hopeless(err) {
		p.giveUp(p.remote.failed(err))
	}
}

// hopeless tells errors that are about the server or the token, not about what
// was asked.
func hopeless(err error) bool {
	e, ok := errors.AsType[*client.Error](err)
	if !ok {
		op, ok := errors.AsType[*net.OpError](err)
		return ok && op.Op == "dial" // nobody is there
	}
	switch e.Status {
	case 401, 403, 501, 503, 507:
		return true
	}
	return e.Code == "" // something else answers there
}

// verdict says how it ended.
func (p *publisher) verdict(ctx context.Context) error {
	n, first := p.tally.failures()
	list := strings.Join(first, "\n  ")
	switch cause := context.Cause(p.ctx); {
	case ctx.Err() != nil:
		return exitError{exitFailed, errors.New("interrupted: what was published stays; run it again for the rest")}
	case cause != nil && !errors.Is(cause, context.Canceled):
		return exitError{exitFailed, fmt.Errorf("not finished: %w", cause)}
	case n > len(first):
		return exitError{exitFailed, fmt.Errorf("%d failures, the first %d:\n  %s", n, len(first), list)}
	case n > 0:
		return exitError{exitFailed, fmt.Errorf("%d failed:\n  %s", n, list)}
	}
	return nil
}

// summarize tells people what was done.
func (p *publisher) summarize(w io.Writer, roots []*folder, took time.Duration) {
	t, line := &p.tally, func(what, format string, args ...any) {
		fmt.Fprintf(w, "  %-12s  %s\n", what, fmt.Sprintf(format, args...))
	}
	for _, r := range roots {
		if r.published {
			fmt.Fprintf(w, "%s -> %s\n", r.name, r.manifest().cid)
		}
	}
	n, _ := t.failures()
	line("directories", "%s", commas(p.scan.dirs))
	line("files", "%s, %s", commas(p.progress.hashed.Load()), bytesText(p.progress.bytes.Load()))
	line("names", "%s new, %s changed, %s unchanged",
		commas(t.created.Load()), commas(t.changed.Load()), commas(t.unchanged.Load()))
	if n := t.renewed.Load(); n > 0 {
		line("signatures", "%s renewed", commas(n))
	}
	line("manifests", "%s new", commas(t.manifests.Load()))
	line("providers", "%s rows", commas(t.rows.Load()))
	line("skipped", "%s symbolic links, %s special files", commas(p.scan.links), commas(p.scan.specials))
	line("failures", "%s", commas(int64(n)))
	line("time", "%v", took.Round(10*time.Millisecond))
}

// A tally counts what was done and what was not.
type tally struct {
	created, changed, unchanged atomic.Int64 // names
	renewed                     atomic.Int64 // that point where they did, signed anew
	manifests                   atomic.Int64 // that the server had not got
	rows                        atomic.Int64

	tooMany func() // called once, at the failuresMax-th failure

	mu     sync.Mutex // protects the fields below
	failed int
	first  []string
}

// fail counts a failure and keeps the first few.
func (t *tally) fail(what string, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.failed++
	if len(t.first) < failuresShown {
		if e, ok := errors.AsType[*fs.PathError](err); ok {
			err = e.Err // what has said where
		}
		t.first = append(t.first, printable(what)+": "+printable(err.Error()))
	}
	if t.failed == failuresMax && t.tooMany != nil {
		t.tooMany()
	}
}

func (t *tally) failures() (n int, first []string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.failed, t.first
}
