package stages

import (
	"encoding/json"
	"math"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"svcindex/index"
)

// plainBodies are bodies of both kinds, and whether they are read without
// encoding/json. Those that are not may be good all the same.
var plainBodies = map[string]bool{
	`{"manifest_cid":"` + aCID + `","seq":1}`: true,
	" {\"seq\" :\t9 ,\r\n\"issued_at\": 0,\"expires_at\":999999999999999999,\"pubkey\":\"\",\"sig\":\"~ \"} ": true,
	`{}`: true,
	`{"providers":[{"id":"a","addr":"/x","region":"r","ttl_s":60},{"id":"b"},{}]}`: true,
	`{"providers":[]}`: true,

	// Good, but not plain.
	`{"seq":1000000000000000000}`:             false,
	`{"seq":null}`:                            false,
	`{"issued_at":-1}`:                        false,
	`{"pubkey":"\u0061"}`:                     false,
	`{"pubkey":"é"}`:                          false,
	`{"s\u0065q":1}`:                          false,
	`{"providers":null}`:                      false,
	`{"providers":[null]}`:                    false,
	`{"providers":[{"ttl_s":null}]}`:          false,
	`{"providers":[{"id":"a","addr":"\/x"}]}`: false,

	// Not good.
	``:                                    false,
	` `:                                   false,
	`null`:                                false,
	`[]`:                                  false,
	`{`:                                   false,
	`{"seq"`:                              false,
	`{"seq":`:                             false,
	`{"seq":1`:                            false,
	`{"seq":1,`:                           false,
	`{"seq":1,}`:                          false,
	`{,"seq":1}`:                          false,
	`{"seq" 1}`:                           false,
	`{"seq":1 "sig":""}`:                  false,
	`{"seq":1}{}`:                         false,
	`{"seq":1}]`:                          false,
	`{"seq":1,"seq":1}`:                   false,
	`{"SEQ":1}`:                           false,
	`{"seq":01}`:                          false,
	`{"seq":1.0}`:                         false,
	`{"seq":1e0}`:                         false,
	`{"seq":+1}`:                          false,
	`{"seq":"1"}`:                         false,
	`{"seq":9999999999999999999999}`:      false,
	`{"sig":1}`:                           false,
	`{"sig":"`:                            false,
	`{"sig":"a` + "\n" + `"}`:             false,
	`{"sig":"` + "\xff" + `"}`:            false,
	`{"manifest_cid":"b3:00"}`:            false,
	`{"other":1}`:                         false,
	`{"providers":{}}`:                    false,
	`{"providers":[[]]}`:                  false,
	`{"providers":[{"id":"a"},]}`:         false,
	`{"providers":[{"id":"a"}`:            false,
	`{"providers":[{"id":"a"}}`:           false,
	`{"providers":[{"seq":1}]}`:           false,
	`{"providers":[],"providers":[]}`:     false,
	`{"providers":[{"id":"a","id":"a"}]}`: false,
	`{"providers":[` + strings.Repeat(`{"providers":[`, 20): false,
}

// FuzzPlain: what is read without encoding/json is what encoding/json and the
// strict look would have read, and they would not have refused it.
func FuzzPlain(f *testing.F) {
	for body, plain := range plainBodies {
		f.Add([]byte(body))
		_, name := plainName([]byte(body))
		_, providers := plainProviders([]byte(body))
		if (name || providers) != plain {
			f.Errorf("%s: plain is %v, want %v", body, !plain, plain)
		}
	}
	for _, b := range badBodies {
		f.Add([]byte(b.body))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		if got, ok := plainName(body); ok {
			var want nameBody
			if err := strict(body, &want); err != nil || !cmp.Equal(got, want) {
				t.Fatalf("%q is plain, and read as %+v; strict reads %+v, %v", body, got, want, err)
			}
		}
		if got, ok := plainProviders(body); ok {
			var want providersBody
			if err := strict(body, &want); err != nil || !cmp.Equal(append([]providerBody{}, got.Providers...), append([]providerBody{}, want.Providers...)) {
				t.Fatalf("%q is plain, and read as %+v; strict reads %+v, %v", body, got, want, err)
			}
		}
	})
}

// What programs send is read without a second look, or all that is gained is
// lost without anything else to show it.
func TestWhatProgramsSendIsPlain(t *testing.T) {
	cid, seq, ttl := index.Sum([]byte("x")), uint64(index.SeqMax), int64(index.TTLMax)
	text := strings.Repeat("x_-", 28) + "AA"
	for _, doc := range []any{
		nameBody{CID: &cid, Seq: &seq, IssuedAt: testNow, ExpiresAt: testNow + 1, PubKey: text[:43], Sig: text},
		providersBody{Providers: []providerBody{{ID: "a~b", Addr: "https://a.example:8443/", Region: "eu-1", TTL: &ttl}, {ID: "c", Addr: "/ip4/192.0.2.1/tcp/1", TTL: &ttl}}},
	} {
		body, err := json.Marshal(doc)
		if err != nil {
			t.Fatal(err)
		}
		_, name := plainName(body)
		_, providers := plainProviders(body)
		if !name && !providers {
			t.Errorf("%s is not plain", body)
		}
	}
}

// The documents that are written by hand are those that encoding/json writes.
func TestDocumentsAreWhatTheirFieldsSay(t *testing.T) {
	for _, doc := range []index.JSONAppender{
		manifestDoc{aCID, math.MaxInt, true}, manifestDoc{},
		nameDoc{"name:a/b~c.d_e+f", aCID, index.SeqMax, testNow, testNow + 1, true, pubText, sigText}, nameDoc{},
		storedDoc{64}, storedDoc{},
	} {
		want, err := json.Marshal(doc)
		if got := doc.AppendJSON([]byte("before")); err != nil || string(got) != "before"+string(want) {
			t.Errorf("%T: %s, want %s (%v)", doc, got, want, err)
		}
	}
}
