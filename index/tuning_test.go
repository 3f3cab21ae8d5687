package index

import (
	"testing"
	"time"
)

func TestARequestKeepsTheTuningItBeganUnder(t *testing.T) {
	d := NewDial(Tuning{Budget: 1, Slices: []Slice{{"db", 3 * time.Second}}})
	mine := d.Now()
	d.Turn(Tuning{Budget: 2})
	if mine.Budget != 1 || d.Now().Budget != 2 || mine.Serial != 0 || d.Now().Serial != 1 {
		t.Errorf("began under %+v, in force is %+v", mine, d.Now())
	}
	for _, tt := range []struct {
		why    string
		tuning *Tuning
		want   time.Duration
	}{
		{"what the tuning says", mine, 3 * time.Second},
		{"a room it does not name has its row's", d.Now(), time.Second},
		{"so has a job without one", nil, time.Second},
	} {
		if got := tt.tuning.Slice("db", time.Second); got != tt.want {
			t.Errorf("%s: %v, want %v", tt.why, got, tt.want)
		}
	}
}
