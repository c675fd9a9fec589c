package env

import (
	"fmt"
	"strings"
)

// parse finds a variable in a file of lines
//
//	NAME='value, which may go on for more lines' # and this is a comment
//
// Quotes are required and nothing in them is special. A value that a space
// keeps from its equals sign is empty, as the shell has it. What comes before
// the variable must be sound, what comes after does not matter.
func parse(text, key string) (string, error) {
	for n := 1; text != ""; n++ {
		line, rest, _ := strings.Cut(text, "\n")
		line = strings.TrimLeft(strings.TrimSuffix(line, "\r"), " \t")
		if line == "" || line[0] == '#' {
			text = rest
			continue
		}
		name, value, ok := strings.Cut(line, "=")
		switch {
		case !ok:
			return "", fmt.Errorf("line %d: no =", n)
		case name == "" || strings.TrimRight(name, " \t") != name:
			return "", fmt.Errorf("line %d: no name directly before =", n)
		}
		if strings.TrimLeft(value, " \t") != value {
			if name == key {
				return "", nil
			}
			text = rest
			continue
		}
		if !strings.HasPrefix(value, "'") {
			return "", fmt.Errorf("line %d: the value is not in single quotes", n)
		}
		_, open, _ := strings.Cut(text, "='")
		value, text, ok = strings.Cut(open, "'")
		if !ok {
			return "", fmt.Errorf("line %d: the quote does not end", n)
		}
		n += strings.Count(value, "\n")
		after, rest, _ := strings.Cut(text, "\n")
		if after = strings.TrimLeft(strings.TrimSuffix(after, "\r"), " \t"); after != "" && after[0] != '#' {
			return "", fmt.Errorf("line %d: something follows the quote", n)
		}
		if name == key {
			return strings.ReplaceAll(value, "\r\n", "\n"), nil
		}
		text = rest
	}
	return "", nil
}
