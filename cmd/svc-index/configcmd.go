package main

import (
	"fmt"
	"os"

	"github.com/spf13/cobra"

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
	f.StringVar(&s.profile, "profile", "", "deployment `profile`: dev (micronode and macronode come in a later version)")
	f.StringVar(&s.file, "config", "", "configuration `FILE` in TOML")
	f.StringVar(&s.listen, "listen", "", "public `address`; port 0 lets the system choose")
	f.StringVar(&s.admin, "admin", "", "admin `address`")
	f.StringVar(&s.data, "data", "", "data `directory`")
	f.StringArrayVar(&s.set, "set", nil, "any `key=value` of the configuration; may be repeated")
}

// load reads the configuration and does its sums.
func (s *settings) load() (config.Config, error) {
	set := make([]string, 0, len(s.set)+3)
	for _, named := range []struct{ key, value string }{
		{"listen", s.listen}, {"admin", s.admin}, {"data_dir", s.data},
	} {
		if named.value != "" {
			set = append(set, named.key+"="+named.value)
		}
	}
	cfg, err := config.Load(config.Input{
		Profile: s.profile, File: s.file, Env: os.Environ(), Set: append(set, s.set...),
	})
	if err != nil {
		return cfg, exitError{exitUsage, err}
	}
	if err := cfg.Check(); err != nil {
		return cfg, exitError{exitUsage, err}
	}
	return cfg, nil
}

func configCmd() *cobra.Command {
	var s settings
	show := &cobra.Command{
		Use:   "print",
		Short: "Print the configuration that serve would run with, as TOML",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := s.load()
			if err != nil {
				return err
			}
			return cfg.Print(cmd.OutOrStdout())
		},
	}
	check := &cobra.Command{
		Use:   "check",
		Short: "Say whether serve would start with this configuration, and if not, why",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if _, err := s.load(); err != nil {
				return err
			}
			_, err := fmt.Fprintln(cmd.OutOrStdout(), "the configuration is sound")
			return err
		},
	}
	s.flags(show)
	s.flags(check)
	return group("config", "Print or check the configuration", strict(show), strict(check))
}
