package netio

import (
	"strings"
	"testing"

	"svcindex/index"
)

const (
	hexes = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
	cid   = "b3:" + hexes
)

// TestReadTargetRefuses is a table of what is refused, by which refusal and
// under which label.
func TestReadTargetRefuses(t *testing.T) {
	const (
		get, head, put, post, del, options, other = index.MethodGet, index.MethodHead, index.MethodPut, index.MethodPost,
			index.MethodDelete, index.MethodOptions, index.MethodOther
	)
	for _, tt := range []struct {
		why    string
		m      index.Method
		target string
		route  index.Route
		want   *refusal
	}{
		{"nothing is at the root", get, "/", index.RouteOther, errNoRoute},
		{"an unknown path", get, "/no-such", index.RouteOther, errNoRoute},
		{"a path is case-sensitive", get, "/HEALTHZ", index.RouteOther, errNoRoute},
		{"a prefix is not a path", get, "/resolveb3:", index.RouteOther, errNoRoute},
		{"a route without its slash is another path", get, "/resolve", index.RouteOther, errNoRoute},
		{"a path ends where it ends", get, "/healthz/", index.RouteOther, errNoRoute},
		{"routes are matched on raw bytes", get, "/%72esolve/" + cid, index.RouteOther, errNoRoute},
		{"an encoded slash is no separator", get, "/healthz%2f", index.RouteOther, errNoRoute},
		{"dots are not resolved", post, "/healthz/../admin/reindex", index.RouteOther, errNoRoute},
		{"two slashes are two", get, "//resolve/" + cid, index.RouteOther, errNoRoute},
		{"9110 9.1: a method we do not know is 501", other, "/healthz", index.RouteHealth, errMethod},
		{"9110 9.1: on any path", other, "/no-such", index.RouteOther, errMethod},
		{"9112 3.2.3: an authority goes with CONNECT only, which is 501", other, "a:443", index.RouteOther, errMethod},

		{"9110 15.5.6: resolve is read", put, "/resolve/" + cid, index.RouteResolve, errAllowRead},
		{"the method is judged before the key", post, "/resolve/x", index.RouteResolve, errAllowRead},
		{"names are written", get, "/names/name:a", index.RouteNames, errAllowNames},
		{"names are written, HEAD is reading too", head, "/names/name:a", index.RouteNames, errAllowNames},
		{"providers are read and written", post, "/providers/" + cid, index.RouteProviders, errAllowProviders},
		{"providers of a cid are not deleted at once", del, "/providers/" + cid, index.RouteProviders, errAllowProviders},
		{"one provider is only deleted", get, "/providers/" + cid + "/a", index.RouteProviders, errAllowDelete},
		{"a manifest is read", put, "/manifests/" + cid, index.RouteManifests, errAllowRead},
		{"manifests are put", get, "/manifests", index.RouteManifests, errAllowPut},
		{"a reindex is posted", get, "/admin/reindex", index.RouteAdmin, errAllowPost},
		{"a pin is posted", put, "/admin/pin", index.RouteAdmin, errAllowPost},
		{"a task is read", del, "/admin/tasks/a", index.RouteAdmin, errAllowRead},
		{"health is read", post, "/healthz", index.RouteHealth, errAllowRead},
		{"version is read", post, "/version", index.RouteVersion, errAllowRead},
		{"facets are read", post, "/search/a", index.RouteSearch, errAllowRead},
		{"OPTIONS is not offered", options, "/readyz", index.RouteHealth, errAllowRead},
		{"9112 3.2.4: nor for the server", options, "*", index.RouteOther, errAllowServer},
		{"9112 3.2.4: in whichever form", options, "http://a", index.RouteOther, errAllowServer},
		{"OPTIONS of an unknown path", options, "/no-such", index.RouteOther, errNoRoute},
		{"facets are not built: search", get, "/search/a%20b", index.RouteSearch, errFacets},
		{"facets are not built: graph", head, "/graph/" + cid, index.RouteGraph, errFacets},

		{"9112 3.2.4: an asterisk goes with OPTIONS only", get, "*", index.RouteOther, errTargetForm},
		{"9112 3.2.1: a path begins with a slash", get, "healthz", index.RouteOther, errTargetForm},
		{"9112 3.2.3: an authority is no target of GET", get, "localhost:80", index.RouteOther, errTargetForm},
		{"9112 3.2.2: other schemes are not served", get, "ftp://a/healthz", index.RouteOther, errTargetForm},
		{"9112 3.2.2: a scheme has two slashes", get, "http:/a/healthz", index.RouteOther, errTargetForm},
		{"9110 4.2.1: a host must not be empty", get, "http:///healthz", index.RouteOther, errAuthority},
		{"9110 4.2.1: a port is no host", get, "http://:80/healthz", index.RouteOther, errAuthority},
		{"9110 4.2.4: no user information", get, "http://u:p@a/healthz", index.RouteOther, errAuthority},
		{"3986 3.2.3: a port is digits", get, "http://a:8x/healthz", index.RouteOther, errAuthority},
		{"3986 3.2.2: an address has its brackets", get, "http://::1/healthz", index.RouteOther, errAuthority},
		{"9110 4.2.3: no path is the root, where nothing is", get, "http://a", index.RouteOther, errNoRoute},
		{"9110 4.2.3: also before a query", get, "http://a?b", index.RouteOther, errNoRoute},

		{"3986 2.1: two hex digits after a percent sign", get, "/%zz", index.RouteOther, errTarget},
		{"3986 2.1: not one", get, "/resolve/name:a%2", index.RouteResolve, errTarget},
		{"3986 2.1: in a query too", get, "/healthz?a=%", index.RouteOther, errTarget},
		{"3986 3.3: quotes and braces are encoded", get, "/a\"<>{}|^`", index.RouteOther, errTarget},
		{"3986 3.4: in a query too", get, "/healthz?a=[1]", index.RouteOther, errTarget},

		{"a key must be named", get, "/resolve/", index.RouteResolve, errKey},
		{"a key has a kind", get, "/resolve/go/src", index.RouteResolve, errKey},
		{"a cid is lower case", get, "/resolve/b3:" + strings.ToUpper(hexes), index.RouteResolve, errCID},
		{"a cid is 64 digits", get, "/resolve/" + cid + "0", index.RouteResolve, errCID},
		{"a name is not empty", get, "/resolve/name:", index.RouteResolve, errName},
		{"a name has no empty segment", get, "/resolve/name:a//b", index.RouteResolve, errName},
		{"nor one of dots, encoded or not", get, "/resolve/name:a/%2e%2E/b", index.RouteResolve, errName},
		{"facets hold to the grammar of a path too", get, "/search/a|b", index.RouteSearch, errTarget},
		{"a manifest's cid is encoded right", get, "/manifests/%b", index.RouteManifests, errTarget},
		{"a provider's cid is encoded right", get, "/providers/%", index.RouteProviders, errTarget},
		{"a name is encoded right", put, "/names/name:%g0", index.RouteNames, errTarget},
		{"an absolute target's query too", get, "http://a?%", index.RouteOther, errTarget},
		{"a name ends with a segment", get, "/resolve/name:a%2f", index.RouteResolve, errName},
		{"a name is 200 bytes at most", get, "/resolve/name:" + strings.Repeat("a", 201), index.RouteResolve, errName},
		{"however it is spelled, and however long", get, "/resolve/name:" + strings.Repeat("%61", 2000), index.RouteResolve, errName},
		{"a key is decoded once", get, "/resolve/name:a%252Fb", index.RouteResolve, errName},
		{"a cid is decoded once", get, "/providers/b3%253A" + hexes, index.RouteProviders, errCID},
		{"no line breaks in a name", get, "/resolve/name:a%0d%0ab", index.RouteResolve, errName},
		{"@ only opens a self-certifying name", get, "/resolve/name:a@b", index.RouteResolve, errSelfName},
		{"which has a path", get, "/resolve/name:@" + hexes, index.RouteResolve, errSelfName},
		{"a name is written, not a cid", put, "/names/" + cid, index.RouteNames, errNotName},
		{"providers are of a cid", get, "/providers/name:a", index.RouteProviders, errCID},
		{"manifests are cids", get, "/manifests/name:a", index.RouteManifests, errCID},
		{"a provider's id is not empty", del, "/providers/" + cid + "/", index.RouteProviders, errProviderID},
		{"and has no slash", del, "/providers/" + cid + "/a%2Fb", index.RouteProviders, errProviderID},
		{"and is 128 bytes at most", del, "/providers/" + cid + "/" + strings.Repeat("a", 129), index.RouteProviders, errProviderID},
		{"a cid before an id is a cid", del, "/providers/b3:" + strings.ToUpper(hexes) + "/a", index.RouteProviders, errCID},
		{"even if it is short", del, "/providers/b3:ab/a", index.RouteProviders, errCID},
		{"a task has an id", get, "/admin/tasks/", index.RouteAdmin, errTaskID},
		{"of harmless bytes", get, "/admin/tasks/%00", index.RouteAdmin, errTaskID},

		{"fresh is a word", get, "/resolve/" + cid + "?fresh=1", index.RouteResolve, errFresh},
		{"fresh has a value", get, "/resolve/" + cid + "?fresh", index.RouteResolve, errFresh},
		{"fresh is said once", get, "/resolve/" + cid + "?fresh=true&fresh=true", index.RouteResolve, errParamTwice},
		{"3986 6.2.2.2: whatever its spelling", get, "/resolve/" + cid + "?fresh=true&%66res%68=false", index.RouteResolve, errParamTwice},
		{"a limit is not 0", get, "/providers/" + cid + "?limit=0", index.RouteProviders, errLimit},
		{"nor 33", get, "/providers/" + cid + "?limit=33", index.RouteProviders, errLimit},
		{"nor signed", get, "/providers/" + cid + "?limit=+5", index.RouteProviders, errLimit},
		{"nor 2^64 + 5", get, "/providers/" + cid + "?limit=18446744073709551621", index.RouteProviders, errLimit},
		{"nor nothing", get, "/providers/" + cid + "?limit=", index.RouteProviders, errLimit},
		{"a region is something", get, "/providers/" + cid + "?region=", index.RouteProviders, errRegion},
		{"a region is 64 bytes at most", get, "/providers/" + cid + "?region=" + strings.Repeat("a", 65), index.RouteProviders, errRegion},
		{"a plus sign is a plus sign", get, "/providers/" + cid + "?region=a+b", index.RouteProviders, errRegion},
		{"freshness has a bound", get, "/providers/" + cid + "?min_freshness=2147483649", index.RouteProviders, errMinFreshness},
		{"freshness is not negative", get, "/providers/" + cid + "?min_freshness=-1", index.RouteProviders, errMinFreshness},
		{"a seq is not 0", del, "/names/name:a?seq=0", index.RouteNames, errSeq},
		{"nor 2^53", del, "/names/name:a?seq=9007199254740992", index.RouteNames, errSeq},
	} {
		var r request
		if got := readTarget(tt.m, []byte(tt.target), &r); got != tt.want {
			t.Errorf("%s: %s %.90s: %v, want %v", tt.why, tt.m, tt.target, got, tt.want)
		}
		if r.route != tt.route {
			t.Errorf("%s: %s %.90s: route %v, want %v", tt.why, tt.m, tt.target, r.route, tt.route)
		}
	}
}

