// Package parts makes the software bill of materials of built programs.
package parts

import (
	"bytes"
	"debug/buildinfo"
	"fmt"
	"maps"
	"path/filepath"
	"runtime/debug"
	"slices"

	"github.com/CycloneDX/cyclonedx-go"

	"flowplatform/scripts/internal/archive"
)

// Name is the file in which a release and a bundle carry it.
const Name = "sbom.cdx.json"

// List is the software bill of materials of Go programs, as CycloneDX 1.6: each program, the modules that were linked into it as the linker wrote them
// down, and Go itself. It holds no time and no serial number, so that it is the same for the same source. Programs are paths below dir.
func List(dir, version, arch string, programs []string) ([]byte, error) {
	bom := cyclonedx.NewBOM()
	bom.SpecVersion = cyclonedx.SpecVersion1_6
	bom.Metadata = &cyclonedx.Metadata{Component: &cyclonedx.Component{BOMRef: "flowplatform", Type: cyclonedx.ComponentTypeApplication, Name: "flowplatform", Version: version,
		Properties: &[]cyclonedx.Property{{Name: "architecture", Value: "linux/" + arch}}}}
	parts := map[string]cyclonedx.Component{}
	var needs []cyclonedx.Dependency
	var all []string
	for _, path := range slices.Sorted(slices.Values(programs)) {
		name := filepath.Base(path)
		path = filepath.Join(dir, path)
		info, err := buildinfo.ReadFile(path)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		sum, err := archive.Sum(path)
		if err != nil {
			return nil, err
		}
		parts[name] = cyclonedx.Component{BOMRef: name, Type: cyclonedx.ComponentTypeApplication, Name: name, Version: versionOf(info, version), Hashes: &[]cyclonedx.Hash{{Algorithm: cyclonedx.HashAlgoSHA256, Value: sum}}}
		all = append(all, name)
		refs := []string{part(parts, "stdlib", info.GoVersion)}
		for _, m := range info.Deps {
			refs = append(refs, module(parts, m))
		}
		slices.Sort(refs)
		needs = append(needs, cyclonedx.Dependency{Ref: name, Dependencies: &refs})
	}
	needs = append([]cyclonedx.Dependency{{Ref: "flowplatform", Dependencies: &all}}, needs...)
	components := make([]cyclonedx.Component, 0, len(parts))
	for _, ref := range slices.Sorted(maps.Keys(parts)) {
		components = append(components, parts[ref])
	}
	bom.Components, bom.Dependencies = &components, &needs
	var out bytes.Buffer
	if err := cyclonedx.NewBOMEncoder(&out, cyclonedx.BOMFileFormatJSON).SetPretty(true).EncodeVersion(bom, bom.SpecVersion); err != nil {
		return nil, fmt.Errorf("parts list: %w", err)
	}
	return out.Bytes(), nil
}

// versionOf is a program's version: its module's, for what comes from elsewhere and is built as it is there, and the platform's for its own.
func versionOf(info *debug.BuildInfo, own string) string {
	if v := info.Main.Version; v != "" && v != "(devel)" {
		return v
	}
	return own
}

func module(parts map[string]cyclonedx.Component, m *debug.Module) string {
	for m.Replace != nil {
		m = m.Replace
	}
	return part(parts, m.Path, m.Version)
}

func part(parts map[string]cyclonedx.Component, path, version string) string {
	purl := "pkg:golang/" + path + "@" + version
	parts[purl] = cyclonedx.Component{BOMRef: purl, Type: cyclonedx.ComponentTypeLibrary, Name: path, Version: version, PackageURL: purl}
	return purl
}
