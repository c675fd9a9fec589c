package assembly

import (
	"crypto"
	"crypto/tls"
	"net/http"
	"net/netip"
	"time"

	"github.com/knarr-dev/knarr/registry"
	"github.com/knarr-dev/knarr/registry/alloc"
	"github.com/knarr-dev/knarr/registry/authn"
	"github.com/knarr-dev/knarr/registry/connect"
	"github.com/knarr-dev/knarr/registry/sub"
)

// Config says what an API server works with. Files are named by path.
type Config struct {
	Store   registry.Store
	Compact time.Duration // how long the store keeps history at least; five minutes where 0
	MaxOps  int           // that the store takes in a commit; 0 for what any etcd takes
	Address string        // host and port where clients reach the server
	Host    string        // the machine's name; "" for what it says itself

	ClientCA    string // file of authorities: who has a certificate of theirs is who it says; "" for nobody
	Proxy       Proxy
	TokenFile   string // of tokens and their users, "" for none
	NoAnonymous bool   // who shows no credentials is not let in at all
	Accounts    Accounts

	Modes        []string // of authorization, in order: Node, RBAC, AlwaysAllow; nil for Node and RBAC
	AdmissionOn  []string // plugins besides those that are on by default
	AdmissionOff []string

	Audit    Audit
	Encrypt  Encrypt
	Services Services
	Kubelets connect.Kubelets

	// ProxyClient returns what this server shows to servers behind it, as the
	// proxy that it is to them; nil for nothing.
	ProxyClient func(*tls.CertificateRequestInfo) (*tls.Certificate, error)

	Actions []sub.Action            // besides those that the server has by itself
	Paths   map[string]http.Handler // likewise

	// At most so many requests at once that read, and that write; 0 for the
	// stock server's numbers.
	MaxReads, MaxWrites int
}

// A Proxy in front of the server says who its users are.
type Proxy struct {
	CA      string   // file of the authorities that sign the proxy's certificate; "" for no proxy
	Names   []string // that the certificate may have; none for any
	Headers authn.ProxyHeaders
}

// Accounts say how the tokens of service accounts are made and known.
type Accounts struct {
	Issuers   []string // whose tokens are good; the first is who issues new ones
	Audiences []string // of the server; the issuers where there are none
	Keys      []string // files of public keys, besides that of the signing key
	KeysURI   string   // where others find the keys; "" for this server's own address

	SigningKey string        // file of the private key that signs new tokens
	Signer     crypto.Signer // or the key itself

	MaxLife     time.Duration // no token lives longer; 0 for no bound
	NoExtension bool          // tokens that the server puts into pods end when asked to
}

// Audit says what is written down of requests; nothing without a policy.
type Audit struct {
	Policy string // file
	Log    string // file, - for standard output
}

// Encrypt says how objects are encrypted in the store; not at all without a
// file.
type Encrypt struct {
	File   string // an EncryptionConfiguration
	Reload bool   // it when it changes
}

// Services say which addresses services get; none without ranges.
type Services struct {
	Ranges []netip.Prefix
	Ports  alloc.PortRange
	Node   int32 // the node port of the server's own service, 0 for none

	// Advertise is where this server's peers and the pods reach it; the zero
	// value for not at all, so that it is no endpoint of the server's service.
	Advertise netip.AddrPort
}
