package encrypt

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"maps"
	"slices"

	"google.golang.org/protobuf/encoding/protowire"
)

// A sealed is what is stored of a value encrypted by a KMS: the message
// EncryptedObject of k8s.io/apiserver.
type sealed struct {
	data        []byte            // 1
	keyID       string            // 2
	source      []byte            // 3: what the key of data is made of, encrypted by the KMS
	annotations map[string][]byte // 4
	kind        uint64            // 5
}

// What the source is.
const (
	keyed  = 0 // the key of all data
	seeded = 1 // the seed of a key for each
)

// Bounds on what a plugin may say, as upstream.
const (
	maxKeyID       = 1 << 10
	maxSource      = 1 << 10
	maxAnnotations = 32 << 10
)

// id is the same for what the same key decrypts.
func (s *sealed) id() string {
	same := *s
	same.data = nil
	sum := sha256.Sum256(same.marshal())
	return string(sum[:])
}

func (s *sealed) validate() error {
	size := 0
	for k, v := range s.annotations {
		size += len(k) + len(v)
	}
	switch {
	case s.kind != keyed && s.kind != seeded:
		return fmt.Errorf("unknown encryptedDEKSourceType: %d", s.kind)
	case len(s.source) == 0:
		return errors.New("failed to validate encrypted DEK source: encrypted DEK source is empty")
	case len(s.source) > maxSource:
		return fmt.Errorf("failed to validate encrypted DEK source: encrypted DEK source is %d bytes, which exceeds the max size of %d", len(s.source), maxSource)
	case s.keyID == "":
		return errors.New("failed to validate key id: keyID is empty")
	case len(s.keyID) > maxKeyID:
		return fmt.Errorf("failed to validate key id: keyID is %d bytes, which exceeds the max size of %d", len(s.keyID), maxKeyID)
	case size > maxAnnotations:
		return fmt.Errorf("failed to validate annotations: total size of annotations is %d, which exceeds the max size of %d", size, maxAnnotations)
	}
	return nil
}

func (s *sealed) marshal() []byte {
	var b []byte
	if len(s.data) > 0 {
		b = protowire.AppendBytes(protowire.AppendTag(b, 1, protowire.BytesType), s.data)
	}
	b = protowire.AppendString(protowire.AppendTag(b, 2, protowire.BytesType), s.keyID)
	b = protowire.AppendBytes(protowire.AppendTag(b, 3, protowire.BytesType), s.source)
	for _, k := range slices.Sorted(maps.Keys(s.annotations)) {
		e := protowire.AppendString(protowire.AppendTag(nil, 1, protowire.BytesType), k)
		e = protowire.AppendBytes(protowire.AppendTag(e, 2, protowire.BytesType), s.annotations[k])
		b = protowire.AppendBytes(protowire.AppendTag(b, 4, protowire.BytesType), e)
	}
	if s.kind != 0 {
		b = protowire.AppendVarint(protowire.AppendTag(b, 5, protowire.VarintType), s.kind)
	}
	return b
}

func (s *sealed) unmarshal(b []byte) error {
	err := fields(b, func(n protowire.Number, value []byte, number uint64) error {
		switch n {
		case 1:
			s.data = value
		case 2:
			s.keyID = string(value)
		case 3:
			s.source = value
		case 4:
			var k, v []byte
			if err := fields(value, func(n protowire.Number, value []byte, _ uint64) error {
				switch n {
				case 1:
					k = value
				case 2:
					v = value
				}
				return nil
			}); err != nil {
				return err
			}
			if s.annotations == nil {
				s.annotations = map[string][]byte{}
			}
			s.annotations[string(k)] = v
		case 5:
			s.kind = number
		}
		return nil
	})
	switch {
	case err != nil:
		return err
	case len(s.data) == 0:
		return errors.New("encrypted data is empty")
	}
	return s.validate()
}

// fields calls each for every field of a message: with its bytes, or with
// its number.
func fields(b []byte, each func(n protowire.Number, value []byte, number uint64) error) error {
	for len(b) > 0 {
		n, typ, size := protowire.ConsumeTag(b)
		if size < 0 {
			return protowire.ParseError(size)
		}
		b = b[size:]
		var value []byte
		var number uint64
		switch typ {
		case protowire.BytesType:
			value, size = protowire.ConsumeBytes(b)
		case protowire.VarintType:
			number, size = protowire.ConsumeVarint(b)
		default:
			size = protowire.ConsumeFieldValue(n, typ, b)
		}
		if size < 0 {
			return protowire.ParseError(size)
		}
		b = b[size:]
		if err := each(n, value, number); err != nil {
			return err
		}
	}
	return nil
}
