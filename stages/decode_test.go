package stages

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"svcindex/index"
)

const (
	testNow = 1_790_000_000
	hex64   = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
	aCID    = "b3:" + hex64
)

var anyBody = decoder{limit: BodyLimit{Bytes: 1 << 20, Ratio: 10}, now: testNow}

func cidKey(t testing.TB) index.Key {
	t.Helper()
	k, err := index.ParseKey(aCID)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// provider renders a provider row of a body with some fields replaced.
func provider(change ...string) string {
	fields := []string{"id", `"p1"`, "addr", `"/ip4/192.0.2.1/tcp/4001"`}
	for i := 0; i < len(change); i += 2 {
		at := len(fields)
		for k := 0; k < len(fields); k += 2 {
			if fields[k] == change[i] {
				at = k
			}
		}
		if at == len(fields) {
			fields = append(fields, "", "")
		}
		fields[at], fields[at+1] = change[i], change[i+1]
	}
	var b strings.Builder
	for i := 0; i < len(fields); i += 2 {
		if fields[i+1] != "" {
			fmt.Fprintf(&b, ",%q:%s", fields[i], fields[i+1])
		}
	}
	return "{" + b.String()[1:] + "}"
}

func providers(rows ...string) string { return `{"providers":[` + strings.Join(rows, ",") + `]}` }

func manyProviders(n int) string {
	rows := make([]string, n)
	for i := range rows {
		rows[i] = provider("id", fmt.Sprintf(`"p%d"`, i))
	}
	return providers(rows...)
}

func quoted(c string, n int) string { return `"` + strings.Repeat(c, n) + `"` }

// Bodies that no write takes, whichever it is: they fail before any field of
// theirs means anything.
var badBodies = []struct{ why, body string }{
	{"no body", ""},
	{"blanks", "  \n"},
	{"null", "null"},
	{"a number", "1"},
	{"a string", `"{}"`},
	{"a list", "[]"},
	{"a list of the right thing", "[{}]"},
	{"an object cut short", "{"},
	{"a field cut short", `{"a"`},
	{"a value cut short", `{"a":`},
	{"a string cut short", `{"a":"b`},
	{"a comma too many", `{"a":1,}`},
	{"no comma", `{"a":1 "b":2}`},
	{"a name that is no string", `{1:2}`},
	{"single quotes", `{'a':1}`},
	{"a comment", `{/**/}`},
	{"NaN", `{"a":NaN}`},
	{"a leading zero", `{"a":01}`},
	{"a bare line break in a string", "{\"a\":\"\n\"}"},
	{"the wrong bracket", `{"a":[1}}`},
	{"a byte order mark", "\xef\xbb\xbf{}"},
	{"NUL", "\x00"},
	{"an unknown field", `{"surprise":1}`},
	{"an unknown field with an innocent value", `{"surprise":null}`},
	{"nested too deep", `{"a":` + strings.Repeat("[", 100) + strings.Repeat("]", 100) + `}`},
	{"nested very deep", `{"a":` + strings.Repeat(`{"a":`, 100_000)},
	{"objects nested too deep", strings.Repeat(`{"a":`, 20) + "1" + strings.Repeat("}", 20)},
	{"a duplicate deep inside", `{"a":[{"b":{"c":1,"c":1}}]}`},
}

func TestDecodeRefusesWhatIsNoBody(t *testing.T) {
	for _, op := range []index.Op{index.PutName, index.PutProviders, index.Pin, index.Unpin, index.Reindex} {
		for _, tt := range badBodies {
			_, err := decodeAs(&anyBody, op, tt.body)
			checkRefusal(t, fmt.Sprintf("op %d: %s", op, tt.why), err, index.Invalid, "")
		}
	}
}

func decodeAs(d *decoder, op index.Op, body string) (*index.Mutation, error) {
	j := &index.Job{Ask: index.AskWrite, Op: op, Body: []byte(body), IsJSON: true}
	if op == index.Reindex {
		err := NewTasks(nil, nil).decode(d, j)
		return j.Write, err
	}
	err := d.decode(j)
	return j.Write, err
}

// checkRefusal fails the test unless err is a refusal of that kind. A reason,
// if one is given, has to be part of its text.
func checkRefusal(t *testing.T, why string, err error, want index.Kind, reason string) {
	t.Helper()
	r, ok := errors.AsType[*Refusal](err)
	switch {
	case !ok:
		t.Errorf("%s: %v, want a refusal", why, err)
	case r.Kind != want || index.KindOf(err) != want:
		t.Errorf("%s: %v (%s), want %v", why, r.Kind, r.Reason, want)
	case r.Reason == "" || !strings.Contains(r.Reason, reason):
		t.Errorf("%s: the reason is %q, want something of %q", why, r.Reason, reason)
	}
}

func TestDecodeName(t *testing.T) {
	const cid = `"manifest_cid":"` + aCID + `"`
	for _, tt := range []struct {
		why, body string
		want      index.Kind
		reason    string
	}{
		{"the least", `{` + cid + `,"seq":1}`, index.OK, ""},
		{"the most", `{` + cid + `,"seq":9007199254740991,"issued_at":1,"expires_at":1790000001}`, index.OK, ""},
		{"blanks around", " \t\r\n{ " + cid + " , \"seq\" : 1 } \n", index.OK, ""},
		{"null is as good as absent", `{` + cid + `,"seq":1,"issued_at":null,"expires_at":null,"pubkey":null,"sig":null}`, index.OK, ""},

		{"no manifest_cid", `{"seq":1}`, index.Invalid, "manifest_cid"},
		{"manifest_cid is null", `{"manifest_cid":null,"seq":1}`, index.Invalid, "manifest_cid"},
		{"manifest_cid is empty", `{"manifest_cid":"","seq":1}`, index.Invalid, "64 lowercase hex"},
		{"manifest_cid in upper case", `{"manifest_cid":"b3:` + strings.ToUpper(hex64) + `","seq":1}`, index.Invalid, "64 lowercase hex"},
		{"manifest_cid is a name", `{"manifest_cid":"name:a","seq":1}`, index.Invalid, "64 lowercase hex"},
		{"manifest_cid is a number", `{"manifest_cid":5,"seq":1}`, index.Invalid, ""},
		{"manifest_cid is an object", `{"manifest_cid":{},"seq":1}`, index.Invalid, ""},

		{"no seq", `{` + cid + `}`, index.Invalid, "seq"},
		{"seq is null", `{` + cid + `,"seq":null}`, index.Invalid, "seq"},
		{"seq is 0", `{` + cid + `,"seq":0}`, index.Invalid, "seq"},
		{"seq is negative", `{` + cid + `,"seq":-1}`, index.Invalid, ""},
		{"seq is 2^53", `{` + cid + `,"seq":9007199254740992}`, index.Invalid, "seq"},
		{"seq is 2^64", `{` + cid + `,"seq":18446744073709551616}`, index.Invalid, ""},
		{"seq is a fraction", `{` + cid + `,"seq":1.5}`, index.Invalid, ""},
		{"seq is a string", `{` + cid + `,"seq":"1"}`, index.Invalid, "wrong type"},
		{"seq is a list", `{` + cid + `,"seq":[1]}`, index.Invalid, "wrong type"},

		{"it expires now", `{` + cid + `,"seq":1,"expires_at":1790000000}`, index.Invalid, "past"},
		{"it has expired", `{` + cid + `,"seq":1,"expires_at":1}`, index.Invalid, "past"},
		{"it expires before the epoch", `{` + cid + `,"seq":1,"expires_at":-1}`, index.Invalid, "negative"},
		{"it expires when nobody can say any more", `{` + cid + `,"seq":1,"expires_at":9007199254740991}`, index.OK, ""},
		{"it expires later than other nodes take", `{` + cid + `,"seq":1,"expires_at":9007199254740992}`, index.Invalid, "at most"},
		{"it expires past the end of time", `{` + cid + `,"seq":1,"expires_at":9223372036854775807}`, index.Invalid, "at most"},
		{"it was issued before the epoch", `{` + cid + `,"seq":1,"issued_at":-1}`, index.Invalid, "negative"},

		{"it was issued just ahead of our clock", `{` + cid + `,"seq":1,"issued_at":1790000600}`, index.OK, ""},
		{"it was issued far ahead of it", `{` + cid + `,"seq":1,"issued_at":1790000601}`, index.Invalid, "ahead"},
		{"zeros are for deletions", `{"manifest_cid":"` + index.CID{}.String() + `","seq":1}`, index.Invalid, "zeros"},

		{"a key alone", `{` + cid + `,"seq":1,"pubkey":"` + pubText + `"}`, index.Invalid, "go together"},
		{"a signature alone", `{` + cid + `,"seq":1,"sig":"` + sigText + `"}`, index.Invalid, "go together"},
		{"a key cut short", `{` + cid + `,"seq":1,"pubkey":"` + pubText[:42] + `","sig":"` + sigText + `"}`, index.Invalid, "32 and 64"},
		{"a signature that goes on", `{` + cid + `,"seq":1,"pubkey":"` + pubText + `","sig":"` + sigText + `AA"}`, index.Invalid, "32 and 64"},
		{"with padding", `{` + cid + `,"seq":1,"pubkey":"` + pubText + `=","sig":"` + sigText + `"}`, index.Invalid, "without padding"},
		{"bits behind the last byte", `{` + cid + `,"seq":1,"pubkey":"` + pubText[:42] + `B","sig":"` + sigText + `"}`, index.Invalid, "without padding"},
		{"nobody here to judge it", `{` + cid + `,"seq":1,"pubkey":"` + pubText + `","sig":"` + sigText + `"}`, index.Unsupported, "cannot judge"},

		{"a field too many", `{` + cid + `,"seq":1,"name":"name:a"}`, index.Invalid, "does not know"},
		{"a field twice", `{` + cid + `,"seq":1,"seq":1}`, index.Invalid, "twice"},
		{"a field twice, in two cases", `{` + cid + `,"seq":1,"SEQ":2}`, index.Invalid, "twice"},
		{"a field twice, once with escapes", `{` + cid + `,"seq":1,"\u0073eq":2}`, index.Invalid, "twice"},
		{"a field twice, once with the long s that folds to an s", `{` + cid + `,"seq":1,"` + "\u017f" + `eq":2}`, index.Invalid, "twice"},
		{"a field twice, once with the Kelvin sign that folds to a k", `{` + cid + `,"seq":1,"pubkey":"","pub` + "\u212a" + `ey":""}`, index.Invalid, "twice"},
		{"another object behind", `{` + cid + `,"seq":1}{}`, index.Invalid, "follows"},
		{"junk behind", `{` + cid + `,"seq":1}x`, index.Invalid, "follows"},
		{"a bracket behind", `{` + cid + `,"seq":1}]`, index.Invalid, "follows"},
		{"NUL behind", `{` + cid + `,"seq":1}` + "\x00", index.Invalid, "follows"},
	} {
		m, err := decodeAs(&anyBody, index.PutName, tt.body)
		if tt.want != index.OK {
			checkRefusal(t, tt.why, err, tt.want, tt.reason)
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", tt.why, err)
		} else if m.Name.CID.String() != aCID || m.Name.Seq == 0 || m.Op != index.PutName {
			t.Errorf("%s: read as %+v", tt.why, m.Name)
		}
	}
	m, err := decodeAs(&anyBody, index.PutName, `{`+cid+`,"seq":7,"issued_at":5,"expires_at":1790000005}`)
	if err != nil {
		t.Fatal(err)
	}
	k := cidKey(t)
	want := index.NameRecord{CID: k.CID(), Seq: 7, IssuedAt: 5, ExpiresAt: 1790000005}
	if diff := cmp.Diff(want, m.Name); diff != "" {
		t.Errorf("the record is read wrong:\n%s", diff)
	}
}

func TestDecodeProviders(t *testing.T) {
	for _, tt := range []struct {
		why, body string
		want      index.Kind
		reason    string
	}{
		{"one", providers(provider()), index.OK, ""},
		{"64", manyProviders(64), index.OK, ""},
		{"an http URL", providers(provider("addr", `"http://example.org:8080/x?y=z"`)), index.OK, ""},
		{"an https URL", providers(provider("addr", `"https://[2001:db8::1]/"`)), index.OK, ""},
		{"a multiaddr with a peer", providers(provider("addr", `"/dns4/example.org/tcp/4001/p2p/12D3KooW"`)), index.OK, ""},
		{"the longest address", providers(provider("addr", quoted("/", 512))), index.OK, ""},
		{"the longest id", providers(provider("id", quoted("~", 128))), index.OK, ""},
		{"every byte an id may hold", providers(provider("id", `"ABCXYZabcxyz019._~-"`)), index.OK, ""},
		{"a region", providers(provider("region", `"eu-west_1.A9"`)), index.OK, ""},
		{"an empty region", providers(provider("region", `""`)), index.OK, ""},
		{"the longest region", providers(provider("region", quoted("r", 64))), index.OK, ""},
		{"the shortest life", providers(provider("ttl_s", "60")), index.OK, ""},
		{"the longest life", providers(provider("ttl_s", "172800")), index.OK, ""},
		{"no particular life", providers(provider("ttl_s", "null")), index.OK, ""},

		{"no list", `{}`, index.Invalid, "1 to 64"},
		{"no list but null", `{"providers":null}`, index.Invalid, "1 to 64"},
		{"an empty list", `{"providers":[]}`, index.Invalid, "1 to 64"},
		{"65", manyProviders(65), index.Invalid, "1 to 64"},
		{"an object for a list", `{"providers":{}}`, index.Invalid, "wrong type"},
		{"a string in the list", `{"providers":["p"]}`, index.Invalid, "wrong type"},
		{"null in the list", `{"providers":[null]}`, index.Invalid, ""},
		{"an empty row", `{"providers":[{}]}`, index.Invalid, ""},
		{"a list in the list", `{"providers":[[]]}`, index.Invalid, "wrong type"},

		{"a second too short a life", providers(provider("ttl_s", "59")), index.Invalid, "ttl_s"},
		{"a second too long a life", providers(provider("ttl_s", "172801")), index.Invalid, "ttl_s"},
		{"no life", providers(provider("ttl_s", "0")), index.Invalid, "ttl_s"},
		{"a negative life", providers(provider("ttl_s", "-60")), index.Invalid, "ttl_s"},
		{"a life that overflows", providers(provider("ttl_s", "9223372036854775807")), index.Invalid, "ttl_s"},
		{"half a second", providers(provider("ttl_s", "60.5")), index.Invalid, "wrong type"},
		{"a life in words", providers(provider("ttl_s", `"60"`)), index.Invalid, "wrong type"},

		{"no id", providers(provider("id", "")), index.Invalid, "id"},
		{"an empty id", providers(provider("id", `""`)), index.Invalid, "id"},
		{"an id of 129", providers(provider("id", quoted("a", 129))), index.Invalid, "id"},
		{"an id with a slash", providers(provider("id", `"a/b"`)), index.Invalid, "id"},
		{"an id with a space", providers(provider("id", `"a b"`)), index.Invalid, "id"},
		{"an id with NUL", providers(provider("id", `"a\u0000b"`)), index.Invalid, "id"},
		{"an id with an umlaut", providers(provider("id", `"ä"`)), index.Invalid, "id"},
		{"an id twice", providers(provider(), provider()), index.Invalid, "twice"},
		{"an id in two cases is two ids", providers(provider("id", `"a"`), provider("id", `"A"`)), index.OK, ""},

		{"no address", providers(provider("addr", "")), index.Invalid, "addr"},
		{"an empty address", providers(provider("addr", `""`)), index.Invalid, "addr"},
		{"an address of 513", providers(provider("addr", quoted("/", 513))), index.Invalid, "addr"},
		{"an address with a space", providers(provider("addr", `"http://a b/"`)), index.Invalid, "addr"},
		{"an address with a line break", providers(provider("addr", `"http://a/\r\nX: y"`)), index.Invalid, "addr"},
		{"an address beyond ASCII", providers(provider("addr", `"http://exämple/"`)), index.Invalid, "addr"},
		{"a slash is no multiaddr", providers(provider("addr", `"/"`)), index.Invalid, "addr"},
		{"a host is no URL", providers(provider("addr", `"example.org"`)), index.Invalid, "addr"},
		{"host and port are no URL", providers(provider("addr", `"192.0.2.1:4001"`)), index.Invalid, "addr"},
		{"another scheme", providers(provider("addr", `"ftp://example.org/"`)), index.Invalid, "addr"},
		{"script", providers(provider("addr", `"javascript:alert(1)"`)), index.Invalid, "addr"},
		{"a URL without a host", providers(provider("addr", `"http:///x"`)), index.Invalid, "addr"},
		{"a URL with a port for a host", providers(provider("addr", `"http://:80/"`)), index.Invalid, "addr"},
		{"an opaque URL", providers(provider("addr", `"http:example.org"`)), index.Invalid, "addr"},
		{"a URL that is none", providers(provider("addr", `"http://[::1"`)), index.Invalid, "addr"},
		{"an address that is a number", providers(provider("addr", "1")), index.Invalid, "wrong type"},

		{"a region of 65", providers(provider("region", quoted("r", 65))), index.Invalid, "region"},
		{"a region with a space", providers(provider("region", `"e u"`)), index.Invalid, "region"},
		{"a region with a tilde", providers(provider("region", `"e~u"`)), index.Invalid, "region"},
		{"a region with a quote", providers(provider("region", `"\""`)), index.Invalid, "region"},

		{"a second bad row", providers(provider(), provider("id", `"p2"`, "ttl_s", "1")), index.Invalid, "ttl_s"},
		{"an unknown field in a row", providers(provider("score", "1")), index.Invalid, "does not know"},
		{"a field twice in a row", `{"providers":[{"id":"a","id":"b","addr":"/x"}]}`, index.Invalid, "twice"},
		{"a field twice in a row, in two cases", `{"providers":[{"id":"a","Id":"b","addr":"/x"}]}`, index.Invalid, "twice"},
		{"the list twice", `{"providers":[` + provider() + `],"Providers":[]}`, index.Invalid, "twice"},
		{"one name in two rows is not twice", providers(provider("id", `"a"`), provider("id", `"b"`)), index.OK, ""},
	} {
		m, err := decodeAs(&anyBody, index.PutProviders, tt.body)
		if tt.want != index.OK {
			checkRefusal(t, tt.why, err, tt.want, tt.reason)
		} else if err != nil || len(m.Providers) == 0 {
			t.Errorf("%s: %v", tt.why, err)
		}
	}
	m, err := decodeAs(&anyBody, index.PutProviders, providers(
		provider("region", `"eu"`), provider("id", `"p2"`, "ttl_s", "60", "addr", `"https://x/\u0022"`)))
	if err != nil {
		t.Fatal(err)
	}
	want := []index.Provider{
		{ID: "p1", Addr: "/ip4/192.0.2.1/tcp/4001", Region: "eu", LastSeen: testNow, Expires: testNow + 86_400},
		{ID: "p2", Addr: `https://x/"`, LastSeen: testNow, Expires: testNow + 60},
	}
	if diff := cmp.Diff(want, m.Providers); diff != "" {
		t.Errorf("the rows are read wrong:\n%s", diff)
	}
}

func TestDecodePin(t *testing.T) {
	for _, op := range []index.Op{index.Pin, index.Unpin} {
		m, err := decodeAs(&anyBody, op, `{"cid":"`+aCID+`"}`)
		if err != nil || m.Op != op || m.Key != cidKey(t) {
			t.Errorf("op %d: %+v, %v", op, m, err)
		}
		for _, tt := range []struct{ why, body string }{
			{"no cid", `{}`},
			{"cid is null", `{"cid":null}`},
			{"cid is a name", `{"cid":"name:a"}`},
			{"cid is a list", `{"cid":["` + aCID + `"]}`},
			{"two cids", `{"cid":"` + aCID + `","cid":"` + aCID + `"}`},
			{"two cids in two cases", `{"cid":"` + aCID + `","CID":"` + aCID + `"}`},
			{"two objects", `{"cid":"` + aCID + `"} {"cid":"` + aCID + `"}`},
			{"something else, too", `{"cid":"` + aCID + `","ttl_s":60}`},
		} {
			_, err := decodeAs(&anyBody, op, tt.body)
			checkRefusal(t, tt.why, err, index.Invalid, "")
		}
	}
}

func TestDecodeReindex(t *testing.T) {
	keys := func(n int) string { return `{"keys":[` + strings.Repeat(`"name:a",`, n-1) + `"name:a"]}` }
	for _, tt := range []struct {
		why, body string
		want      index.Kind
		reason    string
	}{
		{"one key", keys(1), index.OK, ""},
		{"10,000 keys", keys(10_000), index.OK, ""},
		{"a key of each kind", `{"keys":["name:a/b","` + aCID + `"],"priority":"low"}`, index.OK, ""},
		{"a hurry", `{"keys":["name:a"],"priority":"high"}`, index.OK, ""},
		{"no hurry", `{"keys":["name:a"],"priority":"normal"}`, index.OK, ""},
		{"10,001 keys", keys(10_001), index.Invalid, "10000"},
		{"no keys", `{}`, index.Invalid, "10000"},
		{"no keys but null", `{"keys":null}`, index.Invalid, "10000"},
		{"an empty list", `{"keys":[]}`, index.Invalid, "10000"},
		{"null for a key", `{"keys":[null]}`, index.Invalid, "malformed"},
		{"an empty key", `{"keys":[""]}`, index.Invalid, "malformed"},
		{"a malformed key among good ones", `{"keys":["name:a","name:b//c"]}`, index.Invalid, "malformed"},
		{"a number for a key", `{"keys":[1]}`, index.Invalid, "wrong type"},
		{"a key for a list", `{"keys":"name:a"}`, index.Invalid, "wrong type"},
		{"another priority", `{"keys":["name:a"],"priority":"urgent"}`, index.Invalid, "priority"},
		{"a priority that shouts", `{"keys":["name:a"],"priority":"HIGH"}`, index.Invalid, "priority"},
		{"a number for a priority", `{"keys":["name:a"],"priority":1}`, index.Invalid, "wrong type"},
		{"a priority twice", `{"keys":["name:a"],"priority":"low","Priority":"high"}`, index.Invalid, "twice"},
	} {
		_, err := decodeAs(&anyBody, index.Reindex, tt.body)
		if tt.want != index.OK {
			checkRefusal(t, tt.why, err, tt.want, tt.reason)
		} else if err != nil {
			t.Errorf("%s: %v", tt.why, err)
		}
	}
	j := &index.Job{Op: index.Reindex, IsJSON: true, Body: []byte(keys(1)), Idempotency: strings.Repeat("k", 257)}
	checkRefusal(t, "an Idempotency-Key of 257 bytes", NewTasks(nil, nil).decode(&anyBody, j), index.Invalid, "Idempotency-Key")
}

func TestDecodeManifest(t *testing.T) {
	for _, tt := range []struct {
		why    string
		size   int
		want   index.Kind
		reason string
	}{
		{"one byte", 1, index.OK, ""},
		{"a mebibyte", 1 << 20, index.OK, ""},
		{"a byte more", 1<<20 + 1, index.TooLarge, ReasonBody},
		{"no byte", 0, index.Invalid, "one byte"},
	} {
		body := strings.Repeat("x", tt.size)
		j := &index.Job{Op: index.PutManifest, Body: []byte(body)} // of any type: the bytes are opaque
		err := anyBody.decode(j)
		if tt.want != index.OK {
			checkRefusal(t, tt.why, err, tt.want, tt.reason)
			continue
		}
		if err != nil || string(j.Write.Manifest) != body || j.Write.Key != index.CIDKey(index.Sum([]byte(body))) {
			t.Errorf("%s: %v; the key should be the digest of the bytes", tt.why, err)
		}
	}
}

func TestDecodeDeletions(t *testing.T) {
	name := key(t, "name:a")
	j := &index.Job{Op: index.DeleteName, Key: name, Seq: 7}
	if err := anyBody.decode(j); err != nil || j.Write.Key != name || j.Write.Name.Seq != 7 || j.Write.Op != index.DeleteName {
		t.Errorf("a deletion: %+v, %v", j.Write, err)
	}
	for _, tt := range []struct {
		why, body string
		query     uint64
		want      index.Kind
		reason    string
	}{
		{"a body says which sequence", `{}`, 0, index.Invalid, "seq"},
		{"and it is enough", `{"seq":7}`, 0, index.OK, ""},
		{"zeros say the same", `{"manifest_cid":"` + index.CID{}.String() + `","seq":7}`, 7, index.OK, ""},
		{"a manifest is no deletion", `{"manifest_cid":"` + aCID + `","seq":7}`, 0, index.Invalid, "zeros"},
		{"the query says another", `{"seq":7}`, 8, index.Invalid, "in the query"},
		{"it has expired", `{"seq":7,"expires_at":1}`, 0, index.Invalid, "past"},
	} {
		j := &index.Job{Op: index.DeleteName, Key: name, Body: []byte(tt.body), IsJSON: true, Seq: tt.query}
		err := anyBody.decode(j)
		if tt.want != index.OK {
			checkRefusal(t, tt.why, err, tt.want, tt.reason)
		} else if err != nil || !j.Write.Name.Deleted || j.Write.Name.Seq != 7 {
			t.Errorf("%s: %+v, %v", tt.why, j.Write, err)
		}
	}

	for _, tt := range []struct {
		why, id string
		want    index.Kind
	}{
		{"an id", "12D3KooW", index.OK},
		{"the longest id", strings.Repeat("a", 128), index.OK},
		{"no id", "", index.Invalid},
		{"an id of 129", strings.Repeat("a", 129), index.Invalid},
		{"an id with a slash", "a/b", index.Invalid},
	} {
		j := &index.Job{Op: index.DeleteProvider, Key: cidKey(t), Text: tt.id}
		err := anyBody.decode(j)
		if index.KindOf(err) != tt.want || tt.want == index.OK && j.Write.ProviderID != tt.id {
			t.Errorf("%s: %v, want %v", tt.why, err, tt.want)
		}
	}
}

// signedBy says that only names it was told of are to be believed.
func signedBy(pub []byte) func(*index.Key, *index.NameRecord) error {
	return func(_ *index.Key, r *index.NameRecord) error {
		if !bytes.Equal(r.PubKey, pub) {
			return errors.New("not he")
		}
		return nil
	}
}

func TestNamesAreHeldToTheirSignature(t *testing.T) {
	d := anyBody
	d.verify = signedBy(make([]byte, 32))
	signed := `,"pubkey":"` + pubText + `","sig":"` + sigText + `"}`
	for _, tt := range []struct {
		why  string
		op   index.Op
		body string
		want index.Kind
	}{
		{"put by him who may", index.PutName, `{"manifest_cid":"` + aCID + `","seq":1` + signed, index.OK},
		{"put by nobody", index.PutName, `{"manifest_cid":"` + aCID + `","seq":1}`, index.Forbidden},
		{"put by another", index.PutName, `{"manifest_cid":"` + aCID + `","seq":1` + strings.Replace(signed, "AAAA", "BBBB", 1), index.Forbidden},
		{"deleted by him who may", index.DeleteName, `{"seq":1` + signed, index.OK},
		{"deleted by nobody", index.DeleteName, `{"seq":1}`, index.Forbidden},
		{"deleted without a word", index.DeleteName, ``, index.Forbidden},
	} {
		m, err := decodeAs(&d, tt.op, tt.body)
		if tt.want != index.OK {
			checkRefusal(t, tt.why, err, tt.want, "not he")
		} else if err != nil || len(m.Name.PubKey) != 32 || len(m.Name.Sig) != 64 {
			t.Errorf("%s: %+v, %v", tt.why, m, err)
		}
	}
}

var (
	pubText = strings.Repeat("A", 43)
	sigText = strings.Repeat("A", 86)
)

func TestJSONHasToSaySo(t *testing.T) {
	for _, op := range []index.Op{index.PutName, index.PutProviders, index.Pin, index.Unpin} {
		err := anyBody.decode(&index.Job{Op: op, Body: []byte(`{"cid":"` + aCID + `"}`)})
		checkRefusal(t, fmt.Sprint("op ", op), err, index.BadType, "application/json")
	}
	err := NewTasks(nil, nil).decode(&anyBody, &index.Job{Op: index.Reindex, Body: []byte(`{"keys":["name:a"]}`)})
	checkRefusal(t, "a reindex", err, index.BadType, "application/json")
}

func TestAnOpNobodyKnowsIsUnsupported(t *testing.T) {
	err := anyBody.decode(&index.Job{Op: 99, Body: []byte("{}"), IsJSON: true})
	checkRefusal(t, "op 99", err, index.Unsupported, "")
}

func TestGzipIsUndoneBeforeAnythingIsRead(t *testing.T) {
	body := `{"cid":"` + aCID + `"}`
	j := &index.Job{Op: index.Pin, IsJSON: true, Gzip: true, Body: gzipped(t, body)}
	if err := anyBody.decode(j); err != nil || j.Write.Key != cidKey(t) {
		t.Errorf("a pin: %v", err)
	}
	j = &index.Job{Op: index.PutManifest, Gzip: true, Body: gzipped(t, "content")}
	if err := anyBody.decode(j); err != nil || j.Write.Key != index.CIDKey(index.Sum([]byte("content"))) {
		t.Errorf("a manifest is identified by what it inflates to: %v", err)
	}
	j = &index.Job{Op: index.Pin, IsJSON: true, Gzip: true, Body: []byte(body)}
	checkRefusal(t, "plain bytes that say they are gzip", anyBody.decode(j), index.Invalid, "gzip")
}

func TestAReasonNeverRepeatsTheBody(t *testing.T) {
	for _, body := range []string{
		`{"secret":1}`, `{"manifest_cid":"secret","seq":1}`, `{"manifest_cid":"` + aCID + `","seq":"secret"}`, `{"seq":1}secret`, `secret`,
		`{"secret":1,"secret":1}`, `{"providers":[{"id":"secret secret","addr":"/x"}]}`, `{"providers":[{"id":"a","addr":"secret"}]}`,
	} {
		for _, op := range []index.Op{index.PutName, index.PutProviders, index.Pin, index.Reindex} {
			if _, err := decodeAs(&anyBody, op, body); err == nil || strings.Contains(err.Error(), "secret") {
				t.Errorf("op %d: %s is answered with %v", op, body, err)
			}
		}
	}
}

// FuzzDecode: whatever the bytes, a write is either understood, and then lies
// within every limit, or refused with a kind and a reason for people.
func FuzzDecode(f *testing.F) {
	ops := []index.Op{
		index.PutManifest, index.PutName, index.DeleteName, index.PutProviders, index.DeleteProvider, index.Pin, index.Unpin, index.Reindex,
	}
	for i := range ops {
		for _, body := range []string{
			`{"manifest_cid":"` + aCID + `","seq":1,"issued_at":2,"expires_at":1790000001}`, manyProviders(2), `{"cid":"` + aCID + `"}`,
			`{"keys":["name:a"],"priority":"low"}`, `{"a":{"a":[1,"x",null,true]}}`,
		} {
			f.Add(uint8(i), false, []byte(body))
			f.Add(uint8(i), false, []byte(`{"seq":1,"pubkey":"`+pubText+`","sig":"`+sigText+`"}`))
		}
		f.Add(uint8(i), true, gzipped(f, `{"cid":"`+aCID+`"}`))
	}
	judging := anyBody
	judging.verify = func(*index.Key, *index.NameRecord) error { return nil }
	f.Fuzz(func(t *testing.T, op uint8, gz bool, body []byte) {
		j := &index.Job{
			Ask: index.AskWrite, Op: ops[int(op)%len(ops)], Key: cidKey(t), Gzip: gz, IsJSON: true, Body: body, Text: string(body),
		}
		var err error
		if j.Op == index.Reindex {
			err = NewTasks(nil, nil).decode(&anyBody, j)
		} else {
			err = judging.decode(j)
		}
		if err != nil {
			r, ok := errors.AsType[*Refusal](err)
			if !ok || r.Reason == "" || r.Kind == index.OK || r.Kind == index.Missing {
				t.Fatalf("%q is refused with %v", body, err)
			}
			return
		}
		m := j.Write
		if m == nil || m.Op != j.Op {
			t.Fatalf("%q is understood as %+v", body, m)
		}
		if n := &m.Name; n.Signed() && (len(n.PubKey) != index.PubKeySize || len(n.Sig) != index.SigSize) {
			t.Fatalf("%q is understood as %+v", body, n)
		}
		if n := &m.Name; m.Op == index.PutName && (n.Seq < 1 || n.Seq > index.SeqMax || !n.Live(testNow)) {
			t.Fatalf("%q is understood as %+v", body, n)
		}
		for _, p := range m.Providers {
			if p.Expires-testNow < index.TTLMin || p.Expires-testNow > index.TTLMax || checkProvider(p.ID, p.Addr, p.Region) != nil {
				t.Fatalf("%q is understood as %+v", body, p)
			}
		}
	})
}

// FuzzUsual: what is taken for a usual body has nothing that the strict look
// would refuse, and nothing behind it.
func FuzzUsual(f *testing.F) {
	for body, usual := range usualBodies {
		f.Add([]byte(body))
		if isUsual([]byte(body)) != usual {
			f.Errorf("%s: usual is %v, want %v", body, !usual, usual)
		}
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		if !isUsual(body) {
			return
		}
		d := json.NewDecoder(bytes.NewReader(body))
		if err := noDuplicates(d); err != nil {
			t.Fatalf("%q passes for usual: %v", body, err)
		}
		if _, err := d.Token(); err != io.EOF {
			t.Fatalf("%q passes for usual, with something behind it", body)
		}
	})
}

