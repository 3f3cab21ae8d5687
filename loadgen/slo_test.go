package loadgen

import (
	"strings"
	"testing"
)

// judged is a report with a figure for every clause.
func judged() *Report {
	return &Report{
		Requests: Requests{Due: 10_000, Answered: 9990, Failed: 10, Refused: 10, Throttled: 100, Late: 50, Rate: 999},
		Response: Latency{Count: 10_000, P50: 1_000, P90: 5_000, P95: 80_000, P99: 150_000, P999: 200_000, Max: 900_000, Mean: 2_000},
		Sources: []Split{
			{Name: "cache", Response: Latency{Count: 8000}}, {Name: "db", Response: Latency{Count: 2000}},
		},
	}
}

func TestObjectives(t *testing.T) {
	for _, tt := range []struct {
		why, text, figure string
		held              bool
	}{
		{"a latency below its bound", "p50<2ms", "1ms", true},
		{"a bound is not within itself", "p95<80ms", "80ms", false},
		{"a latency above its bound", "p99<100ms", "150ms", false},
		{"p99.9 is a figure", "p99.9<1s", "200ms", true},
		{"so is the longest", "max<800ms", "900ms", false},
		{"5xx and what was never answered are errors", "error<0.1%", "0.2%", false},
		{"a share may be a fraction", "error<0.003", "0.2%", true},
		{"429 and 503 are throttled", "throttled<2%", "1%", true},
		{"a share that must be above", "hit>0.8", "80%", false},
		{"and is", "hit>0.79", "80%", true},
		{"late ones", "late<1%", "0.5%", true},
		{"the rate that was answered", "rate>990", "999.0/s", true},
		{"spaces do no harm", " p50 < 2ms ", "1ms", true},
	} {
		o, err := ParseObjective(tt.text)
		if err != nil {
			t.Errorf("%s: %v", tt.why, err)
			continue
		}
		r := judged()
		if held := o.Judge(r); held != tt.held || len(r.SLO) != 1 || r.SLO[0].Figure != tt.figure {
			t.Errorf("%s: %s held: %v %+v, want %v at %s", tt.why, tt.text, held, r.SLO, tt.held, tt.figure)
		}
	}
}

func TestAllClausesAreJudged(t *testing.T) {
	o, err := ParseObjective("p95<80ms,p99<200ms,error<0.1%,throttled<1%,hit>0.8")
	if err != nil {
		t.Fatal(err)
	}
	r := judged()
	if o.Judge(r) || len(r.SLO) != 5 || r.SLO[0].Held || !r.SLO[1].Held || r.SLO[2].Held {
		t.Errorf("%+v", r.SLO)
	}
}

func TestAnUnknownFigureIsNoPromiseKept(t *testing.T) {
	o, err := ParseObjective("hit>0,p99<1h")
	if err != nil {
		t.Fatal(err)
	}
	r := &Report{}
	if o.Judge(r) || !strings.Contains(r.SLO[0].Figure, "unknown") || r.SLO[1].Held {
		t.Errorf("%+v", r.SLO)
	}
}

func TestObjectivesThatMakeNoSense(t *testing.T) {
	for _, text := range []string{
		"p99", "p99=1ms", "p98<1ms", "p99<5", "p99<-1ms", "error<2", "error<101%", "error<x", "hit>NaN", "rate>-1", "<1", "p99<",
	} {
		if _, err := ParseObjective(text); err == nil {
			t.Errorf("%q was taken", text)
		}
	}
}
