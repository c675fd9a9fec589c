// Package tree holds the source tree to its own rules: who may import whom,
// what decides does no I/O, every package says what it is for, and nothing
// grows too large to read. It reads source files only and builds nothing.
package tree

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path"
	"slices"
	"strings"
)

// module is what local imports begin with.
const module = "github.com/knarr-dev/knarr/"

// A pkg is one folder of Go files.
type pkg struct {
	path        string // below the module
	name        string
	doc         bool
	files       []file
	imports     []string // of all but the tests, sorted, each once
	testImports []string
}

// A file is one Go file of a pkg.
type file struct {
	path      string
	test      bool
	generated bool
	lines     int // that are neither blank nor comment
	syntax    *ast.File
	set       *token.FileSet
}

// load reads the packages below root.
func load(root fs.FS) (pkgs []*pkg, err error) {
	by := map[string]*pkg{}
	err = fs.WalkDir(root, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			if base := d.Name(); name != "." && (base == "testdata" || base == "bin" || base == "node_modules" || strings.HasPrefix(base, ".")) {
				return fs.SkipDir
			}
			if _, err := fs.Stat(root, path.Join(name, "go.mod")); err == nil && name != "." {
				return fs.SkipDir // a module of its own
			}
			return nil
		}
		if !strings.HasSuffix(name, ".go") {
			return nil
		}
		f, err := read(root, name)
		if err != nil {
			return err
		}
		if ignored(f.syntax) {
			return nil
		}
		dir := path.Dir(name)
		if by[dir] == nil {
			by[dir] = &pkg{path: dir}
			pkgs = append(pkgs, by[dir])
		}
		by[dir].add(f)
		return nil
	})
	return pkgs, err
}

// ignored reports whether a file is left out of every build.
func ignored(f *ast.File) bool {
	for _, c := range f.Comments {
		if c.Pos() < f.Package && strings.Contains(c.List[0].Text, "//go:build ignore") {
			return true
		}
	}
	return false
}

func read(root fs.FS, name string) (file, error) {
	src, err := fs.ReadFile(root, name)
	if err != nil {
		return file{}, err
	}
	set := token.NewFileSet()
	syntax, err := parser.ParseFile(set, name, src, parser.ParseComments|parser.SkipObjectResolution)
	if err != nil {
		return file{}, err
	}
	return file{
		path: name, test: strings.HasSuffix(name, "_test.go"), generated: ast.IsGenerated(syntax),
		lines: codeLines(string(src)), syntax: syntax, set: set,
	}, nil
}

// codeLines counts the lines that are neither blank nor a line comment.
func codeLines(src string) (n int) {
	for line := range strings.Lines(src) {
		if line = strings.TrimSpace(line); line != "" && !strings.HasPrefix(line, "//") {
			n++
		}
	}
	return n
}

func (p *pkg) add(f file) {
	p.files = append(p.files, f)
	if !f.test {
		p.name = f.syntax.Name.Name
		p.doc = p.doc || f.syntax.Doc != nil
	}
	for _, im := range f.syntax.Imports {
		name := strings.Trim(im.Path.Value, `"`)
		list := &p.imports
		if f.test {
			list = &p.testImports
		}
		if !slices.Contains(*list, name) {
			*list = append(*list, name)
		}
	}
	slices.Sort(p.imports)
	slices.Sort(p.testImports)
}

// A rule finds what is wrong with a package.
type rule func(p *pkg) []string

// check applies every rule to every package below root.
func check(root fs.FS) (faults []string, err error) {
	pkgs, err := load(root)
	if err != nil {
		return nil, err
	}
	rules := []rule{imports(layers), pureImports, documented, named, sized, quiet, doors}
	for _, p := range pkgs {
		for _, r := range rules {
			for _, fault := range r(p) {
				faults = append(faults, fmt.Sprintf("%s: %s", p.path, fault))
			}
		}
	}
	return faults, nil
}
