package faults

import (
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
	"testing"
	"time"
)

// A thing is something stored under one key by one writer. Its state is text:
// "" for never stored.
//
// A write that was answered 2xx is acked. One that was not, because the server
// died first, may be found done or not done, but never half done: there is at
// most one, since a writer waits for each answer.
type thing struct {
	kind  kind
	key   string // name, or content id
	acked string
	maybe string // what an unanswered write would have made of it
	open  bool   // there is such a write: leave the thing alone until it was looked at
	seq   uint64 // highest sequence ever used, of a name
	seed  uint64 // of a manifest's bytes
}

type kind uint8

const (
	aName kind = iota
	aManifest
	aSet
)

// bytesOf makes a manifest from its seed: some are small, some large.
func bytesOf(seed uint64) string {
	r := rand.New(rand.NewPCG(seed, 1))
	n := 50 + r.IntN(2000)
	if r.IntN(50) == 0 {
		n = 300 << 10
	}
	var b strings.Builder
	for b.Len() < n {
		b.WriteString(strconv.FormatUint(r.Uint64(), 36))
	}
	return b.String()
}

// A change is a write to a thing, and what it makes of it.
type change struct {
	request string
	becomes string
}

// next makes up a change.
func (th *thing) next(s *server, r *rand.Rand) change {
	switch th.kind {
	case aManifest:
		return change{s.putManifest(bytesOf(th.seed)), "held"}
	case aSet:
		return th.nextSet(s, r)
	}
	th.seq += 1 + uint64(r.IntN(3))
	if th.acked != "" && r.IntN(4) == 0 {
		path := fmt.Sprintf("/names/name:%s?seq=%d", th.key, th.seq)
		return change{request("DELETE", path, "", s.bearer()), fmt.Sprintf("%d deleted", th.seq)}
	}
	cid := cidOf(fmt.Sprint(th.key, th.seq))
	return change{s.putName(th.key, cid, th.seq), fmt.Sprintf("%d %s", th.seq, cid)}
}

// nextSet replaces all three providers of a set, or deletes the last one.
func (th *thing) nextSet(s *server, r *rand.Rand) change {
	if version, ok := strings.CutSuffix(th.acked, " abc"); ok && r.IntN(3) == 0 {
		return change{request("DELETE", "/providers/"+th.key+"/c", "", s.bearer()), version + " ab"}
	}
	th.seq++
	addr := fmt.Sprintf("http://192.0.2.1/%d", th.seq)
	body := fmt.Sprintf(`{"providers":[{"id":"a","addr":%[1]q},{"id":"b","addr":%[1]q},{"id":"c","addr":%[1]q}]}`, addr)
	return change{
		request("PUT", "/providers/"+th.key, body, s.bearer(), "Content-Type: application/json"),
		addr + " abc",
	}
}

// errNotNow is an answer that promises nothing: 429, 503 or 504.
var errNotNow = errors.New("not now")

// unexpected returns the error that an answer is.
func unexpected(what string, a answer) error {
	if a.notNow() {
		return fmt.Errorf("%s: %v: %w", what, a, errNotNow)
	}
	return fmt.Errorf("%s: %v", what, a)
}

// look returns the state a thing is found in.
func (th *thing) look(s *server, l *line) (string, error) {
	switch th.kind {
	case aManifest:
		return th.lookManifest(l)
	case aSet:
		return th.lookSet(l)
	}
	a, err := l.ask(resolve(th.key))
	switch {
	case err != nil:
		return "", err
	case a.status == 200:
		return a.field("seq") + " " + a.field("manifest_cid"), nil
	case a.status != 404:
		return "", unexpected("resolve", a)
	case th.acked == "":
		return "", nil // never acknowledged; a probe would store it
	}
	// A name that is gone still refuses what is older than its deletion.
	if a, err = l.ask(s.putName(th.key, cidOf(""), 1)); err != nil {
		return "", err
	}
	if a.status != 409 {
		return "", unexpected("an old sequence number was not refused", a)
	}
	return a.field("current_seq") + " deleted", nil
}

func (th *thing) lookManifest(l *line) (string, error) {
	a, err := l.ask(get("/manifests/" + th.key))
	switch {
	case err != nil:
		return "", err
	case a.status == 404:
		return "", nil
	case a.status != 200:
		return "", unexpected("manifest", a)
	case string(a.body) != bytesOf(th.seed):
		return "", errors.New("a manifest came back with other bytes")
	}
	return "held", nil
}

// lookSet wants one version in all rows of a set: they were written together.
func (th *thing) lookSet(l *line) (string, error) {
	a, err := l.ask(get("/providers/" + th.key))
	switch {
	case err != nil:
		return "", err
	case a.status == 404:
		return "", nil
	case a.status != 200:
		return "", unexpected("providers", a)
	}
	var doc struct {
		Providers []struct{ ID, Addr string }
	}
	if err := json.Unmarshal(a.body, &doc); err != nil {
		return "", err
	}
	ids, addr := "", ""
	for _, p := range doc.Providers {
		if addr != "" && p.Addr != addr {
			return "", fmt.Errorf("rows of two writes in one set: %v", a)
		}
		ids, addr = ids+p.ID, p.Addr
	}
	return addr + " " + ids, nil
}

// verify holds what is found against what was promised, and takes it as the
// new truth: what was seen once must not go back either.
func (th *thing) verify(t *testing.T, s *server, l *line) {
	t.Helper()
	found, err := th.look(s, l)
	for until := time.Now().Add(patience); errors.Is(err, errNotNow) && time.Now().Before(until); {
		time.Sleep(50 * time.Millisecond)
		found, err = th.look(s, l)
	}
	switch {
	case err != nil:
		t.Errorf("%s: %v", th.key, err)
	case found != th.acked && !(th.open && found == th.maybe):
		t.Errorf("%s: found %q, acknowledged was %q, unanswered %v %q", th.key, found, th.acked, th.open, th.maybe)
	}
	th.acked, th.open = found, false
}
