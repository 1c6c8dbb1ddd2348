package pgtest

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

// TLS lets the server speak TLS until the test ends, and returns the file with the
// certificate, for 127.0.0.1, that its clients have to trust.
func (s *Server) TLS(t testing.TB) (root string) {
	t.Helper()
	cert, key := certificate(t)
	for name, text := range map[string][]byte{"server.crt": cert, "server.key": key} {
		path := filepath.Join(s.data, name)
		if err := os.WriteFile(path, text, 0o600); err != nil {
			t.Fatal(err)
		}
		if len(s.as) > 0 { // of the server's user, else it refuses the key
			if err := os.Chown(path, s.uid, s.gid); err != nil {
				t.Fatal(err)
			}
		}
	}
	root = filepath.Join(t.TempDir(), "root.crt")
	if err := os.WriteFile(root, cert, 0o666); err != nil {
		t.Fatal(err)
	}
	s.setTLS(t, true)
	t.Cleanup(func() { s.setTLS(t, false) })
	return root
}

// setTLS has the server speak TLS or not.
func (s *Server) setTLS(t testing.TB, on bool) {
	t.Helper()
	ctx := context.WithoutCancel(t.Context()) // a cleanup's has ended
	c, err := pgx.Connect(ctx, s.URL(s.Host, "postgres"))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close(ctx)
	for _, q := range []string{fmt.Sprintf("ALTER SYSTEM SET ssl = %t", on), "SELECT pg_reload_conf()"} {
		if _, err := c.Exec(ctx, q); err != nil {
			t.Fatal(err)
		}
	}
	for range 100 { // it reads them in its own time, connections that begin then have them
		var now bool
		if err := c.QueryRow(ctx, "SELECT setting = 'on' FROM pg_settings WHERE name = 'ssl'").Scan(&now); err != nil {
			t.Fatal(err)
		}
		if now == on {
			return
		}
		time.Sleep(20 * time.Millisecond)
	}
	t.Fatal("the server does not read its new settings")
}

// Certificate returns a certificate for 127.0.0.1 that no server has, in PEM.
func Certificate(t testing.TB) []byte {
	t.Helper()
	cert, _ := certificate(t)
	return cert
}

// certificate returns a certificate that signs itself, and its key, in PEM.
func certificate(t testing.TB) (cert, key []byte) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "crepe test"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &private.PublicKey, private)
	if err != nil {
		t.Fatal(err)
	}
	secret, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: secret})
}
