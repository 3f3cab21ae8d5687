package netio

import (
	"bytes"
	"cmp"
	"math/bits"
	"strconv"
	"time"

	"svcindex/index"
)

// accept turns a head into a slot of the flight, or into a request that waits
// for its body. last: nothing follows it in the input. more: another head may
// be read for the same flight.
func (c *conn) accept(f *flight, h *head, now time.Time, last bool) (more bool) {
	r := &c.loop.asked
	refused := readTarget(h.method, h.target, r)
	if refused == nil && r.ask == index.AskResolve && c.plain(h) {
		return c.lookUp(f, h, r, now, last)
	}
	body := h.length > 0 || h.chunked
	var s *slot
	apart := body || !r.ask.IsLookup()
	if apart {
		s = c.loop.newSlot()
	} else {
		s = f.slot()
	}
	c.describe(s, h, r, now, last)
	acceptable := true
	if h.accepts > 0 {
		s.job.Format, acceptable = negotiate(h) // of a refusal, too
	}
	if r.local == 0 && (refused == nil || !refused.close) {
		refused = cmp.Or(c.measure(s, r, now), refused)
	}
	if refused == nil {
		refused = c.admit(s, h, r, now)
	}
	if refused == nil && !acceptable && r.local == 0 && r.ask != index.AskManifest {
		refused = errNotAcceptable
	}
	keep := refused == nil && r.ask == index.AskWrite
	if apart && (refused == nil || body && !refused.close && !h.expect100) {
		tooLarge := c.expectBody(h, keep)
		if tooLarge == nil {
			// Refused or not, it waits for its body: only that tells whether
			// what follows is a request.
			c.waiting, c.want100, s.verdict = s, h.expect100, refused
			return f.n == 0
		}
		refused = cmp.Or(refused, tooLarge)
	}
	if refused != nil {
		if apart {
			f.append(s)
		}
		s.close = s.close || body // unread: no telling where the next request begins
		s.refuse(refused)
		return !s.close
	}
	if r.local != 0 {
		s.local = true
		s.answerLocally(r.local)
	} else {
		c.send(s)
	}
	// A manifest may be large: none shares a flight with another.
	return !s.close && r.ask != index.AskManifest
}

// plain reports whether nothing in the head says how to answer, and nobody but
// the rates is asked whether to: so most hits are asked for.
func (c *conn) plain(h *head) bool {
	return h.accepts == 0 && h.ifNoneMatch == nil && h.length <= 0 && !h.chunked && !c.late && !c.loop.server.opt.AuthReads
}

// lookUp is what is left of accept for a plain resolve: to ask after all the
// rest takes 40 ns.
func (c *conn) lookUp(f *flight, h *head, r *request, now time.Time, last bool) (more bool) {
	s := f.slot()
	c.describe(s, h, r, now, last)
	if over := c.measure(s, r, now); over != nil {
		s.refuse(over)
	} else {
		c.send(s)
	}
	return !s.close
}

// send notes that a look-up goes on its way.
func (c *conn) send(s *slot) {
	s.job.Deadline = c.loop.due
	c.loop.tally.inflight[s.route]++
}

// describe fills in what the answer needs to know of the request.
func (c *conn) describe(s *slot, h *head, r *request, now time.Time, last bool) {
	srv := c.loop.server
	s.route, s.method, s.began, s.what = r.route, h.method, now, r.local
	s.head = h.method == index.MethodHead
	s.old = h.minor == 0 && h.keepAlive
	s.close = !h.keepAlive || last && srv.draining.Load() && !c.moreCame()
	c.loop.ids.give(s, h.corrID, now)
	j := &s.job
	j.Key.CopyFrom(&r.key)
	j.Ask, j.Op, j.Fresh, j.Query, j.Seq = r.ask, r.op, r.fresh, r.query, r.seq
	j.Home, j.Tuning = s, c.tuning
	if len(r.region) > 0 {
		j.Query.Region = string(r.region)
	}
	if len(r.text) > 0 {
		j.Text = string(r.text)
	}
	if !j.Key.IsZero() {
		j.Hash = srv.opt.Gens.Hash(&j.Key)
	}
	j.CorrID = s.corr[:s.corrLen]
}

// ifNoneMatchMax is how much of a client's list of entity tags is looked at. A
// longer one costs its client a copy it might have been spared.
const ifNoneMatchMax = 1 << 10

