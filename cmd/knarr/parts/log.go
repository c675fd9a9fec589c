package parts

import (
	"context"
	"io"
	"log/slog"

	"k8s.io/klog/v2" //nolint:depguard // what the libraries say goes the same way as what we say
)

// SetLog has everything logged as text to w, from level on.
func SetLog(w io.Writer, level slog.Leveler) {
	log := slog.New(calm{slog.NewTextHandler(w, &slog.HandlerOptions{Level: level})})
	slog.SetDefault(log)
	klog.SetSlogLogger(log)
}

// harmlessErrors are what libraries call errors though they come with every
// stream that ends.
var harmlessErrors = map[string]bool{
	"Error on socket receive": true,
	"Unable to write frame":   true,
}

// calm says of harmless errors only that they were.
type calm struct{ slog.Handler }

// Handle is part of slog.Handler.
func (c calm) Handle(ctx context.Context, r slog.Record) error {
	if harmlessErrors[r.Message] {
		if r.Level = slog.LevelDebug; !c.Enabled(ctx, r.Level) {
			return nil
		}
	}
	return c.Handler.Handle(ctx, r)
}

// WithAttrs is part of slog.Handler.
func (c calm) WithAttrs(attrs []slog.Attr) slog.Handler { return calm{c.Handler.WithAttrs(attrs)} }

// WithGroup is part of slog.Handler.
func (c calm) WithGroup(name string) slog.Handler { return calm{c.Handler.WithGroup(name)} }
