package nodes

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"syscall"
	"time"
)

// HTTPOptions say which addresses may be called: by http.request, and by whatever else connects for a flow.
type HTTPOptions struct {
	DenyPrivate  bool // refuse 10/8, 172.16/12, 192.168/16, 100.64/10, fc00::/7
	DenyLoopback bool // refuse 127/8 and ::1: for hosts that run the platform's own servers too
}

var (
	sharedSpace = netip.MustParsePrefix("100.64.0.0/10")
	// Never, whatever is allowed: they are the machine's cloud, not anybody's service.
	metadata = []netip.Addr{
		netip.MustParseAddr("169.254.169.254"), netip.MustParseAddr("169.254.170.2"), netip.MustParseAddr("100.100.100.200"), netip.MustParseAddr("192.0.0.192"),
		netip.MustParseAddr("168.63.129.16"), netip.MustParseAddr("fd00:ec2::254"), netip.MustParseAddr("fd20:ce::254"),
	}
	thisNetwork = netip.MustParsePrefix("0.0.0.0/8")
	reserved    = netip.MustParsePrefix("240.0.0.0/4")
	nat64       = []netip.Prefix{netip.MustParsePrefix("64:ff9b::/96"), netip.MustParsePrefix("64:ff9b:1::/48")}
	sixToFour   = netip.MustParsePrefix("2002::/16")
	teredo      = netip.MustParsePrefix("2001::/32")
	compatible  = netip.MustParsePrefix("::/96")
)

// refusal says why a connection to the address may not be made; "" is allowed. It is asked for the very address that is dialled, after every
// redirect and every look-up, so that no spelling and no answer of a name server gets around it.
func (o HTTPOptions) refusal(a netip.Addr) string {
	a = a.WithZone("").Unmap()
	if inner, ok := embedded(a); ok {
		if why := o.refusal(inner); why != "" {
			return why
		}
	}
	for _, m := range metadata {
		if a == m {
			return "it is a cloud's metadata service"
		}
	}
	switch {
	case a.IsUnspecified() || thisNetwork.Contains(a):
		return "it is no host's address"
	case a.IsLinkLocalUnicast() || a.IsLinkLocalMulticast() || a.IsInterfaceLocalMulticast():
		return "it is link-local"
	case a.IsMulticast() || reserved.Contains(a):
		return "it is no single host's address"
	case a.IsLoopback() && o.DenyLoopback:
		return "it is this machine, and HTTP_DENY_LOOPBACK is set"
	case (a.IsPrivate() || sharedSpace.Contains(a)) && o.DenyPrivate:
		return "it is in a private network, and HTTP_DENY_PRIVATE is set"
	}
	return ""
}

// embedded gives the IPv4 address that an IPv6 address of a transition mechanism leads to.
func embedded(a netip.Addr) (netip.Addr, bool) {
	if !a.Is6() {
		return a, false
	}
	b := a.As16()
	last := netip.AddrFrom4([4]byte(b[12:16]))
	switch {
	case nat64[0].Contains(a), nat64[1].Contains(a):
		return last, true
	case sixToFour.Contains(a):
		return netip.AddrFrom4([4]byte(b[2:6])), true
	case teredo.Contains(a):
		return netip.AddrFrom4([4]byte{^b[12], ^b[13], ^b[14], ^b[15]}), true
	case compatible.Contains(a) && !a.IsLoopback() && !a.IsUnspecified():
		return last, true
	}
	return a, false
}

type resolver interface {
	LookupNetIP(ctx context.Context, network, host string) ([]netip.Addr, error)
}

// refused is the error of a connection that may not be made.
type refused struct{ host, why string }

func (r *refused) Error() string { return fmt.Sprintf("%s may not be called: %s", r.host, r.why) }

// Refused tells whether an error says that a connection may not be made, and why.
func Refused(err error) (why string, ok bool) {
	var r *refused
	if errors.As(err, &r) {
		return r.Error(), true
	}
	return "", false
}

// DialContext connects as net.Dialer does, by TCP and to addresses that may be called only. Every client that connects for a flow dials with it. A Refused error
// says that it may not.
func (o HTTPOptions) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	return o.dialer(net.DefaultResolver)(ctx, network, address)
}

func (o HTTPOptions) dialer(names resolver) func(ctx context.Context, network, address string) (net.Conn, error) {
	// Control sees the address that the kernel is about to connect to: nothing can change between this look and the connection.
	dialer := &net.Dialer{Timeout: 10 * time.Second, KeepAlive: 30 * time.Second, Control: func(_, address string, _ syscall.RawConn) error {
		ap, err := netip.ParseAddrPort(address)
		if err != nil {
			return &refused{address, "its address can't be read"}
		}
		if why := o.refusal(ap.Addr()); why != "" {
			return &refused{ap.Addr().String(), why}
		}
		return nil
	}}
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		switch network {
		case "tcp", "tcp4", "tcp6":
		default:
			return nil, &refused{address, "it is not reached by TCP but by " + network}
		}
		host, port, err := net.SplitHostPort(address)
		if err != nil {
			return nil, err
		}
		addrs, err := names.LookupNetIP(ctx, "ip", host)
		if err != nil {
			return nil, err
		}
		for _, a := range addrs { // one bad address is enough: an attacker who owns the name could win the race for it
			if why := o.refusal(a); why != "" {
				return nil, &refused{host, why}
			}
		}
		var last error
		for _, a := range addrs {
			c, err := dialer.DialContext(ctx, network, net.JoinHostPort(a.String(), port))
			if err == nil {
				return c, nil
			}
			last = err
		}
		if last == nil {
			last = fmt.Errorf("%s has no address", host)
		}
		return nil, last
	}
}
