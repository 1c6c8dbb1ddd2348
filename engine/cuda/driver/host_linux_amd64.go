package driver

import _ "embed"

//go:embed host/host_amd64
var hostProgram []byte
