// Package kaddht asks a Kademlia network, and tells it what this node has. It
// is the only door to libp2p.
//
// What the network says is hearsay: nothing leaves this package that was not
// verified by its hash or its publisher's signature, no address that clients
// should not be sent to is given out, and every look-up ends by its deadline
// with one of four answers: found, absent, unreachable or out of time.
package kaddht
