package netio

import (
	"cmp"
	"encoding/json"
	"math/rand/v2"
	"strconv"
	"time"

	"svcindex/index"
)

// appendHead appends the lines every answer begins with.
func (s *slot) appendHead(b []byte, status int) []byte {
	if status == 200 {
		b = append(b, "HTTP/1.1 200 OK\r\nX-Corr-ID: "...)
	} else {
		b = append(b, "HTTP/1.1 "...)
		b = strconv.AppendInt(b, int64(status), 10)
		b = append(b, ' ')
		b = append(b, statusText[status]...)
		b = append(b, "\r\nX-Corr-ID: "...)
	}
	b = append(b, s.corr[:s.corrLen]...)
	b = append(b, "\r\n"...)
	switch {
	case s.close:
		b = append(b, "Connection: close\r\n"...)
	case s.old:
		b = append(b, "Connection: keep-alive\r\n"...)
	}
	s.status = status
	return s.appendLimit(b)
}

func (s *slot) appendDate(b []byte) []byte {
	b = append(b, "Date: "...)
	b = append(b, s.server.date.Load()[:]...)
	return append(b, "\r\n"...)
}

// respond renders the answer of a finished job. It runs on whichever worker
// finished it.
func (s *slot) respond(dst []byte) []byte {
	j := &s.job
	switch {
	case j.Result == index.OK && !j.Ask.IsLookup():
		return s.document(dst)
	case j.Result == index.OK:
		return s.record(dst)
	}
	return s.failure(dst, j.Result)
}

// record renders a 200, or the 304 in its place, of a look-up.
func (s *slot) record(dst []byte) []byte {
	j, a := &s.job, &s.job.Answer
	if a.Page == nil {
		s.server.pages.Render(j)
		switch {
		case a.Page != nil:
		case j.Ask != index.AskProviders:
			return s.failure(dst, index.Broken)
		case a.Partial || a.Stale:
			// That nobody is left of a set that may lack some proves nothing.
			return s.failure(dst, cmp.Or(j.Doubt, index.Down))
		default:
			return s.error(dst, &s.server.filtered, nil)
		}
	}
	if !s.head && s.ifNoneMatch == nil && !a.Stale && !j.Fresh {
		dst = s.appendHead(dst, 200)
		at := len(dst)
		dst = append(dst, a.Page...)
		patch(dst[at:], s.server.date.Load(), a.From, a.Age)
		return dst
	}
	etag, body := cut(a.Page)
	status := 200
	if s.ifNoneMatch != nil && !a.Stale && matches(s.ifNoneMatch, etag) {
		status = 304
	}
	dst = s.appendHead(dst, status)
	dst = s.appendDate(dst)
	dst = append(dst, "X-Index-Source: "...)
	dst = append(dst, a.From.String()...)
	dst = append(dst, "\r\nAge: "...)
	dst = strconv.AppendInt(dst, seconds(a.Age), 10)
	dst = append(dst, "\r\nETag: "...)
	dst = append(dst, etag...)
	if a.Stale {
		dst = append(dst, "\r\nX-Index-Stale: true"...)
	}
	dst = append(dst, "\r\nX-Index-Complete: "...)
	if a.Partial || a.Stale {
		dst = append(dst, "partial\r\n"...)
	} else {
		dst = append(dst, "full\r\n"...)
	}
	if status == 304 {
		if j.Ask != index.AskManifest {
			dst = append(dst, "Vary: Accept\r\n"...)
		}
		dst = append(dst, "Cache-Control: "...)
		dst = append(dst, cacheControl(j, a.Stale)...)
		return append(dst, "\r\n\r\n"...)
	}
	dst = appendEntity(dst, j, cacheControl(j, a.Stale), len(body))
	dst = append(dst, "\r\n"...)
	if s.head {
		return dst
	}
	return append(dst, body...)
}

// document renders the answer to a write.
func (s *slot) document(dst []byte) []byte {
	j := &s.job
	status := 200
	switch {
	case j.Op == index.Reindex && j.Ask == index.AskWrite:
		status = 202
	case j.Answer.Created:
		status = 201
	}
	body, err := s.encode(j.Answer.Doc)
	if err != nil {
		return s.failure(dst, index.Broken)
	}
	dst = s.appendHead(dst, status)
	dst = s.appendDate(dst)
	if j.Answer.Location != "" {
		dst = append(dst, "Location: "...)
		dst = append(dst, j.Answer.Location...)
		dst = append(dst, "\r\n"...)
	}
	return s.appendBody(dst, body, "no-store")
}

// docRoom is for what is said of a write; a signed name's is longer.
const docRoom = 256

// encode renders a document in the form the client wants.
func (s *slot) encode(doc any) ([]byte, error) {
	if s.job.Format == index.CBOR {
		return index.MarshalCBOR(doc)
	}
	if d, ok := doc.(index.JSONAppender); ok {
		return d.AppendJSON(make([]byte, 0, docRoom)), nil
	}
	return json.Marshal(doc)
}

