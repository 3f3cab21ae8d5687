package index_test

import (
	"fmt"

	"svcindex/index"
)

// A key is a content id or a name, and nothing else is.
func Example() {
	content := index.Sum([]byte("hello"))
	for _, text := range []string{content.String(), "name:golang.org/x/tools", "name:a//b"} {
		k, err := index.ParseKey(text)
		if err != nil {
			fmt.Println("refused")
			continue
		}
		fmt.Println(k.IsName(), k)
	}
	// Output:
	// false b3:ea8f163db38682925e4491c5e58d4bb3506ef8c14eb78a86e908c5624a67200f
	// true name:golang.org/x/tools
	// refused
}
