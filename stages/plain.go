package stages

import "svcindex/index"

// Names and providers come by the thousand a second, and nearly all as programs
// write them: fields that are known, each once; texts of ASCII without escapes;
// whole numbers. Those are read here. Of any other body nothing is decided
// here: strict reads it again from its beginning, takes it or says what is
// wrong with it. So all that has to be true of this reader is that what it
// takes, strict would take, and as the same.

// A nameBody is the body of a PutName, or of a DeleteName that is signed.
type nameBody struct {
	CID       *index.CID `json:"manifest_cid"`
	Seq       *uint64    `json:"seq"`
	IssuedAt  int64      `json:"issued_at"`
	ExpiresAt int64      `json:"expires_at"`
	PubKey    string     `json:"pubkey"`
	Sig       string     `json:"sig"`
}

// A providersBody is the body of a PutProviders.
type providersBody struct {
	Providers []providerBody `json:"providers"`
}

type providerBody struct {
	ID     string `json:"id"`
	Addr   string `json:"addr"`
	Region string `json:"region"`
	TTL    *int64 `json:"ttl_s"`
}

func readName(body []byte) (nameBody, error) {
	if in, ok := plainName(body); ok {
		return in, nil
	}
	var in nameBody
	err := strict(body, &in)
	return in, err
}

func readProviders(body []byte) (providersBody, error) {
	if in, ok := plainProviders(body); ok {
		return in, nil
	}
	var in providersBody
	err := strict(body, &in)
	return in, err
}

func plainName(body []byte) (in nameBody, ok bool) {
	p := plain{left: string(body)}
	p.object(func(field string) (bit uint) {
		switch field {
		case "manifest_cid":
			cid, err := index.ParseCID(p.text())
			p.bad = p.bad || err != nil
			in.CID = &cid
			return 1
		case "seq":
			seq := uint64(p.number())
			in.Seq = &seq
			return 2
		case "issued_at":
			in.IssuedAt = p.number()
			return 4
		case "expires_at":
			in.ExpiresAt = p.number()
			return 8
		case "pubkey":
			in.PubKey = p.text()
			return 16
		case "sig":
			in.Sig = p.text()
			return 32
		}
		return 0
	})
	return in, p.end()
}

func plainProviders(body []byte) (in providersBody, ok bool) {
	p := plain{left: string(body)}
	p.object(func(field string) (bit uint) {
		if field != "providers" {
			return 0
		}
		p.list('[', ']', func() { in.Providers = append(in.Providers, p.provider()) })
		return 1
	})
	return in, p.end()
}

func (p *plain) provider() (in providerBody) {
	p.object(func(field string) (bit uint) {
		switch field {
		case "id":
			in.ID = p.text()
			return 1
		case "addr":
			in.Addr = p.text()
			return 2
		case "region":
			in.Region = p.text()
			return 4
		case "ttl_s":
			ttl := p.number()
			in.TTL = &ttl
			return 8
		}
		return 0
	})
	return in
}

// A plain takes apart a body as programs write it. Once it is bad, what it
// returns means nothing.
type plain struct {
	left string
	bad  bool
}

// end reports whether the body was read to its end.
func (p *plain) end() bool {
	p.space()
	return !p.bad && p.left == ""
}

// object reads an object. field reads the value of the field it is given, and
// returns a bit of the field's own; none for one it does not know.
func (p *plain) object(field func(name string) (bit uint)) {
	seen := uint(0)
	p.list('{', '}', func() {
		name := p.text()
		p.must(':')
		bit := field(name)
		p.bad = p.bad || bit == 0 || seen&bit != 0
		seen |= bit
	})
}

// list reads what stands between two brackets, one thing after the other.
func (p *plain) list(open, shut byte, one func()) {
	p.must(open)
	for first := true; !p.bad && !p.took(shut); first = false {
		if !first {
			p.must(',')
		}
		one()
	}
}

// text reads a text that needs no second look.
func (p *plain) text() string {
	p.must('"')
	for i := 0; i < len(p.left); i++ {
		switch c := p.left[i]; {
		case c == '"':
			s := p.left[:i]
			p.left = p.left[i+1:]
			return s
		case c == '\\' || c < ' ' || c > '~':
			p.bad = true
			return ""
		}
	}
	p.bad = true
	return ""
}

// digitsMost is how many digits are a number of 64 bits, whichever they are.
const digitsMost = 18

// number reads a whole number that is not negative.
func (p *plain) number() (n int64) {
	p.space()
	i := 0
	for ; i < len(p.left) && i <= digitsMost && p.left[i]-'0' <= 9; i++ {
		n = 10*n + int64(p.left[i]-'0')
	}
	if i == 0 || i > digitsMost || i > 1 && p.left[0] == '0' {
		p.bad = true
		return 0
	}
	p.left = p.left[i:]
	return n
}

func (p *plain) must(c byte) { p.bad = !p.took(c) || p.bad }

// took takes c, if that comes next.
func (p *plain) took(c byte) bool {
	p.space()
	if p.left == "" || p.left[0] != c {
		return false
	}
	p.left = p.left[1:]
	return true
}

func (p *plain) space() {
	for p.left != "" && (p.left[0] == ' ' || p.left[0] == '\n' || p.left[0] == '\r' || p.left[0] == '\t') {
		p.left = p.left[1:]
	}
}
