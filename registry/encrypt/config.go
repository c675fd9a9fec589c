package encrypt

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"sigs.k8s.io/json"
	"sigs.k8s.io/yaml"
)

// A configuration is an EncryptionConfiguration of apiserver.config.k8s.io/v1.
type configuration struct {
	metav1.TypeMeta `json:",inline"`

	Resources []rule `json:"resources"`
}

// A rule says what resources are encrypted by: the first of its providers
// encrypts, all decrypt.
type rule struct {
	Resources []string   `json:"resources"` // as secrets, pods.apps, *.apps or *.*
	Providers []provider `json:"providers"`
}

// A provider is one of what it has fields for.
type provider struct {
	AESGCM    *keys     `json:"aesgcm,omitempty"`
	AESCBC    *keys     `json:"aescbc,omitempty"`
	Secretbox *keys     `json:"secretbox,omitempty"`
	Identity  *struct{} `json:"identity,omitempty"`
	KMS       *kms      `json:"kms,omitempty"`
}

type keys struct {
	Keys []secret `json:"keys"`
}

type secret struct {
	Name   string `json:"name"`
	Secret string `json:"secret"` // in base64
}

type kms struct {
	APIVersion string           `json:"apiVersion"`
	Name       string           `json:"name"`
	CacheSize  *int32           `json:"cachesize,omitempty"` // of version 1 only
	Endpoint   string           `json:"endpoint"`
	Timeout    *metav1.Duration `json:"timeout,omitempty"`
}

// kmsTimeout is how long a request to a KMS may take where nothing is said.
const kmsTimeout = 3 * time.Second

// parse reads the text of a configuration. Its errors say where in it what is
// wrong, in the words of stock Kubernetes where it has some.
func parse(text []byte) (*configuration, error) {
	if len(bytes.TrimSpace(text)) == 0 {
		return nil, errors.New("it is empty")
	}
	c := &configuration{}
	data, err := yaml.YAMLToJSONStrict(text)
	if err != nil {
		return nil, err
	}
	faults, err := json.UnmarshalStrict(data, c)
	if err = errors.Join(append(faults, err)...); err != nil {
		return nil, err
	}
	const version, kind = "apiserver.config.k8s.io/v1", "EncryptionConfiguration"
	if c.APIVersion != version || c.Kind != kind {
		return nil, fmt.Errorf("it is of kind %q, version %q: want %s of %s", c.Kind, c.APIVersion, kind, version)
	}
	return c, c.validate().ToAggregate()
}

func (c *configuration) validate() (errs field.ErrorList) {
	root := field.NewPath("resources")
	if len(c.Resources) == 0 {
		return field.ErrorList{field.Required(root, "at least one resources is required")}
	}
	names := map[string]bool{} // of KMS providers
	for i, r := range c.Resources {
		path := root.Index(i)
		errs = append(errs, validateResources(r.Resources, path.Child("resources"))...)
		providers := path.Child("providers")
		if len(r.Providers) == 0 {
			errs = append(errs, field.Required(providers, fmt.Sprintf("at least one %s is required", providers)))
		}
		for j, p := range r.Providers {
			errs = append(errs, p.validate(providers.Index(j), names)...)
		}
	}
	return append(errs, c.masked(root)...)
}

// masked finds rules that an earlier one takes everything from.
func (c *configuration) masked(root *field.Path) (errs field.ErrorList) {
	// Within a rule that is an overlap.
	seen := map[schema.GroupResource]bool{}
	for i, r := range c.Resources {
		for j, text := range r.Resources {
			gr := schema.ParseGroupResource(text)
			for _, wide := range []schema.GroupResource{{Group: gr.Group, Resource: "*"}, everything} {
				if seen[wide] {
					errs = append(errs, field.Invalid(root.Index(i).Child("resources").Index(j), text,
						fmt.Sprintf("resource %q is masked by earlier rule %q", text, wildcard(wide))))
				}
			}
		}
		for _, text := range r.Resources {
			seen[schema.ParseGroupResource(text)] = true
		}
	}
	return errs
}

// everything stands for all resources of all groups.
var everything = schema.GroupResource{Group: "*", Resource: "*"}

func wildcard(gr schema.GroupResource) string {
	if gr.Group == "" {
		return "*."
	}
	return gr.String()
}

func validateResources(resources []string, path *field.Path) (errs field.ErrorList) {
	if len(resources) == 0 {
		return field.ErrorList{field.Required(path, fmt.Sprintf("at least one %s is required", path))}
	}
	var twice, overlap bool
	for i, a := range resources {
		for j, b := range resources {
			one, other := schema.ParseGroupResource(a), schema.ParseGroupResource(b)
			switch {
			case i == j:
			case one == other:
				twice = true
			case one == everything, one.Group == other.Group && one.Resource == "*":
				overlap = true
			}
		}
	}
	if twice {
		errs = append(errs, field.Invalid(path, resources, "the same resource cannot be specified multiple times"))
	}
	if overlap {
		errs = append(errs, field.Invalid(path, resources,
			"using overlapping resources such as 'secrets' and '*.' in the same resource list is not allowed as they will be masked"))
	}
	for i, text := range resources {
		if wrong := wrongResource(text); wrong != "" {
			errs = append(errs, field.Invalid(path.Index(i), text, wrong))
		}
	}
	return errs
}

