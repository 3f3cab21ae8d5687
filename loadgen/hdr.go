package loadgen

import (
	"io"

	"github.com/HdrHistogram/hdrhistogram-go"
)

// WriteHDR writes the distributions of a run as an HDR interval log, which the
// usual viewers read: response, service and lag, each under its tag.
func (r *Report) WriteHDR(w io.Writer) error {
	log := hdrhistogram.NewHistogramLogWriter(w)
	start := r.Started.UnixMilli()
	end := start + int64(1000*r.Took)
	err := log.OutputComment("[" + Schema + ", values in nanoseconds, maxima in milliseconds]")
	if err == nil {
		err = log.OutputLogFormatVersion()
	}
	if err == nil {
		err = log.OutputStartTime(start)
	}
	if err == nil {
		err = log.OutputLegend()
	}
	for _, part := range []struct {
		tag string
		hist
	}{{"response", r.response}, {"service", r.service}, {"lag", r.lag}} {
		if err != nil {
			return err
		}
		part.h.SetTag(part.tag)
		part.h.SetStartTimeMs(start)
		part.h.SetEndTimeMs(end)
		err = log.OutputIntervalHistogram(part.h)
	}
	return err
}
