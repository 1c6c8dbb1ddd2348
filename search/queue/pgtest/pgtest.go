// Package pgtest starts a PostgreSQL for tests, in a temporary folder and on a
// loopback port, where one is installed.
package pgtest

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// Server is a running PostgreSQL.
type Server struct {
	Host string // 127.0.0.1:PORT

	bin, data, log string
	port           int
	as             []string // before a command: runs it as a user who is not root
	uid, gid       int      // of that user
}

// Password is the one of the user crepe, as whom to connect.
const Password = "p@ss/w:rd"

var (
	once   sync.Once
	shared *Server
	broken error
)

// Start returns the server that all tests of a process share, started by the first;
// Main stops it. Without PostgreSQL the test is skipped, and says why.
func Start(t testing.TB) *Server {
	t.Helper()
	once.Do(func() { shared, broken = start() })
	if errors.Is(broken, errNone) {
		t.Skip(broken)
	}
	if broken != nil {
		t.Fatal(broken)
	}
	return shared
}

// Main is m.Run with the server stopped afterwards.
func Main(m *testing.M) int {
	defer func() {
		if shared != nil {
			shared.Stop("immediate")
			os.RemoveAll(filepath.Dir(shared.data))
		}
	}()
	return m.Run()
}

var errNone = errors.New("no PostgreSQL here")

// folder is where a distribution keeps what is not on PATH.
func folder() (string, error) {
	if path, err := exec.LookPath("initdb"); err == nil {
		if path, err = filepath.EvalSymlinks(path); err == nil {
			return filepath.Dir(path), nil
		}
	}
	found, _ := filepath.Glob("/usr/lib/postgresql/*/bin/initdb")
	if len(found) == 0 {
		return "", fmt.Errorf("%w: initdb is neither on PATH nor below /usr/lib/postgresql", errNone)
	}
	return filepath.Dir(slices.Max(found)), nil
}

func start() (*Server, error) {
	if runtime.GOOS == "windows" {
		return nil, fmt.Errorf("%w: not tried on Windows", errNone)
	}
	bin, err := folder()
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "crepe-pg")
	if err != nil {
		return nil, err
	}
	s := &Server{bin: bin, data: filepath.Join(dir, "data"), log: filepath.Join(dir, "log")}
	if os.Getuid() == 0 { // PostgreSQL refuses to run as root
		u, err := user.Lookup("postgres")
		if err != nil {
			return nil, fmt.Errorf("%w: this is root, as whom it does not run, and there is no user postgres", errNone)
		}
		setpriv, err := exec.LookPath("setpriv")
		if err != nil {
			return nil, fmt.Errorf("%w: this is root, as whom it does not run, and there is no setpriv", errNone)
		}
		s.as = []string{setpriv, "--reuid", u.Uid, "--regid", u.Gid, "--clear-groups"}
		s.uid, _ = strconv.Atoi(u.Uid)
		s.gid, _ = strconv.Atoi(u.Gid)
		if err := os.Chown(dir, s.uid, s.gid); err != nil {
			return nil, err
		}
	}
	secret := filepath.Join(dir, "password")
	if err := os.WriteFile(secret, []byte(Password), 0o644); err != nil {
		return nil, err
	}
	if err := s.command("initdb", "-D", s.data, "-U", "crepe", "-A", "scram-sha-256", "--pwfile", secret, "-E", "UTF8", "--locale", "C"); err != nil {
		return nil, err
	}
	if s.port, err = freePort(); err != nil {
		return nil, err
	}
	s.Host = fmt.Sprintf("127.0.0.1:%d", s.port)
	// Nothing here has to survive the machine; what is tested is that it survives us.
	settings := fmt.Sprintf("listen_addresses = '127.0.0.1'\nport = %d\nunix_socket_directories = ''\nmax_connections = 300\nfsync = off\n", s.port)
	f, err := os.OpenFile(filepath.Join(s.data, "postgresql.conf"), os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		return nil, err
	}
	_, err = f.WriteString(settings)
	if err := errors.Join(err, f.Close()); err != nil {
		return nil, err
	}
	return s, s.Up()
}

func (s *Server) command(name string, args ...string) error {
	all := append(slices.Clone(s.as), filepath.Join(s.bin, name))
	all = append(all, args...)
	c := exec.Command(all[0], all[1:]...)
	c.Dir = filepath.Dir(s.data)
	log, err := os.CreateTemp("", "crepe-pg")
	if err != nil {
		return err
	}
	defer os.Remove(log.Name())
	defer log.Close()
	c.Stdout, c.Stderr = log, log // a file: the server keeps it open
	if err := c.Run(); err != nil {
		text, _ := os.ReadFile(log.Name())
		return fmt.Errorf("%s: %w\n%s", name, err, text)
	}
	return nil
}

// Up starts the server, and waits until it answers.
func (s *Server) Up() error {
	return s.command("pg_ctl", "-D", s.data, "-l", s.log, "-w", "-t", "60", "start")
}

// Stop stops the server in one of pg_ctl's modes: fast, immediate.
func (s *Server) Stop(mode string) error {
	return s.command("pg_ctl", "-D", s.data, "-m", mode, "-w", "stop")
}

// Database makes an empty database and returns its URL.
func (s *Server) Database(t testing.TB) string {
	t.Helper()
	name := fmt.Sprintf("d%d", time.Now().UnixNano())
	c := exec.Command(filepath.Join(s.bin, "createdb"), "-h", "127.0.0.1", "-p", strconv.Itoa(s.port), "-U", "crepe", name)
	c.Env = append(os.Environ(), "PGPASSWORD="+Password)
	if out, err := c.CombinedOutput(); err != nil {
		t.Fatalf("createdb: %v\n%s", err, out)
	}
	return s.URL(s.Host, name)
}

// URL is that of a database at a host, which may be a proxy's.
func (s *Server) URL(host, database string) string {
	return "postgres://crepe:" + strings.NewReplacer("@", "%40", "/", "%2F", ":", "%3A").Replace(Password) + "@" + host + "/" + database
}

func freePort() (int, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port, nil
}
