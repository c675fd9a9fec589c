package assembly

import (
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/knarr-dev/knarr/apis/all"
	"github.com/knarr-dev/knarr/registry/encrypt"
)

// encrypting puts encryption before the store, if there is to be any.
func encrypting(cfg *Config) (*encrypt.Store, error) {
	if cfg.Encrypt.File == "" {
		return nil, nil
	}
	resources := encrypt.Resources{}
	for _, g := range all.Groups {
		for i := range g.Resources {
			r := &g.Resources[i]
			resources[r.StoredAt] = schema.GroupResource{Group: g.Group, Resource: r.Plural}
		}
	}
	s, err := encrypt.Open(cfg.Store, cfg.Encrypt.File, resources, cfg.Encrypt.Reload)
	if err == nil {
		cfg.Store = s
	}
	return s, err
}
