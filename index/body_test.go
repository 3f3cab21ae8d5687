package index

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/fxamacker/cbor/v2"
	"github.com/google/go-cmp/cmp"
)

func nameJob(t testing.TB, text string, r NameRecord, hint int) *Job {
	t.Helper()
	k, err := ParseKey(text)
	if err != nil {
		t.Fatal(err)
	}
	return &Job{Ask: AskResolve, Key: k, Query: ProviderQuery{Limit: DefaultLimit}, Answer: Answer{Name: r, Hint: hint}}
}

func mustCID(t testing.TB, text string) CID {
	t.Helper()
	c, err := ParseCID(text)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// resolves are answers of every shape a ResolveResponse has.
func resolves(t testing.TB) []bodyCase {
	c := mustCID(t, "b3:"+hex64)
	key := CIDKey(c)
	integrity := `"integrity":{"algo":"blake3","digest":"` + hex64 + `"}`
	return []bodyCase{
		{"a name", nameJob(t, "name:a/b", NameRecord{CID: c, Seq: 7}, 3), nil,
			`{"key":"name:a/b","kind":"name","manifest_cid":"b3:` + hex64 + `",` + integrity + `,"providers_hint":3,"seq":7}`},
		{"a name that expires", nameJob(t, "name:a", NameRecord{CID: c, Seq: 1, ExpiresAt: 1790000000}, 0), nil,
			`{"key":"name:a","kind":"name","manifest_cid":"b3:` + hex64 + `",` + integrity + `,"providers_hint":0,"seq":1,"expires_at":1790000000}`},
		{"a signed name with the highest seq", nameJob(t, "name:a", NameRecord{CID: c, Seq: SeqMax, ExpiresAt: 5, IssuedAt: 4, Sig: []byte{1}}, 32), nil,
			`{"key":"name:a","kind":"name","manifest_cid":"b3:` + hex64 + `",` + integrity + `,"providers_hint":32,"seq":9007199254740991,"expires_at":5,"signed":true}`},
		{"a content id", &Job{Key: key, Answer: Answer{Hint: 1}}, nil,
			`{"key":"b3:` + hex64 + `","kind":"cid","manifest_cid":"b3:` + hex64 + `",` + integrity + `,"providers_hint":1}`},
		{"a content id, with a record left over from somebody else", &Job{Key: key, Answer: Answer{Name: NameRecord{Seq: 9, Sig: []byte{1}}}}, nil,
			`{"key":"b3:` + hex64 + `","kind":"cid","manifest_cid":"b3:` + hex64 + `",` + integrity + `,"providers_hint":0}`},
	}
}

type bodyCase struct {
	why    string
	job    *Job
	ranked []Ranked
	want   string
}

// sets are answers of every shape a ProvidersResponse has.
func sets(t testing.TB) []bodyCase {
	job := func(limit int) *Job {
		return &Job{Key: CIDKey(mustCID(t, "b3:"+hex64)), Query: ProviderQuery{Limit: limit}}
	}
	one := Ranked{&Provider{ID: "p", Addr: "/ip4/192.0.2.1/tcp/1", Region: "eu", LastSeen: 1790000000}, .87, "region_match"}
	bare := Ranked{&Provider{ID: "q", Addr: "https://x/", LastSeen: 1}, 0, "any"}
	odd := Ranked{&Provider{ID: "r", Addr: "http://x/\"\\\x00\n<é>\u2028", Region: "\x7f"}, 1, "fresh"}
	head := `{"cid":"b3:` + hex64 + `","providers":[`
	first := `{"id":"p","addr":"/ip4/192.0.2.1/tcp/1","region":"eu","class":"region_match","score":0.87,"last_seen":1790000000}`
	second := `{"id":"q","addr":"https://x/","region":"","class":"any","score":0,"last_seen":1}`
	return []bodyCase{
		{"one", job(5), []Ranked{one}, head + first + `],"truncated":false}`},
		{"as many as asked for are not truncated", job(2), []Ranked{one, bare}, head + first + `,` + second + `],"truncated":false}`},
		{"more than asked for are", job(1), []Ranked{one, bare}, head + first + `],"truncated":true}`},
		{"an empty region is there all the same", job(5), []Ranked{bare}, head + second + `],"truncated":false}`},
		{"nobody is an empty list, not null", job(5), nil, head + `],"truncated":false}`},
		{"texts are escaped", job(5), []Ranked{odd}, head +
			`{"id":"r","addr":"http://x/\"\\\u0000\u000a<é>` + "\u2028" + `","region":"` + "\x7f" + `","class":"fresh","score":1,"last_seen":0}],"truncated":false}`},
	}
}

func TestResolveJSON(t *testing.T) {
	for _, tt := range resolves(t) {
		checkJSON(t, tt.why, string(AppendResolveJSON(nil, tt.job)), tt.want)
	}
}

func TestProvidersJSON(t *testing.T) {
	for _, tt := range sets(t) {
		checkJSON(t, tt.why, string(AppendProvidersJSON(nil, tt.job, tt.ranked)), tt.want)
	}
}

func checkJSON(t *testing.T, why, got, want string) {
	t.Helper()
	if got != want {
		t.Errorf("%s: the body is\n%s\nwant\n%s", why, got, want)
	}
	if !json.Valid([]byte(got)) {
		t.Errorf("%s: encoding/json does not take the body %s", why, got)
	}
}

func TestBodiesAreAppended(t *testing.T) {
	r, p := resolves(t)[0], sets(t)[0]
	head := []byte("head")
	if got := string(AppendResolveJSON(head, r.job)); got != "head"+r.want {
		t.Errorf("resolve: %s", got)
	}
	if got := string(AppendProvidersJSON(head, p.job, p.ranked)); got != "head"+p.want {
		t.Errorf("providers: %s", got)
	}
	for _, f := range []func() ([]byte, error){
		func() ([]byte, error) { return AppendResolveCBOR(head, r.job) },
		func() ([]byte, error) { return AppendProvidersCBOR(head, p.job, p.ranked) },
	} {
		if b, err := f(); err != nil || !strings.HasPrefix(string(b), "head\xa3") && !strings.HasPrefix(string(b), "head\xa6") {
			t.Errorf("cbor: %q, %v; want a map of 3 or 6 behind what was there", b, err)
		}
	}
}

func TestCBORSaysWhatJSONSays(t *testing.T) {
	for _, tt := range resolves(t) {
		b, err := AppendResolveCBOR(nil, tt.job)
		checkCBOR(t, tt.why, b, err, tt.want)
	}
	for _, tt := range sets(t) {
		b, err := AppendProvidersCBOR(nil, tt.job, tt.ranked)
		checkCBOR(t, tt.why, b, err, tt.want)
	}
}

// checkCBOR decodes both bodies without knowing their types and compares.
func checkCBOR(t *testing.T, why string, body []byte, err error, asJSON string) {
	t.Helper()
	if err != nil {
		t.Errorf("%s: %v", why, err)
		return
	}
	mode, err := cbor.DecOptions{DefaultMapType: reflect.TypeFor[map[string]any](), DupMapKey: cbor.DupMapKeyEnforcedAPF}.DecMode()
	if err != nil {
		t.Fatal(err)
	}
	var doc, want, got any
	if err := mode.Unmarshal(body, &doc); err != nil {
		t.Errorf("%s: %x is no CBOR: %v", why, body, err)
		return
	}
	again, err := MarshalCBOR(doc)
	if err != nil || string(again) != string(body) {
		t.Errorf("%s: %x is not the deterministic form (%x, %v)", why, body, again, err)
	}
	text, err := json.Marshal(doc)
	if err != nil {
		t.Fatal(err)
	}
	if json.Unmarshal(text, &got) != nil || json.Unmarshal([]byte(asJSON), &want) != nil {
		t.Fatal("the test is wrong: neither should fail")
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("%s: CBOR differs from JSON (-JSON +CBOR):\n%s", why, diff)
	}
}

func TestAppendJSONString(t *testing.T) {
	for _, tt := range []struct{ why, in, want string }{
		{"nothing", "", `""`},
		{"plain", "abc", `"abc"`},
		{"a quote", `"`, `"\""`},
		{"a backslash", `\`, `"\\"`},
		{"a slash needs no escape", "/", `"/"`},
		{"a line break", "\n", `"\u000a"`},
		{"NUL", "\x00", `"\u0000"`},
		{"the last control", "\x1f", `"\u001f"`},
		{"DEL needs no escape", "\x7f", "\"\x7f\""},
		{"two bytes", "é", `"é"`},
		{"four bytes", "𝄞", `"𝄞"`},
		{"a byte that is not UTF-8", "a\xffb", `"a` + "\uFFFD" + `b"`},
		{"a character cut short: a mark for each byte", "\xe2\x82", "\"\uFFFD\uFFFD\""},
		{"a surrogate is no character", "\xed\xa0\x80", "\"\uFFFD\uFFFD\uFFFD\""},
	} {
		if got := string(AppendJSONString(nil, tt.in)); got != tt.want {
			t.Errorf("%s: %q became %s, want %s", tt.why, tt.in, got, tt.want)
		}
	}
}

// FuzzAppendJSONString holds our printer to encoding/json's: read back, both
// must give the same text. How they escape may differ.
func FuzzAppendJSONString(f *testing.F) {
	for _, s := range []string{"", "abc", "\"\\/\b\n\x00\x7f", "é𝄞\u2028<&>", "\xff\xe2\x82", "\xed\xa0\x80"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, in string) {
		ours := AppendJSONString(nil, in)
		theirs, err := json.Marshal(in)
		if err != nil {
			t.Fatal(err)
		}
		var a, b string
		if err := json.Unmarshal(ours, &a); err != nil {
			t.Fatalf("%q became %s: %v", in, ours, err)
		}
		if err := json.Unmarshal(theirs, &b); err != nil || a != b {
			t.Fatalf("%q: ours reads %q, encoding/json's %q (%v)", in, a, b, err)
		}
		if !utf8.Valid(ours) {
			t.Fatalf("%q became %q, which is not UTF-8", in, ours)
		}
		if utf8.ValidString(in) && a != in {
			t.Fatalf("%q came back as %q", in, a)
		}
	})
}

func TestRenderingJSONIntoRoomDoesNotAllocate(t *testing.T) {
	buf := make([]byte, 0, 64<<10)
	r := resolves(t)[2].job
	if n := testing.AllocsPerRun(100, func() { AppendResolveJSON(buf, r) }); n != 0 {
		t.Errorf("AppendResolveJSON allocates %v times, want 0", n)
	}
	p := sets(t)[1]
	if n := testing.AllocsPerRun(100, func() { AppendProvidersJSON(buf, p.job, p.ranked) }); n != 0 {
		t.Errorf("AppendProvidersJSON allocates %v times, want 0", n)
	}
}

func BenchmarkResolveJSON(b *testing.B) {
	b.ReportAllocs()
	j, buf := resolves(b)[1].job, make([]byte, 0, 4096)
	for b.Loop() {
		buf = AppendResolveJSON(buf[:0], j)
	}
}

func BenchmarkResolveCBOR(b *testing.B) {
	b.ReportAllocs()
	j, buf := resolves(b)[1].job, make([]byte, 0, 4096)
	for b.Loop() {
		buf, _ = AppendResolveCBOR(buf[:0], j)
	}
}

// five is a job and the five providers it is answered with.
func five(b *testing.B) (*Job, []Ranked) {
	j := &Job{Key: CIDKey(mustCID(b, "b3:"+hex64)), Query: ProviderQuery{Limit: DefaultLimit}}
	return j, Rank{Bias: .3, HalfLife: 3600}.Order(nil, providerSet(5), &j.Query, rankNow)
}

func BenchmarkProvidersJSON(b *testing.B) {
	b.ReportAllocs()
	j, vs := five(b)
	buf := make([]byte, 0, 4096)
	for b.Loop() {
		buf = AppendProvidersJSON(buf[:0], j, vs)
	}
}

func BenchmarkProvidersCBOR(b *testing.B) {
	b.ReportAllocs()
	j, vs := five(b)
	buf := make([]byte, 0, 4096)
	for b.Loop() {
		buf, _ = AppendProvidersCBOR(buf[:0], j, vs)
	}
}
