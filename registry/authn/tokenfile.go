package authn

import (
	"context"
	"crypto/sha256"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/knarr-dev/knarr/registry"
)

// A TokenFile is tokens that are written down with their users. They are for
// the server itself and for nobody else. Its keys are the tokens' digests, so
// that looking one up does not tell by its time how far a guess was right.
type TokenFile struct {
	users    map[[sha256.Size]byte]registry.User
	Audience []string // of the server
}

// ReadTokenFile reads a file of lines: token, user name, UID, and a quoted
// list of groups that may be missing.
func ReadTokenFile(path string, audience []string) (*TokenFile, error) {
	in, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("read tokens: %w", err)
	}
	defer func() { _ = in.Close() }()
	f := &TokenFile{users: map[[sha256.Size]byte]registry.User{}, Audience: audience}
	rows := csv.NewReader(in)
	rows.FieldsPerRecord = -1
	for n := 1; ; n++ {
		row, err := rows.Read()
		if errors.Is(err, io.EOF) {
			return f, nil
		}
		if err != nil {
			return nil, fmt.Errorf("read tokens: %w", err)
		}
		if len(row) < 3 {
			return nil, fmt.Errorf("read tokens: line %d of %s needs a token, a user name and a UID", n, path)
		}
		if row[0] == "" {
			continue // as upstream: a line without a token is nobody's
		}
		user := registry.User{Name: row[1], UID: row[2]}
		if len(row) > 3 {
			for g := range strings.SplitSeq(row[3], ",") {
				if g = strings.TrimSpace(g); g != "" {
					user.Groups = append(user.Groups, g)
				}
			}
		}
		f.users[sha256.Sum256([]byte(row[0]))] = user
	}
}

// Token is part of Tokens.
func (f *TokenFile) Token(_ context.Context, token string, audiences []string) (Identity, bool, error) {
	user, ok := f.users[sha256.Sum256([]byte(token))]
	if !ok {
		return Identity{}, false, nil
	}
	meant := common(f.Audience, audiences)
	if len(audiences) > 0 && len(meant) == 0 {
		return Identity{}, false, nil
	}
	return Identity{User: user, Audiences: meant}, true, nil
}

// common is those of have that are in want, all of them where nothing in
// particular is wanted.
func common(have, want []string) (both []string) {
	for _, a := range have {
		wanted := len(want) == 0
		for _, b := range want {
			wanted = wanted || a == b
		}
		if wanted {
			both = append(both, a)
		}
	}
	return both
}
