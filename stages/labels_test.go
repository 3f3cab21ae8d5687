package stages

import (
	"bytes"
	"runtime/pprof"
	"strings"
	"testing"

	"svcindex/index"
)

func TestAWorkerWearsItsStageAndWhatItIsAsked(t *testing.T) {
	l := newLabels("db")
	for _, tt := range []struct {
		ask  index.Ask
		want string
	}{
		{0, `# labels: {"stage":"db"}`},
		{index.AskProviders, `# labels: {"route":"providers", "stage":"db"}`},
		{index.AskTask, `# labels: {"route":"admin", "stage":"db"}`},
	} {
		done := make(chan string)
		go func() {
			l.wear(tt.ask)
			var b bytes.Buffer
			_ = pprof.Lookup("goroutine").WriteTo(&b, 1)
			done <- b.String()
		}()
		if text := <-done; !strings.Contains(text, tt.want) {
			t.Errorf("%d: no %s in\n%.2000s", tt.ask, tt.want, text)
		}
	}
}

func TestToWearLabelsAllocatesNothing(t *testing.T) {
	l := newLabels("db")
	done := make(chan float64)
	go func() { done <- testing.AllocsPerRun(100, func() { l.wear(index.AskResolve) }) }() // a goroutine that ends with its labels
	if n := <-done; n != 0 {
		t.Errorf("%v allocations, want 0", n)
	}
}

func BenchmarkWear(b *testing.B) {
	l := newLabels("db")
	b.ReportAllocs()
	for b.Loop() {
		l.wear(index.AskResolve)
	}
}
