package loadgen

import (
	"bufio"
	"bytes"
	"io"
	"math"
	"net/http"
	"strings"
	"testing"
)

func counts(t *testing.T, dist string, n, rolls int) []int {
	t.Helper()
	d, err := NewDist(dist, n)
	if err != nil {
		t.Fatal(err)
	}
	seen := make([]int, n)
	for i := range rolls {
		dice := newDice(1, uint64(i))
		seen[d.pick(&dice)]++
	}
	return seen
}

func TestHotKeysTakeTheirShare(t *testing.T) {
	const n, rolls = 10_000, 400_000
	seen := counts(t, "hotcold", n, rolls)
	hot := 0
	for _, c := range seen[:n/100] {
		hot += c
		if want := 0.8 * rolls / 100; math.Abs(float64(c)-want) > 6*math.Sqrt(want) {
			t.Errorf("a hot key was asked for %d times, want all alike, %.0f", c, want)
		}
	}
	if got := float64(hot) / rolls; math.Abs(got-0.8) > 0.005 {
		t.Errorf("the hot 1 %% took %.3f of the requests, want 0.8", got)
	}
	if first, later := seen[100], seen[5000]; first < 20*later {
		t.Errorf("the rest is Zipf: rank 100 was asked for %d times, rank 5000 %d", first, later)
	}
}

func TestZipfIsExact(t *testing.T) {
	for _, power := range []float64{0.5, 0.9, 1, 1.3} {
		const n, rolls = 50, 300_000
		z, seen, norm := newZipf(n, power), [n]int{}, 0.0
		for i := range rolls {
			dice := newDice(3, uint64(i))
			seen[z.pick(&dice)]++
		}
		for k := range n {
			norm += math.Pow(float64(k+1), -power)
		}
		for k, got := range seen {
			want := rolls * math.Pow(float64(k+1), -power) / norm
			if math.Abs(float64(got)-want) > 5*math.Sqrt(want) {
				t.Errorf("power %v: rank %d was picked %d times, want %.0f", power, k, got, want)
			}
		}
	}
}

func TestUniformIsFlat(t *testing.T) {
	for k, c := range counts(t, "uniform", 20, 100_000) {
		if math.Abs(float64(c)-5000) > 400 {
			t.Errorf("key %d was picked %d times, want 5000", k, c)
		}
	}
}

func TestFewKeysAreNoTrouble(t *testing.T) {
	for _, dist := range []string{"hotcold", "zipf", "zipf:2", "uniform"} {
		for n := 1; n < 5; n++ {
			seen := counts(t, dist, n, 10_000)
			for k, c := range seen {
				if c == 0 {
					t.Errorf("%s of %d: key %d is never picked", dist, n, k)
				}
			}
		}
	}
}

func TestDistsThatAreNone(t *testing.T) {
	for _, text := range []string{"", "normal", "zipf:", "zipf:0", "zipf:NaN", "uniform:3", "hotcold:1"} {
		if _, err := NewDist(text, 10); err == nil {
			t.Errorf("%q was taken", text)
		}
	}
	if _, err := NewDist("uniform", 0); err == nil {
		t.Error("a distribution over nothing was taken")
	}
}

func TestSpreadIsABijection(t *testing.T) {
	for n := 1; n < 400; n++ {
		stride, seen := spread(n), make([]bool, n)
		for i := range n {
			seen[uint64(i)*stride%uint64(n)] = true
		}
		for i, ok := range seen {
			if !ok {
				t.Fatalf("with %d keys, key %d has no rank", n, i)
			}
		}
	}
}

func TestReadLines(t *testing.T) {
	keys, err := ReadLines(strings.NewReader("# hot first\nname:a/b\n\n  b3:00 \r\n"))
	if err != nil || len(keys) != 2 || keys[0] != "name:a/b" || keys[1] != "b3:00" {
		t.Errorf("%q, %v", keys, err)
	}
	for _, bad := range []string{"", "# nothing\n", "name:a b\n", "name:a?x=1\n", "a\x00b\n", "ä\n"} {
		if _, err := ReadLines(strings.NewReader(bad)); err == nil {
			t.Errorf("%q was taken", bad)
		}
	}
	if _, err := ReadLines(strings.NewReader("name:a\n" + strings.Repeat("b", 1<<20))); err == nil || !strings.Contains(err.Error(), "line 2 is longer") {
		t.Errorf("a huge key: %v, want its line named", err)
	}
}

