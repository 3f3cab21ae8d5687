package loadgen

import (
	"fmt"
	"time"
)

func ExampleRamp() {
	p := Ramp{From: 0, To: 100, Over: 2 * time.Second}
	for _, n := range []float64{0, 25, 100, 200} {
		fmt.Printf("request %v is due at %v\n", n, p.When(n))
	}
	// Output:
	// request 0 is due at 0s
	// request 25 is due at 1s
	// request 100 is due at 2s
	// request 200 is due at 3s
}
