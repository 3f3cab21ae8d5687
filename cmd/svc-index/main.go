// Command svc-index maps names and content ids to manifests and provider sets.
// It is the roof of the house: the only place that knows every room.
package main

import (
	"fmt"
	"os"

	"github.com/spf13/cobra"
)

func main() { os.Exit(execute(os.Args[1:])) }

// execute runs one command line and returns the exit code.
func execute(args []string) int {
	root := rootCmd()
	root.SetArgs(args)
	err := root.Execute()
	if err != nil {
		fmt.Fprintln(os.Stderr, "svc-index:", printableLines(err.Error()))
	}
	return exitCode(err)
}

func rootCmd() *cobra.Command {
	root := &cobra.Command{
		Use:           "svc-index",
		Short:         "Names and content ids -> manifests -> providers, for very many clients at once",
		SilenceErrors: true,
		SilenceUsage:  true,
	}
	// cobra calls a word it does not know an error like any other.
	root.Args = func(_ *cobra.Command, args []string) error {
		if len(args) > 0 {
			return usagef("there is no command %q; see svc-index --help", args[0])
		}
		return nil
	}
	root.RunE = func(cmd *cobra.Command, _ []string) error { return cmd.Help() }
	root.AddCommand(
		serveCmd(), publishCmd(), resolveCmd(), providersCmd(), manifestCmd(), explainCmd(),
		loadgenCmd(), profileCmd(), keyCmd(), devnetCmd(), configCmd(), dbCmd(), tokenCmd(), auditCmd(), versionCmd(),
	)
	return strict(root)
}
