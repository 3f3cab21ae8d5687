package index

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
)

const rankNow = 1_790_000_000

func TestScore(t *testing.T) {
	r := Rank{Bias: .4, HalfLife: 100}
	for _, tt := range []struct {
		why    string
		age    int64
		region string
		asked  string
		score  float64
		class  string
	}{
		{"seen this second, where he is", 0, "eu", "eu", 1, "region_match"},
		{"seen this second, nobody asked where", 0, "eu", "", .6, "fresh"},
		{"seen this second, elsewhere", 0, "us", "eu", .6, "fresh"},
		{"no region matches nobody, not even nobody", 0, "", "", .6, "fresh"},
		{"a half-life old", 100, "us", "eu", .3, "fresh"},
		{"a second older", 101, "us", "eu", .3, "any"},
		{"two half-lives old", 200, "us", "eu", .15, "any"},
		{"two half-lives old, where he is", 200, "eu", "eu", .55, "region_match"},
		{"rounded to two decimals", 50, "us", "eu", .42, "fresh"},
		{"ages old", 1_000_000, "us", "eu", 0, "any"},
		{"ages old, where he is", 1_000_000, "eu", "eu", .4, "region_match"},
		{"seen tomorrow counts as now", -86400, "us", "eu", .6, "fresh"},
		{"regions are case-sensitive", 0, "EU", "eu", .6, "fresh"},
	} {
		set := []Provider{{ID: "p", Region: tt.region, LastSeen: rankNow - tt.age, Expires: rankNow + 1}}
		got := r.Order(nil, set, &ProviderQuery{Region: tt.asked, Limit: 5}, rankNow)
		if len(got) != 1 || got[0].Score != tt.score || got[0].Class != tt.class {
			t.Errorf("%s: %+v, want %v %s", tt.why, got, tt.score, tt.class)
		}
	}
}

func TestOrderAdmits(t *testing.T) {
	for _, tt := range []struct {
		why      string
		lastSeen int64
		expires  int64
		fresh    int64
		want     bool
	}{
		{"expires in a second", rankNow, rankNow + 1, 0, true},
		{"expires now", rankNow, rankNow, 0, false},
		{"has expired", rankNow, rankNow - 1, 0, false},
		{"never expires", rankNow, 0, 0, true},
		{"as fresh as asked", rankNow - 60, rankNow + 1, 60, true},
		{"a second too old", rankNow - 61, rankNow + 1, 60, false},
		{"0 asks for nothing", 0, rankNow + 1, 0, true},
		{"seen in the future is fresh", rankNow + 60, rankNow + 100, 1, true},
	} {
		set := []Provider{{ID: "p", LastSeen: tt.lastSeen, Expires: tt.expires}}
		got := Rank{Bias: .3, HalfLife: 3600}.Order(nil, set, &ProviderQuery{Limit: 5, MinFreshness: tt.fresh}, rankNow)
		if (len(got) == 1) != tt.want {
			t.Errorf("%s: admitted %v, want %v", tt.why, len(got) == 1, tt.want)
		}
	}
}

func TestOrderIsBestFirstAndTiesGoByID(t *testing.T) {
	set := []Provider{
		{ID: "b", LastSeen: rankNow - 10, Expires: rankNow + 9},
		{ID: "old", LastSeen: rankNow - 100_000, Expires: rankNow + 9},
		{ID: "a", LastSeen: rankNow - 11, Expires: rankNow + 9}, // the same to two decimals
		{ID: "near", Region: "eu", LastSeen: rankNow - 100_000, Expires: rankNow + 9},
		{ID: "gone", LastSeen: rankNow, Expires: rankNow},
	}
	want := []string{"near", "a", "b", "old"}
	for range 20 {
		rand.Shuffle(len(set), func(i, k int) { set[i], set[k] = set[k], set[i] })
		before := slices.Clone(set)
		var ids []string
		for _, v := range (Rank{Bias: .9, HalfLife: 3600}).Order(nil, set, &ProviderQuery{Region: "eu", Limit: 1}, rankNow) {
			ids = append(ids, v.ID)
		}
		if !slices.Equal(ids, want) {
			t.Fatalf("order is %q, want %q: the limit is not Order's business, ties go by id", ids, want)
		}
		if !slices.Equal(set, before) {
			t.Fatal("the set, which others read, was changed")
		}
	}
}

func TestWhoIsLeftOut(t *testing.T) {
	all := []Provider{{ID: "a", Region: "eu-1"}, {ID: "b", Region: "us-1"}, {ID: "c"}}
	for _, tt := range []struct {
		why           string
		allowed, deny []string
		want          string
	}{
		{"nobody chose anything", nil, nil, "a b c"},
		{"a list of regions admits what it lists", []string{"eu-1"}, nil, "a"},
		{"an empty text stands for those that name none", []string{"eu-1", ""}, nil, "a c"},
		{"a region is a whole word", []string{"eu"}, nil, ""},
		{"an id", nil, []string{"b"}, "a c"},
		{"a region", nil, []string{"region:us-1"}, "a c"},
		{"those that name none", nil, []string{"region:"}, "a b"},
		{"denied is denied, also where allowed", []string{"eu-1", "us-1"}, []string{"a"}, "b"},
		{"an id that looks like a region is none", nil, []string{"us-1"}, "a b c"},
	} {
		ids := []string{}
		for _, v := range NewRank(.5, 3600, tt.allowed, tt.deny).Order(nil, all, &ProviderQuery{Limit: 5}, rankNow) {
			ids = append(ids, v.ID)
		}
		if got := strings.Join(ids, " "); got != tt.want {
			t.Errorf("%s: %q, want %q", tt.why, got, tt.want)
		}
	}
}

func TestOrderAppends(t *testing.T) {
	first := Ranked{Provider: &Provider{ID: "was here before"}, Score: 0}
	got := Rank{Bias: .3, HalfLife: 3600}.Order([]Ranked{first}, []Provider{{ID: "p", LastSeen: rankNow}}, &ProviderQuery{Limit: 5}, rankNow)
	if len(got) != 2 || got[0].ID != "was here before" || got[1].ID != "p" {
		t.Errorf("appending to what was there gave %+v", got)
	}
}

func TestOrderIntoRoomDoesNotAllocate(t *testing.T) {
	set, buf := providerSet(64), make([]Ranked, 0, 64)
	q := &ProviderQuery{Region: "eu-1", Limit: 5}
	if n := testing.AllocsPerRun(100, func() { Rank{Bias: .3, HalfLife: 3600}.Order(buf, set, q, rankNow) }); n != 0 {
		t.Errorf("Order allocates %v times, want 0", n)
	}
}

func providerSet(n int) (set []Provider) {
	for i := range n {
		set = append(set, Provider{
			ID: fmt.Sprintf("12D3KooWprovider%02d", i), Addr: fmt.Sprintf("/ip4/192.0.2.%d/tcp/4001", i), Region: fmt.Sprint("eu-", i%4),
			LastSeen: rankNow - int64(i*97), Expires: rankNow + 86400,
		})
	}
	return set
}

func BenchmarkOrder(b *testing.B) {
	b.ReportAllocs()
	set, buf := providerSet(64), make([]Ranked, 0, 64)
	q := &ProviderQuery{Region: "eu-1", Limit: 5}
	for b.Loop() {
		Rank{Bias: .3, HalfLife: 3600}.Order(buf, set, q, rankNow)
	}
}
