package ram_test

import (
	"fmt"
	"time"

	"svcindex/index"
	"svcindex/stages/ram"
)

// An answer is kept until its time is over or its key is written.
func Example() {
	gens := index.NewGenerations()
	cache := ram.New(ram.Options{Bytes: 1 << 20, TTL: time.Minute, NegTTL: time.Second}, gens)
	defer cache.Close()

	k, _ := index.ParseKey("name:a")
	ask := func() *index.Job {
		j := &index.Job{Ask: index.AskResolve, Key: k, Hash: gens.Hash(&k)}
		j.Noted = gens.Note(j.Hash) // before anything is read
		return j
	}
	found := ask()
	found.Answer.Page = []byte("what the database said")
	fmt.Println(cache.PutIf(found))

	hit := ask()
	fmt.Println(cache.Get(hit), string(hit.Answer.Page))

	gens.Bump(gens.Hash(&k)) // somebody writes
	fmt.Println(cache.Get(ask()))
	// Output:
	// true
	// <nil> what the database said
	// missing
}
