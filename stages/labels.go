package stages

import (
	"context"
	"runtime/pprof"

	"svcindex/index"
)

// routes are the values of the profile label route, by what a job asks.
var routes = [...]string{
	index.AskResolve: "resolve", index.AskProviders: "providers", index.AskManifest: "manifests",
	index.AskWrite: "write", index.AskTask: "admin",
}

// labels mark a worker's goroutine for profiles: its stage, and what it is
// asked, where that is worth the few nanoseconds. They are made with the room;
// to wear them is a pointer set.
type labels [len(routes)]context.Context

// newLabels returns the labels of a stage. The first has no route.
func newLabels(stage string) (l labels) {
	l[0] = pprof.WithLabels(context.Background(), pprof.Labels("stage", stage))
	for ask := index.AskResolve; int(ask) < len(routes); ask++ {
		l[ask] = pprof.WithLabels(l[0], pprof.Labels("route", routes[ask]))
	}
	return l
}

// wear labels the goroutine that calls it.
func (l *labels) wear(ask index.Ask) { pprof.SetGoroutineLabels(l[ask]) }
