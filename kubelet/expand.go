package kubelet

import "strings"

// Expand replaces each $(NAME) in s by what value says of NAME, and leaves it
// where value knows none. $$ stands for a dollar that begins no reference.
func Expand(s string, value func(name string) (string, bool)) string {
	var b strings.Builder
	for {
		i := strings.IndexByte(s, '$')
		if i < 0 || i+1 == len(s) {
			b.WriteString(s)
			return b.String()
		}
		b.WriteString(s[:i])
		switch s = s[i:]; s[1] {
		case '$':
			b.WriteByte('$')
			s = s[2:]
		case '(':
			end := strings.IndexByte(s, ')')
			if end < 0 { // not a reference after all
				b.WriteString("$(")
				s = s[2:]
				continue
			}
			if v, ok := value(s[2:end]); ok {
				b.WriteString(v)
			} else {
				b.WriteString(s[:end+1])
			}
			s = s[end+1:]
		default:
			b.WriteString(s[:2])
			s = s[2:]
		}
	}
}
