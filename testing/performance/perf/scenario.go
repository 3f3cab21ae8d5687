package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/pelletier/go-toml/v2"
)

// A scenario is what is done to a server, and what has to hold meanwhile.
type scenario struct {
	Why   string   `toml:"why"`   // it exists; its first line is its title
	Needs []string `toml:"needs"` // of the build: "key k=v", "command c", "flag c --f", "profile p"

	Server serverPlan `toml:"server"`
	Fill   fillPlan   `toml:"fill"`
	Phases []phase    `toml:"phase"` // one after the other
	Checks checks     `toml:"check"`

	name, hash string
}

type serverPlan struct {
	Profile string   `toml:"profile"`
	Set     []string `toml:"set"` // beside the limits that would be in a load's way
	Env     []string `toml:"env"`
	Rig     bool     `toml:"rig"`    // the build with rigs in it
	Devnet  []string `toml:"devnet"` // flags of a devnet that it joins; none: no devnet
}

// fillPlan is what is in the database before the server starts.
type fillPlan struct {
	Keys int    `toml:"keys"`
	Mix  string `toml:"mix"`
}

// A phase is loads and acts at the same time.
type phase struct {
	Name  string   `toml:"name"`
	For   duration `toml:"for"` // of its loads
	Loads []load   `toml:"load"`
	Acts  []act    `toml:"act"`

	PathDelay duration `toml:"path_delay"` // there and back, on the clients' way
	Warm      bool     `toml:"warm"`       // it only prepares: the generator may be late
	Band      bool     `toml:"band"`       // its p95 is what a later phase has to come back to
	Recover   duration `toml:"recover"`    // into the band, in this time at most
}

// A load is a run of the generator.
type load struct {
	Name  string `toml:"name"`
	Args  string `toml:"args"`  // of svc-index loadgen
	SLO   string `toml:"slo"`   // of svc-index loadgen
	Codes []int  `toml:"codes"` // statuses that may be answered; none: 200
}

// An act is something that a hostile or clumsy client does. See acts.
type act struct {
	Do string `toml:"do"`
	N  int    `toml:"n"`
}

// checks are what has to hold for the whole of a scenario. Those that are
// always the same (structured refusals, a truthful /readyz, no damage, no
// leak) are not among them.
type checks struct {
	MemoryMiB    float64 `toml:"memory_mib"`     // resident, at most; 0: 1536
	MayBeUnready bool    `toml:"may_be_unready"` // for a while, and say so

	ErrorsOK bool `toml:"errors_ok"` // other 5xx than 503 may be counted: time that ran out
}

// duration is a time.Duration written as 10s.
type duration time.Duration

func (d *duration) UnmarshalText(text []byte) error {
	v, err := time.ParseDuration(string(text))
	*d = duration(v)
	return err
}

func readScenario(file string) (*scenario, error) {
	b, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256(b)
	s := &scenario{name: strings.TrimSuffix(filepath.Base(file), ".toml"), hash: hex.EncodeToString(sum[:8])}
	d := toml.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(s); err != nil {
		var strict *toml.StrictMissingError
		if errors.As(err, &strict) {
			return nil, fmt.Errorf("%s: %s", file, strict.String())
		}
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	return s, s.check(file)
}

// check refuses a scenario that would show nothing.
func (s *scenario) check(file string) error {
	switch {
	case strings.TrimSpace(s.Why) == "":
		return fmt.Errorf("%s: it does not say why it exists", file)
	case len(s.Phases) == 0:
		return fmt.Errorf("%s: it has no phase", file)
	}
	banded := false
	for _, p := range s.Phases {
		if p.Name == "" || len(p.Loads)+len(p.Acts) == 0 {
			return fmt.Errorf("%s: a phase has a name, and a load or an act", file)
		}
		if (p.Band || p.Recover > 0) && len(p.Loads) != 1 {
			return fmt.Errorf("%s: phase %s: a band is that of exactly one load", file, p.Name)
		}
		if p.Recover > 0 && !banded {
			return fmt.Errorf("%s: phase %s: there is no band before it to come back to", file, p.Name)
		}
		banded = banded || p.Band
		for _, a := range p.Acts {
			if acts[a.Do] == nil {
				return fmt.Errorf("%s: phase %s: nobody knows how to %q", file, p.Name, a.Do)
			}
		}
	}
	return nil
}

func firstLine(s string) string {
	line, _, _ := strings.Cut(strings.TrimSpace(s), "\n")
	return line
}
