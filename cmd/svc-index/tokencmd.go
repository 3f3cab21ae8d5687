package main

import (
	"bufio"
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"svcindex/auth"
	"svcindex/index"
)

// A minter makes capabilities for a command of ours, and a new one in good
// time before the last one ends. The keys are read for each: they may have been
// rotated meanwhile.
type minter struct {
	keys string
	wish auth.Wish

	mu    sync.Mutex // protects the fields below
	last  string
	renew time.Time
}

// newMinter mints with the root keys in the file keys, for the node of data.
func newMinter(keys, data string, w auth.Wish) (*minter, error) {
	if w.Aud == "" {
		id, err := auth.NodeID(data)
		if err != nil {
			return nil, err
		}
		w.Aud = id
	}
	m := &minter{keys: keys, wish: w}
	_, err := m.token() // what is wrong shows now
	return m, err
}

func (m *minter) token() (string, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	now := time.Now()
	if m.last != "" && now.Before(m.renew) {
		return m.last, nil
	}
	ring, err := auth.OpenKeyring(m.keys, false)
	if err != nil {
		return "", err
	}
	m.last, _, err = ring.Mint(m.wish, now)
	m.renew = now.Add(m.wish.Life / 2)
	return m.last, err
}

const tokenMintLong = `Mint signs a capability with the root keys in the data directory and prints it.
What it allows is its scopes, until it ends, at the one node whose id it names,
and only for the methods and paths that are given, if any. A path that ends in
* is a prefix. Paths are compared as they are sent, percent-encoding included.

Everybody who sees a capability can use it: keep it short-lived. A server that
runs on the same data takes it at once; it needs no restart.`

func tokenCmd() *cobra.Command {
	return group("token", "Mint, inspect, rotate and revoke capabilities",
		tokenMintCmd(), tokenInspectCmd(), tokenNarrowCmd(), tokenRotateCmd(), tokenRevokeCmd())
}

// mintOptions are the flags of a wish.
type mintOptions struct {
	settings
	scopes, methods, paths []string
	life                   time.Duration
	aud                    string
	json                   bool
}

func tokenMintCmd() *cobra.Command {
	var o mintOptions
	cmd := &cobra.Command{
		Use:   "mint",
		Short: "Sign a capability with the root keys in the data directory",
		Long:  tokenMintLong,
		Example: "  svc-index token mint\n" +
			"  svc-index token mint --scope index.write --path '/names/name:go/*' --for 1h\n" +
			"  curl -N -H \"Authorization: Bearer $(svc-index token mint --scope index.admin)\" http://127.0.0.1:9108/events",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return o.mint(cmd.OutOrStdout()) },
	}
	o.flags(cmd)
	f := cmd.Flags()
	f.StringSliceVar(&o.scopes, "scope", []string{"index.read", "index.write"}, "`scopes` it has: "+strings.Join(index.ScopeNames(), ", "))
	f.DurationVar(&o.life, "for", auth.LifeDefault, "how long it lives, at most "+auth.LifeMax.String())
	f.StringVar(&o.aud, "aud", "", "`node id` of the server it is for (default that of the data directory)")
	f.StringSliceVar(&o.methods, "method", nil, "`methods` it is for (default any)")
	f.StringArrayVar(&o.paths, "path", nil, "`path` it is for, a prefix if it ends in *; all that are given must match (default any)")
	f.BoolVar(&o.json, "json", false, "print it with its id and what it allows, as JSON")
	return strict(cmd)
}

func (o *mintOptions) wish() (w auth.Wish, err error) {
	w = auth.Wish{Life: o.life, Aud: o.aud, Paths: o.paths}
	for _, name := range o.scopes {
		s, ok := index.ParseScope(name)
		if !ok {
			return w, usagef("--scope %q: there are %s", name, strings.Join(index.ScopeNames(), ", "))
		}
		w.Scope |= s
	}
	for _, name := range o.methods {
		m, ok := auth.ParseMethod(strings.ToUpper(name))
		if !ok {
			return w, usagef("--method %q: there are GET, HEAD, PUT, POST, DELETE", name)
		}
		w.Methods = append(w.Methods, m)
	}
	return w, nil
}

func (o *mintOptions) mint(out io.Writer) error {
	cfg, err := o.load()
	if err != nil {
		return err
	}
	w, err := o.wish()
	if err != nil {
		return err
	}
	m, err := newMinter(cfg.KeysPath(), cfg.DataDir, w)
	if err != nil {
		return fmt.Errorf("%w; the server makes keys at its first start, --data says where", err)
	}
	if !o.json {
		fmt.Fprintln(out, m.last)
		return nil
	}
	return describeToken(out, m.last, true)
}

// A tokenDoc is what a capability says, as JSON.
type tokenDoc struct {
	Token   string    `json:"token,omitempty"`
	ID      string    `json:"id"`
	Key     string    `json:"key"`
	Scope   []string  `json:"scope"`
	Expires time.Time `json:"expires"`
	Aud     string    `json:"aud"`
	Methods []string  `json:"methods,omitempty"`
	Paths   []string  `json:"paths,omitempty"`
	Caveats []string  `json:"caveats"`
	Fault   string    `json:"fault,omitempty"`
}

