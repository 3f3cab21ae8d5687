package stages

import (
	"bytes"
	"compress/gzip"
	"io"

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
	var in io.Reader = zr
	if most > 0 {
		in = io.LimitReader(zr, most+1)
	}
	out := bytes.NewBuffer(make([]byte, 0, min(4*len(b), 64<<10)))
	if _, err := out.ReadFrom(in); err != nil {
		return nil, invalid("the gzip body is damaged or cut short")
	}
	if most > 0 && int64(out.Len()) > most {
		if byRatio {
			return nil, &Refusal{index.TooLarge, ReasonRatio}
		}
		return nil, &Refusal{index.TooLarge, ReasonBody}
	}
	return out.Bytes(), nil
}
