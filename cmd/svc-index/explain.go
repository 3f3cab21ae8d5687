package main

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"svcindex/auth"
	"svcindex/index"
	"svcindex/stages"
	"svcindex/stages/ram"
)

// An explanation is what each place knows of a key, and how the last look-ups
// of it ended.
type explanation struct {
	Key        string           `json:"key"`
	Kind       string           `json:"kind"`
	At         time.Time        `json:"at"`
	Generation index.Generation `json:"generation"` // of its stripe, now
	Trust      trustView        `json:"trust"`
	Cache      []ram.Peeked     `json:"cache"`
	DB         dbView           `json:"db"`
	DHT        dhtView          `json:"dht"`
	Last       []stages.Past    `json:"last"` // look-ups past the cache
}

type trustView struct {
	Signed bool     `json:"needs_signature"`
	Keys   []string `json:"keys,omitempty"` // one of which has to sign
}

type dbView struct {
	Verdict   string         `json:"verdict"` // what it counts for
	Error     string         `json:"error,omitempty"`
	Name      *nameView      `json:"name,omitempty"`
	Manifest  *manifestView  `json:"manifest,omitempty"`
	Pinned    bool           `json:"pinned,omitempty"`
	Checked   int64          `json:"checked,omitempty"` // unix seconds when the DHT last told of the providers
	Providers []providerView `json:"providers,omitempty"`
	Gone      []goneView     `json:"gone,omitempty"` // deleted here, and remembered
}

type nameView struct {
	CID       string `json:"manifest_cid"`
	Seq       uint64 `json:"seq"`
	IssuedAt  int64  `json:"issued_at,omitempty"`
	ExpiresAt int64  `json:"expires_at,omitempty"`
	Deleted   bool   `json:"deleted"`
	SignedBy  string `json:"signed_by,omitempty"`
	From      string `json:"from"` // client or dht
	Checked   int64  `json:"checked,omitempty"`
}

type manifestView struct {
	Bytes       int    `json:"bytes"`
	From        string `json:"from"`
	Quarantined bool   `json:"quarantined,omitempty"`
}

type providerView struct {
	ID       string `json:"id"`
	Addr     string `json:"addr"`
	Region   string `json:"region,omitempty"`
	LastSeen int64  `json:"last_seen"`
	Expires  int64  `json:"expires"`
	From     string `json:"from"`
	Live     bool   `json:"live"`
}

type goneView struct {
	ID    string `json:"id"`
	At    int64  `json:"deleted_at"`
	Until int64  `json:"until"`
}

type dhtView struct {
	Enabled bool   `json:"enabled"`
	Holds   bool   `json:"could_hold"` // false: by rule it cannot, and counts as asked
	Says    string `json:"says,omitempty"`
	Took    string `json:"took,omitempty"`
}

// explain looks into each place. With ask, the DHT is asked, too; what it says
// is shown and goes nowhere else.
func (h *house) explain(ctx context.Context, text string, ask bool) (any, error) {
	k, err := index.ParseKey(text)
	if err != nil {
		return nil, err
	}
	now, hash := time.Now(), h.gens.Hash(&k)
	e := explanation{
		Key: k.String(), Kind: "cid", At: now, Generation: h.gens.Note(hash), Trust: trustView{Signed: h.trust.Covers(&k)},
		Cache: h.cache.Peek(hash, &k), Last: h.line.Recall(k), DB: h.explainDB(&k, now),
		DHT: dhtView{Enabled: h.net != nil, Holds: h.net != nil && h.networkHolds(&index.Job{Key: k})},
	}
	if k.IsName() {
		e.Kind = "name"
	}
	for _, key := range h.trust.TrustedKeys(&k) {
		e.Trust.Keys = append(e.Trust.Keys, auth.FormatPublicKey(key))
	}
	if ask && e.DHT.Holds {
		h.askDHT(ctx, &e.DHT, k)
	}
	return &e, nil
}

