"""The completion in bash, zsh and fish: their scripts, and how they ask pagescan.

Each script passes the words of the line, one per line and without quotes, the last one
incomplete. The answer has a line per candidate: its type, its text, its explanation,
with tabs between. The shell quotes what it inserts: `[heap]` would be a pattern.
"""

import os

from click.shell_completion import (
    CompletionItem,
    ShellComplete,
    add_completion_class,
    split_arg_string,
)

from pagescan.commands.completing import COMMAND, FILES

_BASH = r"""
%(complete_func)s() {
    local IFS=$'\n' kind value help quoted
    local line=${COMP_LINE:0:COMP_POINT} cur=${COMP_WORDS[COMP_CWORD]}
    local word=${line##*[[:space:]]}
    # bash divides words at : and =, and inserts only the last part.
    local before=${word%%"$cur"}
    COMPREPLY=()
    while IFS=$'\t' read -r kind value help; do
        if [[ -z $kind ]]; then
            continue
        elif [[ $kind == file ]]; then
            compopt -o default
        elif [[ $kind == command ]]; then
            COMPREPLY+=($(compgen -c -- "$cur"))
        elif [[ $value =~ ^[A-Za-z0-9_./,+=:@%%-]+$ ]]; then
            COMPREPLY+=("${value#"$before"}")
        elif [[ $cur == [\'\"]* ]]; then
            # Nothing that ends the quotes: the names are those of any user's programs.
            [[ $value == *[\'\"\`\$\!\\]* ]] || COMPREPLY+=("${value#"$before"}")
        else
            printf -v quoted %%q "${value#"$before"}"
            COMPREPLY+=("$quoted")
        fi
    done < <(PAGESCAN_LINE=$line %(complete_var)s=bash_complete \
        command %(prog_name)s 2>/dev/null)
}
complete -o nosort -F %(complete_func)s %(prog_name)s
"""

_ZSH = r"""
#compdef %(prog_name)s
%(complete_func)s() {
    local line kind value help answer
    local -a typed values shown
    typed=("${(@Q)words[1,CURRENT-1]}" "${(Q)PREFIX}")
    answer=$(PAGESCAN_WORDS=${(pj:\n:)typed} %(complete_var)s=zsh_complete \
        command %(prog_name)s 2>/dev/null)
    for line in "${(@f)answer}"; do
        [[ -z $line ]] && continue
        IFS=$'\t' read -r kind value help <<<"$line"
        case $kind in
            file) _files ;;
            command) _command_names -e ;;
            *) values+=("$value"); shown+=("$value${help:+  -- $help}") ;;
        esac
    done
    (( $#values )) && compadd -l -d shown -a values
}
if [[ $zsh_eval_context[-1] == loadautofunc ]]; then
    %(complete_func)s "$@"
else
    (( $+functions[compdef] )) || { autoload -Uz compinit && compinit -u }
    compdef %(complete_func)s %(prog_name)s
fi
"""

_FISH = r"""
function %(complete_func)s
    set -l last (commandline -ct)
    set -l word (string unescape -- $last; or string trim -lc '"\'' -- $last)
    set -l typed (string join \n -- (commandline -opc) "$word" | string collect -N)
    set -l ask %(complete_var)s=fish_complete "PAGESCAN_WORDS=$typed"
    for line in (env $ask %(prog_name)s 2>/dev/null)
        set -l parts (string split \t -- $line)
        switch $parts[1]
            case file
                __fish_complete_path $last
            case command
                __fish_complete_command
            case ''
            case '*'
                printf '%%s\t%%s\n' $parts[2] $parts[3]
        end
    end
end
complete --no-files --command %(prog_name)s --arguments "(%(complete_func)s)"
"""


class _Shell(ShellComplete):
    """Reads the words of the line, and writes the candidates."""

    def get_completion_args(self) -> tuple[list[str], str]:
        """Return the words behind the name of the program, and the incomplete one."""
        line = os.environ.get("PAGESCAN_LINE")
        if line is None:
            words = os.environ.get("PAGESCAN_WORDS", "").removesuffix("\n").split("\n")
        else:  # a character behind the line shows whether its last word is complete
            words = split_arg_string(f"{line}{_END}")
            words[-1] = words[-1].removesuffix(_END)
        return words[1:-1], words[-1]

    def get_completions(
        self, args: list[str], incomplete: str
    ) -> "list[CompletionItem]":
        """Return the candidates that begin with the incomplete word."""
        if "--" in args:
            kind = COMMAND if args[-1] == "--" else FILES
            return [CompletionItem(incomplete, type=kind)]
        if incomplete.startswith("--") and "=" in incomplete:
            name, _, incomplete = incomplete.partition("=")
            args = [*args, name]
        sign = ""
        if args[-1:] == ["--sort"] and incomplete[:1] in ("+", "-"):
            sign, incomplete = incomplete[:1], incomplete[1:]  # click: an option
        items = super().get_completions(args, incomplete)
        for item in items:
            item.value = f"{sign}{item.value}"
        wanted = f"{sign}{incomplete}"
        return [
            item
            for item in items
            if item.type in (COMMAND, FILES)
            or (item.value.startswith(wanted) and item.value.isprintable())
        ]

    def format_completion(self, item: "CompletionItem") -> str:
        """Return the line of a candidate."""
        return f"{item.type}\t{item.value}\t{item.help or ''}"


_END = "\x04"


def completion_class(shell: str) -> type[ShellComplete]:
    """Return the completion of a shell: bash, zsh or fish."""
    return _CLASSES[shell]


_CLASSES = {
    name: type(name, (_Shell,), {"name": name, "source_template": script.lstrip()})
    for name, script in (("bash", _BASH), ("zsh", _ZSH), ("fish", _FISH))
}
for _class in _CLASSES.values():
    add_completion_class(_class)
