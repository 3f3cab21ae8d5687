package main

import (
	"crypto/ed25519"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"svcindex/auth"
	"svcindex/index"
	client "svcindex/sdk/go"
)

const keyLong = `A publisher's key signs the names that publish --key writes. Servers that list its
public key under trust.publishers for a name prefix accept names there from
nobody else, over HTTP or from the DHT.

Who holds the file can say what the names point to: keep it from the servers,
and keep a copy. It has no password.`

func keyCmd() *cobra.Command {
	var prefix string
	create := &cobra.Command{
		Use:     "new FILE",
		Short:   "Make a publisher's key, and print its public half and the lines that trust it",
		Long:    keyLong,
		Example: "  svc-index key new publisher.key --prefix name:example",
		Args:    oneArg("FILE"),
		RunE: func(cmd *cobra.Command, args []string) error {
			prefix, err := namePrefix(prefix)
			if err != nil {
				return err
			}
			pub, err := auth.NewPublisherKey(args[0])
			if err != nil {
				return err
			}
			return showKey(cmd.OutOrStdout(), pub, args[0], prefix)
		},
	}
	show := &cobra.Command{
		Use:   "show FILE",
		Short: "Print the public half of a key again, and the lines that trust it",
		Args:  oneArg("FILE"),
		RunE: func(cmd *cobra.Command, args []string) error {
			prefix, err := namePrefix(prefix)
			if err != nil {
				return err
			}
			key, err := auth.PublisherKey(args[0])
			if err != nil {
				return err
			}
			return showKey(cmd.OutOrStdout(), key.Public().(ed25519.PublicKey), args[0], prefix)
		},
	}
	for _, cmd := range []*cobra.Command{create, show} {
		cmd.Flags().StringVar(&prefix, "prefix", "name:example", "`NAME` that the printed lines trust it with")
	}
	return group("key", "Make a publisher's key, show its public half, sign with it", strict(create), strict(show), keySignCmd())
}

// namePrefix holds --prefix to the grammar of names.
func namePrefix(p string) (string, error) {
	p, err := parsePrefix(p)
	if err != nil {
		return "", err
	}
	if k, err := index.ParseKey(p); err != nil || k.IsSelfCertifying() {
		return "", usagef("--prefix %q is no name that a key can be trusted with", p)
	}
	return p, nil
}

// A signing is what key sign is told.
type signing struct {
	seq     uint64
	expires seconds
	gone    bool
}

func keySignCmd() *cobra.Command {
	s := signing{expires: nameTTL}
	cmd := &cobra.Command{
		Use:   "sign FILE NAME [CID]",
		Short: "Sign what a name points to, and print the body to send",
		Long: `Sign what a name points to, and print the JSON body of PUT /names/NAME; with
--delete and no CID, that of DELETE /names/NAME. Nothing is sent, so the key can
stay where no network is.`,
		Example: "  svc-index key sign publisher.key name:example/site b3:af13..3262 --seq 7\n" +
			"  svc-index key sign publisher.key name:example/site --delete --seq 8",
		Args: cobra.RangeArgs(2, 3),
		RunE: func(cmd *cobra.Command, args []string) error {
			return s.run(cmd.OutOrStdout(), args, time.Now())
		},
	}
	f := cmd.Flags()
	f.Uint64Var(&s.seq, "seq", 0, "sequence `number`, one more than the one that stands (required)")
	f.Var(&s.expires, "name-ttl", "how long the signature is good; 0: for ever")
	f.BoolVar(&s.gone, "delete", false, "sign that the name is deleted")
	return strict(cmd)
}

func (s *signing) run(w io.Writer, args []string, now time.Time) error {
	name, err := index.ParseKey(args[1])
	switch {
	case err != nil || !name.IsName():
		return usagef("%q is not a name: name: and a path", args[1])
	case s.seq < 1 || s.seq > index.SeqMax:
		return usagef("--seq must be 1 to %d, one more than svc-index resolve shows", index.SeqMax)
	case s.gone == (len(args) == 3):
		return usagef("say what the name points to, or --delete")
	}
	r := index.NameRecord{Seq: s.seq, Deleted: s.gone}
	if !s.gone {
		if r.CID, err = cidArg(args[2]); err != nil {
			return err
		}
	}
	key, err := auth.PublisherKey(args[0])
	if err != nil {
		return err
	}
	body, err := json.Marshal(signed(key, &name, r, time.Duration(s.expires)*time.Second, now))
	if err == nil {
		_, err = fmt.Fprintf(w, "%s\n", body)
	}
	return err
}

// signed is the signed body of a name, good from now on for ttl; 0: for ever.
func signed(key ed25519.PrivateKey, name *index.Key, r index.NameRecord, ttl time.Duration, now time.Time) client.NameRecord {
	r.IssuedAt = now.Unix()
	if ttl > 0 {
		r.ExpiresAt = now.Add(ttl).Unix()
	}
	auth.SignName(key, name, &r)
	text := base64.RawURLEncoding.EncodeToString
	return client.NameRecord{
		ManifestCID: r.CID, Seq: r.Seq, IssuedAt: r.IssuedAt, ExpiresAt: r.ExpiresAt, PubKey: text(r.PubKey), Sig: text(r.Sig),
	}
}

func showKey(w io.Writer, pub ed25519.PublicKey, file, prefix string) error {
	text := auth.FormatPublicKey(pub)
	_, err := fmt.Fprintf(w, `file     %s
pubkey   %s
own      name:@%s  and below: names that need nobody's trust

To trust it with all names under %s, in the configuration of a server:

[trust.publishers]
"%s" = ["%s"]

or SVC_INDEX_TRUST_PUBLISHERS='%s=%s'
`, file, text, hex.EncodeToString(pub), prefix, prefix, text, prefix, text)
	return err
}
