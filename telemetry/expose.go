package telemetry

import (
	"math"
	"strconv"

	"github.com/rcrowley/go-metrics"
)

// textType is the media type of what appendText writes.
const textType = "text/plain; version=0.0.4; charset=utf-8"

// appendText appends every family in the text exposition format.
func (b *book) appendText(out []byte) []byte {
	for _, f := range b.families {
		out = append(append(append(out, "# HELP "...), f.name...), ' ')
		out = append(append(out, f.help...), '\n')
		out = append(append(append(out, "# TYPE "...), f.name...), ' ')
		out = append(append(out, f.kind...), '\n')
		for _, s := range f.series {
			out = s.appendText(out, f.name)
		}
	}
	return out
}

func (s series) appendText(out []byte, name string) []byte {
	switch m := s.metric.(type) {
	case *histogram:
		return m.appendText(out, name, s.labels)
	case metrics.Counter:
		out = appendName(out, name, s.labels)
		out = strconv.AppendUint(out, uint64(m.Count()), 10)
	case metrics.GaugeFloat64:
		out = appendName(out, name, s.labels)
		out = appendFloat(out, m.Value())
	}
	return append(out, '\n')
}

// appendText reads the buckets once and derives the rest from what it read, so
// that a scrape during an Observe still adds up.
func (h *histogram) appendText(out []byte, name, labels string) []byte {
	comma := ""
	if labels != "" {
		comma = ","
	}
	src, total, sum := h.read(), uint64(0), 0.0
	for i := range len(h.scale.le) + 1 {
		le := "+Inf"
		if i < len(h.scale.le) {
			le = h.scale.le[i]
		}
		if src != nil {
			total += src.Counts[i].Load()
		}
		out = appendName(out, name+"_bucket", labels+comma+`le="`+le+`"`)
		out = append(strconv.AppendUint(out, total, 10), '\n')
	}
	if src != nil {
		sum = float64(src.Nanos.Load()) / h.scale.nanos
	}
	out = append(appendFloat(appendName(out, name+"_sum", labels), sum), '\n')
	return append(strconv.AppendUint(appendName(out, name+"_count", labels), total, 10), '\n')
}

// appendName appends a series name up to its value.
func appendName(out []byte, name, labels string) []byte {
	out = append(out, name...)
	if labels != "" {
		out = append(append(append(out, '{'), labels...), '}')
	}
	return append(out, ' ')
}

// appendFloat writes whole numbers as people do: 1700000000, not 1.7e+09.
func appendFloat(out []byte, v float64) []byte {
	if v == math.Trunc(v) && math.Abs(v) < 1<<53 {
		return strconv.AppendInt(out, int64(v), 10)
	}
	return strconv.AppendFloat(out, v, 'g', -1, 64)
}
