package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"net/url"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/alecthomas/kong"

	"flowplatform/services/flowctl/internal/client"
)

// completeWord is the first argument when a shell asks what may come next; the words of the command line follow, the one under the cursor last.
const completeWord = "__complete"

// completionScripts are what shells need. All of them ask flowctl itself, so that a newer flowctl needs no newer script. Where flowctl knows nothing,
// the shell offers files.
var completionScripts = map[string]string{
	"bash": `# flowctl completion for bash: source <(flowctl completion bash), or keep it as /etc/bash_completion.d/flowctl
_flowctl() {
  local line
  COMPREPLY=()
  while IFS= read -r line; do
    COMPREPLY+=("$(printf '%q' "$line")")
  done < <("${COMP_WORDS[0]}" __complete "${COMP_WORDS[@]:1:COMP_CWORD}" 2>/dev/null)
}
complete -o default -F _flowctl flowctl
`,
	"zsh": `#compdef flowctl
# flowctl completion for zsh: source <(flowctl completion zsh), or keep it as _flowctl in a directory of $fpath
_flowctl() {
  local -a found
  found=("${(@f)$("${words[1]}" __complete "${(@)words[2,CURRENT]}" 2>/dev/null)}")
  found=("${(@)found:#}")
  if (( ${#found} )); then
    compadd -a found
  else
    _files
  fi
}
if [ "$funcstack[1]" = "_flowctl" ]; then
  _flowctl "$@"
else
  compdef _flowctl flowctl
fi
`,
	"fish": `# flowctl completion for fish: flowctl completion fish | source, or keep it as ~/.config/fish/completions/flowctl.fish
function __flowctl_complete
    set -l words (commandline -opc) (commandline -ct)
    set -l found ($words[1] __complete $words[2..-1] 2>/dev/null)
    if test (count $found) -gt 0
        printf '%s\n' $found
    else
        __fish_complete_path (commandline -ct)
    end
end
complete -c flowctl -f -a '(__flowctl_complete)'
`,
}

type completionCommand struct {
	Shell string `arg:"" enum:"bash,zsh,fish" help:"bash, zsh or fish."`
}

func (c *completionCommand) Run(a *app) error {
	_, err := io.WriteString(a.out, completionScripts[c.Shell])
	return err
}

// complete prints what may stand in place of the last word. It says nothing rather than anything wrong: a shell has no place for errors.
func complete(ctx context.Context, model *kong.Node, words []string, out io.Writer) {
	words = slices.DeleteFunc(slices.Clone(words), func(w string) bool { return w == "=" }) // bash makes three words of --output=json
	last := ""
	if len(words) > 0 {
		last, words = unquoted(words[len(words)-1]), words[:len(words)-1]
	}
	at := walk(model, words)
	var found []string
	switch {
	case at.node == nil:
	case at.flag != nil:
		found = valuesOf(ctx, at.flag.Value, at.given)
	case strings.HasPrefix(last, "-"):
		for _, group := range at.node.AllFlags(true) {
			for _, f := range group {
				found = append(found, "--"+f.Name)
			}
		}
	default:
		for _, child := range at.node.Children {
			if !child.Hidden {
				found = append(found, child.Name)
			}
		}
		if n := len(at.node.Positional); n > 0 {
			if p := at.node.Positional[min(at.positional, n-1)]; at.positional < n || p.IsSlice() {
				found = append(found, valuesOf(ctx, p, at.given)...)
			}
		}
	}
	slices.Sort(found)
	for _, f := range slices.Compact(found) {
		if strings.HasPrefix(f, last) && !strings.ContainsAny(f, "\r\n") {
			fmt.Fprintln(out, f)
		}
	}
}

// place is where a command line has come to.
type place struct {
	node       *kong.Node // nil: nowhere
	flag       *kong.Flag // waits for its value
	positional int
	given      map[string]string // values of flags
}

func walk(node *kong.Node, words []string) place {
	at := place{node: node, given: map[string]string{}}
	for _, w := range words {
		switch {
		case at.flag != nil:
			at.given[at.flag.Name], at.flag = unquoted(w), nil
		case strings.HasPrefix(w, "-"):
			name, value, has := strings.Cut(w, "=")
			f := flagOf(at.node, name)
			switch {
			case f == nil || f.IsBool():
			case has:
				at.given[f.Name] = unquoted(value)
			default:
				at.flag = f
			}
		default:
			child := slices.IndexFunc(at.node.Children, func(c *kong.Node) bool { return c.Name == w })
			switch {
			case child >= 0:
				at.node = at.node.Children[child]
			case len(at.node.Positional) == 0:
				return place{} // no such command
			default:
				at.positional++
			}
		}
	}
	return at
}

func flagOf(node *kong.Node, word string) *kong.Flag {
	for _, group := range node.AllFlags(false) {
		for _, f := range group {
			if word == "--"+f.Name || f.Short != 0 && word == "-"+string(f.Short) {
				return f
			}
		}
	}
	return nil
}

// valuesOf gives what a flag or an argument may be: one of a few texts, or the name of a flow.
func valuesOf(ctx context.Context, v *kong.Value, given map[string]string) []string {
	switch {
	case v.Enum != "":
		return v.EnumSlice()
	case v.Name == "flow":
		return flowNames(ctx, given)
	}
	return nil
}

// flowNames asks the server, for as long as a person who has pressed a key waits.
func flowNames(ctx context.Context, given map[string]string) []string {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	c, err := client.New(cmp.Or(given["server"], os.Getenv("FLOW_SERVER")), cmp.Or(given["token"], os.Getenv("FLOW_TOKEN")))
	if err == nil {
		err = c.TrustFile(cmp.Or(given["ca-file"], os.Getenv("FLOW_CA_FILE")))
	}
	if err != nil {
		return nil
	}
	var page struct{ Items []flowView }
	if _, err := c.Do(ctx, "GET", "/flows?"+url.Values{"limit": {fmt.Sprint(pageSize)}}.Encode(), nil, &page); err != nil {
		return nil
	}
	names := make([]string, len(page.Items))
	for i, f := range page.Items {
		names[i] = f.Name
	}
	return names
}

// unquoted reads a word as it was typed, which bash hands on with its quotes and backslashes.
func unquoted(w string) string {
	return strings.NewReplacer(`\\`, `\`, `\`, "", `"`, "", "'", "").Replace(w)
}
