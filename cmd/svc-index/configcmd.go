package main

import (
	"errors"
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"svcindex/auth"
	"svcindex/config"
)

// settings are the flags that make up a configuration.
type settings struct {
	profile, file string
	listen, admin string
	data          string
	set           []string
}

func (s *settings) flags(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVar(&s.profile, "profile", "", "deployment `profile`: dev, micronode or macronode")
	f.StringVar(&s.file, "config", "", "configuration `FILE` in TOML")
	f.StringVar(&s.listen, "listen", "", "public `address`; port 0 lets the system choose")
	f.StringVar(&s.admin, "admin", "", "admin `address`")
	f.StringVar(&s.data, "data", "", "data `directory`")
	f.StringArrayVar(&s.set, "set", nil, "any `key=value` of the configuration; may be repeated")
}

// load reads the configuration and does its sums.
func (s *settings) load() (config.Config, error) {
	cfg, _, err := s.read()
	return cfg, err
}

// read is load, and says of each value where it came from.
func (s *settings) read() (config.Config, config.Origins, error) {
	cfg, from, err := config.LoadOrigins(s.input())
	if err == nil {
		err = config.Explain(sound(&cfg), from)
	}
	if err != nil {
		return cfg, from, exitError{exitUsage, err}
	}
	return cfg, from, nil
}

// sound is what config can judge of a configuration, and what only auth can.
func sound(cfg *config.Config) error {
	_, bad := auth.NewTrust(cfg.Trust.Publishers)
	return errors.Join(cfg.Check(), bad)
}

// input is what the flags say, and the environment.
func (s *settings) input() config.Input {
	set := make([]string, 0, len(s.set)+3)
	for _, named := range []struct{ key, value string }{
		{"listen", s.listen}, {"admin", s.admin}, {"data_dir", s.data},
	} {
		if named.value != "" {
			set = append(set, named.key+"="+named.value)
		}
	}
	return config.Input{Profile: s.profile, File: s.file, Env: os.Environ(), Set: append(set, s.set...)}
}

func configCmd() *cobra.Command {
	var s settings
	var origin bool
	show := &cobra.Command{
		Use:   "print",
		Short: "Print the configuration that serve would run with, as TOML",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, from, err := s.read()
			if err != nil {
				return err
			}
			if origin {
				return cfg.PrintOrigins(cmd.OutOrStdout(), from)
			}
			return cfg.Print(cmd.OutOrStdout())
		},
	}
	show.Flags().BoolVar(&origin, "origin", false, "say of each value where it came from")
	check := &cobra.Command{
		Use:   "check",
		Short: "Say whether serve would start with this configuration, and if not, what is wrong and where",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if _, err := s.load(); err != nil {
				return err
			}
			_, err := fmt.Fprintln(cmd.OutOrStdout(), "the configuration is sound")
			return err
		},
	}
	doc := &cobra.Command{
		Use:    "doc",
		Short:  "Write docs/config.md, the page of all keys",
		Hidden: true,
		Args:   cobra.NoArgs,
		RunE:   func(cmd *cobra.Command, _ []string) error { return config.WriteDoc(cmd.OutOrStdout()) },
	}
	s.flags(show)
	s.flags(check)
	return group("config", "Print or check the configuration", strict(show), strict(check), strict(doc))
}