// TestReadTarget is a table of what is asked for.
func TestReadTarget(t *testing.T) {
	const (
		get, head, put, post, del = index.MethodGet, index.MethodHead, index.MethodPut, index.MethodPost, index.MethodDelete
	)
	five := index.ProviderQuery{Limit: 5}
	for _, tt := range []struct {
		why          string
		m            index.Method
		target       string
		want         request // the plain fields
		key          string
		region, text string
	}{
		{"a content id", get, "/resolve/" + cid, request{route: index.RouteResolve, ask: index.AskResolve, query: five}, cid, "", ""},
		{"HEAD asks like GET", head, "/resolve/" + cid, request{route: index.RouteResolve, ask: index.AskResolve, query: five}, cid, "", ""},
		{"a name", get, "/resolve/name:go/src", request{route: index.RouteResolve, ask: index.AskResolve, query: five}, "name:go/src", "", ""},
		{"%2F becomes a slash", get, "/resolve/name%3Ago%2fsrc", request{route: index.RouteResolve, ask: index.AskResolve, query: five}, "name:go/src", "", ""},
		{"a plus sign stays one", get, "/resolve/name:c++", request{route: index.RouteResolve, ask: index.AskResolve, query: five}, "name:c++", "", ""},
		{"a name of 200 bytes, each encoded", get, "/resolve/name:" + strings.Repeat("%61", 200), request{route: index.RouteResolve, ask: index.AskResolve, query: five}, "name:" + strings.Repeat("a", 200), "", ""},
		{"9112 3.2.2: an absolute target", get, "HTTP://[::1]:80/resolve/" + cid, request{route: index.RouteResolve, ask: index.AskResolve, query: five}, cid, "", ""},
		{"fresh", get, "/resolve/" + cid + "?fresh=true", request{route: index.RouteResolve, ask: index.AskResolve, fresh: true, query: five}, cid, "", ""},
		{"not fresh", get, "/resolve/" + cid + "?fresh=false", request{route: index.RouteResolve, ask: index.AskResolve, query: five}, cid, "", ""},
		{"unknown parameters are ignored", get, "/resolve/" + cid + "?&a&limit=99&Fresh=x&a=%00&fresh=%74rue&a", request{route: index.RouteResolve, ask: index.AskResolve, fresh: true, query: five}, cid, "", ""},
		{"an empty query", get, "/resolve/" + cid + "?", request{route: index.RouteResolve, ask: index.AskResolve, query: five}, cid, "", ""},
		{"providers", get, "/providers/" + cid, request{route: index.RouteProviders, ask: index.AskProviders, query: five}, cid, "", ""},
		{"providers, chosen", get, "/providers/" + cid + "?region=eu-west&limit=32&min_freshness=0", request{route: index.RouteProviders, ask: index.AskProviders, query: index.ProviderQuery{Limit: 32}}, cid, "eu-west", ""},
		{"providers, chosen and encoded", get, "/providers/b3%3a" + hexes + "?region=%65u&limi%74=%38&min%5Ffreshness=2147483648", request{route: index.RouteProviders, ask: index.AskProviders, query: index.ProviderQuery{Limit: 8, MinFreshness: 1 << 31}}, cid, "eu", ""},
		{"providers are put; a query says nothing there", put, "/providers/" + cid + "?limit=0", request{route: index.RouteProviders, ask: index.AskWrite, op: index.PutProviders, query: five}, cid, "", ""},
		{"a provider goes", del, "/providers/" + cid + "/12D3Koo", request{route: index.RouteProviders, ask: index.AskWrite, op: index.DeleteProvider, query: five}, cid, "", "12D3Koo"},
		{"a provider goes, encoded", del, "/providers/b3%3A" + hexes + "%2F%61~b", request{route: index.RouteProviders, ask: index.AskWrite, op: index.DeleteProvider, query: five}, cid, "", "a~b"},
		{"a manifest", get, "/manifests/" + cid, request{route: index.RouteManifests, ask: index.AskManifest, query: five}, cid, "", ""},
		{"a manifest is put", put, "/manifests", request{route: index.RouteManifests, ask: index.AskWrite, op: index.PutManifest, query: five}, "", "", ""},
		{"a name is put", put, "/names/name:a?seq=x", request{route: index.RouteNames, ask: index.AskWrite, op: index.PutName, query: five}, "name:a", "", ""},
		{"a name goes", del, "/names/name:a", request{route: index.RouteNames, ask: index.AskWrite, op: index.DeleteName, query: five}, "name:a", "", ""},
		{"a name goes with a seq", del, "/names/name:a?seq=9007199254740991", request{route: index.RouteNames, ask: index.AskWrite, op: index.DeleteName, seq: index.SeqMax, query: five}, "name:a", "", ""},
		{"a reindex", post, "/admin/reindex", request{route: index.RouteAdmin, ask: index.AskWrite, op: index.Reindex, query: five}, "", "", ""},
		{"a pin", post, "/admin/pin", request{route: index.RouteAdmin, ask: index.AskWrite, op: index.Pin, query: five}, "", "", ""},
		{"a pin goes", post, "/admin/unpin", request{route: index.RouteAdmin, ask: index.AskWrite, op: index.Unpin, query: five}, "", "", ""},
		{"a task", head, "/admin/tasks/01HZ", request{route: index.RouteAdmin, ask: index.AskTask, query: five}, "", "", "01HZ"},
		{"health", get, "/healthz?a=b&c=%20%C3%A9;:@!$'()*+,/?-._~", request{route: index.RouteHealth, local: localHealthz, query: five}, "", "", ""},
		{"readiness", head, "/readyz", request{route: index.RouteHealth, local: localReadyz, query: five}, "", "", ""},
		{"version", get, "https://a:/version", request{route: index.RouteVersion, local: localVersion, query: five}, "", "", ""},
	} {
		// Full of another request, which must leave nothing behind.
		r := request{route: 9, local: 9, ask: 9, op: 9, fresh: true, seq: 9, region: []byte("x"), text: []byte("x")}
		r.query = index.ProviderQuery{Limit: 9, MinFreshness: 9}
		r.key, _ = index.ParseKey("name:other")
		if err := readTarget(tt.m, []byte(tt.target), &r); err != nil {
			t.Errorf("%s: %s %.90s: %v", tt.why, tt.m, tt.target, err)
			continue
		}
		if got, want := r.key.String(), tt.key; got != want {
			t.Errorf("%s: %s %.90s: key %s, want %s", tt.why, tt.m, tt.target, got, want)
		}
		if got := string(r.region); got != tt.region || (r.region == nil) != (tt.region == "") {
			t.Errorf("%s: %s %.90s: region %q, want %q", tt.why, tt.m, tt.target, got, tt.region)
		}
		if got := string(r.text); got != tt.text {
			t.Errorf("%s: %s %.90s: text %q, want %q", tt.why, tt.m, tt.target, got, tt.text)
		}
		if r.route != tt.want.route || r.local != tt.want.local || r.ask != tt.want.ask || r.op != tt.want.op ||
			r.fresh != tt.want.fresh || r.seq != tt.want.seq || r.query != tt.want.query {
			t.Errorf("%s: %s %.90s: read %v %v %v %v %v %v %+v", tt.why, tt.m, tt.target, r.route, r.local, r.ask, r.op, r.fresh, r.seq, r.query)
		}
	}
}

