package netio

import "svcindex/index"

// A verdict is how a Kind sounds over HTTP.
type verdict struct {
	status  int
	code    string
	message string // constant; what to do about it
	reject  index.Reject
	counted bool // in rejected_total
}

// verdicts is the one place that decides what HTTP hears of a Kind.
var verdicts = [...]verdict{
	index.OK:          {status: 200},
	index.Missing:     {404, "not_found", "no place that was asked has it", 0, false},
	index.Invalid:     {400, "bad_request", "the request makes no sense; see reason", index.RejectBadRequest, true},
	index.Unsupported: {501, "not_implemented", "this part is not built or switched off; see reason", index.RejectBadRequest, true},
	index.TooLarge:    {413, "body_cap", "the body is too large; see reason", index.RejectBodyCap, true},
	index.BadType:     {415, "unsupported_type", "the body is of a type not taken here; see reason", index.RejectBadRequest, true},
	index.Forbidden:   {403, "forbidden", "this needs the word of somebody who may say it; see reason", index.RejectUnauth, true},
	index.Conflict:    {409, "conflict", "what stands is in the way; see current_seq or reason", 0, false},
	index.Busy:        {429, "over_capacity", "too much work is waiting; come back after Retry-After", index.RejectOverCapacity, true},
	index.Late:        {504, "timeout", "the time for this request ran out", index.RejectTimeout, true},
	index.Down:        {503, "upstream_unready", "a place that has to be asked cannot be asked now; come back after Retry-After", index.RejectUpstreamUnready, true},
	index.Full:        {507, "insufficient_storage", "the disk has no room for a write", index.RejectUpstreamUnready, true},
	index.Broken:      {500, "internal", "something broke on our side; tell the operator the corr_id", index.RejectInternal, true},
}

// Refusals that the listener makes itself.
var (
	errUnauthorized = &refusal{status: 401, code: "unauthorized", reject: index.RejectUnauth,
		message: "send Authorization: Bearer with a capability of this node that has not ended"}
	errOutOfPlay = &refusal{status: 403, code: "forbidden", reason: "method_or_path", reject: index.RejectUnauth,
		message: "this capability is for other methods or paths; ask for another"}
	errNotAcceptable = &refusal{status: 406, code: "not_acceptable", reject: index.RejectBadRequest,
		message: "accept application/json or application/cbor"}
	errCoding = &refusal{status: 415, code: "unsupported_type", coding: "gzip", reject: index.RejectBadRequest,
		message: "the only content coding here is gzip"}
	errCodingOff = &refusal{status: 415, code: "unsupported_type", reason: "compression.enabled", coding: "identity", reject: index.RejectBadRequest,
		message: "this server takes no compressed bodies; send it as it is, without Content-Encoding"}
	errConditional = &refusal{status: 501, code: "not_implemented", reject: index.RejectBadRequest,
		message: "writes are not conditional here: leave out If-Match and If-None-Match; the seq of a name keeps it from being overwritten unseen"}
	errSlow = &refusal{status: 408, code: "request_timeout", reason: "limits.request_timeout", reject: index.RejectTimeout, close: true,
		message: "the request took too long to arrive"}
	errDraining = &refusal{status: 503, code: "upstream_unready", reason: "draining", reject: index.RejectUpstreamUnready, close: true,
		message: "this server is shutting down; ask another"}
	errBuffered = &refusal{status: 503, code: "upstream_unready", reason: "buffered_bytes", reject: index.RejectOverCapacity,
		message: "too many bytes are held for other clients; come back after Retry-After"}
	errOver = [index.Dimensions]*refusal{
		index.DimensionResolves: {status: 429, code: "over_capacity", reason: "quota.resolves_per_min", reject: index.RejectOverCapacity,
			message: "this address has used up its resolves of the minute; come back after Retry-After"},
		index.DimensionProviders: {status: 429, code: "over_capacity", reason: "quota.providers_per_min", reject: index.RejectOverCapacity,
			message: "this address has used up its provider look-ups of the minute; come back after Retry-After"},
		index.DimensionRatePerIP: {status: 429, code: "over_capacity", reason: "limits.rps_per_ip", reject: index.RejectOverCapacity,
			message: "this address sends more requests a second than are allowed it; come back after Retry-After"},
		index.DimensionRate: {status: 429, code: "over_capacity", reason: "limits.rps", reject: index.RejectOverCapacity,
			message: "all clients together send more requests a second than are allowed; come back after Retry-After"},
	}
	errLaneFull = &refusal{status: 429, code: "over_capacity", reason: "stages.cache.depth", reject: index.RejectOverCapacity,
		message: verdicts[index.Busy].message}
	errPanic = &refusal{status: 500, code: "internal", reject: index.RejectInternal,
		message: verdicts[index.Broken].message}
	errPeer = &refusal{status: 403, code: "forbidden", reason: "peer", reject: index.RejectUnauth, close: true,
		message: "this user may not connect here; uds.allow_uids says who may"}
	errConnCap = &refusal{status: 503, code: "upstream_unready", reason: "connections", reject: index.RejectOverCapacity, close: true,
		message: "too many connections are open; come back after Retry-After"}
)

// errUnscoped are the refusals of a capability that holds, but lacks a scope,
// in the order of the scopes.
var errUnscoped = func() (all []*refusal) {
	for _, name := range index.ScopeNames() {
		all = append(all, &refusal{status: 403, code: "forbidden", reason: name, reject: index.RejectUnauth,
			message: "this capability lacks the scope that reason names; ask for another"})
	}
	return all
}()

var statusText = map[int]string{
	100: "Continue", 200: "OK", 201: "Created", 202: "Accepted", 304: "Not Modified",
	400: "Bad Request", 401: "Unauthorized", 403: "Forbidden", 404: "Not Found", 405: "Method Not Allowed", 406: "Not Acceptable",
	408: "Request Timeout", 409: "Conflict", 413: "Content Too Large", 414: "URI Too Long",
	415: "Unsupported Media Type", 417: "Expectation Failed", 429: "Too Many Requests",
	431: "Request Header Fields Too Large", 500: "Internal Server Error", 501: "Not Implemented",
	503: "Service Unavailable", 504: "Gateway Timeout", 505: "HTTP Version Not Supported", 507: "Insufficient Storage",
}
