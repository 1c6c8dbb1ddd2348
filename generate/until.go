package generate

import "strings"

// Until cuts a text that comes in pieces before the first of several strings. What
// may be the beginning of one is held back until it is known.
type Until struct {
	stops []string
	held  string
}

// NewUntil returns an Until for strings, none of which is empty.
func NewUntil(stops []string) *Until { return &Until{stops: stops} }

// Add returns what of the text is sure to be before all strings, and whether one
// of them has come, after which there is nothing more.
func (u *Until) Add(text string) (sure string, stopped bool) {
	u.held += text
	at := -1
	for _, s := range u.stops {
		if i := strings.Index(u.held, s); i >= 0 && (at < 0 || i < at) {
			at = i
		}
	}
	if at < 0 {
		at = len(u.held) - u.open()
	} else {
		stopped = true
	}
	sure, u.held = u.held[:at], u.held[at:]
	if stopped {
		u.held = ""
	}
	return sure, stopped
}

// open returns the length of the longest end of what is held that one of the
// strings begins with.
func (u *Until) open() int {
	longest := 0
	for _, s := range u.stops {
		for n := min(len(s)-1, len(u.held)); n > longest; n-- {
			if strings.HasSuffix(u.held, s[:n]) {
				longest = n
				break
			}
		}
	}
	return longest
}

// Rest returns what was held back, at the end of the text.
func (u *Until) Rest() string {
	rest := u.held
	u.held = ""
	return rest
}
