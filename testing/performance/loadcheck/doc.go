// Package loadcheck holds the load generator to servers whose behaviour is
// known, and to other generators.
package loadcheck
