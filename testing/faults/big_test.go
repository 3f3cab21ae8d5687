package faults

import (
	"fmt"
	"io"
	"strings"
	"testing"
	"time"
)

// TestFaultLargeAnswers has many clients ask in one burst for as many large
// answers as they may, and read none of them. What they cost is bounded by
// limits.buffered_bytes, not by what they ask for.
func TestFaultLargeAnswers(t *testing.T) {
	s := start(t, options{set: impatient})
	manifest := strings.Repeat("m", 1<<20)
	s.dial(dialing{}).want(t, s.putManifest(manifest), 201)
	before := s.memory()
	n := size(40, 100)
	const ahead = 16
	ask := strings.Repeat(get("/manifests/"+cidOf(manifest)), ahead)
	lines := make([]*line, n)
	for i := range lines {
		lines[i] = s.dial(dialing{rcvbuf: 4 << 10})
	}
	for _, l := range lines {
		if _, err := io.WriteString(l, ask); err != nil {
			t.Fatal(err)
		}
	}
	most := int64(0)
	for until := time.Now().Add(2 * time.Second); time.Now().Before(until); time.Sleep(20 * time.Millisecond) {
		most = max(most, s.resident())
	}
	grown := (most - before) >> 20
	held := s.scrape()["http_buffered_bytes"] / (1 << 20)
	t.Logf("%d clients asked for %d MiB: memory grew by %d MiB at most, %.0f counted as buffered", n, n*ahead, grown, held)
	const allowed = 256 + 128 // limits.buffered_bytes, and what a collector leaves behind
	if grown > allowed {
		t.Errorf("memory grew by %d MiB, want at most %d", grown, allowed)
	}
	var got tally
	for _, l := range lines {
		status := 0 // none
		_ = l.SetReadDeadline(time.Now().Add(time.Second))
		if first, err := l.r.ReadString('\n'); err == nil {
			_, _ = fmt.Sscanf(first, "HTTP/1.1 %d", &status)
		}
		got.add(status)
		_ = l.Close()
	}
	t.Logf("first answers: %v (0: none)", &got)
	s.await("end of the connections", func() bool { return s.scrape()["http_connections_open"] <= 1 })
	if n := s.scrape()["http_buffered_bytes"]; n != 0 {
		t.Errorf("%v bytes are still counted as buffered", n)
	}
	s.stop()
}
