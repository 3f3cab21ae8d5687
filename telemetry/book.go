package telemetry

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"sync/atomic"

	"github.com/rcrowley/go-metrics"

	"svcindex/index"
)

// This file is the one door to go-metrics. We keep its registry and its
// interfaces, and nothing that counts: its timers and histograms lock a mutex
// for each value and forget by chance, and its meters start a goroutine that
// nobody can stop.

// A book is every family of series, in the order they are exposed.
type book struct {
	registry metrics.Registry
	families []*family
}

// A family is all series of one name.
type family struct {
	name, help string
	kind       string   // counter, gauge or histogram
	labels     []string // names; values come with each series
	series     []series
	book       *book
}

// A series is one thing that is read.
type series struct {
	labels string // rendered: route="resolve",method="GET"
	metric any    // *counter, metrics.GaugeFloat64 or *histogram
}

func newBook() *book { return &book{registry: metrics.NewRegistry()} }

func (b *book) family(kind, name, help string, labels ...string) *family {
	f := &family{name: name, help: help, kind: kind, labels: labels, book: b}
	b.families = append(b.families, f)
	return f
}

func (b *book) counters(name, help string, labels ...string) *family {
	return b.family("counter", name, help, labels...)
}

func (b *book) gauges(name, help string, labels ...string) *family {
	return b.family("gauge", name, help, labels...)
}

func (b *book) histograms(name, help string, labels ...string) *family {
	return b.family("histogram", name, help, labels...)
}

// counter adds a series that only grows.
func (f *family) counter(read func() uint64, values ...string) {
	f.add(&counter{read: read}, values)
}

// count is counter for the plain case.
func (f *family) count(c *atomic.Uint64, values ...string) { f.counter(c.Load, values...) }

// gauge adds a series that goes up and down.
func (f *family) gauge(read func() float64, values ...string) {
	f.add(metrics.NewFunctionalGaugeFloat64(read), values)
}

// histogram adds a series of buckets.
func (f *family) histogram(s scale, read func() *index.Hist, values ...string) {
	f.add(&histogram{scale: s, read: read}, values)
}

// add enters a series into family and registry. Series are fixed in the code,
// so a fault here is ours and shows at the first start.
func (f *family) add(metric any, values []string) {
	if len(values) != len(f.labels) {
		panic(fmt.Sprintf("telemetry: %s has labels %v, not values %v", f.name, f.labels, values))
	}
	pairs := make([]string, len(values))
	for i, v := range values {
		pairs[i] = f.labels[i] + "=" + strconv.Quote(v)
	}
	s := series{strings.Join(pairs, ","), metric}
	if err := f.book.registry.Register(f.name+"{"+s.labels+"}", metric); err != nil {
		panic("telemetry: " + err.Error())
	}
	f.series = append(f.series, s)
}

// A counter is a metrics.Counter that reads what somebody else counts.
type counter struct {
	metrics.NilCounter
	read func() uint64
}

// Count implements metrics.Counter.
func (c *counter) Count() int64 { return int64(c.read()) }

// A histogram is a metrics.Histogram that reads an index.Hist.
type histogram struct {
	metrics.NilHistogram
	scale scale
	read  func() *index.Hist // nil: nothing counts here yet
}

// Count implements metrics.Histogram.
func (h *histogram) Count() int64 {
	var n uint64
	if src := h.read(); src != nil {
		for i := range src.Counts {
			n += src.Counts[i].Load()
		}
	}
	return int64(n)
}

// find returns the series of a family whose labels contain part. A name that
// nobody entered is our fault and shows at the first start.
func (b *book) find(name string, part ...string) (found []series) {
	for _, f := range b.families {
		if f.name != name {
			continue
		}
		for _, s := range f.series {
			if len(part) == 0 || strings.Contains(s.labels, part[0]) {
				found = append(found, s)
			}
		}
	}
	if found == nil {
		panic(fmt.Sprintf("telemetry: no series %s%v", name, part))
	}
	return found
}

// total adds up counters.
func total(of []series) (sum uint64) {
	for _, s := range of {
		sum += uint64(s.metric.(metrics.Counter).Count())
	}
	return sum
}

// buckets adds up histograms of one scale, bucket by bucket.
func buckets(of []series) (sum []uint64) {
	for _, s := range of {
		h := s.metric.(*histogram)
		if sum == nil {
			sum = make([]uint64, len(h.scale.le)+1)
		}
		if src := h.read(); src != nil {
			for i := range sum {
				sum[i] += src.Counts[i].Load()
			}
		}
	}
	return sum
}

func histCounts(h *index.Hist) []uint64 {
	counts := make([]uint64, len(h.Counts))
	for i := range h.Counts {
		counts[i] = h.Counts[i].Load()
	}
	return counts
}

// A scale is how the buckets of a histogram are shown.
type scale struct {
	le    []string // upper bounds, rendered, without +Inf
	nanos float64  // in a shown unit
}

func newScale(bounds []float64, unitsPerSecond float64) scale {
	s := scale{nanos: 1e9 / unitsPerSecond}
	for _, b := range bounds {
		shown := math.Round(b*unitsPerSecond*1e6) / 1e6 // 0.00025 s is 0.25 ms, not 0.25000000000000006
		s.le = append(s.le, strconv.FormatFloat(shown, 'g', -1, 64))
	}
	return s
}
