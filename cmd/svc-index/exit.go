package main

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"
)

// What the process tells its caller when it ends.
const (
	exitOK       = 0
	exitFailed   = 1
	exitUsage    = 2 // the command line makes no sense
	exitInvalid  = 3 // a measurement that proves nothing
	exitNotFound = 4 // proven absent
)

// An exitError is an error that knows its exit code.
type exitError struct {
	code int
	err  error
}

func (e exitError) Error() string { return e.err.Error() }
func (e exitError) Unwrap() error { return e.err }

// exitCode returns the code for how a command ended.
func exitCode(err error) int {
	if err == nil {
		return exitOK
	}
	if e, ok := errors.AsType[exitError](err); ok {
		return e.code
	}
	return exitFailed
}

// usagef returns an error about the command line.
func usagef(format string, args ...any) error {
	return exitError{exitUsage, fmt.Errorf(format, args...)}
}

// oneArg wants exactly one argument, and calls it what when it is not there.
func oneArg(what string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) != 1 {
			return usagef("%s wants one %s, not %d arguments; see %s --help",
				cmd.Name(), what, len(args), cmd.CommandPath())
		}
		return nil
	}
}

// strict makes a command's mistyped flags usage errors.
func strict(cmd *cobra.Command) *cobra.Command {
	cmd.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return usagef("%w; see %s --help", err, cmd.CommandPath())
	})
	return cmd
}

// group makes a command that only holds others: a word it does not know is an
// error of usage.
func group(use, short string, under ...*cobra.Command) *cobra.Command {
	cmd := &cobra.Command{Use: use, Short: short}
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if len(args) > 0 {
			return usagef("there is no command %q; see %s --help", args[0], cmd.CommandPath())
		}
		return cmd.Help()
	}
	cmd.Args = cobra.ArbitraryArgs
	cmd.AddCommand(under...)
	return strict(cmd)
}
