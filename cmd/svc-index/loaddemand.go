package main

import (
	"cmp"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"svcindex/auth"
	"svcindex/index"
	"svcindex/loadgen"
)

// demand makes what is asked for from the flags: the mix of a run, and what
// puts its keys into a server.
func (o *loadOptions) demand() (mix loadgen.Mix, fill loadgen.Filling, err error) {
	for name, share := range map[string]float64{"absent": o.absent, "fresh": o.fresh, "writes": o.writes} {
		if !(share >= 0 && share <= 1) {
			return mix, fill, usagef("--%s is %v, a share is 0 to 1", name, share)
		}
	}
	weights, err := parseMix(o.mix)
	if err != nil {
		return mix, fill, err
	}
	reads, err := o.reads(weights)
	if err != nil {
		return mix, fill, err
	}
	host := o.cfg.Address
	if o.cfg.Network == "unix" {
		host = "localhost"
	}
	mix = loadgen.Mix{Endpoints: reads, Host: host, Dist: o.dist, Absent: o.absent, Fresh: o.fresh, Seed: o.cfg.Seed}
	if o.writes == 0 && o.prepare == 0 {
		return mix, fill, nil
	}
	return o.withWrites(mix, weights)
}

// parseMix reads resolve=8,providers=1,manifests=1.
func parseMix(text string) (map[string]float64, error) {
	weights := map[string]float64{}
	for part := range strings.SplitSeq(text, ",") {
		name, value, has := strings.Cut(strings.TrimSpace(part), "=")
		w := 1.0
		var err error
		if has {
			w, err = strconv.ParseFloat(value, 64)
		}
		if err != nil || !(w >= 0 && w <= 1e9) {
			return nil, usagef("--mix: %q: a weight is a number from 0", part)
		}
		switch name {
		case "resolve", "providers", "manifests":
			weights[name] += w
		default:
			return nil, usagef("--mix: there is no endpoint %q; there are resolve, providers, manifests", name)
		}
	}
	return weights, nil
}

// reads are the endpoints that are asked.
func (o *loadOptions) reads(weights map[string]float64) ([]loadgen.Endpoint, error) {
	names, cids, file, err := o.keysets(weights["providers"]+weights["manifests"] > 0)
	if err != nil {
		return nil, err
	}
	token := ""
	if t := cmp.Or(o.token, os.Getenv(envToken)); t != "" {
		token = "Authorization: Bearer " + t + "\r\n"
	}
	nowhere := loadgen.Nowhere{Prefix: "b3:", N: max(cids.Len(), 1)}
	all := []loadgen.Endpoint{
		{Name: "resolve", Path: "/resolve/", Keys: names, Fresh: "?fresh=true",
			Absent: loadgen.Numbered{Prefix: loadAbsent, N: names.Len()}},
		{Name: "providers", Path: "/providers/", Keys: cids, Absent: nowhere},
		{Name: "manifests", Path: "/manifests/", Keys: cids, Absent: nowhere},
	}
	for i := range all {
		e := &all[i]
		e.Method, e.Weight, e.InFile, e.Header = "GET", weights[e.Name], file, token
		if e.Weight > 0 && e.Keys.Len() == 0 {
			return nil, usagef("--mix has %s, but there are no b3: keys in %s", e.Name, o.keys)
		}
	}
	return all, nil
}

// keysets returns the keys: those that can be resolved, and those that are
// content ids, which are computed only if they are wanted.
func (o *loadOptions) keysets(wantCIDs bool) (names, cids loadgen.Keyset, file bool, err error) {
	n, err := strconv.Atoi(o.keys)
	if err != nil {
		return o.keyFile()
	}
	if o.prepare > 0 {
		n, o.keys = o.prepare, strconv.Itoa(o.prepare)
	}
	if n < 1 || n > loadMax {
		return nil, nil, false, usagef("--keys and --prepare take 1 to %s keys, not %d", commas(loadMax), n)
	}
	var sums [][32]byte
	if wantCIDs || o.prepare > 0 || o.writes > 0 {
		sums = contentIDs(n)
	}
	return loadgen.Numbered{Prefix: loadNames, N: n}, loadgen.Hashes{Prefix: "b3:", Sums: sums}, false, nil
}

