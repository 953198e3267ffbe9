_walt_key='' _walt_time=0 _walt_reply=()

# _walt_ask TYPE WORD...: candidates into _walt_reply; the last ones are good for 3 seconds.
_walt_ask() {
    local IFS=$' \t\n' key="$*"
    if [[ $key != "$_walt_key" ]] || ((SECONDS - _walt_time >= 3)); then
        read -r -d '' -a _walt_reply < <(walt-autocomplete-helper "$@" 2>/dev/null)
        _walt_key=$key _walt_time=$SECONDS
    fi
}

# _walt_show WORD: those of _walt_names that begin with it, each on a line with its text.
_walt_show() {
    local i width=0 found=()
    for i in "${!_walt_names[@]}"; do
        if [[ ${_walt_names[i]} == "$1"* ]]; then
            found+=("$i")
            ((${#_walt_names[i]} > width)) && width=${#_walt_names[i]}
        fi
    done
    COMPREPLY=()
    for i in "${found[@]}"; do
        if ((${#found[@]} == 1)) || [[ $COMP_TYPE == 37 ]]; then
            COMPREPLY+=("${_walt_names[i]}")
        else
            # As wide as the terminal: one a line.
            printf -v i '%-*s  -- %s' "$width" "${_walt_names[i]}" "${_walt_texts[i]}"
            printf -v i '%-*s' "$((${COLUMNS:-80} - 2))" "${i:0:$((${COLUMNS:-80} - 2))}"
            COMPREPLY+=("$i")
        fi
    done
}

# _walt_split: the words up to the cursor into `words`; bash splits them at : and = too.
_walt_split() {
    local i gap rest=${COMP_LINE:0:COMP_POINT} word
    words=()
    for ((i = 0; i <= COMP_CWORD; i++)); do
        gap=${rest%%[![:space:]]*}
        rest=${rest:${#gap}}
        word=${COMP_WORDS[i]}
        ((i == COMP_CWORD)) && word=$rest
        rest=${rest#"$word"}
        if ((i == 0)) || [[ -n $gap ]]; then
            words+=("$word")
        else
            words[${#words[@]} - 1]+=$word
        fi
    done
}

# _walt_value SWITCH: the type of its value into `pending`, empty if it has none.
_walt_value() {
    local i
    pending=
    for i in "${!_walt_names[@]}"; do
        if [[ ${_walt_names[i]} == "$1" && ${_walt_types[i]} != - ]]; then
            pending=${_walt_types[i]:-NOTHING}
        fi
    done
}

_walt() {
    local words i kind pending= plain= position=0 cut
    local _walt_names _walt_texts _walt_types _walt_args _walt_rest
    COMPREPLY=()
    _walt_split
    local last=$((${#words[@]} - 1))
    local cur=${words[last]}
    case $last in
        0) return ;;
        1) _walt_table ''; _walt_show "$cur"; return ;;
        2) _walt_table "${words[1]}"; _walt_show "$cur"; return ;;
    esac
    _walt_table "${words[1]} ${words[2]}"
    for ((i = 3; i < last; i++)); do
        if [[ -n $pending ]]; then
            pending=
        elif [[ -n $plain || ${words[i]} != -?* ]]; then
            ((position += 1))
        elif [[ ${words[i]} == -- ]]; then
            plain=1
        else
            _walt_value "${words[i]}"
        fi
    done
    if [[ -n $pending ]]; then
        kind=$pending
    elif [[ -z $plain && $cur == -* ]]; then
        _walt_show "$cur"
        return
    else
        kind=${_walt_args[position]-$_walt_rest}
    fi
    case $kind in
        '' | NOTHING) ;;
        TOPIC) _walt_table TOPIC; _walt_show "$cur" ;;
        DIRECTORY) compopt -o filenames; mapfile -t COMPREPLY < <(compgen -d -- "$cur") ;;
        FILE) compopt -o filenames; mapfile -t COMPREPLY < <(compgen -f -- "$cur") ;;
        *) _walt_ask "$kind" "${words[@]}"; COMPREPLY=("${_walt_reply[@]}") ;;
    esac
    # Readline replaces only what follows the last character that splits words.
    cut=${cur%"${cur##*[${COMP_WORDBREAKS//[^:=@]/}]}"}
    [[ $COMP_WORDBREAKS == *[:=@]* ]] && COMPREPLY=("${COMPREPLY[@]#"$cut"}")
}

complete -F _walt walt
