package config

import (
	"bytes"
	"fmt"
	"io"
	"slices"
	"strings"

	"svcindex/profiles"
)

// WriteDoc writes the page of all keys, docs/config.md.
func WriteDoc(w io.Writer) error {
	var b bytes.Buffer
	b.WriteString(docHead)
	table := "-"
	for _, k := range Keys() {
		if t := k.Name[:max(strings.IndexByte(k.Name, '.'), 0)]; t != table {
			table = t
			docTable(&b, t)
		}
		change := "restart"
		if k.Live {
			change = "live"
		}
		kind := k.Type
		if k.Unit != "" {
			kind += ", " + k.Unit
		}
		fmt.Fprintf(&b, "| `%s` | %s | `%s` | %s | %s |\n", k.Name, kind, k.Default, change, strings.ReplaceAll(k.Doc, "|", "\\|"))
	}
	if err := docProfiles(&b); err != nil {
		return err
	}
	_, err := w.Write(b.Bytes())
	return err
}

const docHead = `<!-- Written by "make docs" from config/keys.go and profiles/. Do not edit. -->
# Configuration

Defaults < profile < file (--config, TOML) < environment < flags. A key nobody knows is an error that names the nearest
known one. The environment variable of a key is SVC_INDEX_, then the key in capitals with _ for the dots:
SVC_INDEX_LIMITS_INFLIGHT. Any key can be given as a flag: --set limits.inflight=512.

"svc-index config print --origin" shows each value and where it came from; "svc-index config check" says what is wrong,
where, and what it should be.

SIGHUP, or a change of the file, reloads. Keys marked *live* change at once, and no request sees half of a change; keys
marked *restart* keep their value until the next start, and the log says so. A file that does not pass the check
changes nothing: the reason is logged and counted in config_reloads_total{result="failed"}.

A duration is written with its unit ("180ms", "2s", "10m"), a size with its unit or as bytes ("64MiB").
`

// docTable begins the table of the keys under name.
func docTable(b *bytes.Buffer, name string) {
	if name == "" {
		name = "The server"
	}
	fmt.Fprintf(b, "\n## %s\n\n| key | type | default | change | what it is |\n|---|---|---|---|---|\n", name)
}

// docProfiles says what each profile sets.
func docProfiles(b *bytes.Buffer) error {
	b.WriteString("\n## Profiles\n\nWhat a profile sets over the defaults; --profile chooses one.\n\n| key |")
	set := map[string]map[string]string{}
	for _, name := range profiles.Names() {
		fmt.Fprintf(b, " %s |", name)
		settings, err := fromProfile(name)
		if err != nil {
			return err
		}
		c, from := Defaults(), Origins{}
		if err := c.apply(settings, from); err != nil {
			return err
		}
		set[name] = map[string]string{}
		for _, k := range c.keys() {
			if _, ok := from[k.name]; ok {
				set[name][k.name] = "`" + show(k.at) + "`"
			}
		}
	}
	b.WriteString("\n|---|" + strings.Repeat("---|", len(set)) + "\n")
	for _, k := range Keys() {
		row := []string{}
		for _, name := range profiles.Names() {
			row = append(row, set[name][k.Name])
		}
		if slices.ContainsFunc(row, func(s string) bool { return s != "" }) {
			fmt.Fprintf(b, "| `%s` | %s |\n", k.Name, strings.Join(row, " | "))
		}
	}
	return nil
}
