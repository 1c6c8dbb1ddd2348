package provenance

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"runtime/debug"
	"sync"
)

// Version is crepe's, for people: builds of one version differ.
const Version = "0.1.0"

// Program is a build of crepe, or of a program with crepe in it.
type Program struct {
	Version  string `json:"version"`
	Revision string `json:"revision,omitempty"` // of the source, with "+changes" if it was not as committed; empty if the build does not say
	SHA256   string `json:"sha256"`             // of the executable
}

// String is "0.1.0 (3f2a91c, sha256 12ab…)" with the whole hash.
func (p Program) String() string {
	revision := ""
	if p.Revision != "" {
		revision = p.Revision + ", "
	}
	return fmt.Sprintf("%s (%ssha256 %s)", p.Version, revision, p.SHA256)
}

// Short is String with the hash cut.
func (p Program) Short() string { return shorten(p.String()) }

// This returns the program that runs. Its file is read at the first call.
//
// Where the file cannot be read, SHA256 is that of the build's description
// (toolchain, settings, modules with their hashes, revision), if it tells the
// build from every other: of a revision without changes or a released version.
// Else it is an error: results of builds that differ would be taken for each
// other's.
func This() (Program, error) { return this() }

var this = sync.OnceValues(func() (Program, error) {
	info, _ := debug.ReadBuildInfo()
	return identify(openExecutable, info)
})

// identify is This of the executable that open opens; info may be nil.
func identify(open func() (io.ReadCloser, error), info *debug.BuildInfo) (Program, error) {
	p := Program{Version: Version, Revision: revision(info)}
	h := sha256.New()
	if err := copyExecutable(h, open); err != nil {
		if info == nil || !released(info) {
			return Program{}, fmt.Errorf("this program's own file cannot be read (%w), and its build names no revision: results could not be told from those of other builds", err)
		}
		h.Reset()
		h.Write([]byte(info.String()))
	}
	p.SHA256 = hex.EncodeToString(h.Sum(nil))
	return p, nil
}

func copyExecutable(to io.Writer, open func() (io.ReadCloser, error)) error {
	f, err := open()
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = io.Copy(to, f)
	return err
}

func openExecutable() (io.ReadCloser, error) {
	// Under this name Linux keeps what runs, even if its file was replaced since.
	if f, err := os.Open("/proc/self/exe"); err == nil {
		return f, nil
	}
	path, err := os.Executable()
	if err != nil {
		return nil, err
	}
	return os.Open(path)
}

// shortRevision is how many digits of a revision people read.
const shortRevision = 7

// Revision returns the revision that this program was built from, for people;
// empty if the build does not say.
func Revision() string {
	info, _ := debug.ReadBuildInfo()
	return revision(info)
}

func revision(info *debug.BuildInfo) string {
	v := setting(info, "vcs.revision")
	if len(v) < shortRevision {
		return ""
	}
	if setting(info, "vcs.modified") == "true" {
		return v[:shortRevision] + "+changes"
	}
	return v[:shortRevision]
}

// released reports whether info tells its build from every other.
func released(info *debug.BuildInfo) bool {
	return info.Main.Sum != "" || setting(info, "vcs.revision") != "" && setting(info, "vcs.modified") == "false"
}

func setting(info *debug.BuildInfo, key string) string {
	if info != nil {
		for _, s := range info.Settings {
			if s.Key == key {
				return s.Value
			}
		}
	}
	return ""
}
