// Package enginetest holds any engine against the reference: one table of
// operations and shapes, with bounds that are derived. It has what tests need
// to hand an engine matrices, too.
package enginetest

import (
	"github.com/crepe-llm/crepe/engine"
	"github.com/crepe-llm/crepe/stats"
	"github.com/crepe-llm/crepe/tensor"
)

// Upload returns x in memory of e.
func Upload(e engine.Engine, x tensor.Matrix) engine.Mat {
	y := e.NewMat(x.Rows, x.Cols)
	e.Upload(y, x)
	return y
}

// Download returns x as a matrix.
func Download(e engine.Engine, x engine.Mat) tensor.Matrix {
	y := tensor.NewMatrix(x.Rows, x.Cols)
	e.Download(y, x)
	return y
}

// Stats returns the statistic of one sequence x.
func Stats(e engine.Engine, x tensor.Matrix, needs stats.Needs) *stats.Input {
	s := e.NewStats(x.Cols, needs)
	s.Add(Upload(e, x))
	return s.Input(1)
}