var usualBodies = map[string]bool{
	`{"manifest_cid":"` + aCID + `","seq":1}`: true,
	` {"providers" : [ {"id":"a","addr":"/x"} , {"id":"b","addr":"/\"y","ttl_s":-1.5e3} ], "a": [[],{},null,true] } `: true,
	`{}`:                   true,
	`{"a":1,"a":2}`:        false,
	`{"a":{"b":1,"b":{}}}`: false,
	`{"A":1}`:              false,
	`{"\u0061":1,"a":2}`:   false,
	`{"a":1}{"a":1}`:       false,
	`{"a":1`:               false,
	`{"a":tru}`:            false,
	`[{"a":1}]`:            false,
	`"a"`:                  false,
	``:                     false,
	`{"a":1,"b":1,"c":1,"d":1,"e":1,"f":1,"g":1,"h":1,"i":1}`:         false,
	`{"a":` + strings.Repeat("[", 17) + strings.Repeat("]", 17) + `}`: false,
}

func BenchmarkDecode(b *testing.B) {
	for _, bb := range []struct {
		name string
		op   index.Op
		body string
	}{
		{"name", index.PutName, `{"manifest_cid":"` + aCID + `","seq":7,"issued_at":1790000000}`},
		{"providers64", index.PutProviders, manyProviders(64)},
		{"manifest300B", index.PutManifest, strings.Repeat("x", 300)},
	} {
		b.Run(bb.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := decodeAs(&anyBody, bb.op, bb.body); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
