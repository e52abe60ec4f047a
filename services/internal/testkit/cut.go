package testkit

import (
	"io"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// CutProxy is a TCP proxy between a client and a server that breaks connections where a test wants it.
type CutProxy struct {
	target string
	lis    net.Listener

	mu    sync.Mutex
	pairs map[*pair]bool

	dropToClient atomic.Bool
	dropToServer atomic.Bool
	refuse       atomic.Bool
	onServer     atomic.Pointer[func([]byte) bool]
	onClient     atomic.Pointer[func([]byte) bool]
}

type pair struct{ client, server net.Conn }

// NewCutProxy stands before target (host:port).
func NewCutProxy(t testing.TB, target string) *CutProxy {
	t.Helper()
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &CutProxy{target: target, lis: lis, pairs: map[*pair]bool{}}
	go p.accept()
	t.Cleanup(func() {
		lis.Close()
		p.Sever()
	})
	return p
}

// Address is where clients connect.
func (p *CutProxy) Address() string { return p.lis.Addr().String() }

// Sever cuts every connection at once.
func (p *CutProxy) Sever() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for pr := range p.pairs {
		pr.client.Close()
		pr.server.Close()
	}
	clear(p.pairs)
}

// Refuse closes new connections as soon as they are made.
func (p *CutProxy) Refuse(on bool) { p.refuse.Store(on) }

// DropToClient swallows what the server says: its work is done, its answer never comes. DropToServer swallows what the client says.
func (p *CutProxy) DropToClient(on bool) { p.dropToClient.Store(on) }

// DropToServer swallows what the client says.
func (p *CutProxy) DropToServer(on bool) { p.dropToServer.Store(on) }

// OnServer is asked for each piece that the server sends, before it is passed on; false cuts the connection instead. nil: no more.
func (p *CutProxy) OnServer(f func([]byte) bool) { p.onServer.Store(&f) }

// OnClient is asked for each piece that a client sends, before it is passed on; false cuts the connection instead.
func (p *CutProxy) OnClient(f func([]byte) bool) { p.onClient.Store(&f) }

func (p *CutProxy) accept() {
	for {
		c, err := p.lis.Accept()
		if err != nil {
			return
		}
		if p.refuse.Load() {
			c.Close()
			continue
		}
		s, err := net.DialTimeout("tcp", p.target, 2*time.Second)
		if err != nil {
			c.Close()
			continue
		}
		pr := &pair{c, s}
		p.mu.Lock()
		p.pairs[pr] = true
		p.mu.Unlock()
		go p.pass(pr, s, c, &p.dropToServer, &p.onClient)
		go p.pass(pr, c, s, &p.dropToClient, &p.onServer)
	}
}

func (p *CutProxy) pass(pr *pair, dst io.Writer, src io.Reader, drop *atomic.Bool, ask *atomic.Pointer[func([]byte) bool]) {
	defer func() {
		pr.client.Close()
		pr.server.Close()
		p.mu.Lock()
		delete(p.pairs, pr)
		p.mu.Unlock()
	}()
	buf := make([]byte, 64<<10)
	for {
		n, err := src.Read(buf)
		if n > 0 {
			if f := ask.Load(); f != nil && *f != nil && !(*f)(buf[:n]) {
				return
			}
			if !drop.Load() {
				if _, err := dst.Write(buf[:n]); err != nil {
					return
				}
			}
		}
		if err != nil {
			return
		}
	}
}
