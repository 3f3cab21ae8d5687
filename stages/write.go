package stages

import (
	"encoding/base64"
	"log/slog"
	"strconv"
	"time"

	"svcindex/index"
)

// A Scribe is the step of the write room: it inflates, hashes and decodes
// bodies, one job at a time on many workers, and makes a batch of them durable
// with one commit.
type Scribe struct {
	Writer  index.Writer
	Gens    *index.Generations
	Cache   index.Cache
	Tasks   *Tasks
	Verify  func(*index.Key, *index.NameRecord) error // whether a name may be believed; nil: signatures are not judged
	Counts  *index.LookupCounts
	Changed func(kind string, k *index.Key) // told of every durable change; must not wait
	// Announces reports whether others are told of a manifest of so many bytes;
	// nil: of none.
	Announces func(size int) bool
	Log       *slog.Logger
}

var _ Settler = (*Scribe)(nil)

// Do implements Step: it prepares j.Write.
func (s *Scribe) Do(j *index.Job) error {
	if j.Ask == index.AskTask {
		doc, ok := s.Tasks.State(j.Text)
		if !ok {
			return index.Missing
		}
		j.Answer.Doc = doc
		return nil
	}
	if j.Write != nil && j.Write.Found {
		return nil // verified where it was found
	}
	d := decoder{limit: BodyLimit{j.Tuning.BodyBytes, j.Tuning.Ratio}, now: time.Now().Unix(), verify: s.Verify}
	var err error
	if j.Op == index.Reindex {
		err = s.Tasks.decode(&d, j)
	} else {
		err = d.decode(j)
	}
	if err != nil {
		if r, ok := err.(*Refusal); ok {
			j.Answer.Reason = r.Reason
		}
		return index.KindOf(err)
	}
	j.Hash = s.Gens.Hash(&j.Write.Key) // of some writes only the body tells the key
	return nil
}

// Settle implements Settler.
func (s *Scribe) Settle(js []*index.Job, kinds []index.Kind) {
	ms := make([]*index.Mutation, 0, len(js))
	for _, j := range js {
		if j.Ask == index.AskWrite {
			ms = append(ms, j.Write)
		}
	}
	var err error
	if len(ms) > 0 {
		err = s.Writer.Commit(ms)
	}
	for i, j := range js {
		kinds[i] = s.outcome(j, err)
	}
}

// outcome says what became of one job of a committed batch. The generation
// moves after the commit and before the answer, so that whoever asks after the
// answer cannot be given what was known before.
func (s *Scribe) outcome(j *index.Job, err error) index.Kind {
	if j.Ask != index.AskWrite {
		return index.OK
	}
	m := j.Write
	if m.Op == index.Reindex && (err != nil || m.Err != nil) {
		s.Tasks.drop(m.Idem.TaskID)
	}
	if err != nil {
		// It was not acknowledged, but may turn out to be stored when the
		// store has healed: what is known of the key is no longer certain.
		s.forget(j)
		return index.KindOf(err)
	}
	if m.Found && m.Err == nil && !m.News {
		return index.OK // nothing is other than it was
	}
	if m.Err != nil {
		if _, bare := m.Err.(index.Kind); !bare {
			j.Answer.Reason = m.Err.Error() // constant, by the rule on error messages
		}
		if m.Op == index.Reindex && j.Answer.Reason == "" {
			j.Answer.Reason = "the Idempotency-Key came before with another body"
		}
		j.Answer.Seq = m.Current
		return index.KindOf(m.Err)
	}
	s.forget(j)
	s.tell(m)
	s.document(j)
	return index.OK
}

// forget makes everything known of the written key old.
func (s *Scribe) forget(j *index.Job) {
	if j.Op != index.Reindex {
		s.Gens.Bump(j.Hash)
		s.Cache.Forget(j.Hash, &j.Write.Key)
	}
}