func (h *house) explainDB(k *index.Key, now time.Time) (v dbView) {
	p, err := h.store.Peek(k)
	if err != nil {
		v.Error, v.Verdict = err.Error(), "it could not look"
		return v
	}
	if n := p.Name; n != nil {
		v.Name = &nameView{n.CID.String(), n.Seq, n.IssuedAt, n.ExpiresAt, n.Deleted, "", from(n.Found), n.Checked}
		if n.Signed() {
			v.Name.SignedBy = auth.FormatPublicKey(n.PubKey)
		}
	}
	if p.Held || p.Quarantined {
		v.Manifest = &manifestView{p.HeldBytes, from(p.HeldFound), p.Quarantined}
	}
	v.Pinned, v.Checked = p.Pinned, p.Checked
	for _, r := range p.Providers {
		v.Providers = append(v.Providers, providerView{
			r.ID, r.Addr, r.Region, r.LastSeen, r.Expires, from(r.Found), p.Pinned || r.Expires > now.Unix(),
		})
	}
	for _, g := range p.Gone {
		v.Gone = append(v.Gone, goneView{g.ID, g.At, g.Until})
	}
	v.Verdict = h.verdict(k, p.Name, len(p.Providers) > 0 || p.Held, p.Checked, now)
	return v
}

// verdict says what the stored row counts for now.
func (h *house) verdict(k *index.Key, n *index.NameRecord, rows bool, checked int64, now time.Time) string {
	after := time.Duration(h.cfg.DB.RefreshAfter)
	asks := h.net != nil && h.networkHolds(&index.Job{Key: *k})
	switch {
	case k.IsName() && n == nil, !k.IsName() && !rows:
		return "it has nothing"
	case n != nil && n.Deleted:
		return fmt.Sprintf("a tombstone: nothing up to sequence %d comes back", n.Seq)
	case n != nil && !n.Live(now.Unix()):
		return "past its expires_at: no answer, but its sequence counts"
	case n != nil && !h.trust.Believes(k, n):
		return "signed by nobody who is trusted for the name now: no answer"
	case n != nil:
		checked = n.Checked
	}
	left := time.Unix(checked, 0).Add(after).Sub(now).Round(time.Second)
	switch {
	case !asks:
		return "an answer"
	case left > 0:
		return fmt.Sprintf("an answer for %v, then the DHT is asked", left)
	case !k.IsName():
		return "manifests are answers for ever; of providers the DHT is asked, too"
	}
	return "past its time: the DHT is asked, and this is served as stale if it cannot be"
}

func from(found bool) string {
	if found {
		return "dht"
	}
	return "client"
}

func (h *house) askDHT(ctx context.Context, v *dhtView, k index.Key) {
	ctx, cancel := context.WithTimeout(ctx, time.Duration(h.cfg.Stages.DHT.Slice))
	defer cancel()
	asks := []index.Ask{index.AskResolve}
	if !k.IsName() {
		asks = append(asks, index.AskProviders)
	}
	began := time.Now()
	var said []string
	for _, ask := range asks {
		j := index.Job{Ask: ask, Key: k}
		err := h.net.Discover(ctx, &j)
		switch n := &j.Answer.Name; {
		case k.IsName() && n.Seq > 0:
			said = append(said, fmt.Sprintf("sequence %d, deleted %v, %s", n.Seq, n.Deleted, n.CID))
		case err != nil:
			said = append(said, [...]string{index.AskResolve: "content ", index.AskProviders: "providers "}[ask]+index.KindOf(err).String())
		case ask == index.AskProviders:
			said = append(said, fmt.Sprintf("%d providers", len(j.Answer.Providers)))
		default:
			said = append(said, fmt.Sprintf("content of %d bytes", len(j.Answer.Body)))
		}
	}
	v.Says, v.Took = strings.Join(said, "; "), time.Since(began).Round(time.Millisecond).String()
}

func explainCmd() *cobra.Command {
	var admin, token string
	var raw, ask bool
	cmd := &cobra.Command{
		Use:   "explain KEY",
		Short: "Say what each place knows of a key, and how the last look-up ended",
		Long: `Ask a server's admin listener what its cache and its database know of a key, how
old that is and what it counts for, whose signature the key needs, and how and
why the last look-ups past the cache ended. --ask asks the DHT, too. Of a server with
auth.required it needs a capability with index.read.`,
		Example: "  svc-index explain name:go/src/fmt",
		Args:    oneArg("KEY"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if _, err := index.ParseKey(args[0]); err != nil {
				return usagef("%q: %w", args[0], err)
			}
			ctx, stop := interruptible(cmd)
			defer stop()
			base := strings.TrimSuffix(cmp.Or(admin, os.Getenv(envAdmin), defaultAdmin), "/")
			body, err := fetchExplanation(ctx, base, args[0], cmp.Or(token, os.Getenv(envToken)), ask)
			if err != nil {
				return err
			}
			if raw {
				_, err = fmt.Fprintf(cmd.OutOrStdout(), "%s\n", body)
				return err
			}
			var e explanation
			if err := json.Unmarshal(body, &e); err != nil {
				return fmt.Errorf("the answer of %s is not what svc-index sends: %w", base, err)
			}
			return e.show(cmd.OutOrStdout())
		},
	}
	f := cmd.Flags()
	f.StringVar(&admin, "admin", "", "`URL` of the server's admin listener (default $"+envAdmin+", else "+defaultAdmin+")")
	f.StringVar(&token, "token", "", "capability `token` (default $"+envToken+")")
	f.BoolVar(&raw, "json", false, "print it as JSON")
	f.BoolVar(&ask, "ask", false, "ask the DHT, too")
	return strict(cmd)
}