func testMix() Mix {
	return Mix{
		Host: "h", Dist: "hotcold", Absent: 0.1, Fresh: 0.05, Seed: 9,
		Endpoints: []Endpoint{
			{Name: "resolve", Weight: 7, Method: "GET", Path: "/resolve/", Fresh: "?fresh=true",
				Keys: Numbered{"name:k/", 1000}, Absent: Numbered{"name:no/", 1000}},
			{Name: "providers", Weight: 2, Method: "HEAD", Path: "/providers/",
				Keys: Hashes{"b3:", make([][32]byte, 10)}, Absent: Nowhere{"b3:", 10}},
			{Name: "write", Weight: 1, Method: "PUT", Path: "/names/", Keys: Numbered{"name:k/", 1000},
				Header: "Authorization: Bearer t\r\n",
				Body:   func(dst []byte, i int, n int64) []byte { return appendDigits(append(dst, `{"seq":`...), uint64(n), 1) }},
		},
	}
}

func TestAMixIsWhatItSays(t *testing.T) {
	make1, err := testMix().Asker()
	if err != nil {
		t.Fatal(err)
	}
	const rolls = 50_000
	ask, seen := make1(), map[string]float64{}
	for n := range int64(rolls) {
		b, headless := ask.Ask(nil, n)
		r, err := http.ReadRequest(bufio.NewReader(bytes.NewReader(b)))
		if err != nil {
			t.Fatalf("%q: %v", b, err)
		}
		body, err := io.ReadAll(r.Body)
		if err != nil || int64(len(body)) != max(r.ContentLength, 0) || headless != (r.Method == "HEAD") || r.Host != "h" {
			t.Fatalf("%q: body %q, %v", b, body, err)
		}
		seen[r.Method]++
		if strings.Contains(r.URL.Path, "name:no/") {
			seen["absent name"]++
		}
		if r.URL.RawQuery == "fresh=true" {
			seen["fresh"]++
		}
		if r.Method == "PUT" && (len(body) == 0 || r.Header.Get("Authorization") != "Bearer t") {
			t.Fatalf("a write is %q", b)
		}
	}
	for what, want := range map[string]float64{"GET": 0.7, "HEAD": 0.2, "PUT": 0.1, "absent name": 0.07, "fresh": 0.035} {
		if got := seen[what] / rolls; math.Abs(got-want) > 0.006 {
			t.Errorf("%s: %.4f of the requests, want %.4f", what, got, want)
		}
	}
}

func TestAMixIsDeterministic(t *testing.T) {
	make1, _ := testMix().Asker()
	other := testMix()
	other.Seed++
	make2, _ := other.Asker()
	a, b, c := make1(), make1(), make2()
	differ := 0
	for n := range int64(1000) {
		// The second asker is asked for every number twice, as another thread might.
		b.Ask(nil, n+500)
		x, _ := a.Ask(nil, n)
		y, _ := b.Ask(nil, n)
		z, _ := c.Ask(nil, n)
		if !bytes.Equal(x, y) {
			t.Fatalf("request %d is %q and %q", n, x, y)
		}
		if !bytes.Equal(x, z) {
			differ++
		}
	}
	if differ < 900 {
		t.Errorf("with another seed only %d of 1000 requests differ", differ)
	}
}

func TestAskingAllocatesNothing(t *testing.T) {
	make1, _ := testMix().Asker()
	ask, buf, n := make1(), make([]byte, 0, 4096), int64(0)
	ask.Ask(buf, 0)
	if got := testing.AllocsPerRun(5000, func() { ask.Ask(buf, n); n++ }); got > 0.01 {
		t.Errorf("a request allocates %v times, want 0", got)
	}
}

func BenchmarkAsk(b *testing.B) {
	make1, _ := testMix().Asker()
	ask, buf, n := make1(), make([]byte, 0, 4096), int64(0)
	b.ReportAllocs()
	for b.Loop() {
		ask.Ask(buf, n)
		n++
	}
}

func TestMixesThatAreNone(t *testing.T) {
	none := testMix()
	for i := range none.Endpoints {
		none.Endpoints[i].Weight = 0
	}
	negative := testMix()
	negative.Endpoints[0].Weight = -1
	empty := testMix()
	empty.Endpoints[0].Keys = Lines{}
	for why, m := range map[string]Mix{"no weight": none, "a negative weight": negative, "no keys": empty, "nothing": {}} {
		if _, err := m.Asker(); err == nil {
			t.Errorf("%s: it was taken", why)
		}
	}
}