// describeToken prints what a token says.
func describeToken(out io.Writer, token string, asJSON bool) error {
	d, err := auth.Inspect(token)
	if err != nil {
		return err
	}
	if asJSON {
		doc := tokenDoc{token, d.ID, d.Key, strings.Split(d.Scope.String(), ","), d.Expires.UTC(), d.Aud, d.Methods, d.Paths, d.Caveats, d.Fault}
		e := json.NewEncoder(out)
		e.SetIndent("", "  ")
		return e.Encode(doc)
	}
	ends := "never said: no server takes it"
	if !d.Expires.IsZero() {
		ends = d.Expires.UTC().Format(time.RFC3339)
		if left := time.Until(d.Expires).Round(time.Second); left > 0 {
			ends += ", in " + left.String()
		} else {
			ends += ", " + (-left).String() + " ago"
		}
	}
	rows := [][2]any{
		{"id", d.ID}, {"root key", d.Key}, {"scopes", printable(d.Scope.String())}, {"ends", ends}, {"for node", printable(d.Aud)},
		{"methods", cmp.Or(strings.Join(d.Methods, ", "), "any")}, {"paths", cmp.Or(printable(strings.Join(d.Paths, " and ")), "any")},
	}
	for _, c := range d.Caveats {
		rows = append(rows, [2]any{"caveat", printable(c)})
	}
	if d.Fault != "" {
		rows = append(rows, [2]any{"refused", printable(d.Fault)})
	}
	table(out, rows)
	return nil
}

// argOrStdin returns a command's argument, or a line of its input.
func argOrStdin(cmd *cobra.Command, args []string) (string, error) {
	if len(args) > 0 && args[0] != "-" {
		return args[0], nil
	}
	line, err := bufio.NewReader(io.LimitReader(cmd.InOrStdin(), 16<<10)).ReadString('\n')
	if line = strings.TrimSpace(line); line == "" {
		return "", usagef("no token: give it as an argument or on stdin (%v)", err)
	}
	return line, nil
}

func tokenInspectCmd() *cobra.Command {
	asJSON := false
	cmd := &cobra.Command{
		Use:   "inspect [TOKEN]",
		Short: "Print what a capability says, from the argument or stdin",
		Long: `Print what a capability says. This needs no key, and does not tell whether its
signature is good: only the server whose keys signed it can.`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			token, err := argOrStdin(cmd, args)
			if err != nil {
				return err
			}
			return describeToken(cmd.OutOrStdout(), token, asJSON)
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return strict(cmd)
}

func tokenNarrowCmd() *cobra.Command {
	var caveats []string
	cmd := &cobra.Command{
		Use:   "narrow [TOKEN] --caveat NAME=VALUE...",
		Short: "Add caveats to a capability, which then allows less; needs no key",
		Example: "  svc-index token mint | svc-index token narrow --caveat scope=index.read\n" +
			"  svc-index token narrow $TOKEN --caveat method=PUT --caveat 'path=/providers/*'",
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			token, err := argOrStdin(cmd, args)
			if err != nil {
				return err
			}
			narrow, err := auth.Narrow(token, caveats...)
			if err != nil {
				return err
			}
			_, err = fmt.Fprintln(cmd.OutOrStdout(), narrow)
			return err
		},
	}
	cmd.Flags().StringArrayVar(&caveats, "caveat", nil, "`NAME=VALUE`: scope, exp, aud, method or path; may be repeated")
	return strict(cmd)
}

func tokenRotateCmd() *cobra.Command {
	var s settings
	force := false
	cmd := &cobra.Command{
		Use:   "rotate",
		Short: "Add a root key that signs from now on; the one before it stays good, the one before that ends",
		Long: `Rotate adds a root key. It is believed at once and signs ten seconds later, so
that every server on this data has it by then: a running server reads the file
again within a second of its change, or on SIGHUP. What was signed with the key
before it stays good until its own end or the next rotation.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := s.load()
			if err != nil {
				return err
			}
			added, dropped, err := auth.Rotate(cfg.KeysPath(), time.Now(), auth.RotateGrace, force)
			if err != nil {
				return err
			}
			fmt.Fprintf(cmd.OutOrStdout(), "key %s signs in %v\n", added, auth.RotateGrace)
			if dropped != "" {
				fmt.Fprintf(cmd.OutOrStdout(), "key %s is dropped, and with it every capability it signed\n", dropped)
			}
			return nil
		},
	}
	s.flags(cmd)
	cmd.Flags().BoolVar(&force, "force", false, "rotate although capabilities under the key that is dropped may be in use")
	return strict(cmd)
}

func tokenRevokeCmd() *cobra.Command {
	var s settings
	cmd := &cobra.Command{
		Use:   "revoke TOKEN|ID",
		Short: "End a capability before its time, and all that were narrowed from it",
		Args:  oneArg("token or id"),
		RunE: func(cmd *cobra.Command, args []string) error {
			cfg, err := s.load()
			if err != nil {
				return err
			}
			now := time.Now()
			id, until := args[0], now.Add(auth.LifeMax)
			if d, err := auth.Inspect(id); err == nil {
				id = d.ID // it may have been narrowed, and what it was narrowed from may live longer
			}
			if err := auth.Revoke(cfg.KeysPath(), id, now, until); err != nil {
				return err
			}
			fmt.Fprintf(cmd.OutOrStdout(), "%s is revoked; a running server knows within a second\n", id)
			return nil
		},
	}
	s.flags(cmd)
	return strict(cmd)
}
