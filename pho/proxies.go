package pho

import (
	"errors"

	"github.com/crepe-llm/crepe/mask"
	"github.com/crepe-llm/crepe/pattern"
	"github.com/crepe-llm/crepe/score"
	"github.com/crepe-llm/crepe/stats"
	"github.com/crepe-llm/crepe/tensor"
)

// Proxies are the five of CRePE's Table 2 for one candidate at one Linear. All
// are of its scores; an outlier is a score above 5 times the mean of its set.
type Proxies struct {
	OutliersAll      float64 `json:"outliers_all"` // share of the set
	OutliersRetained float64 `json:"outliers_retained"`
	OutliersPruned   float64 `json:"outliers_pruned"`
	GiniRetained     float64 `json:"gini_retained"`
	GiniPruned       float64 `json:"gini_pruned"`
}

// outlierFactor is Table 2's.
const outlierFactor = 5

// ProxyNames are those of Proxies' fields, as List has them.
var ProxyNames = []string{"outliers_all", "outliers_retained", "outliers_pruned", "gini_retained", "gini_pruned"}

// List returns the proxies in the order of ProxyNames.
func (p Proxies) List() []float64 {
	return []float64{p.OutliersAll, p.OutliersRetained, p.OutliersPruned, p.GiniRetained, p.GiniPruned}
}

// MeasureProxies scores w as pruning does and sorts: seconds for a large matrix,
// against a pruned model's perplexity that each is to be compared with. work is
// for rows·cols scores.
func MeasureProxies(work []float32, w *tensor.Weight, s *stats.Input, t pattern.Target, c Coefficients) (Proxies, error) {
	x := work[:w.Rows*w.Cols]
	if err := score.CRePE.Score(x, w, s, c.params()); err != nil {
		return Proxies{}, err
	}
	kept, err := mask.Select(x, w.Rows, w.Cols, t)
	if err != nil {
		return Proxies{}, err
	}
	var pruned, retained []float32
	for k, v := range x {
		if kept.Kept(k/w.Cols, k%w.Cols) {
			retained = append(retained, v)
		} else {
			pruned = append(pruned, v)
		}
	}
	if len(pruned) == 0 || len(retained) == 0 {
		return Proxies{}, errors.New("the target prunes all or nothing: no scores to compare")
	}
	return Proxies{
		OutliersAll: outliers(x), OutliersRetained: outliers(retained), OutliersPruned: outliers(pruned),
		GiniRetained: Gini(retained), GiniPruned: Gini(pruned),
	}, nil
}

// outliers returns the share of x above outlierFactor times its mean.
func outliers(x []float32) float64 {
	var total sum
	for _, v := range x {
		total.add(float64(v))
	}
	limit := outlierFactor * total.value() / float64(len(x))
	n := 0
	for _, v := range x {
		if float64(v) > limit {
			n++
		}
	}
	return float64(n) / float64(len(x))
}
