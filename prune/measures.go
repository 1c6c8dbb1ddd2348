package prune

import (
	"fmt"
	"path/filepath"

	"github.com/crepe-llm/crepe/checkpoint"
	"github.com/crepe-llm/crepe/internal/regular"
)

// MeasuresName is the file beside the manifest with what a run measured of each
// Linear while it pruned it.
const MeasuresName = checkpoint.MeasuresName

// MeasuresVersion is that of the form that this program writes, and the newest that
// it reads.
const MeasuresVersion = 1

// Measures is the content of crepe-measures.json. Like the manifest it holds nothing
// that differs between two runs of the same program, engine, inputs and recipe.
type Measures struct {
	Version    int             `json:"version"`
	Provenance string          `json:"provenance"` // the manifest's
	Linears    []LinearMeasure `json:"linears"`    // those that were pruned, in the manifest's order
}

// LinearMeasure is what was measured of one Linear.
type LinearMeasure struct {
	Name string `json:"name"`

	// Output is nil where no calibration text passed the Linear.
	Output *OutputError `json:"output,omitempty"`

	// EnergyLost is, of the weights W before the run,
	//
	//	Σ_pruned W_ij²·‖X_j‖² / Σ W_ij²·‖X_j‖²
	//
	// the share of the output's energy that the pruned weights gave, were the
	// input's channels uncorrelated. ‖X_j‖ is 1 where nothing was calibrated. nil if
	// the sum is not a positive number.
	EnergyLost *float64 `json:"energy_lost,omitempty"`

	// Scores has an element for each matrix that was scored by itself: one, or one a
	// part of a fused Linear that was split. There is none if an update selected, or
	// if the masks were made before the run.
	Scores []Scores `json:"scores,omitempty"`
}

// OutputError is how far the pruned Linear's output is from the dense one's, for the
// same input X, which is the one that its statistics are of:
//
//	‖X·W'ᵀ − X·Wᵀ‖_F / ‖X·Wᵀ‖_F
//
// over a sample of the calibration tokens, spread evenly over all sequences.
type OutputError struct {
	Relative float64 `json:"relative"`
	Tokens   int     `json:"tokens"` // that were sampled
}

// Scores is how the scores of a matrix are spread.
type Scores struct {
	Part string `json:"part,omitempty"` // of a fused Linear

	// Edges are those of the bins, at most MaxBins: bin i holds scores from Edges[i]
	// to below Edges[i+1]. The first holds also those below it, a thousandth of all
	// at most unless more are equal. A bin's width in proportion to its score is
	// nearly that of all others.
	Edges  []float32 `json:"edges"`
	Kept   []int     `json:"kept"`   // by bin: weights that the mask keeps
	Pruned []int     `json:"pruned"` // and prunes

	Threshold *Threshold `json:"threshold,omitempty"` // nil for N:M, which has one for every M weights

	// Lorenz is the Lorenz curve of the pruned scores: the share of all pruned
	// scores' sum that the lowest share of them has, pairs of (share of the weights,
	// share of the sum) from (0, 0) to (1, 1), to six decimals. nil if the sum is 0.
	Lorenz [][2]float64 `json:"lorenz,omitempty"`

	// Gini is 1 less twice the area below the curve, of bins of 1/128 of an octave:
	// at most 0.004 below the coefficient itself, and usually less than 0.0001.
	Gini float64 `json:"gini"`
}

// MaxBins is the most bins that a histogram of scores has.
const MaxBins = 64

// Threshold is the highest score that was pruned, before any refinement.
type Threshold struct {
	Group  string  `json:"group"` // that has one: "matrix", or "row", of which these are the quantiles
	Low    float32 `json:"low"`
	Median float32 `json:"median"`
	High   float32 `json:"high"`
}

// ReadMeasures returns the measures of an output folder; of one that has none it is
// fs.ErrNotExist.
func ReadMeasures(dir string) (*Measures, error) {
	path := filepath.Join(dir, MeasuresName)
	text, err := regular.Read(path, checkpoint.MaxManifest)
	if err != nil {
		return nil, err
	}
	m, err := parseMeasures(text)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return m, nil
}

// parseMeasures reads what a run has written, and refuses what none can have.
func parseMeasures(text []byte) (*Measures, error) {
	var m Measures
	if err := parse(text, &m); err != nil {
		return nil, err
	}
	if m.Version < 1 || m.Version > MeasuresVersion {
		return nil, fmt.Errorf("version %d, want 1 to %d", m.Version, MeasuresVersion)
	}
	for _, l := range m.Linears {
		for _, s := range l.Scores {
			if err := s.check(); err != nil {
				return nil, fmt.Errorf("scores of %s: %w", l.Name, err)
			}
		}
	}
	return &m, nil
}

func (s *Scores) check() error {
	n := len(s.Kept)
	if n < 1 || n > MaxBins || len(s.Pruned) != n || len(s.Edges) != n+1 {
		return fmt.Errorf("%d and %d counts between %d edges, want as many counts, 1 to %d, and an edge more", n, len(s.Pruned), len(s.Edges), MaxBins)
	}
	for i := range n {
		if !(s.Edges[i] < s.Edges[i+1]) || s.Kept[i] < 0 || s.Pruned[i] < 0 {
			return fmt.Errorf("bin %d from %v to %v with %d kept and %d pruned, want edges that grow and counts", i, s.Edges[i], s.Edges[i+1], s.Kept[i], s.Pruned[i])
		}
	}
	return nil
}
