package main

import (
	"bytes"
	"slices"
	"strconv"
	"unicode/utf16"

	"svcindex/index"
)

// A directory's manifest is RFC 8785 JSON: no blanks, keys sorted, one way to
// write each string and number. So the same tree has the same bytes, and the
// same content id, whoever publishes it:
//
//	{"dirs":[{"cid","name"}],"facets":{"k":"v"},"files":[{"b3","path","size"}],"v":1}
//
// "facets" is there only if there are any. A manifest over pageMax is split.
// Its entries, directories before files, each kind sorted by the bytes of its
// name, are dealt in order into manifests of their own, each taking as many as
// fit; the directory's manifest then lists those:
//
//	{"facets":{"k":"v"},"parts":["b3:..",..],"v":1}
//
// If that list is too long in turn, it is dealt the same way, into manifests
// that hold only "parts".

// pageMax is the largest manifest in bytes that publish writes, so that the
// DHT can carry it.
const pageMax = 256 << 10

// A page is a manifest ready to be stored.
type page struct {
	cid  index.CID
	text []byte
}

func newPage(text []byte) page { return page{index.Sum(text), text} }

// A facet is a key=value tag, for search.
type facet struct{ key, value string }

// sortFacets orders facets as RFC 8785 does keys: by UTF-16 code units, which
// is not the order of bytes for runes past U+FFFF.
func sortFacets(fs []facet) {
	slices.SortFunc(fs, func(a, b facet) int {
		return slices.Compare(utf16.Encode([]rune(a.key)), utf16.Encode([]rune(b.key)))
	})
}

// paginate returns the manifest of the entries, preceded by its parts if it
// takes any. No page is over limit.
func paginate(dirs, files [][]byte, facets []facet, limit int) []page {
	whole := newPage(appendManifest(nil, dirs, facets, files))
	if len(whole.text) <= limit {
		return []page{whole}
	}
	parts := deal(dirs, files, limit)
	return append(parts, paginateParts(parts, facets, limit)...)
}

// paginateParts returns the manifest that lists parts, preceded by more lists
// if one is not enough.
func paginateParts(parts []page, facets []facet, limit int) []page {
	entries := make([][]byte, len(parts))
	for i := range parts {
		entries[i] = appendString(nil, parts[i].cid.String())
	}
	whole := newPage(appendParts(nil, facets, entries))
	if len(whole.text) <= limit {
		return []page{whole}
	}
	var lists []page
	room := limit - len(appendParts(nil, nil, nil))
	for _, group := range groups(entries, room) {
		lists = append(lists, newPage(appendParts(nil, nil, group)))
	}
	return append(lists, paginateParts(lists, facets, limit)...)
}

// deal splits entries in order into manifests of at most limit bytes.
func deal(dirs, files [][]byte, limit int) []page {
	var pages []page
	room := limit - len(appendManifest(nil, nil, nil, nil))
	both := slices.Concat(dirs, files)
	at := 0
	for _, group := range groups(both, room) {
		// Of this group, how many are directories?
		n := min(max(len(dirs)-at, 0), len(group))
		pages = append(pages, newPage(appendManifest(nil, group[:n], nil, group[n:])))
		at += len(group)
	}
	return pages
}

// groups cuts entries, in order, into runs that fit in room bytes. Every entry
// is charged a comma, also the first of a list, so that a run depends on
// nothing but the lengths of its entries.
func groups(entries [][]byte, room int) (out [][][]byte) {
	start, size := 0, 0
	for i, e := range entries {
		if cost := len(e) + 1; size+cost > room && i > start {
			out = append(out, entries[start:i])
			start, size = i, cost
		} else {
			size += cost
		}
	}
	return append(out, entries[start:])
}

func appendManifest(b []byte, dirs [][]byte, facets []facet, files [][]byte) []byte {
	b = appendList(append(b, `{"dirs":`...), dirs)
	b = appendFacets(append(b, ','), facets)
	b = appendList(append(b, `"files":`...), files)
	return append(b, `,"v":1}`...)
}

func appendParts(b []byte, facets []facet, parts [][]byte) []byte {
	b = appendFacets(append(b, '{'), facets)
	b = appendList(append(b, `"parts":`...), parts)
	return append(b, `,"v":1}`...)
}

func appendList(b []byte, entries [][]byte) []byte {
	b = append(b, '[')
	b = append(b, bytes.Join(entries, []byte(","))...)
	return append(b, ']')
}

// appendFacets appends the member "facets" and a comma, or nothing.
func appendFacets(b []byte, facets []facet) []byte {
	if len(facets) == 0 {
		return b
	}
	b = append(b, `"facets":`...)
	sep := byte('{')
	for _, f := range facets {
		b = append(appendString(append(b, sep), f.key), ':')
		b = appendString(b, f.value)
		sep = ','
	}
	return append(b, "},"...)
}

func dirEntry(name string, cid index.CID) []byte {
	b := cid.AppendText([]byte(`{"cid":"`))
	b = appendString(append(b, `","name":`...), name)
	return append(b, '}')
}

func fileEntry(path string, size int64, cid index.CID) []byte {
	b := cid.AppendText([]byte(`{"b3":"`))
	b = appendString(append(b, `","path":`...), path)
	b = strconv.AppendInt(append(b, `,"size":`...), size, 10)
	return append(b, '}')
}

// appendString appends valid UTF-8 as RFC 8785 writes it: two-letter escapes
// where JSON has them, \u00xx for the other control characters, and all else
// as it is.
func appendString(b []byte, s string) []byte {
	const short, hex = "btn\x00fr", "0123456789abcdef"
	b = append(b, '"')
	for i := range len(s) {
		switch c := s[i]; {
		case c == '"' || c == '\\':
			b = append(b, '\\', c)
		case c >= '\b' && c <= '\r' && c != '\v':
			b = append(b, '\\', short[c-'\b'])
		case c < ' ':
			b = append(b, `\u00`...)
			b = append(b, hex[c>>4], hex[c&15])
		default:
			b = append(b, c)
		}
	}
	return append(b, '"')
}
