package profiles

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

func Example() {
	fmt.Println(Names())
	// Output: [dev macronode micronode]
}

func TestRead(t *testing.T) {
	if !slices.IsSorted(Names()) {
		t.Errorf("Names() = %v, want them sorted", Names())
	}
	for _, name := range Names() {
		text, err := Read(name)
		if err != nil || len(text) == 0 {
			t.Errorf("Read(%q) = %d bytes, %v", name, len(text), err)
		}
	}
	// A path is not a name, whatever it leads to.
	for _, name := range []string{"", "prod", "../profiles/dev", "dev.toml"} {
		_, err := Read(name)
		if err == nil || !strings.Contains(err.Error(), "expected one of: dev, macronode, micronode") {
			t.Errorf("Read(%q): %v, want an error that names the profiles", name, err)
		}
	}
}
