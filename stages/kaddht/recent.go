package kaddht

import (
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
)

// recentMax is how many look-ups are shown, unless somebody says otherwise.
const recentMax = 64

// recent keeps the last look-ups for people to look at.
type recent struct {
	mu sync.Mutex
	// Fields below are protected by mu.
	ring []*report
	at   int
}

func newRecent(n int) *recent {
	if n <= 0 {
		n = recentMax
	}
	return &recent{ring: make([]*report, n)}
}

func (r *recent) add(rep *report) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.ring[r.at%len(r.ring)] = rep
	r.at++
}

// list returns them, newest first.
func (r *recent) list() (out []*report) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for i := range r.ring {
		if rep := r.ring[(r.at-1-i+2*len(r.ring))%len(r.ring)]; rep != nil {
			out = append(out, rep)
		}
	}
	return out
}

// A State is what /debug/dht shows.
type State struct {
	ID          string    `json:"id"`
	Addrs       []string  `json:"addrs"`
	Server      bool      `json:"server"`
	Ready       string    `json:"ready"`
	LastAnswer  time.Time `json:"last_answer"`
	Connections int       `json:"connections"`
	Streams     int       `json:"idle_streams"`
	Remembered  int       `json:"peers_remembered"`
	Resting     int       `json:"peers_resting"`
	Records     struct {
		Providers int `json:"providers"`
		Values    int `json:"values"`
		Bytes     int `json:"value_bytes"`
	} `json:"records_of_others"`
	Table   []Entry   `json:"routing_table"`
	Lookups []*report `json:"lookups"`
}

// An Entry is one peer of the routing table.
type Entry struct {
	Peer      string    `json:"peer"`
	Connected bool      `json:"connected"`
	Grade     string    `json:"grade"`
	Answered  time.Time `json:"answered"`
}

var gradeNames = [...]string{"good", "slow", "resting"}

// State returns how the node is.
func (n *Node) State() State {
	now := n.now()
	s := State{
		ID: n.ID(), Addrs: n.Addrs(), Server: n.opt.Server, Ready: "yes", LastAnswer: time.Unix(0, n.answered.Load()),
		Connections: len(n.host.Network().Conns()), Streams: n.sender.streams(), Lookups: n.recent.list(),
	}
	if err := n.Ready(); err != nil {
		s.Ready = err.Error()
	}
	s.Remembered, s.Resting = n.memory.count(now)
	s.Records.Providers, s.Records.Values, s.Records.Bytes = n.vault.counts()
	for _, p := range n.dht.RoutingTable().GetPeerInfos() {
		s.Table = append(s.Table, Entry{
			Peer: p.Id.String(), Grade: gradeNames[n.memory.grade(p.Id, now, n.stall())], Answered: p.LastSuccessfulOutboundQueryAt,
			Connected: n.host.Network().Connectedness(p.Id) == network.Connected,
		})
	}
	return s
}