// TestRefusals: what clients rely on in every refusal.
func TestRefusals(t *testing.T) {
	for _, r := range []*refusal{errAllowRead, errAllowPut, errAllowPost, errAllowDelete, errAllowNames, errAllowProviders, errAllowServer} {
		if r.status != 405 || r.allow == "" || r.close {
			t.Errorf("%+v: want 405 with Allow (RFC 9110 15.5.6), and the connection left open", r)
		}
	}
	if errNoRoute.reason != "no_route" {
		t.Errorf("an unknown path has reason %q, want no_route", errNoRoute.reason)
	}
}

var targets = []string{
	"/resolve/" + cid,
	"/resolve/name:go/src/net/http/httputil?fresh=true",
	"/providers/" + cid + "?region=eu-west&limit=8&min_freshness=600",
	"/manifests/" + cid,
	"/healthz",
	"/resolve/name%3Ago%2Fsrc",
	"http://localhost/resolve/" + cid,
	"/no-such",
}

func TestReadTargetDoesNotAllocate(t *testing.T) {
	var r request
	for _, target := range targets {
		b := []byte(target)
		if n := testing.AllocsPerRun(100, func() { readTarget(index.MethodGet, b, &r) }); n != 0 {
			t.Errorf("readTarget(%s) allocates %v times, want 0", target, n)
		}
	}
}

func BenchmarkReadTarget(b *testing.B) {
	for _, bb := range []struct{ name, target string }{
		{"cid", targets[0]}, {"name", targets[1]}, {"providers", targets[2]}, {"encoded", targets[5]},
	} {
		b.Run(bb.name, func(b *testing.B) {
			target, r := []byte(bb.target), new(request)
			b.ReportAllocs()
			for b.Loop() {
				if err := readTarget(index.MethodGet, target, r); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
