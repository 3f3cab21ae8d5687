package main

import (
	"debug/buildinfo"
	"path"
	"slices"
	"strings"
)

// libraries says which versions the peers were built from.
func libraries(programs ...string) (all []string) {
	for _, p := range programs {
		info, err := buildinfo.ReadFile(p)
		if err != nil {
			continue
		}
		for _, dep := range info.Deps {
			name := path.Base(strings.TrimSuffix(dep.Path, "/v2"))
			if text := name + " " + dep.Version; slices.Contains([]string{"fasthttp", "freecache", "gnet"}, name) && !slices.Contains(all, text) {
				all = append(all, text)
			}
		}
	}
	return all
}
