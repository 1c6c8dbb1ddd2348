package main

import (
	"github.com/spf13/cobra"

	"github.com/crepe-llm/crepe/session"
)

var (
	sourceNames  = []string{"demo", "wikitext2", "c4"} // or a file
	computeNames = []string{"f32", "bf16", "auto"}
)

// complete tells the shell what flags and MODEL take beside files.
func complete(c *cobra.Command, flags map[string][]string) {
	for name, values := range flags {
		if err := c.RegisterFlagCompletionFunc(name, cobra.FixedCompletions(values, cobra.ShellCompDirectiveDefault)); err != nil {
			panic(err) // a flag that was not declared
		}
	}
	c.ValidArgsFunction = func(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
		if len(args) > 0 {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		return []string{session.Demo}, cobra.ShellCompDirectiveDefault
	}
}
