package corpus

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"sync"

	"github.com/crepe-llm/crepe/internal/pyjson"
	"github.com/crepe-llm/crepe/internal/regular"
)

const utf8BOM = "\xef\xbb\xbf"

// readText reads a text file.
func readText(path string) (string, error) {
	data, err := regular.Read(path, MaxText)
	if err != nil {
		return "", err
	}
	return plainText(path, data)
}

// standardInput reads standard input as a text, once: a model and its dense one
// are measured on the same.
var standardInput = sync.OnceValues(func() (string, error) {
	const name = "standard input"
	data, err := io.ReadAll(io.LimitReader(os.Stdin, MaxText+1))
	if err == nil && len(data) > MaxText {
		err = fmt.Errorf("more than %d bytes", MaxText)
	}
	if err != nil {
		return "", fmt.Errorf("%s: %w", name, err)
	}
	return plainText(name, data)
})

// plainText returns the text that data is: UTF-8, its byte order mark left out
// and CRLF made LF, otherwise as it is.
func plainText(name string, data []byte) (string, error) {
	if err := pyjson.CheckUTF8(data); err != nil {
		return "", fmt.Errorf("%s: %w", name, err)
	}
	data = bytes.TrimPrefix(data, []byte(utf8BOM))
	if len(data) == 0 {
		return "", fmt.Errorf("%s: empty", name)
	}
	if crlf := []byte("\r\n"); bytes.Contains(data, crlf) {
		data = bytes.ReplaceAll(data, crlf, []byte("\n"))
	}
	return string(data), nil
}
