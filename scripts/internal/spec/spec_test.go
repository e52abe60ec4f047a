package spec

import (
	"strings"
	"testing"
)

func good() Cluster {
	return Cluster{
		Name: "lab",
		Hosts: []Host{
			{Name: "s1", Address: "198.51.100.1", PrivateAddress: "10.0.0.1", Roles: []string{Server, Data}},
			{Name: "w1", Address: "198.51.100.2", PrivateAddress: "10.0.0.2", Roles: []string{Worker, FrontDoor}},
		},
		SSH:             SSH{User: "root"},
		AllowedNetworks: []string{"203.0.113.0/24"},
		FrontDoor:       Door{Port: 8080, Networks: []string{"0.0.0.0/0"}},
		OnDestroy:       "keep",
	}
}

func TestCheckSaysEverythingThatIsWrong(t *testing.T) {
	if err := good().Check(); err != nil {
		t.Fatalf("a good cluster is refused: %v", err)
	}
	for want, spoil := range map[string]func(*Cluster){
		`name "Lab"`:                        func(c *Cluster) { c.Name = "Lab" },
		"2 hosts have role server":          func(c *Cluster) { c.Hosts[1].Roles = append(c.Hosts[1].Roles, Server) },
		"0 hosts have role data":            func(c *Cluster) { c.Hosts[0].Roles = []string{Server} },
		"no host has role worker":           func(c *Cluster) { c.Hosts[1].Roles = []string{FrontDoor} },
		`role "king"`:                       func(c *Cluster) { c.Hosts[1].Roles = []string{Worker, FrontDoor, "king"} },
		"hosts s1 and s1 have the same":     func(c *Cluster) { c.Hosts[1].Name = "s1" },
		"have the same private_address":     func(c *Cluster) { c.Hosts[1].PrivateAddress = "10.0.0.1" },
		`private_address "127.0.0.1"`:       func(c *Cluster) { c.Hosts[0].PrivateAddress = "127.0.0.1" },
		`address "-oProxyCommand=x"`:        func(c *Cluster) { c.Hosts[0].Address = "-oProxyCommand=x" },
		"allowed_networks: the networks":    func(c *Cluster) { c.AllowedNetworks = nil },
		`"203.0.113.7" is no network`:       func(c *Cluster) { c.AllowedNetworks = []string{"203.0.113.7"} },
		`front_door.networks: "everybody"`:  func(c *Cluster) { c.FrontDoor.Networks = []string{"everybody"} },
		"front_door.port 0":                 func(c *Cluster) { c.FrontDoor.Port = 0 },
		`on_destroy "": keep or erase`:      func(c *Cluster) { c.OnDestroy = "" },
		`jump "-x"`:                         func(c *Cluster) { c.Hosts[0].Jump = "-x" },
		"host w1: roles: one or more":       func(c *Cluster) { c.Hosts[1].Roles = nil },
		`host "W_1"`:                        func(c *Cluster) { c.Hosts[1].Name = "W_1" },
		"hosts: at least one":               func(c *Cluster) { c.Hosts = nil },
		"host s1: port 70000: 1 to 65535":   func(c *Cluster) { c.Hosts[0].Port = 70000 },
		`private_address "not an address"`:  func(c *Cluster) { c.Hosts[0].PrivateAddress = "not an address" },
		`allowed_networks: "203.0.113.0/64`: func(c *Cluster) { c.AllowedNetworks = []string{"203.0.113.0/64"} },
	} {
		c := good()
		spoil(&c)
		if err := c.Check(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("wanted %q, got %v", want, err)
		}
	}
}
