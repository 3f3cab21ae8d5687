package netio

import (
	"bytes"
	"math"

	"svcindex/index"
)

// A request is what a method and a target ask for. Its slices point into the
// target or into the request itself and are dead after either moves.
type request struct {
	route index.Route // also when the request is refused, if it is known
	local local       // answered by the listener itself
	ask   index.Ask
	op    index.Op // AskWrite
	key   index.Key
	fresh bool
	query index.ProviderQuery // AskProviders; Region is left empty, see region
	seq   uint64              // DeleteName: ?seq=, 0 when absent

	path   []byte // of the target, as sent
	region []byte // AskProviders: ?region=
	text   []byte // provider id of a DeleteProvider; task id of an AskTask

	scratch [256]byte // holds the percent-decoded; longer than anything valid
}

// local names what the listener answers without asking anybody.
type local uint8

const (
	localHealthz local = iota + 1
	localReadyz
	localVersion
)

// readTarget tells what a method and a target, as parseHead took it, ask for:
// a pure function. Paths are matched byte by byte as they were sent; what
// follows the route is percent-decoded once and not touched otherwise.
//
// A method that is none of ours is 501 whatever the path (RFC 9110 9.1); one
// that the path does not know is 405.
func readTarget(m index.Method, target []byte, r *request) *refusal {
	r.route, r.local, r.ask, r.op, r.fresh, r.seq = 0, 0, 0, 0, false, 0
	r.query = index.ProviderQuery{Limit: index.DefaultLimit}
	r.path, r.region, r.text = nil, nil, nil
	// What is asked most is read in one pass: the text of a key holds neither a
	// '?' nor a '%', so if all that follows the route is one, that is all.
	if key, ok := bytes.CutPrefix(target, pathResolve); ok && reads(m) && index.ReadKey(&r.key, key) == nil {
		r.path, r.route, r.ask = target, index.RouteResolve, index.AskResolve
		return nil
	}
	r.key = index.Key{}
	err := r.read(m, target)
	if m == index.MethodOther {
		return errMethod
	}
	return err
}

// read takes the target apart.
func (r *request) read(m index.Method, target []byte) *refusal {
	if len(target) == 0 || target[0] != '/' {
		var err *refusal
		if target, err = originForm(m, target); err != nil {
			return err
		}
	}
	path, query := target, []byte(nil)
	if q := bytes.IndexByte(target, '?'); q >= 0 {
		path, query = target[:q], target[q+1:]
		if !validURL(query) {
			return errTarget
		}
	}
	r.path = path
	if rest, ok := bytes.CutPrefix(path, pathResolve); ok {
		return r.resolve(m, rest, query)
	}
	if rest, ok := bytes.CutPrefix(path, pathProviders); ok {
		return r.providers(m, rest, query)
	}
	if rest, ok := bytes.CutPrefix(path, pathManifests); ok {
		return r.manifest(m, rest)
	}
	if rest, ok := bytes.CutPrefix(path, pathNames); ok {
		return r.name(m, rest, query)
	}
	return r.rare(m, path)
}

// Routes that end in a key.
var (
	pathResolve   = []byte("/resolve/")
	pathProviders = []byte("/providers/")
	pathManifests = []byte("/manifests/")
	pathNames     = []byte("/names/")
	pathTasks     = []byte("/admin/tasks/")
	pathSearch    = []byte("/search/")
	pathGraph     = []byte("/graph/")
)

// rare reads the paths that are not asked for in a hurry.
func (r *request) rare(m index.Method, path []byte) *refusal {
	switch string(path) {
	case "/healthz":
		return r.answerLocally(m, index.RouteHealth, localHealthz)
	case "/readyz":
		return r.answerLocally(m, index.RouteHealth, localReadyz)
	case "/version":
		return r.answerLocally(m, index.RouteVersion, localVersion)
	case "/manifests":
		r.route = index.RouteManifests
		if m != index.MethodPut {
			return errAllowPut
		}
		r.write(index.PutManifest)
		return nil
	case "/admin/reindex":
		return r.admin(m, index.Reindex)
	case "/admin/pin":
		return r.admin(m, index.Pin)
	case "/admin/unpin":
		return r.admin(m, index.Unpin)
	}
	if rest, ok := bytes.CutPrefix(path, pathTasks); ok {
		return r.task(m, rest)
	}
	if bytes.HasPrefix(path, pathSearch) {
		return r.facets(m, index.RouteSearch, path)
	}
	if bytes.HasPrefix(path, pathGraph) {
		return r.facets(m, index.RouteGraph, path)
	}
	if !validURL(path) {
		return errTarget
	}
	return errNoRoute
}

func (r *request) write(op index.Op) { r.ask, r.op = index.AskWrite, op }

func (r *request) answerLocally(m index.Method, route index.Route, what local) *refusal {
	r.route, r.local = route, what
	if !reads(m) {
		return errAllowRead
	}
	return nil
}

// resolve reads GET /resolve/{key}.
func (r *request) resolve(m index.Method, key, query []byte) *refusal {
	r.route, r.ask = index.RouteResolve, index.AskResolve
	if !reads(m) {
		return errAllowRead
	}
	if err := r.readKey(key); err != nil {
		return err
	}
	return r.params(query, paramFresh)
}

