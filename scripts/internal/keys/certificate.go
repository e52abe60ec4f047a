package keys

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"net"
	"os"
	"slices"
	"time"

	"flowplatform/scripts/internal/spec"
)

// How long certificates last, and how long before its end a host's is made anew whenever the host is applied.
const (
	authorityLasts   = 10 * 365 * 24 * time.Hour
	certificateLasts = 365 * 24 * time.Hour
	renewBefore      = 60 * 24 * time.Hour
)

// Pair is a certificate and its key, both PEM.
type Pair struct {
	Certificate, Key []byte
	Until            time.Time
}

// authority signs.
type authority struct {
	certificate *x509.Certificate
	key         *ecdsa.PrivateKey
	pem         []byte
}

// Authority returns the authority's certificate; both it and its key are made when they aren't there.
func (k *Keys) Authority() ([]byte, error) {
	a, err := k.authority()
	if err != nil {
		return nil, err
	}
	return a.pem, nil
}

func (k *Keys) authority() (authority, error) {
	certificate, err := os.ReadFile(k.Path("ca.pem"))
	if errors.Is(err, fs.ErrNotExist) {
		return k.makeAuthority()
	}
	if err != nil {
		return authority{}, fmt.Errorf("read the authority's certificate: %w", err)
	}
	key, err := os.ReadFile(k.Path("ca-key.pem"))
	if err != nil {
		return authority{}, fmt.Errorf("read the authority's key: %w; without it no certificate can be made: bring it back from a copy of the operator's directory", err)
	}
	c, err := parseCertificate(certificate)
	if err != nil {
		return authority{}, fmt.Errorf("%s: %w", k.Path("ca.pem"), err)
	}
	block, _ := pem.Decode(key)
	if block == nil {
		return authority{}, fmt.Errorf("%s holds no PEM", k.Path("ca-key.pem"))
	}
	private, err := x509.ParseECPrivateKey(block.Bytes)
	if err != nil {
		return authority{}, fmt.Errorf("%s: %w", k.Path("ca-key.pem"), err)
	}
	if !private.PublicKey.Equal(c.PublicKey) {
		return authority{}, fmt.Errorf("%s and %s don't belong together: bring both back from the same copy", k.Path("ca.pem"), k.Path("ca-key.pem"))
	}
	return authority{certificate: c, key: private, pem: certificate}, nil
}

func (k *Keys) makeAuthority() (authority, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return authority{}, fmt.Errorf("make the authority's key: %w", err)
	}
	now := time.Now()
	template := &x509.Certificate{
		SerialNumber: serial(), Subject: pkix.Name{CommonName: "Flow platform cluster authority"},
		NotBefore: now.Add(-time.Hour), NotAfter: now.Add(authorityLasts),
		IsCA: true, BasicConstraintsValid: true, MaxPathLenZero: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		return authority{}, fmt.Errorf("make the authority: %w", err)
	}
	keyPEM, err := encodeKey(key)
	if err != nil {
		return authority{}, err
	}
	certificate := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	// The certificate last: where it is, its key is too.
	if err := errors.Join(k.Write("ca-key.pem", keyPEM), k.Write("ca.pem", certificate)); err != nil {
		return authority{}, err
	}
	return k.authority()
}

// Host returns a host's certificate for Consul and Nomad; see ensure for when it is made.
func (k *Keys) Host(h spec.Host) (Pair, error) {
	return k.ensure("hosts/"+h.Name, spec.CertificateNames(h), []string{h.PrivateAddress, "127.0.0.1"}, x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth)
}

// Operator returns the certificate with which the operator's own programs show themselves.
func (k *Keys) Operator() (Pair, error) {
	return k.ensure("operator", []string{"operator"}, nil, x509.ExtKeyUsageClientAuth)
}

// Metrics returns the certificate with which Prometheus shows itself to Consul's and Nomad's agents. Without a token it opens what is open to whoever has
// a certificate: their metrics.
func (k *Keys) Metrics() (Pair, error) {
	return k.ensure("prometheus", []string{"prometheus"}, nil, x509.ExtKeyUsageClientAuth)
}

// FrontDoor returns the certificate of the address that users know.
func (k *Keys) FrontDoor(names, addresses []string) (Pair, error) {
	return k.ensure("front-door", names, addresses, x509.ExtKeyUsageServerAuth)
}

