package check

import "fmt"

// Warnings are what the client should know though nothing is wrong.
type Warnings []string

// At says something of a place.
func (w *Warnings) At(at At, format string, args ...any) {
	*w = append(*w, at.String()+": "+fmt.Sprintf(format, args...))
}

// Add says what others found.
func (w *Warnings) Add(more ...string) { *w = append(*w, more...) }
