//go:build !amd64 || purego

package kernel

func floatTile() *tile  { return &genericTile }
func bfloatTile() *tile { return &genericTile }

func storeFence() {}

func dotterFor(Source, bool) *dotter { return &dotsGeneric }

func expRow(s []float32, scale, top float32) float32 { return expRowGeneric(s, scale, top) }
func maxRow(s []float32) float32                     { return maxRowGeneric(s) }
