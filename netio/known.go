package netio

import (
	"bytes"

	"svcindex/index"
)

// A knownHead is what a connection's last usual request said of itself. Most
// clients send the same fields with every request of a connection, and bytes
// that are equal mean the same: to compare them takes a tenth of the time of
// reading them. Only the request line is read each time.
type knownHead struct {
	text []byte // a request line, and the fields as they came
	head head   // what text says, once it has come again; of the target of the request in hand
	read bool   // head is
}

// knownMost is how many bytes of fields a connection remembers.
const knownMost = 1 << 10

// The parts of the usual request line. What fields mean depends on the version,
// and with PUT on the method.
const (
	usualMethod  = "GET "
	usualVersion = " HTTP/1.1\r\n"
	usualLine    = usualMethod + "*" + usualVersion
)

// again reads a head that differs from the remembered one in nothing but its
// target. It returns the length, or 0 if this is another: then parseHead has to
// say what it is.
func (k *knownHead) again(in []byte, maxHead, maxTarget int) (n int) {
	if len(k.text) == 0 || len(in) < len(usualMethod) || string(in[:len(usualMethod)]) != usualMethod {
		return 0
	}
	start, fields := len(usualMethod), k.text[len(usualLine):]
	end := targetEnd(in, start)
	from := end + len(usualVersion)
	n = from + len(fields)
	if end == start || end-start > maxTarget || n > min(len(in), maxHead) ||
		string(in[end:from]) != usualVersion || !bytes.Equal(in[from:n], fields) {
		return 0
	}
	if !k.read {
		_, _ = parseHead(k.text, &k.head, len(k.text)+1, len(k.text)) // of fields that it has taken before
		k.read = true
	}
	k.head.target = in[start:end]
	return n
}

// remember keeps the fields of a head that parseHead took, if it is a usual one:
// without a body, without a secret, and without what is new in every request.
func (k *knownHead) remember(in []byte, h *head) {
	from := len(usualMethod) + len(h.target) + len(usualVersion)
	if h.method != index.MethodGet || h.minor != 1 || in[0] != usualMethod[0] || len(in)-from > knownMost ||
		h.length >= 0 || h.chunked || h.expect100 || h.authorization != nil || h.corrID != nil || h.ifNoneMatch != nil {
		return
	}
	k.text = append(append(k.text[:0], usualLine...), in[from:]...)
	k.read = false
}
