package netio

import "svcindex/index"

// A refusal is an answer that needs no work: what was wrong with a request, in
// words that tell its sender what to do. Refusals are constants; nothing from
// a request ever enters one.
type refusal struct {
	status  int
	code    string // as in the status table of the API
	message string
	reason  string // detail for programs, "" for none
	allow   string // the Allow field of a 405
	coding  string // the Accept-Encoding field of a 415 (RFC 9110 15.5.16)
	reject  index.Reject
	close   bool // nothing more may be read from the connection
}

func (r *refusal) Error() string { return r.message }

// malformed is a fault that leaves doubt about where the next request begins.
func malformed(message string) *refusal {
	return &refusal{status: 400, code: "bad_request", message: message, reject: index.RejectBadRequest, close: true}
}

// wrong is a fault in a request whose end is known.
func wrong(message string) *refusal {
	return &refusal{status: 400, code: "bad_request", message: message, reject: index.RejectBadRequest}
}

// notAllowed is a method that the path does not know.
func notAllowed(allow string) *refusal {
	return &refusal{status: 405, code: "method_not_allowed", allow: allow, reject: index.RejectBadRequest,
		message: "use one of the methods in the Allow field"}
}

// Faults of a request head, in the order a reader meets them.
var (
	errEmptyLines  = malformed("send at most 4 empty lines before a request line")
	errBareLF      = malformed("a line must end in CRLF")
	errBareCR      = malformed("CR may stand only before LF at the end of a line")
	errMethodByte  = malformed("a request line begins with a method: letters, digits and !#$%&'*+-.^_`|~, then one space")
	errMethodLong  = &refusal{status: 501, code: "not_implemented", message: "no method is this long; use GET, HEAD, PUT, POST or DELETE", reject: index.RejectBadRequest, close: true}
	errRequestLine = malformed("a request line is a method, a target and HTTP/1.1, with one space between them")
	errTargetByte  = malformed("percent-encode bytes of the target that are not visible ASCII; send no fragment")
	errURI         = &refusal{status: 414, code: "uri_too_long", reason: "limits.target_bytes", message: "the request target is too long; ask for less in one request", reject: index.RejectBadRequest, close: true}
	errVersionForm = malformed("end the request line with HTTP/1.1 or HTTP/1.0, and CRLF")
	errVersion     = &refusal{status: 505, code: "http_version", message: "speak HTTP/1.1 or HTTP/1.0", reject: index.RejectBadRequest, close: true}
	errHeadCap     = &refusal{status: 431, code: "header_cap", reason: "limits.head_bytes", message: "the request head is too large; send fewer or shorter fields", reject: index.RejectBadRequest, close: true}
	errFields      = &refusal{status: 431, code: "header_cap", message: "send at most 100 header fields", reject: index.RejectBadRequest, close: true}
	errFold        = malformed("a field line must not begin with white space; send each field on one line")
	errFieldName   = malformed("a field line is a name, a colon directly after it, and a value")
	errFieldValue  = malformed("a field value must not hold control characters")

	errHostMissing      = malformed("an HTTP/1.1 request needs a Host field")
	errHostTwice        = malformed("send Host once")
	errHost             = malformed("Host is a host name or address, and a port if any")
	errConnection       = malformed("Connection is a list of options, separated by commas")
	errLength           = malformed("Content-Length is a decimal number")
	errLengthTwice      = malformed("send Content-Length once")
	errTransferEncoding = &refusal{status: 501, code: "not_implemented", message: "the only transfer coding here is chunked", reject: index.RejectBadRequest, close: true}
	errTransferEmpty    = malformed("name a transfer coding, or leave Transfer-Encoding out")
	errTransferTwice    = malformed("send Transfer-Encoding once")
	errTransferOld      = malformed("Transfer-Encoding needs HTTP/1.1; send a Content-Length")
	errTwoLengths       = malformed("send either Content-Length or Transfer-Encoding, not both")
	errExpect           = &refusal{status: 417, code: "bad_request", message: "the only expectation here is 100-continue, once", reject: index.RejectBadRequest, close: true}
	errAuthTwice        = malformed("send Authorization once")
	errTypeTwice        = malformed("send Content-Type once")
	errCodingTwice      = &refusal{status: 415, code: "unsupported_type", coding: "gzip", message: "send Content-Encoding once: gzip, or leave it out", reject: index.RejectBadRequest, close: true}
	errIdemTwice        = malformed("send Idempotency-Key once")
	errPartialPut       = malformed("PUT replaces the whole; leave Content-Range out")
)

// Faults of a body.
var (
	errBodyCap     = &refusal{status: 413, code: "body_cap", message: "the body is too large", reject: index.RejectBodyCap, close: true}
	errBodyLong    = &refusal{status: 413, code: "body_cap", reason: "limits.body", message: errBodyCap.message, reject: index.RejectBodyCap, close: true}
	errChunkSize   = malformed("a chunk begins with its size: 1 to 16 hex digits")
	errChunkExt    = malformed("a chunk extension is ;name, ;name=token or ;name=\"string\"; send few, or none")
	errChunkLine   = malformed("a chunk line must end in CRLF")
	errChunkEnd    = malformed("a chunk's content is followed by CRLF and must be as long as its size says")
	errTrailerCap  = &refusal{status: 431, code: "header_cap", message: "keep the trailer section within 4096 bytes", reject: index.RejectBadRequest, close: true}
	errTrailerName = malformed("a trailer line is a name, a colon directly after it, and a value")
)

// Faults of a target.
var (
	errMethod     = &refusal{status: 501, code: "not_implemented", message: "use GET, HEAD, PUT, POST or DELETE, in capitals", reject: index.RejectBadRequest, close: true}
	errTargetForm = wrong("a target begins with / or is an absolute http or https URL")
	errTarget     = wrong("percent-encode bytes of the target that a URL may not hold; % is followed by two hex digits")
	errAuthority  = wrong("an absolute target needs a host, a port of digits if any, and no user information")
	errNoRoute    = &refusal{status: 404, code: "not_found", reason: "no_route", message: "there is nothing under this path", reject: index.RejectBadRequest}

	errKey        = wrong(index.ErrKey.Error())
	errName       = wrong(index.ErrName.Error())
	errSelfName   = wrong(index.ErrSelfName.Error())
	errCID        = wrong(index.ErrCID.Error())
	errNotName    = wrong("the path needs a name: name: and its text")
	errProviderID = wrong("a provider id is 1 to 128 bytes of A-Z a-z 0-9 . _ ~ -")
	errTaskID     = wrong("a task id is 1 to 128 bytes of A-Z a-z 0-9 . _ ~ -")

	errParamTwice   = wrong("send each query parameter once")
	errFresh        = wrong("fresh is true or false")
	errRegion       = wrong("region is 1 to 64 bytes of A-Z a-z 0-9 . _ -")
	errLimit        = wrong("limit is a number from 1 to 32")
	errMinFreshness = wrong("min_freshness is a number of seconds from 0 to 2147483648")
	errSeq          = wrong("seq is a number from 1 to 9007199254740991")

	errFacets = &refusal{status: 501, code: "not_implemented", message: "facets are off on this server", reject: index.RejectBadRequest}

	errAllowRead      = notAllowed("GET, HEAD")
	errAllowPut       = notAllowed("PUT")
	errAllowPost      = notAllowed("POST")
	errAllowDelete    = notAllowed("DELETE")
	errAllowNames     = notAllowed("PUT, DELETE")
	errAllowProviders = notAllowed("GET, HEAD, PUT")
	errAllowServer    = notAllowed("GET, HEAD, PUT, POST, DELETE") // OPTIONS *
)
