package grid

import (
	"os"
	"testing"

	"github.com/crepe-llm/crepe/internal/faults"
	"github.com/crepe-llm/crepe/internal/fsys"
)

func TestMain(m *testing.M) {
	fsys.WithoutSync()
	faults.SQLite()
	raceTokens, raceRuns = 4, 1
	os.Exit(m.Run())
}
