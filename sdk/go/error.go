package client

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// An Error is an answer that is not a success.
type Error struct {
	Status     int    // of HTTP
	Code       string // svc-index's word for it; empty if something else answered
	Message    string // constant text
	Reason     string // details and figures, if any
	Stage      string // where it happened: cache, db, dht or write, if anywhere
	CorrID     string // finds the request in the server's log
	RetryAfter time.Duration
	CurrentSeq uint64 // conflict on a name: the sequence that stands
}

func (e *Error) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%d %s: %s", e.Status, e.Code, e.Message)
	sep := " ("
	for _, d := range [...]struct{ name, text string }{{"reason", e.Reason}, {"stage", e.Stage}, {"corr_id", e.CorrID}} {
		if d.text != "" {
			b.WriteString(sep + d.name + " " + d.text)
			sep = ", "
		}
	}
	if sep == ", " {
		b.WriteByte(')')
	}
	return b.String()
}

// IsNotFound reports whether err is the promise that every place was asked and
// has not got it. A 404 from something that is not svc-index, or for a path it
// does not know, promises nothing.
func IsNotFound(err error) bool {
	e, ok := errors.AsType[*Error](err)
	return ok && e.Status == http.StatusNotFound && e.Code == "not_found" && e.Reason != "no_route"
}

// IsConflict reports whether err says that a newer record is in the way, and
// the sequence of that record.
func IsConflict(err error) (current uint64, ok bool) {
	e, ok := errors.AsType[*Error](err)
	if !ok || e.Status != http.StatusConflict || e.CurrentSeq == 0 {
		return 0, false
	}
	return e.CurrentSeq, true
}

// decodeError reads the body of an answer that is not a success. A body that
// is not ours, a proxy's perhaps, still makes an Error with its status.
func decodeError(a *answer) *Error {
	var b struct {
		Code       string  `json:"code"`
		Message    string  `json:"message"`
		Reason     string  `json:"reason"`
		Stage      string  `json:"stage"`
		CorrID     string  `json:"corr_id"`
		RetryAfter float64 `json:"retry_after"`
		CurrentSeq uint64  `json:"current_seq"`
	}
	if json.Unmarshal(a.body, &b) != nil || b.Message == "" {
		b.Message = http.StatusText(a.status)
	}
	if b.CorrID == "" {
		b.CorrID = a.header.Get("X-Corr-ID")
	}
	e := &Error{Status: a.status, Code: b.Code, Message: b.Message, Reason: b.Reason,
		Stage: b.Stage, CorrID: b.CorrID, CurrentSeq: b.CurrentSeq}
	e.RetryAfter = retryAfter(a.header.Get("Retry-After"))
	if e.RetryAfter == 0 && b.RetryAfter > 0 {
		e.RetryAfter = seconds(b.RetryAfter)
	}
	return e
}

// retryAfter reads the header: seconds, or a date. What it cannot read is 0.
func retryAfter(s string) time.Duration {
	if n, err := strconv.ParseFloat(s, 64); err == nil && n >= 0 {
		return seconds(n)
	}
	if t, err := http.ParseTime(s); err == nil {
		return max(time.Until(t), 0)
	}
	return 0
}

// seconds keeps absurd values from overflowing: a day is for ever.
func seconds(n float64) time.Duration {
	return time.Duration(min(n, 86_400) * float64(time.Second))
}
