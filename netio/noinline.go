//go:build !rig

package netio

import "github.com/panjf2000/gnet/v2"

// events returns who hears of gnet's events.
func (s *Server) events() gnet.EventHandler { return s }
