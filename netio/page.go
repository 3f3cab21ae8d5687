package netio

import (
	"bytes"
	"encoding/hex"
	"strconv"
	"time"

	"svcindex/index"
)

// A page is the part of a 200 that is the same for all who ask the same: the
// lines below, an empty line and the body. What differs from one answer to the
// next stands in the first lines, at fixed places, so that a hit is one copy
// and three patches. White space after a value is not part of it (RFC 9110
// 5.5), so a short value leaves spaces behind.
const (
	pageDate   = "Date: Thu, 01 Jan 1970 00:00:00 GMT\r\n"
	pageSource = "X-Index-Source: cache\r\n"
	pageAge    = "Age: 0         \r\n"
	pageETag   = "ETag: \"b3:" // and 64 hex digits, a quote, CRLF

	atDate   = len("Date: ")
	atSource = len(pageDate) + len("X-Index-Source: ")
	atAge    = len(pageDate) + len(pageSource) + len("Age: ")
	atETag   = len(pageDate) + len(pageSource) + len(pageAge) + len("ETag: ")

	dateLen = 29
	ageLen  = 10
	etagLen = len(`"b3:"`) + 64
)

// Pages renders answers. It implements index.Renderer.
type Pages struct {
	Rank index.Rank // for a job without a Tuning
	Now  func() time.Time
}

var _ index.Renderer = (*Pages)(nil)

// bodyRoom is for a body until its length is known. A resolve's is some 350
// bytes; one that is longer grows into the heap.
const bodyRoom = 1 << 10

// pageRoom is for what stands before the body.
const pageRoom = 320

// Render implements index.Renderer.
func (p *Pages) Render(j *index.Job) {
	var room [bodyRoom]byte
	body, ok := p.body(room[:0], j)
	if !ok {
		j.Answer.Page = nil
		return
	}
	etag := j.Key.CID()
	if j.Ask != index.AskManifest {
		etag = index.Sum(body)
	}
	b := j.Answer.Page[:0]
	if room := pageRoom + len(body); cap(b) < room {
		b = make([]byte, 0, room)
	}
	b = append(b, pageDate+pageSource+pageAge+pageETag...)
	b = hex.AppendEncode(b, etag[:])
	b = append(b, "\"\r\nX-Index-Complete: "...)
	if j.Answer.Partial {
		b = append(b, "partial\r\n"...)
	} else {
		b = append(b, "full\r\n"...)
	}
	b = appendEntity(b, j, pageControl(j), len(body))
	b = append(b, "\r\n"...)
	j.Answer.Page = append(b, body...)
}

// body appends the body of an answer. Not ok: nothing is left of it for this
// asker, or it could not be encoded.
func (p *Pages) body(dst []byte, j *index.Job) (_ []byte, ok bool) {
	switch j.Ask {
	case index.AskManifest:
		return append(dst, j.Answer.Body...), true
	case index.AskResolve:
		if j.Format == index.CBOR {
			b, err := index.AppendResolveCBOR(dst, j)
			return b, err == nil
		}
		return index.AppendResolveJSON(dst, j), true
	}
	var room [index.HintMax]index.Ranked
	rank := p.Rank
	if j.Tuning != nil {
		rank = j.Tuning.Rank
	}
	vs := rank.Order(room[:0], j.Answer.Providers, &j.Query, p.Now().Unix())
	if len(vs) == 0 {
		return dst, false
	}
	if j.Format == index.CBOR {
		b, err := index.AppendProvidersCBOR(dst, j, vs)
		return b, err == nil
	}
	return index.AppendProvidersJSON(dst, j, vs), true
}

// appendEntity appends the lines that describe the body.
func appendEntity(b []byte, j *index.Job, control string, size int) []byte {
	b = append(b, "Content-Type: "...)
	b = append(b, contentType(j)...)
	b = append(b, "\r\nContent-Length: "...)
	b = strconv.AppendInt(b, int64(size), 10)
	if j.Ask != index.AskManifest {
		b = append(b, "\r\nVary: Accept"...)
	}
	b = append(b, "\r\nCache-Control: "...)
	b = append(b, control...)
	return append(b, "\r\n"...)
}

func contentType(j *index.Job) string {
	switch {
	case j.Ask == index.AskManifest:
		return "application/octet-stream"
	case j.Format == index.CBOR:
		return "application/cbor"
	}
	return "application/json"
}

// cacheControl is the Cache-Control of one answer.
func cacheControl(j *index.Job, stale bool) string {
	switch {
	case stale:
		return "no-store"
	case j.Fresh && j.Ask != index.AskManifest:
		return "no-cache"
	}
	return pageControl(j)
}

// pageControl is the Cache-Control of a page. Whoever wanted it fresh has his
// own: the page is kept for all who ask after him.
func pageControl(j *index.Job) string {
	if j.Ask == index.AskManifest {
		return "public, max-age=31536000, immutable"
	}
	return "public, max-age=5"
}

// patch writes what differs between answers into a page as Render left it: from
// the cache, and less than a second old.
func patch(page []byte, date *[dateLen]byte, from index.Source, age time.Duration) {
	*(*[dateLen]byte)(page[atDate:]) = *date
	if from != index.FromCache {
		copy(page[atSource:atSource+5], sourceText[from])
	}
	if age >= time.Second {
		strconv.AppendInt(page[atAge:atAge:atAge+ageLen], seconds(age), 10)
	}
}

// sourceText is the value of X-Index-Source, as wide as the widest.
var sourceText = [...]string{
	index.FromNowhere: "     ", index.FromCache: "cache", index.FromDB: "db   ", index.FromDHT: "dht  ",
}

// seconds returns a duration in whole seconds, as Age counts.
func seconds(d time.Duration) int64 {
	return min(max(int64(d/time.Second), 0), 1<<31)
}

// cut takes a page apart: its entity tag, quotes included, and its body.
func cut(page []byte) (etag, body []byte) {
	i := bytes.Index(page, []byte("\r\n\r\n"))
	return page[atETag : atETag+etagLen], page[i+4:]
}

// matches reports whether If-None-Match names etag. The comparison is weak
// (RFC 9110 13.1.2), but our tags are strong, so only a W/ before one of the
// client's has to be overlooked.
func matches(ifNoneMatch, etag []byte) bool {
	if string(bytes.TrimSpace(ifNoneMatch)) == "*" {
		return true
	}
	for len(ifNoneMatch) > 0 {
		i := bytes.IndexByte(ifNoneMatch, '"')
		if i < 0 {
			return false
		}
		end := bytes.IndexByte(ifNoneMatch[i+1:], '"')
		if end < 0 {
			return false
		}
		if bytes.Equal(ifNoneMatch[i:i+end+2], etag) {
			return true
		}
		ifNoneMatch = ifNoneMatch[i+end+2:]
	}
	return false
}
