// Package loadgen asks a server a known number of questions at known instants
// and says truthfully how long each answer took.
//
// The schedule is absolute and open: request i is due at t0 + i/rate whatever
// the server does, and its response time runs from that instant, so that a
// server which stalls cannot hide the requests that it kept from being sent.
// No request is dropped in silence: one that found no free connection is
// counted late and charged its wait, one that was never sent is charged until
// the end. The generator measures itself as well, and a run in which it, not
// the server, was the limit is reported as invalid.
//
//	Pacer ─▶ loop (one thread, one epoll, many connections) ─▶ tally
//	           ▲                                                 │
//	         Asker: request n's bytes            Report ◀────────┘
//
// The package knows nothing of the server that it measures: what to ask is an
// Asker's business. Every run is bounded in time and in requests.
package loadgen
