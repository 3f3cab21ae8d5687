package stages

import (
	"context"

	"svcindex/index"
)

// A Scout asks the network, until the job's slice ends or nobody waits any
// more.
type Scout struct{ Network index.Discoverer }

// Do implements Step.
func (s Scout) Do(j *index.Job) error {
	ctx, cancel := context.WithDeadline(Context(j), j.Due)
	defer cancel()
	return s.Network.Discover(ctx, j)
}
