package prune_test

import (
	"os"
	"testing"

	"github.com/crepe-llm/crepe/internal/fsys"
)

func TestMain(m *testing.M) {
	fsys.WithoutSync()
	os.Exit(m.Run())
}