// adminClient asks an admin listener. A redirect would carry a capability to a
// place nobody chose.
func adminClient() *http.Client {
	return &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
}

func fetchExplanation(ctx context.Context, base, key, token string, ask bool) ([]byte, error) {
	if !strings.Contains(base, "://") {
		base = "http://" + base
	}
	target := base + "/debug/explain/" + (&url.URL{Path: key}).EscapedPath()
	if ask {
		target += "?ask=true"
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, target, nil)
	if err != nil {
		return nil, usagef("--admin: %w", err)
	}
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	resp, err := adminClient().Do(req)
	if err != nil {
		return nil, fmt.Errorf("%w; is the server running, and is --admin its admin listener?", err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, 4<<20))
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s: %s", base, resp.Status, printable(strings.TrimSpace(string(body))))
	}
	return body, err
}

// show prints it for people.
func (e *explanation) show(w io.Writer) error {
	t := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	line := func(what, format string, args ...any) {
		fmt.Fprintf(t, "%s\t%s\n", what, printable(fmt.Sprintf(format, args...)))
	}
	ago := func(unix int64) string { return e.At.Sub(time.Unix(unix, 0)).Round(time.Second).String() + " ago" }
	line("key", "%s (generation %d)", e.Key, e.Generation)
	if e.Trust.Signed {
		line("trust", "needs a signature of %s", strings.Join(e.Trust.Keys, " or "))
	}
	if len(e.Cache) == 0 {
		line("cache", "nothing")
	}
	for _, c := range e.Cache {
		what := ""
		if c.Negative {
			what = "a proven absence, "
		}
		line("cache", "%s as %s: %s%s, %.0f s old, fresh for %.0f s, generation %d, %d bytes", c.Asked, c.Format, what, c.State, c.Age, c.FreshFor, c.Generation, c.Bytes)
	}
	line("db", "%s", e.DB.Verdict)
	if e.DB.Error != "" {
		line("", "%s", e.DB.Error)
	}
	if n := e.DB.Name; n != nil {
		line("", "%s, sequence %d, from %s, last known to be the newest %s", n.CID, n.Seq, n.From, ago(n.Checked))
		if n.SignedBy != "" {
			end := "for ever"
			if n.ExpiresAt > 0 {
				end = "until " + stamp(n.ExpiresAt)
			}
			line("", "signed by %s, good %s", n.SignedBy, end)
		}
	}
	if m := e.DB.Manifest; m != nil {
		line("", "manifest of %d bytes, from %s, quarantined %v", m.Bytes, m.From, m.Quarantined)
	}
	for _, p := range e.DB.Providers {
		line("", "provider %s at %s, from %s, live %v, seen %s", p.ID, p.Addr, p.From, p.Live, ago(p.LastSeen))
	}
	for _, g := range e.DB.Gone {
		line("", "provider %s was deleted here %s, remembered until %s", g.ID, ago(g.At), stamp(g.Until))
	}
	switch {
	case !e.DHT.Enabled:
		line("dht", "switched off: counts as asked")
	case !e.DHT.Holds:
		line("dht", "by rule it cannot hold this: nobody is trusted to sign the name; counts as asked")
	case e.DHT.Says != "":
		line("dht", "%s, in %s", e.DHT.Says, e.DHT.Took)
	default:
		line("dht", "could hold it; --ask asks")
	}
	if len(e.Last) == 0 {
		line("last", "no look-up past the cache is remembered")
	}
	for _, p := range e.Last {
		line("last", "%s", p.Story(e.At))
	}
	return t.Flush()
}
