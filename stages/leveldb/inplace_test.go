package leveldb

import (
	"bytes"
	"fmt"
	"log/slog"
	"os"
	"testing"

	"svcindex/index"
)

// A crash leaves the zeros that were written ahead. They are no damage, not
// even a torn end, and nobody reads them; a good end leaves none.
func TestZerosWrittenAheadAreNoTornEnd(t *testing.T) {
	h := open(t, t.TempDir())
	for i := range 40 {
		h.do(putName(t, fmt.Sprintf("name:n%d", i), "c", 1))
	}
	dir := copyDir(t, h.disk.dir) // as after kill -9
	journal := journalOf(t, dir)
	b, err := os.ReadFile(journal)
	must(t, err)
	s := scanRecords(b, func([]byte) error { return nil })
	if s.Torn < sectorSize || !s.Blank || s.Damage != nil {
		t.Fatalf("the journal of an open store ends with %d bytes ahead (blank %v, damage %v): this test proves nothing", s.Torn, s.Blank, s.Damage)
	}
	if r, err := Verify(t.Context(), dir, nil); err != nil || !r.Sound() || r.Torn != 0 {
		t.Errorf("verify: %+v, %v", r, err)
	}
	var log bytes.Buffer
	o := options(dir, newClock(), nil)
	o.Log = slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelWarn}))
	after := &house{t: t}
	after.openWith(o)
	if log.Len() > 0 {
		t.Errorf("opening it was worth a warning: %s", log.Bytes())
	}
	for i := range 40 {
		if a, err := after.ask(index.AskResolve, fmt.Sprintf("name:n%d", i)); err != nil || a.Name.Seq != 1 {
			t.Errorf("name %d: %+v, %v", i, a.Name, err)
		}
	}
	must(t, after.DB.Close())
	in, err := inspect(dir)
	if err != nil || in.torn != 0 {
		t.Errorf("a store closed in good order ends with %d bytes too many, %v", in.torn, err)
	}
}
