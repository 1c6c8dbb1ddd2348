package prune

import "github.com/crepe-llm/crepe/provenance"

// provenance is all that the output depends on; hashes are the inputs'.
func (r *runner) provenance(hashes map[string]string) (provenance.Record, error) {
	rec, err := provenance.New(r.m.Engine().ID())
	if err != nil {
		return nil, err
	}
	used, err := r.plan.used(r.opt).Provenance()
	if err != nil {
		return nil, err
	}
	rec = append(append(rec, provenance.Hashes("input", hashes)...), used...)
	if r.plan.resolved.Method.NeedsData {
		rec = append(rec, provenance.Field{Name: "windows calibration", Value: r.opt.Calibration.SHA256()})
	}
	if e := r.opt.Evaluation; e != nil {
		rec = append(rec, provenance.Field{Name: "windows evaluation", Value: e.SHA256()})
	}
	return rec, nil
}
