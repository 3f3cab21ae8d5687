package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
	"unicode"

	"github.com/spf13/cobra"

	"svcindex/auth"
	"svcindex/index"
	client "svcindex/sdk/go"
)

const (
	defaultServer = "http://127.0.0.1:8080"
	defaultData   = "./data"

	envServer = "SVC_INDEX_SERVER"
	envToken  = "SVC_INDEX_TOKEN"
	envData   = "SVC_INDEX_DATA_DIR"
	envKeys   = "SVC_INDEX_AUTH_ROOT_KEYS"
)

// A remote is the server that a command speaks to.
type remote struct{ server, token, data string }

// flags adds what every command that speaks to a server takes.
func (r *remote) flags(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVar(&r.server, "server", "", "`URL` of the server, or unix:/PATH (default $"+envServer+", else "+defaultServer+")")
	f.StringVar(&r.token, "token", "", "bearer `token` (default $"+envToken+")")
}

// writeFlags adds what commands that write take besides.
func (r *remote) writeFlags(cmd *cobra.Command) {
	r.flags(cmd)
	cmd.Flags().Lookup("token").Usage = "bearer `token` (default $" + envToken + ", else minted with the root keys in the data directory)"
	cmd.Flags().StringVar(&r.data, "data", "", "data `directory` of the server, for its root keys (default $"+envData+", else "+defaultData+")")
}

func (r *remote) url() string { return cmp.Or(r.server, os.Getenv(envServer), defaultServer) }

// reader returns a client for reading. It never mints a token: a reader needs
// none, or one that it was given.
func (r *remote) reader() (*client.Client, error) {
	return r.client(client.WithToken(cmp.Or(r.token, os.Getenv(envToken))))
}

// writer returns a client for writing, with a token.
func (r *remote) writer(opts ...client.Option) (*client.Client, error) {
	tokens, err := r.tokens(auth.LifeDefault)
	if err != nil {
		return nil, err
	}
	return r.client(append(opts, client.WithTokens(tokens))...)
}

func (r *remote) client(opts ...client.Option) (*client.Client, error) {
	c, err := client.New(r.url(), opts...)
	if err != nil {
		return nil, usagef("--server: %w", err)
	}
	return c, nil
}

// writerScope is what a command needs that writes: publishing reads first.
const writerScope = index.ScopeRead | index.ScopeWrite

// tokens returns what gives a token whenever one is needed: the one we were
// given, or short-lived ones minted with the root keys in the data directory.
func (r *remote) tokens(life time.Duration) (func() (string, error), error) {
	if t := cmp.Or(r.token, os.Getenv(envToken)); t != "" {
		return func() (string, error) { return t, nil }, nil
	}
	data := cmp.Or(r.data, os.Getenv(envData), defaultData)
	m, err := newMinter(cmp.Or(os.Getenv(envKeys), filepath.Join(data, auth.KeysFile)), data, auth.Wish{Scope: writerScope, Life: life})
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("no token: %s holds no root keys to mint one with; start the server once, "+
			"say where its data is with --data, or give --token or %s", data, envToken)
	}
	if err != nil {
		return nil, err
	}
	return m.token, nil
}

// interruptible returns a context that ends with the first interrupt; another,
// a second later, then kills, for those who are in a hurry. One that follows at
// once is no other: timeout(1) sends two.
func interruptible(cmd *cobra.Command) (context.Context, context.CancelFunc) {
	parent := cmd.Context()
	if parent == nil {
		parent = context.Background()
	}
	ctx, stop := signal.NotifyContext(parent, os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, func() { time.AfterFunc(time.Second, stop) })
	return ctx, stop
}

// failed turns what a client returned into what a command ends with: a code
// for scripts, and a word on what to do for people.
func (r *remote) failed(err error) error {
	if err == nil {
		return nil
	}
	code := exitFailed
	if client.IsNotFound(err) {
		code = exitNotFound
	}
	return exitError{code, fmt.Errorf("%s: %w; %s", r.url(), err, advice(err))}
}

// advice says what to try after err.
func advice(err error) string {
	e, ok := errors.AsType[*client.Error](err)
	switch {
	case errors.Is(err, client.ErrMismatch):
		return "fetch it again or from another server, and run db verify at this one"
	case errors.Is(err, context.Canceled):
		return "interrupted"
	case !ok && (errors.Is(err, syscall.ECONNREFUSED) || errors.Is(err, fs.ErrNotExist)):
		return "start it with svc-index serve, or name another with --server"
	case !ok:
		return "check --server and the network"
	case e.Code == "":
		return "is this an svc-index server? check --server"
	}
	return statusAdvice(e)
}

func statusAdvice(e *client.Error) string {
	switch e.Status {
	case 400, 413, 415:
		return "see --help for what is accepted"
	case 401:
		return "give a valid token with --token, " + envToken + " or --data"
	case 403:
		return forbiddenAdvice(e)
	case 404:
		return notFoundAdvice(e)
	case 409:
		return "someone else wrote it meanwhile: run this again"
	case 429, 503:
		if e.RetryAfter > 0 {
			return fmt.Sprintf("try again in %v", e.RetryAfter.Round(time.Millisecond))
		}
		return "try again in a while, or see /readyz"
	case 501:
		return "this server does not offer it"
	case 504:
		return "try again: the answer may be on its way, or the server overloaded"
	case 507:
		return "free some disk space at the server"
	}
	return "look for the corr_id in the server's log"
}

// forbiddenAdvice tells a name that somebody has to sign from a token that does
// not allow what was asked.
func forbiddenAdvice(e *client.Error) string {
	if e.Stage == "write" {
		return "sign with --key, with one of the keys the server lists under trust.publishers for this name (svc-index key show FILE prints yours)"
	}
	return "the token does not allow this: ask for another"
}

func notFoundAdvice(e *client.Error) string {
	switch e.Reason {
	case "no_route":
		return "is this an svc-index server of this version? check --server"
	case "filtered":
		return "there are providers: loosen --region or --min-freshness"
	}
	return "every place was asked: check the spelling, or publish it"
}

// printable is s with everything that could drive a terminal taken out: ids
// and addresses were written by strangers.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return '?'
		}
		return r
	}, s)
}

// printableLines is printable of each line: an error may have several, and words
// of a server's in it.
func printableLines(s string) string {
	lines := strings.Split(s, "\n")
	for i := range lines {
		lines[i] = printable(lines[i])
	}
	return strings.Join(lines, "\n")
}

// seconds is a flag that takes 90, 90s or 24h.
type seconds int64

func (*seconds) Type() string { return "duration" }

func (s *seconds) String() string {
	if *s == 0 {
		return "0" // which --help knows not to mention
	}
	return (time.Duration(*s) * time.Second).String()
}

func (s *seconds) Set(text string) error {
	if n, err := strconv.ParseUint(text, 10, 32); err == nil {
		*s = seconds(n)
		return nil
	}
	d, err := time.ParseDuration(text)
	if err != nil || d < 0 || d%time.Second != 0 {
		return errors.New("want whole seconds, such as 90, 90s or 24h")
	}
	*s = seconds(d / time.Second)
	return nil
}