func (s *Scribe) tell(m *index.Mutation) {
	kind := ""
	switch m.Op {
	case index.PutProviders, index.DeleteProvider:
		s.Counts.ProviderSetChanges.Add(1)
		kind = "provider_set"
	case index.PutName, index.DeleteName:
		kind = "name"
	case index.PutManifest:
		kind = "manifest"
	case index.Pin, index.Unpin:
		kind = "pin"
	case index.Reindex:
		s.Tasks.adopt(m.Idem.TaskID, m.TaskID)
		s.Tasks.begin(m.TaskID)
		kind = "admin"
	}
	if s.Changed != nil {
		s.Changed(kind, &m.Key)
	}
}

// document makes the body of the answer to a write.
func (s *Scribe) document(j *index.Job) {
	m, a := j.Write, &j.Answer
	switch m.Op {
	case index.PutManifest:
		a.Created = m.Created
		cid := m.Key.String()
		a.Location = "/manifests/" + cid
		a.Doc = manifestDoc{cid, len(m.Manifest), s.Announces != nil && s.Announces(len(m.Manifest))}
	case index.PutName, index.DeleteName:
		r, text := &m.Record, base64.RawURLEncoding.EncodeToString
		a.Doc = nameDoc{
			m.Key.String(), r.CID.String(), r.Seq, r.IssuedAt, r.ExpiresAt, r.Deleted, text(r.PubKey), text(r.Sig),
		}
	case index.PutProviders:
		a.Doc = storedDoc{m.Stored}
	case index.Reindex:
		a.Location = "/admin/tasks/" + m.TaskID
		a.Doc = taskDoc{m.TaskID}
	default:
		a.Doc = okDoc{true}
	}
}

type (
	manifestDoc struct {
		CID       string `json:"cid"`
		Size      int    `json:"size"`
		Announced bool   `json:"announced"`
	}
	nameDoc struct {
		Name        string `json:"name"`
		ManifestCID string `json:"manifest_cid"`
		Seq         uint64 `json:"seq"`
		IssuedAt    int64  `json:"issued_at,omitempty"`
		ExpiresAt   int64  `json:"expires_at,omitempty"`
		Deleted     bool   `json:"deleted,omitempty"`
		PubKey      string `json:"pubkey,omitempty"`
		Sig         string `json:"sig,omitempty"`
	}
	storedDoc struct {
		Stored int `json:"stored"`
	}
	taskDoc struct {
		TaskID string `json:"task_id"`
	}
	okDoc struct {
		OK bool `json:"ok"`
	}
)

// What most writes are answered with is written by hand: reflection took longer
// than all else about the answer. No byte of a key or of base64url has to be
// escaped.

func (d manifestDoc) AppendJSON(b []byte) []byte {
	b = append(append(b, `{"cid":"`...), d.CID...)
	b = strconv.AppendInt(append(b, `","size":`...), int64(d.Size), 10)
	b = strconv.AppendBool(append(b, `,"announced":`...), d.Announced)
	return append(b, '}')
}

func (d nameDoc) AppendJSON(b []byte) []byte {
	b = append(append(b, `{"name":"`...), d.Name...)
	b = append(append(b, `","manifest_cid":"`...), d.ManifestCID...)
	b = strconv.AppendUint(append(b, `","seq":`...), d.Seq, 10)
	if d.IssuedAt != 0 {
		b = strconv.AppendInt(append(b, `,"issued_at":`...), d.IssuedAt, 10)
	}
	if d.ExpiresAt != 0 {
		b = strconv.AppendInt(append(b, `,"expires_at":`...), d.ExpiresAt, 10)
	}
	if d.Deleted {
		b = append(b, `,"deleted":true`...)
	}
	if d.PubKey != "" {
		b = append(append(append(b, `,"pubkey":"`...), d.PubKey...), '"')
	}
	if d.Sig != "" {
		b = append(append(append(b, `,"sig":"`...), d.Sig...), '"')
	}
	return append(b, '}')
}

func (d storedDoc) AppendJSON(b []byte) []byte {
	return append(strconv.AppendInt(append(b, `{"stored":`...), int64(d.Stored), 10), '}')
}