// manifest reads GET /manifests/{cid}.
func (r *request) manifest(m index.Method, cid []byte) *refusal {
	r.route, r.ask = index.RouteManifests, index.AskManifest
	if !reads(m) {
		return errAllowRead
	}
	cid, ok := r.decode(cid)
	if !ok {
		return errTarget
	}
	return r.takeCID(cid)
}

// name reads PUT and DELETE /names/{name}.
func (r *request) name(m index.Method, name, query []byte) *refusal {
	r.route = index.RouteNames
	known := param(0)
	switch m {
	case index.MethodPut:
		r.write(index.PutName)
	case index.MethodDelete:
		r.write(index.DeleteName)
		known = paramSeq
	default:
		return errAllowNames
	}
	if err := r.readKey(name); err != nil {
		return err
	}
	if !r.key.IsName() {
		return errNotName
	}
	return r.params(query, known)
}

// providers reads GET and PUT /providers/{cid}, and DELETE
// /providers/{cid}/{id}. A cid has a fixed length, so what follows it is
// found without looking for a slash.
func (r *request) providers(m index.Method, rest, query []byte) *refusal {
	r.route = index.RouteProviders
	rest, ok := r.decode(rest)
	if !ok {
		return errTarget
	}
	one := len(rest) > index.CIDText && rest[index.CIDText] == '/'
	switch {
	case one && m == index.MethodDelete:
		r.write(index.DeleteProvider)
		rest, r.text = rest[:index.CIDText], rest[index.CIDText+1:]
		if err := r.takeCID(rest); err != nil {
			return err
		}
		if len(r.text) == 0 || len(r.text) > index.ProviderIDMax || !all(r.text, isID) {
			return errProviderID
		}
		return nil
	case one:
		return errAllowDelete
	case m == index.MethodPut:
		r.write(index.PutProviders)
		return r.takeCID(rest)
	case reads(m):
		r.ask = index.AskProviders
		if err := r.takeCID(rest); err != nil {
			return err
		}
		return r.params(query, paramFresh|paramRegion|paramLimit|paramMinFreshness)
	}
	if err := r.takeCID(rest); err != nil && m == index.MethodDelete {
		return err // "/{id}" may be there, but not where it has to be
	}
	return errAllowProviders
}

// admin reads POST /admin/{op}. What it is about is in the body.
func (r *request) admin(m index.Method, op index.Op) *refusal {
	r.route = index.RouteAdmin
	if m != index.MethodPost {
		return errAllowPost
	}
	r.write(op)
	return nil
}

// task reads GET /admin/tasks/{id}.
func (r *request) task(m index.Method, id []byte) *refusal {
	r.route, r.ask = index.RouteAdmin, index.AskTask
	if !reads(m) {
		return errAllowRead
	}
	id, ok := r.decode(id)
	if !ok || len(id) == 0 || len(id) > index.ProviderIDMax || !all(id, isID) {
		return errTaskID
	}
	r.text = id
	return nil
}

// facets refuses a part that is not built.
func (r *request) facets(m index.Method, route index.Route, path []byte) *refusal {
	r.route = route
	switch {
	case !reads(m):
		return errAllowRead
	case !validURL(path):
		return errTarget
	}
	return errFacets
}

// reads reports whether m is GET or HEAD, which are offered together.
func reads(m index.Method) bool { return m == index.MethodGet || m == index.MethodHead }

// readKey reads a percent-encoded key.
func (r *request) readKey(text []byte) *refusal {
	text, ok := r.decode(text)
	if !ok {
		return errTarget
	}
	if bytes.HasPrefix(text, prefixCID) {
		return r.takeCID(text) // what ParseKey would do, with one copy of a large Key less
	}
	if err := index.ReadKey(&r.key, text); err != nil {
		return keyFault(err)
	}
	return nil
}

var prefixCID = []byte("b3:")

// takeCID reads a decoded key that has to be a content id.
func (r *request) takeCID(text []byte) *refusal {
	c, err := index.ParseCID(text)
	if err != nil {
		return errCID
	}
	r.key = index.CIDKey(c)
	return nil
}

func keyFault(err error) *refusal {
	switch err {
	case index.ErrName:
		return errName
	case index.ErrSelfName:
		return errSelfName
	}
	return errKey
}

// A param is a set of query parameters.
type param uint8

const (
	paramFresh param = 1 << iota
	paramRegion
	paramLimit
	paramMinFreshness
	paramSeq
)

// params reads those parameters of a valid query that are known here. The
// others are ignored.
func (r *request) params(query []byte, known param) *refusal {
	var seen param
	for len(query) > 0 {
		var pair []byte
		pair, query, _ = bytes.Cut(query, ampersand)
		name, value, _ := bytes.Cut(pair, equals)
		p := paramOf(name) & known
		if p == 0 {
			continue
		}
		if seen&p != 0 {
			return errParamTwice
		}
		seen |= p
		if err := r.param(p, value); err != nil {
			return err
		}
	}
	return nil
}