func (o *loadOptions) keyFile() (names, cids loadgen.Keyset, file bool, err error) {
	if o.prepare > 0 || o.writes > 0 {
		return nil, nil, false, usagef("--prepare and --writes make up their keys: give --keys a number with them")
	}
	f, err := os.Open(o.keys)
	if err != nil {
		return nil, nil, false, usagef("--keys: %w", err)
	}
	defer f.Close()
	lines, err := loadgen.ReadLines(f)
	if err != nil {
		return nil, nil, false, usagef("--keys: %s: %w", o.keys, err)
	}
	var b3 loadgen.Lines
	for _, l := range lines {
		if strings.HasPrefix(l, "b3:") {
			b3 = append(b3, l)
		}
	}
	return lines, b3, true, nil
}

// withWrites adds the share of writes to a mix, and makes what fills a server.
func (o *loadOptions) withWrites(mix loadgen.Mix, weights map[string]float64) (loadgen.Mix, loadgen.Filling, error) {
	// A run's requests are made once, before it: their token has to last.
	tokens, err := o.tokens(min(time.Hour+64*o.cfg.Duration, auth.LifeMax))
	if err != nil {
		return mix, loadgen.Filling{}, err
	}
	token, err := tokens()
	if err != nil {
		return mix, loadgen.Filling{}, err
	}
	header := "Authorization: Bearer " + token + "\r\n"
	names, cids := mix.Endpoints[0].Keys, mix.Endpoints[1].Keys
	put := loadgen.Endpoint{Name: "names", Method: "PUT", Path: "/names/", Keys: names, Header: header, Weight: o.writes}
	fill := o.filling(put, cids, weights, mix.Host)

	// A write is newer than whatever an earlier run has written, and than the
	// one before it in this run.
	put.Body = nameBody(cids, func(n int64) int64 { return o.writesAt + n })
	if o.writes > 0 {
		sum := weights["resolve"] + weights["providers"] + weights["manifests"]
		for i := range mix.Endpoints {
			mix.Endpoints[i].Weight *= (1 - o.writes) / max(sum, 1e-12)
		}
		mix.Endpoints = append(mix.Endpoints, put)
	}
	return mix, fill, nil
}

// filling writes what the mix will ask for: names always, the others if they
// are in it.
func (o *loadOptions) filling(put loadgen.Endpoint, cids loadgen.Keyset, weights map[string]float64, host string) loadgen.Filling {
	f := loadgen.Filling{Host: host, Done: stored}
	if weights["manifests"] > 0 {
		f.Endpoints = append(f.Endpoints, loadgen.Endpoint{Name: "manifests", Method: "PUT", Path: "/manifests",
			Keys: unkeyed(cids.Len()), Header: put.Header,
			Body: func(dst []byte, i int, _ int64) []byte { return contentOf(dst, i) }})
	}
	if weights["providers"] > 0 {
		f.Endpoints = append(f.Endpoints, loadgen.Endpoint{Name: "providers", Method: "PUT", Path: "/providers/",
			Keys: cids, Header: put.Header,
			Body: func(dst []byte, _ int, _ int64) []byte {
				return fmt.Appendf(dst, `{"providers":[{"id":%q,"addr":%q,"region":%q,"ttl_s":%d}]}`, loadProvider, loadAddr, loadRegion, index.TTLMax)
			}})
	}
	put.Body = nameBody(cids, func(int64) int64 { return 1 })
	f.Endpoints = append(f.Endpoints, put)
	return f
}

// stored tells answers that mean that a key is there. A conflict is one: a run
// with writes has been here before.
func stored(status int) bool { return status == 200 || status == 201 || status == 409 }

func nameBody(cids loadgen.Keyset, seq func(n int64) int64) func([]byte, int, int64) []byte {
	return func(dst []byte, i int, n int64) []byte {
		dst = append(cids.Append(append(dst, `{"manifest_cid":"`...), i), `","seq":`...)
		return append(strconv.AppendInt(dst, seq(n), 10), '}')
	}
}

// unkeyed are keys that do not stand in the path.
type unkeyed int

func (u unkeyed) Len() int                      { return int(u) }
func (unkeyed) Append(dst []byte, _ int) []byte { return dst }

// contentOf is the manifest of key i.
func contentOf(dst []byte, i int) []byte {
	return fmt.Appendf(dst, `{"v":1,"files":[],"dirs":[],"facets":{"load":"%08d"}}`, i)
}

// contentIDs returns the content ids of n manifests.
func contentIDs(n int) [][32]byte {
	sums, buf := make([][32]byte, n), []byte(nil)
	for i := range sums {
		buf = contentOf(buf[:0], i)
		sums[i] = index.Sum(buf)
	}
	return sums
}
