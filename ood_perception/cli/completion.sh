# shellcheck disable=SC2207  # zsh has no mapfile, and no name here holds spaces
# Completion of `ood`: commands, then the options that the command's --help names, and files.
declare -A _ood_options
_ood() {
    local word=${COMP_WORDS[COMP_CWORD]} name=${COMP_WORDS[1]}
    if [ "$COMP_CWORD" -eq 1 ]; then
        COMPREPLY=($(compgen -W "@COMMANDS@" -- "$word"))
    elif [ "${word#-}" != "$word" ]; then
        if [ -z "${_ood_options[$name]}" ]; then  # asked once a shell: a command takes a second
            _ood_options[$name]=$(ood "$name" --help 2>/dev/null | grep -oE -- '--[a-z][a-z-]+' | sort -u)
        fi
        COMPREPLY=($(compgen -W "${_ood_options[$name]}" -- "$word"))
    else
        COMPREPLY=($(compgen -f -- "$word"))
    fi
}
complete -o filenames -F _ood ood