var ampersand, equals = []byte("&"), []byte("=")

// paramOf returns the parameter of a name. The name is decoded first: fresh
// and %66resh are the same (RFC 3986 6.2.2.2), so one must not hide behind the
// other.
func paramOf(name []byte) param {
	var room [16]byte // longer than any name we know
	name, _ = decode(room[:0], name)
	switch string(name) {
	case "fresh":
		return paramFresh
	case "region":
		return paramRegion
	case "limit":
		return paramLimit
	case "min_freshness":
		return paramMinFreshness
	case "seq":
		return paramSeq
	}
	return 0
}

// param reads the value of one parameter.
func (r *request) param(p param, value []byte) *refusal {
	if p == paramRegion { // the only one that keeps its text
		region, _ := r.decode(value)
		if len(region) == 0 || len(region) > index.RegionMax || !all(region, isRegion) {
			return errRegion
		}
		r.region = region
		return nil
	}
	var room [24]byte // longer than any value worth reading
	text, _ := decode(room[:0], value)
	switch p {
	case paramFresh:
		r.fresh = string(text) == "true"
		if !r.fresh && string(text) != "false" {
			return errFresh
		}
	case paramLimit:
		n, ok := number(text, 1, providersPage)
		if !ok {
			return errLimit
		}
		r.query.Limit = int(n)
	case paramMinFreshness:
		n, ok := number(text, 0, 1<<31)
		if !ok {
			return errMinFreshness
		}
		r.query.MinFreshness = int64(n)
	case paramSeq:
		n, ok := number(text, 1, index.SeqMax)
		if !ok {
			return errSeq
		}
		r.seq = n
	}
	return nil
}

const providersPage = 32 // providers in one answer, at most

// number reads a decimal number of least..most.
func number(b []byte, least, most uint64) (n uint64, ok bool) {
	for _, c := range b {
		if c < '0' || c > '9' || n > math.MaxUint64/10-1 {
			return 0, false
		}
		n = n*10 + uint64(c-'0')
	}
	return n, len(b) > 0 && n >= least && n <= most
}

// all reports whether every byte of b is of class is.
func all(b []byte, is uint8) bool {
	for _, c := range b {
		if class[c]&is == 0 {
			return false
		}
	}
	return true
}

// validURL holds a path or query to RFC 3986 3.3 and 3.4.
func validURL(b []byte) bool {
	for i := 0; i < len(b); i++ {
		if class[b[i]]&isURL != 0 {
			continue
		}
		if b[i] != '%' || !pctEncoded(b[i:]) {
			return false
		}
		i += 2
	}
	return true
}

// decode returns b percent-decoded once: b itself if there is nothing to
// decode, else in the scratch of r.
func (r *request) decode(b []byte) (text []byte, ok bool) {
	if bytes.IndexByte(b, '%') < 0 {
		return b, true
	}
	return decode(r.scratch[:0], b)
}

// decode percent-decodes b once into the room that dst has. What does not fit
// is dropped, so the room must be larger than anything valid. Not ok: a '%'
// without two hex digits.
func decode(dst, b []byte) (text []byte, ok bool) {
	for i := 0; i < len(b); i++ {
		c := b[i]
		if c == '%' {
			if !pctEncoded(b[i:]) {
				return nil, false
			}
			c = unhex(b[i+1])<<4 | unhex(b[i+2])
			i += 2
		}
		if len(dst) < cap(dst) {
			dst = append(dst, c)
		}
	}
	return dst, true
}

// unhex returns the value of a hex digit.
func unhex(c byte) byte {
	if c <= '9' {
		return c - '0'
	}
	return (c | 0x20) - 'a' + 10
}

// originForm returns the path and query of a target that does not begin with
// '/'. The host of an absolute target outweighs the Host field (RFC 9112
// 3.2.2), but we serve the same under any, so it only has to be a host.
func originForm(m index.Method, target []byte) ([]byte, *refusal) {
	if string(target) == "*" && m == index.MethodOptions {
		return nil, errAllowServer
	}
	rest, ok := cutScheme(target)
	if !ok {
		return nil, errTargetForm
	}
	end := bytes.IndexAny(rest, "/?")
	if end < 0 {
		end = len(rest)
	}
	host, rest := rest[:end], rest[end:]
	if len(host) == 0 || host[0] == ':' || !validHost(host) {
		return nil, errAuthority
	}
	switch {
	case len(rest) > 0 && rest[0] == '/':
		return rest, nil
	case len(rest) == 0 && m == index.MethodOptions:
		return nil, errAllowServer // means "*" (RFC 9112 3.2.4)
	case !validURL(rest):
		return nil, errTarget
	}
	return nil, errNoRoute // means the path "/", which is nothing here
}

// cutScheme cuts the scheme from an absolute URL of ours.
func cutScheme(target []byte) ([]byte, bool) {
	for _, scheme := range [...]string{"http://", "https://"} {
		if n := len(scheme); len(target) >= n && fold(target[:n], scheme) {
			return target[n:], true
		}
	}
	return nil, false
}
