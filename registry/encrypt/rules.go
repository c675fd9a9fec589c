package encrypt

import (
	"encoding/base64"
	"fmt"
	"strings"

	"k8s.io/apimachinery/pkg/runtime/schema"
)

// The prefixes of what is stored, before the name of the key or plugin.
const (
	cbcPrefix = sealedPrefix + "aescbc:v1:"
	gcmPrefix = sealedPrefix + "aesgcm:v1:"
	boxPrefix = sealedPrefix + "secretbox:v1:"
	kmsPrefix = sealedPrefix + "kms:v2:"
)

// rules are what a configuration says, ready for use.
type rules struct {
	by      map[schema.GroupResource]*choice
	plugins []*envelope
}

// newRules makes ciphers of a configuration that is valid.
func newRules(c *configuration) (*rules, error) {
	r := &rules{by: map[schema.GroupResource]*choice{}}
	for _, rule := range c.Resources {
		var all []named
		for _, p := range rule.Providers {
			n, err := r.named(p)
			if err != nil {
				r.close()
				return nil, err
			}
			all = append(all, n)
		}
		for _, text := range rule.Resources {
			gr := schema.ParseGroupResource(text)
			if r.by[gr] == nil {
				r.by[gr] = &choice{none: errNoPrefix}
			}
			r.by[gr].all = append(r.by[gr].all, all...)
		}
	}
	return r, nil
}

func (r *rules) named(p provider) (named, error) {
	switch {
	case p.AESCBC != nil:
		c, err := byKey(p.AESCBC, "AES", newCBC)
		return named{cbcPrefix, c}, err
	case p.AESGCM != nil:
		c, err := byKey(p.AESGCM, "AES", newGCM)
		return named{gcmPrefix, c}, err
	case p.Secretbox != nil:
		c, err := byKey(p.Secretbox, "Secretbox", newBox)
		return named{boxPrefix, c}, err
	case p.KMS != nil:
		e, err := newEnvelope(p.KMS)
		if err == nil {
			r.plugins = append(r.plugins, e)
		}
		return named{kmsPrefix + p.KMS.Name + ":", e}, err
	}
	return named{"", plain{}}, nil
}

// byKey is the choice of the keys of a provider.
func byKey(k *keys, what string, make func([]byte) (cipher, error)) (cipher, error) {
	c := &choice{none: fmt.Errorf("no matching key was found for the provided %s transformer", what)}
	for _, key := range k.Keys {
		secret, err := base64.StdEncoding.DecodeString(key.Secret)
		if err != nil {
			return nil, fmt.Errorf("could not obtain secret for named key %s: %w", key.Name, err)
		}
		with, err := make(secret)
		if err != nil {
			return nil, fmt.Errorf("error while creating cipher for named key %s: %w", key.Name, err)
		}
		c.all = append(c.all, named{key.Name + ":", with})
	}
	return c, nil
}

// of is the cipher of a resource's values.
func (r *rules) of(gr schema.GroupResource) cipher {
	for _, as := range []schema.GroupResource{gr, {Group: gr.Group, Resource: "*"}, everything} {
		if c := r.by[as]; c != nil {
			return c
		}
	}
	return plain{}
}

func (r *rules) close() {
	for _, e := range r.plugins {
		_ = e.conn.Close() // there is nothing to lose
	}
}

// Resources tells of which resource the value at a key of the store is. It is
// made of the resources by where they are stored, as by apis.Definition.
type Resources map[string]schema.GroupResource

// resource is the resource of the value at key, false where it is none: the
// ports of services, the leases of servers, which nobody encrypts.
func (r Resources) resource(key string) (schema.GroupResource, bool) {
	path := strings.Split(strings.TrimPrefix(key, "/registry/"), "/")
	for n := min(2, len(path)-1); n > 0; n-- {
		if gr, ok := r[strings.Join(path[:n], "/")]; ok {
			return gr, true
		}
	}
	if strings.Contains(path[0], ".") && len(path) > 2 {
		return schema.GroupResource{Group: path[0], Resource: path[1]}, true // custom
	}
	return schema.GroupResource{}, false
}
