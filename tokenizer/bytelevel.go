package tokenizer

import "strings"

// byteRunes gives each byte the printable rune that byte-level vocabularies
// write for it: itself if it is printable Latin-1, else U+0100 and up in order.
//
// openai/gpt-2, src/encoder.py, bytes_to_unicode.
var byteRunes = func() (runes [256]rune) {
	next := rune(0x100)
	for b := range rune(256) {
		switch {
		case '!' <= b && b <= '~', 0xA1 <= b && b <= 0xAC, 0xAE <= b && b <= 0xFF:
			runes[b] = b
		default:
			runes[b] = next
			next++
		}
	}
	return runes
}()

// runeBytes is the inverse of byteRunes.
var runeBytes = func() map[rune]byte {
	m := make(map[rune]byte, 256)
	for b, r := range byteRunes {
		m[r] = byte(b)
	}
	return m
}()

// standIns writes the bytes of s as printable runes.
func standIns(s string) string {
	var b strings.Builder
	b.Grow(2 * len(s))
	for i := range len(s) {
		b.WriteRune(byteRunes[s[i]])
	}
	return b.String()
}

// fromStandIns is the inverse; ok is false if s has a rune that stands for no
// byte.
func fromStandIns(s string) (bytes string, ok bool) {
	b := make([]byte, 0, len(s))
	for _, r := range s {
		c, ok := runeBytes[r]
		if !ok {
			return "", false
		}
		b = append(b, c)
	}
	return string(b), true
}
