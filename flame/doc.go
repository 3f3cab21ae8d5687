// Package flame reads profiles of Go programs and draws them: as flame graphs
// that need nothing but a browser, and as tables. It is the only door to
// google/pprof.
//
// A graph can be by function, or by the labels that workers wear: stage, then
// route, then function. Two profiles can be subtracted, or drawn as what grew
// and what shrank.
package flame
