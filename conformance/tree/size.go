package tree

import (
	"fmt"
	"go/ast"
	"slices"
	"strings"
)

// The most that may be, so that one can read it.
const (
	maxFunc    = 80  // lines
	maxFile    = 800 // lines of code
	maxParams  = 6
	maxMethods = 8
	maxFields  = 25
	maxFiles   = 25 // in a package, without tests
	maxImports = 12 // of our own packages, by one that is not in cmd
)

// sized holds a package to the sizes.
func sized(p *pkg) (faults []string) {
	own := 0
	for _, im := range p.imports {
		if strings.HasPrefix(im, module) {
			own++
		}
	}
	free := strings.HasPrefix(p.path, "cmd/") || p.path == "apis/all" || p.path == "ctrl/all" || p.path == "sched/all" || p.path == "registry/assembly" || p.path == "kubelet/run"
	if own > maxImports && !free {
		faults = append(faults, fmt.Sprintf("imports %d packages of ours, at most %d", own, maxImports))
	}
	files := 0
	for _, f := range p.files {
		if f.generated {
			continue
		}
		if !f.test {
			files++
		}
		if f.lines > maxFile {
			faults = append(faults, fmt.Sprintf("%s has %d lines, at most %d", f.path, f.lines, maxFile))
		}
		faults = append(faults, f.sized()...)
	}
	if files > maxFiles {
		faults = append(faults, fmt.Sprintf("has %d files, at most %d", files, maxFiles))
	}
	return faults
}

// sized holds what a file declares to the sizes.
func (f *file) sized() (faults []string) {
	over := func(n ast.Node, what string, has, most int) {
		if has > most {
			faults = append(faults, fmt.Sprintf("%s: %s of %d, at most %d", f.set.Position(n.Pos()), what, has, most))
		}
	}
	ast.Inspect(f.syntax, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.FuncDecl:
			if !f.test {
				over(n, "function "+n.Name.Name, f.set.Position(n.End()).Line-f.set.Position(n.Pos()).Line+1, maxFunc)
				// Tests stand in for other people's interfaces.
				over(n, "parameters of "+n.Name.Name, n.Type.Params.NumFields(), maxParams)
			}
		case *ast.InterfaceType:
			over(n, "interface", n.Methods.NumFields(), maxMethods)
		case *ast.StructType:
			over(n, "struct", n.Fields.NumFields(), maxFields)
		}
		return true
	})
	return faults
}

// documented asks every package what it is for.
func documented(p *pkg) []string {
	if p.name != "" && !p.doc {
		return []string{"has no package comment"}
	}
	return nil
}

// vague are names that say nothing about what is in a package.
var vague = []string{"util", "utils", "common", "helper", "helpers", "types", "manager", "base", "impl", "internalversion", "misc", "shared"}

// named refuses names that say nothing.
func named(p *pkg) []string {
	if slices.Contains(vague, p.name) {
		return []string{"is called " + p.name + ", which says nothing"}
	}
	return nil
}

// quiet refuses what happens behind the reader's back: init functions, tests
// that sleep, and work that is promised without saying to whom.
func quiet(p *pkg) (faults []string) {
	for _, f := range p.files {
		if f.generated {
			continue
		}
		for _, d := range f.syntax.Decls {
			if fn, ok := d.(*ast.FuncDecl); ok && fn.Name.Name == "init" && fn.Recv == nil {
				faults = append(faults, f.path+" has an init function")
			}
		}
		for _, g := range f.syntax.Comments {
			if strings.Contains(g.Text(), "TO"+"DO") || strings.Contains(g.Text(), "FIX"+"ME") {
				faults = append(faults, fmt.Sprintf("%s leaves work undone", f.set.Position(g.Pos())))
			}
		}
		if f.test {
			faults = append(faults, f.sleeps(p.fakes())...)
		}
	}
	return faults
}

// sleeps finds calls of time.Sleep outside functions that fake time.
func (f *file) sleeps(fakes map[string]bool) (faults []string) {
	for _, d := range f.syntax.Decls {
		if uses(d, fakes) {
			continue
		}
		ast.Inspect(d, func(n ast.Node) bool {
			sel, ok := n.(*ast.SelectorExpr)
			if !ok {
				return true
			}
			if x, ok := sel.X.(*ast.Ident); ok && x.Name == "time" && sel.Sel.Name == "Sleep" {
				faults = append(faults, fmt.Sprintf("%s sleeps", f.set.Position(n.Pos())))
			}
			return true
		})
	}
	return faults
}

// fakes names what fakes time in the tests of a package: package synctest, and
// the functions that run others in it.
func (p *pkg) fakes() map[string]bool {
	names := map[string]bool{"synctest": true}
	for grown := true; grown; {
		grown = false
		for _, f := range p.files {
			for _, d := range f.syntax.Decls {
				if fn, ok := d.(*ast.FuncDecl); ok && f.test && !names[fn.Name.Name] && uses(fn, names) {
					names[fn.Name.Name], grown = true, true
				}
			}
		}
	}
	return names
}

// uses tells whether a declaration mentions one of some names.
func uses(d ast.Decl, names map[string]bool) (found bool) {
	ast.Inspect(d, func(n ast.Node) bool {
		if id, ok := n.(*ast.Ident); ok && names[id.Name] {
			found = true
		}
		return !found
	})
	return found
}