// ensure makes a certificate when there is none, when the one there is bears other names or another authority's signature, or when it ends within sixty days.
func (k *Keys) ensure(file string, names, addresses []string, usage ...x509.ExtKeyUsage) (Pair, error) {
	a, err := k.authority()
	if err != nil {
		return Pair{}, err
	}
	var ips []net.IP
	for _, address := range addresses {
		ip := net.ParseIP(address)
		if ip == nil {
			return Pair{}, fmt.Errorf("certificate of %s: %q is no IP address", file, address)
		}
		ips = append(ips, ip)
	}
	certificate, err1 := os.ReadFile(k.Path(file + ".pem"))
	key, err2 := os.ReadFile(k.Path(file + "-key.pem"))
	if err1 == nil && err2 == nil {
		if c, err := parseCertificate(certificate); err == nil && serves(c, a.certificate, names, ips) && belongs(certificate, key) {
			return Pair{Certificate: certificate, Key: key, Until: c.NotAfter}, nil
		}
	}
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return Pair{}, fmt.Errorf("make the key of %s: %w", file, err)
	}
	now := time.Now()
	template := &x509.Certificate{
		SerialNumber: serial(), Subject: pkix.Name{CommonName: names[len(names)-1]}, DNSNames: names, IPAddresses: ips,
		NotBefore: now.Add(-time.Hour), NotAfter: earlier(now.Add(certificateLasts), a.certificate.NotAfter),
		BasicConstraintsValid: true, KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: usage,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.certificate, &private.PublicKey, a.key)
	if err != nil {
		return Pair{}, fmt.Errorf("make the certificate of %s: %w", file, err)
	}
	keyPEM, err := encodeKey(private)
	if err != nil {
		return Pair{}, err
	}
	pair := Pair{Certificate: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), Key: keyPEM, Until: template.NotAfter}
	return pair, errors.Join(k.Write(file+"-key.pem", pair.Key), k.Write(file+".pem", pair.Certificate))
}

// serves says whether a certificate can go on being used.
func serves(c, ca *x509.Certificate, names []string, ips []net.IP) bool {
	sameIPs := slices.EqualFunc(c.IPAddresses, ips, net.IP.Equal)
	return c.CheckSignatureFrom(ca) == nil && slices.Equal(c.DNSNames, names) && sameIPs && time.Until(c.NotAfter) > renewBefore
}

func belongs(certificate, key []byte) bool {
	_, err := tls.X509KeyPair(certificate, key)
	return err == nil
}

func earlier(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}

// Signed says whether a certificate is from this cluster's authority.
func (k *Keys) Signed(certificate []byte) bool {
	a, err := k.authority()
	if err != nil {
		return false
	}
	c, err := parseCertificate(certificate)
	return err == nil && c.CheckSignatureFrom(a.certificate) == nil
}

// Forget removes certificates, so that they are made anew when they are next asked for: hosts/<name>, operator, front-door.
func (k *Keys) Forget(files ...string) error {
	for _, file := range files {
		if err := k.Remove(file+".pem", file+"-key.pem"); err != nil {
			return fmt.Errorf("forget the certificate of %s: %w", file, err)
		}
	}
	return nil
}

// ClientTLS is how the operator's own programs talk to a server of the cluster that bears this name.
func (k *Keys) ClientTLS(serverName string) (*tls.Config, error) {
	ca, err := k.Authority()
	if err != nil {
		return nil, err
	}
	pair, err := k.Operator()
	if err != nil {
		return nil, err
	}
	certificate, err := tls.X509KeyPair(pair.Certificate, pair.Key)
	if err != nil {
		return nil, fmt.Errorf("the operator's certificate: %w", err)
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(ca)
	return &tls.Config{RootCAs: pool, Certificates: []tls.Certificate{certificate}, ServerName: serverName, MinVersion: tls.VersionTLS12}, nil
}

func serial() *big.Int {
	b := make([]byte, 16)
	rand.Read(b)
	b[0] &= 0x7f
	return new(big.Int).SetBytes(b)
}

func parseCertificate(text []byte) (*x509.Certificate, error) {
	block, _ := pem.Decode(text)
	if block == nil {
		return nil, errors.New("it holds no PEM")
	}
	return x509.ParseCertificate(block.Bytes)
}

func encodeKey(key *ecdsa.PrivateKey) ([]byte, error) {
	der, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		return nil, fmt.Errorf("encode a key: %w", err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: der}), nil
}
