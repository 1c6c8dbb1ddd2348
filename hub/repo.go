// Package hub reads models and datasets of the Hugging Face hub through the
// ordinary cache on disk, which it shares with Python's huggingface_hub: what
// one has fetched the other finds.
//
//	$HF_HUB_CACHE/models--org--name/      datasets--org--name/ for a dataset
//	    refs/main                         the commit that the revision stood for
//	    blobs/<etag>                      contents; <etag>.incomplete while it is fetched
//	    snapshots/<commit>/<path>         symbolic links into blobs
//	$HF_HUB_CACHE/.locks/models--org--name/<etag>.lock
//
// Environment, as huggingface_hub 2.4 reads it: HF_HOME (default
// ~/.cache/huggingface), HF_HUB_CACHE, else HUGGINGFACE_HUB_CACHE (default
// $HF_HOME/hub), HF_TOKEN, else HUGGING_FACE_HUB_TOKEN, else the file HF_TOKEN_PATH
// (default $HF_HOME/token), HF_ENDPOINT (default https://huggingface.co),
// HF_HUB_OFFLINE, else TRANSFORMERS_OFFLINE.
//
// Token and password are sent to the endpoint's own host only, never over plain
// http after https, and hidden in every message, also where a server sends them
// back. Every file is compared with the size and the checksum that the hub says.
package hub

import (
	"fmt"
	"path/filepath"
	"regexp"
	"strings"
	"unicode"
)

// Kind is the kind of a repository.
type Kind uint8

// The kinds of repository.
const (
	Model Kind = iota
	Dataset
)

// String is "model" or "dataset".
func (k Kind) String() string {
	if k == Dataset {
		return "dataset"
	}
	return "model"
}

// Repo is a repository at a revision.
type Repo struct {
	Kind     Kind
	ID       string // org/name
	Revision string // branch, tag or commit; "" is main
}

var idPart = regexp.MustCompile(`^[A-Za-z0-9_](?:[A-Za-z0-9_.-]*[A-Za-z0-9_])?$`)

// ParseRepo reads "org/name[@revision]" as a model.
func ParseRepo(s string) (Repo, error) {
	id, revision, at := strings.Cut(s, "@")
	if !at {
		revision = "main"
	}
	r := Repo{Model, id, revision}
	if at && revision == "" {
		return Repo{}, fmt.Errorf("hub id %q: nothing after @, want org/name@revision", s)
	}
	return r, r.validate()
}

// validate refuses what would leave the cache's folders or the hub's paths.
func (r Repo) validate() error {
	org, name, ok := strings.Cut(r.ID, "/")
	if !ok || !idPart.MatchString(org) || !idPart.MatchString(name) ||
		strings.Contains(r.ID, "--") || strings.Contains(r.ID, "..") || len(r.ID) > 96 {
		return fmt.Errorf("hub id %q: want org/name[@revision]", r.ID)
	}
	if r.Revision != "" && !safePath(r.Revision) {
		return fmt.Errorf("hub id %s: bad revision %q", r.ID, r.Revision)
	}
	return nil
}

func (r Repo) revision() string {
	if r.Revision == "" {
		return "main"
	}
	return r.Revision
}

// folder is the repository's folder in the cache.
func (r Repo) folder() string {
	return r.Kind.String() + "s--" + strings.ReplaceAll(r.ID, "/", "--")
}

// String is org/name@revision.
func (r Repo) String() string { return r.ID + "@" + r.revision() }

// safePath reports whether p, a slash-separated path out of a server's answer,
// stays inside the folder it is joined to, on every system, and does nothing to a
// terminal that shows it.
func safePath(p string) bool {
	if p == "" || len(p) > 1024 || strings.ContainsAny(p, "\\:") || strings.ContainsFunc(p, func(r rune) bool { return !unicode.IsPrint(r) }) || !filepath.IsLocal(filepath.FromSlash(p)) {
		return false
	}
	for part := range strings.SplitSeq(p, "/") {
		if part == "" || part == "." || part == ".." {
			return false
		}
	}
	return true
}