// admit refuses what the head alone lets us refuse, and reads the rest of it.
func (c *conn) admit(s *slot, h *head, r *request, now time.Time) *refusal {
	srv := c.loop.server
	if r.local != 0 {
		return nil
	}
	if c.late {
		return errDraining
	}
	j := &s.job
	// Small answers to small questions cost nothing that the budget is for.
	large := j.Ask == index.AskWrite || j.Ask == index.AskManifest || h.length > 0 || h.chunked
	if large && c.overBudget() {
		return errBuffered
	}
	if want := srv.opt.needs(r); want != 0 {
		if err := c.authorize(s, h, r, want, now); err != nil {
			return err
		}
	}
	if j.Ask == index.AskWrite && h.seen&(fieldIfMatch|fieldIfNoneMatch) != 0 {
		return errConditional // to write all the same is what it forbids (RFC 9110 13.1)
	}
	if !j.Ask.IsLookup() {
		if h.contentEncoding != nil && !fold(h.contentEncoding, "identity") {
			switch {
			case !j.Tuning.Gzip:
				return errCodingOff
			case !fold(h.contentEncoding, "gzip") && !fold(h.contentEncoding, "x-gzip"):
				return errCoding
			}
			j.Gzip = true
		}
		j.IsJSON = isJSON(h.contentType)
		j.Idempotency = string(h.idempotencyKey)
	} else if h.ifNoneMatch != nil && len(h.ifNoneMatch) <= ifNoneMatchMax {
		s.ifNoneMatch = bytes.Clone(h.ifNoneMatch)
	}
	return nil
}

// needs returns the scope that a request has to have; 0: none.
func (o *Options) needs(r *request) index.Scope {
	switch {
	case r.op == index.Pin || r.op == index.Unpin:
		return index.ScopePin
	case r.op == index.Reindex || r.ask == index.AskTask:
		return index.ScopeAdmin
	case r.ask == index.AskWrite:
		return index.ScopeWrite
	case o.AuthReads:
		return index.ScopeRead
	}
	return 0
}

// authorize asks the guard, and notes on whose word the request is let in.
func (c *conn) authorize(s *slot, h *head, r *request, want index.Scope, now time.Time) *refusal {
	claim := &c.loop.claim // it escapes, and is not worth an allocation
	*claim = index.Claim{Authorization: h.authorization, Method: h.method, Path: r.path, Want: want, Now: now}
	grant := c.loop.server.opt.Guard.Judge(claim)
	switch grant.Access {
	case index.Granted:
		s.job.Who = grant.Who
		return nil
	case index.Unscoped:
		return errUnscoped[bits.TrailingZeros8(uint8(want))]
	case index.OutOfPlay:
		return errOutOfPlay
	}
	return errUnauthorized
}

// refuse answers bytes that are no request.
func (c *conn) refuse(f *flight, r *refusal, now time.Time) {
	s := f.slot()
	s.clear() // no request describes it
	s.began, s.close = now, true
	c.loop.ids.give(s, nil, now)
	s.refuse(r)
}

// answerLocally answers health, readiness and version. They never queue.
func (s *slot) answerLocally(what local) {
	o := &s.server.opt
	switch what {
	case localHealthz:
		s.out = s.plain(s.out[:0], 200, okBody, 0)
	case localVersion:
		s.out = s.plain(s.out[:0], 200, o.Version, 0)
	case localReadyz:
		ready, body, retry := o.Ready()
		status := 200
		if !ready {
			status = 503
		}
		s.out = s.plain(s.out[:0], status, body, retry)
	}
}

var okBody = []byte(`{"ok":true}`)

// isJSON reports whether a Content-Type is application/json, whatever its
// parameters.
func isJSON(t []byte) bool {
	t, _, _ = bytes.Cut(t, []byte{';'})
	return fold(bytes.TrimRight(t, " \t"), "application/json")
}

// negotiate picks the format of the answer (RFC 9110 12.5.1). CBOR only when
// its weight beats JSON's; not ok when neither may be sent. A list of nothing
// asks for nothing.
func negotiate(h *head) (index.Format, bool) {
	var room [acceptMax][]byte
	values := h.acceptValues(room[:0])
	if len(values) == 0 {
		return index.JSON, true
	}
	json, cbor, empty := weight{}, weight{}, true
	for _, v := range values {
		for len(v) > 0 {
			var item []byte
			item, v, _ = bytes.Cut(v, []byte{','})
			rang, params, _ := bytes.Cut(item, []byte{';'})
			rang = bytes.Trim(rang, " \t")
			empty = empty && len(rang) == 0
			q := quality(params)
			switch {
			case fold(rang, "application/json"):
				json.offer(3, q)
			case fold(rang, "application/cbor"):
				cbor.offer(3, q)
			case fold(rang, "application/*"):
				json.offer(2, q)
				cbor.offer(2, q)
			case fold(rang, "*/*"):
				json.offer(1, q)
				cbor.offer(1, q)
			}
		}
	}
	if cbor.q > json.q {
		return index.CBOR, true
	}
	return index.JSON, json.q > 0 || empty
}

// A weight is the quality of a media type under the most specific range that
// covers it.
type weight struct {
	specific int
	q        float64
}

func (w *weight) offer(specific int, q float64) {
	if specific > w.specific || specific == w.specific && q > w.q {
		w.specific, w.q = specific, q
	}
}

// quality reads the q parameter: 1 without one, 0 if it is malformed.
func quality(params []byte) float64 {
	for len(params) > 0 {
		var p []byte
		p, params, _ = bytes.Cut(params, []byte{';'})
		name, value, _ := bytes.Cut(bytes.Trim(p, " \t"), []byte{'='})
		if !fold(name, "q") {
			continue
		}
		q, err := strconv.ParseFloat(string(value), 64)
		if err != nil || !(q >= 0 && q <= 1) {
			return 0
		}
		return q
	}
	return 1
}
