package answer

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestAShelfAnswersWhatItWasFilledWith(t *testing.T) {
	file := filepath.Join(t.TempDir(), "answers")
	etag := `"b3:` + strings.Repeat("0", 64) + `"`
	text := `[{"Key":"name:a","ETag":"` + strings.ReplaceAll(etag, `"`, `\"`) + `","Body":"{}"}]`
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	s, err := Fill(file)
	if err != nil {
		t.Fatal(err)
	}
	var room [Room]byte
	h, ok := s.Get([]byte("name:a"), room[:])
	if !ok || string(h.ETag) != etag || string(h.Body) != "{}" || h.Age < 0 || h.Age > 5 {
		t.Errorf("Get = %s, %s, %d, %v", h.ETag, h.Body, h.Age, ok)
	}
	if _, ok := s.Get([]byte("name:b"), room[:]); ok {
		t.Error("a key that was never put in was found")
	}
	a, b := string(s.AppendID(nil)), string(s.AppendID(nil))
	if a == b || len(a) != 26 {
		t.Errorf("ids %q and %q: they must differ, and be as long as ours", a, b)
	}
}
