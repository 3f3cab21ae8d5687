package stages

import (
	"bytes"
	"compress/gzip"
	"io"
	"slices"

	"svcindex/index"
)

// A BodyLimit bounds a decoded body.
type BodyLimit struct {
	Bytes int64 // most it may be decoded; 0: no limit
	Ratio int64 // most it may be over what came on the wire; 0: no limit
}

// ratioFloor is what a small body may always grow to: a gzip header alone is
// 18 bytes, and ten times that would refuse honest JSON.
const ratioFloor = 4 << 10

// inflate decodes a gzip body (RFC 1952), all its members together, and stops
// at the first byte over a limit.
func inflate(b []byte, lim BodyLimit) ([]byte, error) {
	most := lim.Bytes
	byRatio := false
	if lim.Ratio > 0 {
		if r := max(lim.Ratio*int64(len(b)), ratioFloor); most == 0 || r < most {
			most, byRatio = r, true
		}
	}
	zr, err := gzip.NewReader(bytes.NewReader(b))
	if err != nil {
		return nil, invalid("the body says it is gzip and is not")
	}
	defer zr.Close()
	out, err := readUpTo(zr, min(4*len(b), 64<<10), most)
	if err != nil {
		return nil, invalid("the gzip body is damaged or cut short")
	}
	if most > 0 && int64(len(out)) > most {
		if byRatio {
			return nil, &Refusal{index.TooLarge, ReasonRatio}
		}
		return nil, &Refusal{index.TooLarge, ReasonBody}
	}
	return out, nil
}

// readUpTo reads r to its end, or to the first byte over most, if there is a
// most. What does not fit into first bytes gets room for most at once: a buffer
// that doubles its way there has taken four times as much.
func readUpTo(r io.Reader, first int, most int64) ([]byte, error) {
	if most > 0 {
		first = int(min(int64(first), most+1))
	}
	out := make([]byte, 0, first)
	for most <= 0 || int64(len(out)) <= most {
		switch {
		case len(out) < cap(out):
		case most > 0:
			out = append(make([]byte, 0, most+1), out...)
		default:
			out = slices.Grow(out, max(len(out), 512))
		}
		n, err := r.Read(out[len(out):cap(out)])
		out = out[:len(out)+n]
		if err == io.EOF {
			return out, nil
		}
		if err != nil {
			return nil, err
		}
	}
	return out, nil
}
