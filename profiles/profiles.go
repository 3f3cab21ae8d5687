// Package profiles holds the deployment profiles: TOML files, embedded, that
// package config lays over its defaults. It reads nothing at run time.
package profiles

import (
	"embed"
	"fmt"
	"strings"
)

//go:embed *.toml
var files embed.FS

// Names returns the profiles there are, sorted.
func Names() []string {
	entries, _ := files.ReadDir(".") // embedded: cannot fail
	names := make([]string, len(entries))
	for i, e := range entries {
		names[i] = strings.TrimSuffix(e.Name(), ".toml")
	}
	return names
}

// Read returns the TOML of the profile called name.
func Read(name string) ([]byte, error) {
	for _, n := range Names() {
		if n == name {
			return files.ReadFile(n + ".toml")
		}
	}
	return nil, fmt.Errorf("there is no profile %q; expected one of: %s", name, strings.Join(Names(), ", "))
}
