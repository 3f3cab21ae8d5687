package index

import "errors"

// Kind says how a job ended, and why when it did not end well. It implements
// error and costs nothing to return.
type Kind uint8

const (
	OK          Kind = iota // answered
	Missing                 // every place that was asked has not got it
	Invalid                 // the request makes no sense; 400
	Unsupported             // the request is for a part not built or switched off; 501
	TooLarge                // the body is over a cap; 413
	BadType                 // the body's type or coding is not one we take; 415
	Forbidden               // whoever asks may not do this; 403
	Conflict                // a newer record is in the way; 409
	Busy                    // a queue was full or the wait too long; 429
	Late                    // the time ran out; 504
	Down                    // a place could not be asked; 503
	Full                    // the disk has no room for a write; 507
	Broken                  // a bug or damage; 500
)

var kindNames = [...]string{
	"ok", "missing", "invalid", "unsupported", "too large", "bad type", "forbidden", "conflict",
	"busy", "late", "down", "full", "broken",
}

func (k Kind) Error() string  { return kindNames[k] }
func (k Kind) String() string { return kindNames[k] }

// KindOf returns the Kind inside err: OK for nil, and Down for an error that
// carries none, since a step that failed without saying why did not look.
func KindOf(err error) Kind {
	if err == nil {
		return OK
	}
	if k, ok := err.(Kind); ok {
		return k
	}
	if k, ok := errors.AsType[Kind](err); ok {
		return k
	}
	return Down
}

// weight orders doubts: when several places could not look, the strongest
// doubt decides what the client hears (429 > 504 > 503). Damage outweighs them
// all: it is the one doubt that waiting does not cure.
func (k Kind) weight() int {
	switch k {
	case OK, Missing:
		return 0
	case Down:
		return 1
	case Late:
		return 2
	case Busy:
		return 3
	case Broken:
		return 4
	}
	return 1
}

// Stronger returns the doubt that decides when both were met on the way.
func Stronger(a, b Kind) Kind {
	if b.weight() > a.weight() {
		return b
	}
	return a
}