// wrongResource says what is wrong with how a resource is named, "" where
// nothing is.
func wrongResource(text string) string {
	gr := schema.ParseGroupResource(text)
	switch {
	case strings.ToLower(text) != text:
		return "resource name should not contain capital letters"
	case text == "*":
		return "use '*.' to encrypt all the resources from core API group or *.* to encrypt all resources"
	case slices.Contains([]string{"apiserveripinfo", "serviceipallocations", "servicenodeportallocations"}, text):
		return "resources which do not have REST API/s cannot be encrypted"
	case gr.Group == "events.k8s.io":
		return "'*.events.k8s.io' objects are stored using the 'events' API group in etcd. Use 'events' instead in the config file"
	case gr.Group == "extensions":
		return "'extensions' group has been removed and cannot be used for encryption"
	case gr.Group == "*" && gr.Resource != "*":
		return "encrypting the same resource across groups is not supported"
	}
	return ""
}

func (p provider) validate(path *field.Path, names map[string]bool) field.ErrorList {
	found := 0
	for _, is := range []bool{p.AESGCM != nil, p.AESCBC != nil, p.Secretbox != nil, p.Identity != nil, p.KMS != nil} {
		if is {
			found++
		}
	}
	aesSizes := []int{16, 24, 32}
	switch {
	case found == 0:
		return field.ErrorList{field.Invalid(path, "", "provider does not contain any of the expected providers: KMS, AESGCM, AESCBC, Secretbox, Identity")}
	case found > 1:
		return field.ErrorList{field.Invalid(path, "", "more than one provider specified in a single element, should split into different list elements")}
	case p.AESGCM != nil:
		return p.AESGCM.validate(path.Child("aesgcm", "keys"), aesSizes)
	case p.AESCBC != nil:
		return p.AESCBC.validate(path.Child("aescbc", "keys"), aesSizes)
	case p.Secretbox != nil:
		return p.Secretbox.validate(path.Child("secretbox", "keys"), []int{32})
	case p.KMS != nil:
		return p.KMS.validate(path.Child("kms"), names)
	}
	return nil
}

func (k *keys) validate(path *field.Path, sizes []int) (errs field.ErrorList) {
	if len(k.Keys) == 0 {
		return field.ErrorList{field.Required(path, "at least one keys is required")}
	}
	for i, key := range k.Keys {
		if key.Name == "" {
			errs = append(errs, field.Required(path.Index(i).Child("name"), "name is a mandatory field for a key"))
		}
		at := path.Index(i).Child("secret")
		if key.Secret == "" {
			errs = append(errs, field.Required(at, "secret is a mandatory field for a key"))
			continue
		}
		// What is wrong with a secret is said without it.
		raw, err := base64.StdEncoding.DecodeString(key.Secret)
		switch {
		case err != nil:
			errs = append(errs, field.Invalid(at, "REDACTED", "secrets must be base64 encoded"))
		case !slices.Contains(sizes, len(raw)):
			errs = append(errs, field.Invalid(at, "REDACTED",
				fmt.Sprintf("secret is not of the expected length, got %d, expected one of %v", len(raw), sizes)))
		}
	}
	return errs
}

func (k *kms) validate(path *field.Path, names map[string]bool) (errs field.ErrorList) {
	switch {
	case k.Name == "":
		errs = append(errs, field.Required(path.Child("name"), "name is a mandatory field for a provider"))
	case strings.Contains(k.Name, ":"):
		errs = append(errs, field.Invalid(path.Child("name"), k.Name, fmt.Sprintf("invalid KMS provider name %s, must not contain ':'", k.Name)))
	case names[k.Name]:
		errs = append(errs, field.Invalid(path.Child("name"), k.Name, fmt.Sprintf("duplicate KMS provider name %s, names must be unique", k.Name)))
	}
	names[k.Name] = true
	if k.Timeout != nil && k.Timeout.Duration <= 0 {
		errs = append(errs, field.Invalid(path.Child("timeout"), k.Timeout, "timeout should be a positive value"))
	}
	u, err := url.Parse(k.Endpoint)
	switch {
	case k.Endpoint == "":
		errs = append(errs, field.Invalid(path.Child("endpoint"), "", "endpoint is a mandatory field for a kms"))
	case err != nil:
		errs = append(errs, field.Invalid(path.Child("endpoint"), k.Endpoint, fmt.Sprintf("invalid endpoint for kms provider, error: %v", err)))
	case u.Scheme != "unix":
		errs = append(errs, field.Invalid(path.Child("endpoint"), k.Endpoint, fmt.Sprintf("unsupported scheme %q for KMS provider, only unix is supported", u.Scheme)))
	}
	switch k.APIVersion {
	case "v2":
		if k.CacheSize != nil {
			errs = append(errs, field.Invalid(path.Child("cachesize"), *k.CacheSize, "cachesize is not supported in v2"))
		}
	case "", "v1":
		// As upstream, where its feature gate is off unless asked for.
		errs = append(errs, field.Invalid(path.Child("apiVersion"), k.APIVersion, "KMSv1 is deprecated and not supported. Use KMSv2 instead."))
	default:
		errs = append(errs, field.Invalid(path.Child("apiVersion"), k.APIVersion, "unsupported apiVersion for KMS provider, only v2 is supported"))
	}
	return errs
}
