package main

import (
	"bufio"
	"bytes"
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"svcindex/index"
	"svcindex/netio"
	"svcindex/stages/ram"
)

// What clients asked for last is written down when a server ends, and read into
// the cache when it begins: or the first minute after a restart would be one of
// misses. It is a hint: a list that is damaged, or of another version, costs
// some of that and nothing else.

const (
	warmFile   = "warm.keys"
	warmHead   = "svc-index warm keys 1" // the first line
	warmWithin = 2 * time.Second         // for reading the answers: a start must not wait for them longer
)

// The words of a line: what was asked, in which format, and the key.
var (
	warmAsks    = []string{index.AskResolve: "resolve", index.AskProviders: "providers", index.AskManifest: "manifest"}
	warmFormats = []string{index.JSON: "json", index.CBOR: "cbor"}
)

func (h *house) warmPath() string { return filepath.Join(h.cfg.DataDir, warmFile) }

// keepWarm writes down what was asked last. It leaves the list of before if
// nothing was asked, or nobody could: a server that did not come up knows
// nothing better.
func (h *house) keepWarm(ctx context.Context) {
	if h.cfg.Cache.WarmupKeys == 0 || h.addr == nil {
		return
	}
	asked := h.cache.Recent(ctx, h.cfg.Cache.WarmupKeys)
	if len(asked) == 0 {
		return
	}
	var b bytes.Buffer
	b.WriteString(warmHead + "\n")
	for _, r := range asked {
		b.WriteString(warmAsks[r.Ask] + " " + warmFormats[r.Format] + " " + r.Key.String() + "\n")
	}
	err := bounded(ctx, warmFile, func() error {
		tmp := h.warmPath() + ".new"
		if err := os.WriteFile(tmp, b.Bytes(), 0o600); err != nil {
			return err
		}
		return os.Rename(tmp, h.warmPath())
	})
	if err != nil {
		h.log.Warn("what was asked last is not kept for the next start", "err", err)
	}
}

// warmUp reads what was asked last from the store into the cache, as far as the
// time goes. What the network would have to be asked for is left out.
func (h *house) warmUp(pages *netio.Pages) {
	most := h.cfg.Cache.WarmupKeys
	if most == 0 {
		return
	}
	f, err := os.Open(h.warmPath())
	if err != nil {
		return // the first start
	}
	defer f.Close()
	began, lines := time.Now(), bufio.NewScanner(f)
	if !lines.Scan() || lines.Text() != warmHead {
		return
	}
	warmed := h.line.Counts()
	for n := 0; n < most && time.Since(began) < warmWithin && lines.Scan(); n++ {
		if r, ok := parseWarm(lines.Text()); ok && h.warm(&r, pages) {
			warmed.Warmed.Add(1)
		}
	}
	h.log.Info("the cache is warm", "answers", warmed.Warmed.Load(), "took", time.Since(began).Round(time.Millisecond).String())
}

// parseWarm reads a line of the list.
func parseWarm(line string) (r ram.Recent, ok bool) {
	words := strings.Split(line, " ")
	if len(words) != 3 {
		return r, false
	}
	ask, format := slices.Index(warmAsks, words[0]), slices.Index(warmFormats, words[1])
	k, err := index.ParseKey(words[2])
	return ram.Recent{Ask: index.Ask(ask), Format: index.Format(format), Key: k}, err == nil && ask > 0 && format >= 0
}

// warm looks for one answer in the store, and keeps it.
func (h *house) warm(r *ram.Recent, pages *netio.Pages) bool {
	j := &index.Job{
		Ask: r.Ask, Format: r.Format, Key: r.Key, Hash: h.gens.Hash(&r.Key), Tuning: h.dial.Now(),
		Query: index.ProviderQuery{Limit: index.DefaultLimit},
	}
	j.Noted = h.gens.Note(j.Hash)
	if err := h.shelf.Do(j); err != nil || j.Answer.Past {
		return false
	}
	pages.Render(j)
	return j.Answer.Page != nil && h.cache.PutIf(j)
}
