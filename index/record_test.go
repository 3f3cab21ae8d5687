package index

import "testing"

func TestLive(t *testing.T) {
	const now = 1_790_000_000
	for _, tt := range []struct {
		why  string
		r    NameRecord
		want bool
	}{
		{"a record", NameRecord{Seq: 1}, true},
		{"no record at all", NameRecord{}, false},
		{"a tombstone", NameRecord{Seq: 2, Deleted: true}, false},
		{"one that expires in a second", NameRecord{Seq: 1, ExpiresAt: now + 1}, true},
		{"one that expires now", NameRecord{Seq: 1, ExpiresAt: now}, false},
		{"one that has expired", NameRecord{Seq: 1, ExpiresAt: now - 1}, false},
		{"a tombstone that would not have expired", NameRecord{Seq: 1, ExpiresAt: now + 1, Deleted: true}, false},
		{"when it was issued does not matter", NameRecord{Seq: 1, IssuedAt: now + 100}, true},
	} {
		if got := tt.r.Live(now); got != tt.want {
			t.Errorf("%s: Live is %v, want %v", tt.why, got, tt.want)
		}
	}
}

func TestARecordIsSignedWhenItHasASignature(t *testing.T) {
	if r := (NameRecord{PubKey: []byte{1}}); r.Signed() {
		t.Error("a key alone is no signature")
	}
	if r := (NameRecord{Sig: []byte{1}}); !r.Signed() {
		t.Error("a signature is not seen")
	}
}

func TestTheDefaultQueryIsTheOneOfAnAskerWithoutWishes(t *testing.T) {
	for _, tt := range []struct {
		why  string
		q    ProviderQuery
		want bool
	}{
		{"no wishes", ProviderQuery{Limit: DefaultLimit}, true},
		{"the limit by name", ProviderQuery{Limit: 5}, true},
		{"another limit", ProviderQuery{Limit: 6}, false},
		{"a region", ProviderQuery{Limit: 5, Region: "eu"}, false},
		{"a freshness", ProviderQuery{Limit: 5, MinFreshness: 1}, false},
		{"none set at all", ProviderQuery{}, false},
	} {
		if got := tt.q.IsDefault(); got != tt.want {
			t.Errorf("%s: IsDefault is %v, want %v", tt.why, got, tt.want)
		}
	}
}

type lastHome struct{ job *Job }

func (h *lastHome) Open(*Job)    {}
func (h *lastHome) Reply(j *Job) { h.job = j }
func (h *lastHome) Gone() bool   { return false }

func TestFinishGivesTheJobHomeWithItsResult(t *testing.T) {
	h := new(lastHome)
	j := &Job{Home: h}
	j.Finish(Late)
	if h.job != j || j.Result != Late {
		t.Errorf("came home as %v, want late", j.Result)
	}
}
