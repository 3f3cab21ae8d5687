package compare

// Gates are the promises. hit is answered from the cache, miss from the
// database; inter-region goes through the rig's network, whose answers take 40
// ms at the median and 400 ms at the 99th percentile, the same for the same key.
func Gates() []Gate {
	return []Gate{
		{Name: "p95 hit", Unit: "us", Threshold: .10, Floor: 20},
		{Name: "p95 miss", Unit: "us", Threshold: .10, Floor: 50},
		{Name: "p95 inter-region", Unit: "us", Threshold: .10, Floor: 5000},
		{Name: "throughput", Unit: "/s", Less: true, Threshold: .10, Floor: 500},
		{Name: "cpu", Unit: "us/request", Threshold: .15, Floor: 1},
		{Name: "memory", Unit: "MiB", Threshold: .15, Floor: 4},
		{Name: "start version", Unit: "ms", Figure: true},
		{Name: "start config", Unit: "ms", Figure: true},
	}
}

// ErrorBudget is the share of requests that may be throttled or fail in a run
// whose throughput counts: a build that answers faster by refusing is no faster.
const ErrorBudget = .001