func (s *slot) appendBody(dst, body []byte, control string) []byte {
	dst = append(dst, "Content-Type: application/json\r\n"...)
	if s.job.Format == index.CBOR {
		dst = append(dst[:len(dst)-len("json\r\n")], "cbor\r\n"...)
	}
	dst = append(dst, "Content-Length: "...)
	dst = strconv.AppendInt(dst, int64(len(body)), 10)
	dst = append(dst, "\r\nVary: Accept\r\nCache-Control: "...)
	dst = append(dst, control...)
	dst = append(dst, "\r\n\r\n"...)
	if s.head {
		return dst
	}
	return append(dst, body...)
}

// failure renders the answer of a job that ended badly.
func (s *slot) failure(dst []byte, k index.Kind) []byte {
	v := &verdicts[k]
	r := refusal{status: v.status, code: v.code, message: v.message, reason: s.job.Answer.Reason, reject: v.reject}
	if k == index.Late && r.reason == "" && !time.Now().Before(s.job.Deadline) { // else a room's slice was too short
		r.reason = timeoutKey(&s.job)
	}
	if r.reason == s.server.reasonRatio {
		r.reject = index.RejectDecompressCap
	}
	s.uncounted = !v.counted
	return s.error(dst, &r, &s.job)
}

// An errorDoc is the body of every answer that is not a success.
type errorDoc struct {
	Code       string `json:"code"`
	Message    string `json:"message"`
	CorrID     string `json:"corr_id"`
	RetryAfter int64  `json:"retry_after,omitempty"`
	Stage      string `json:"stage,omitempty"`
	Reason     string `json:"reason,omitempty"`
	CurrentSeq uint64 `json:"current_seq,omitempty"`
}

// appendJSON appends the document. A 404 is what a client with bad intentions
// asks for most, so it is written by hand: no allocation, no reflection.
func (d *errorDoc) appendJSON(b []byte) []byte {
	text := func(name, value string) {
		if value != "" {
			b = append(append(append(b, `,"`...), name...), `":`...)
			b = index.AppendJSONString(b, value)
		}
	}
	b = append(b, `{"code":`...)
	b = index.AppendJSONString(b, d.Code)
	text("message", d.Message)
	text("corr_id", d.CorrID)
	if d.RetryAfter > 0 {
		b = strconv.AppendInt(append(b, `,"retry_after":`...), d.RetryAfter, 10)
	}
	text("stage", d.Stage)
	text("reason", d.Reason)
	if d.CurrentSeq > 0 {
		b = strconv.AppendUint(append(b, `,"current_seq":`...), d.CurrentSeq, 10)
	}
	return append(b, '}')
}

// error renders a refusal. j is nil when no room has seen the request.
func (s *slot) error(dst []byte, r *refusal, j *index.Job) []byte {
	doc := errorDoc{Code: r.code, Message: r.message, CorrID: string(s.corr[:s.corrLen]), Reason: r.reason}
	retry := s.limit.wait
	if j != nil {
		doc.CurrentSeq, retry = j.Answer.Seq, j.Answer.RetryAfter
		if r.status != 404 {
			doc.Stage = j.Stage
		}
	}
	if r.status == 429 || r.status == 503 || r.status == 507 {
		doc.RetryAfter = int64((retry + time.Second - 1) / time.Second)
		if doc.RetryAfter < 1 {
			doc.RetryAfter = 1 + rand.Int64N(2) // so that those refused together do not return together
		}
	}
	s.rejected, s.close = r.reject, s.close || r.close
	s.refused = !s.uncounted && r.status != 404
	if r.status == 406 {
		s.job.Format = index.JSON
	}
	var room [512]byte
	body := doc.appendJSON(room[:0])
	if s.job.Format == index.CBOR {
		if b, err := index.MarshalCBOR(&doc); err == nil {
			body = b
		}
	}
	dst = s.appendHead(dst, r.status)
	dst = s.appendDate(dst)
	switch {
	case r.status == 401:
		dst = append(dst, "WWW-Authenticate: Bearer realm=\"svc-index\"\r\n"...)
	case r.allow != "":
		dst = append(dst, "Allow: "...)
		dst = append(dst, r.allow...)
		dst = append(dst, "\r\n"...)
	case r.coding != "":
		dst = append(dst, "Accept-Encoding: "...)
		dst = append(dst, r.coding...)
		dst = append(dst, "\r\n"...)
	case doc.RetryAfter > 0:
		dst = append(dst, "Retry-After: "...)
		dst = strconv.AppendInt(dst, doc.RetryAfter, 10)
		dst = append(dst, "\r\n"...)
	}
	return s.appendBody(dst, body, "no-store")
}

// plain renders a local answer: health, readiness, version.
func (s *slot) plain(dst []byte, status int, body []byte, retry int) []byte {
	s.job.Format = index.JSON
	dst = s.appendHead(dst, status)
	dst = s.appendDate(dst)
	if retry > 0 {
		dst = append(dst, "Retry-After: "...)
		dst = strconv.AppendInt(dst, int64(retry), 10)
		dst = append(dst, "\r\n"...)
	}
	return s.appendBody(dst, body, "no-store")
}
