package index

import (
	"encoding/hex"
	"strconv"
	"unicode/utf8"
)

// A JSONAppender is a document that renders itself as encoding/json would
// render it, without looking up how.
type JSONAppender interface{ AppendJSON(dst []byte) []byte }

// AppendResolveJSON appends a ResolveResponse for a job that was answered.
func AppendResolveJSON(dst []byte, j *Job) []byte {
	k, cid := &j.Key, j.ManifestCID()
	dst = append(dst, `{"key":"`...)
	dst = k.AppendText(dst)
	dst = append(dst, `","kind":"`...)
	dst = append(dst, kindOfKey(k)...)
	dst = append(dst, `","manifest_cid":"`...)
	dst = cid.AppendText(dst)
	dst = append(dst, `","integrity":{"algo":"blake3","digest":"`...)
	dst = hex.AppendEncode(dst, cid[:])
	dst = append(dst, `"},"providers_hint":`...)
	dst = strconv.AppendInt(dst, int64(j.Answer.Hint), 10)
	if n := &j.Answer.Name; k.IsName() {
		dst = append(dst, `,"seq":`...)
		dst = strconv.AppendUint(dst, n.Seq, 10)
		if n.ExpiresAt != 0 {
			dst = append(dst, `,"expires_at":`...)
			dst = strconv.AppendInt(dst, n.ExpiresAt, 10)
		}
		if n.Signed() {
			dst = append(dst, `,"signed":true`...)
		}
	}
	return append(dst, '}')
}

// ManifestCID returns the manifest a resolve was answered with.
func (j *Job) ManifestCID() CID {
	if j.Key.IsName() {
		return j.Answer.Name.CID
	}
	return j.Key.CID()
}

func kindOfKey(k *Key) string {
	if k.IsName() {
		return "name"
	}
	return "cid"
}

// AppendProvidersJSON appends a ProvidersResponse with the first of vs that
// the asker's limit admits.
func AppendProvidersJSON(dst []byte, j *Job, vs []Ranked) []byte {
	dst = append(dst, `{"cid":"`...)
	dst = j.Key.AppendText(dst)
	dst = append(dst, `","providers":[`...)
	for i, v := range vs[:min(len(vs), j.Query.Limit)] {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = append(dst, `{"id":`...)
		dst = AppendJSONString(dst, v.ID)
		dst = append(dst, `,"addr":`...)
		dst = AppendJSONString(dst, v.Addr)
		dst = append(dst, `,"region":`...)
		dst = AppendJSONString(dst, v.Region)
		dst = append(dst, `,"class":"`...)
		dst = append(dst, v.Class...)
		dst = append(dst, `","score":`...)
		dst = strconv.AppendFloat(dst, v.Score, 'f', -1, 64)
		dst = append(dst, `,"last_seen":`...)
		dst = strconv.AppendInt(dst, v.LastSeen, 10)
		dst = append(dst, '}')
	}
	dst = append(dst, `],"truncated":`...)
	dst = strconv.AppendBool(dst, len(vs) > j.Query.Limit)
	return append(dst, '}')
}

// AppendJSONString appends s as a JSON string (RFC 8259, section 7). Bytes
// that are not UTF-8 become U+FFFD.
func AppendJSONString(dst []byte, s string) []byte {
	dst = append(dst, '"')
	for i := 0; i < len(s); {
		c := s[i]
		switch {
		case c == '"' || c == '\\':
			dst = append(dst, '\\', c)
		case c < 0x20:
			const hexes = "0123456789abcdef"
			dst = append(dst, '\\', 'u', '0', '0', hexes[c>>4], hexes[c&15])
		case c < utf8.RuneSelf:
			dst = append(dst, c)
		default:
			r, n := utf8.DecodeRuneInString(s[i:])
			dst = utf8.AppendRune(dst, r)
			i += n
			continue
		}
		i++
	}
	return append(dst, '"')
}
