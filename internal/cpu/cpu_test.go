package cpu

import "testing"

func TestParse(t *testing.T) {
	for _, c := range []struct {
		name    string
		highest Level
		want    Level
		err     string
	}{
		{"", LevelAVX512, LevelAVX512, ""},
		{"", LevelGeneric, LevelGeneric, ""},
		{"generic", LevelAVX512, LevelGeneric, ""},
		{"avx2", LevelAVX512, LevelAVX2, ""},
		{"avx2", LevelAVX2, LevelAVX2, ""},
		{"avx512", LevelAVX512, LevelAVX512, ""},
		{"avx512", LevelAVX2, LevelAVX2, "CREPE_CPU=avx512: this processor or build has avx2 at most"},
		{"avx2", LevelGeneric, LevelGeneric, "CREPE_CPU=avx2: this processor or build has generic at most"},
		{"AVX2", LevelAVX512, LevelAVX512, `CREPE_CPU="AVX2": want generic, avx2, avx512`},
		{"sse", LevelAVX2, LevelAVX2, `CREPE_CPU="sse": want generic, avx2, avx512`},
	} {
		got, err := parse(c.name, c.highest)
		msg := ""
		if err != nil {
			msg = err.Error()
		}
		if got != c.want || msg != c.err {
			t.Errorf("parse(%q, %v) = %v, %q, want %v, %q", c.name, c.highest, got, msg, c.want, c.err)
		}
	}
}

func TestUseSwitchesAndRestores(t *testing.T) {
	was := Current()
	bf16 := AVX512BF16
	for _, l := range Levels() {
		restore := Use(l)
		if Current() != l || AVX2 != (l >= LevelAVX2) || AVX512 != (l >= LevelAVX512) {
			t.Errorf("Use(%v): Current %v, AVX2 %v, AVX512 %v", l, Current(), AVX2, AVX512)
		}
		if AVX512BF16 && !AVX512 {
			t.Errorf("Use(%v): AVX512BF16 without AVX512", l)
		}
		restore()
		if Current() != was || AVX512BF16 != bf16 {
			t.Errorf("after Use(%v) and restore: %v, bf16 %v, want %v, %v", l, Current(), AVX512BF16, was, bf16)
		}
	}
}

func TestUseRefusesWhatIsNotThere(t *testing.T) {
	defer func() {
		if recover() == nil {
			t.Error("Use of an unknown level did not panic")
		}
	}()
	Use(LevelAVX512 + 1)
}
