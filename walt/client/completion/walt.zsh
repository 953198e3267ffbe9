# _walt_show: _walt_names, each on a line with its text.
_walt_show() {
    local -a shown
    local i width=0
    for i in $_walt_names; do (( $#i > width )) && width=$#i; done
    for (( i = 1; i <= $#_walt_names; i++ )); do
        shown+=("${(r:width:)_walt_names[i]}  -- $_walt_texts[i]")
    done
    compadd -l -d shown -a _walt_names
}

# _walt_value SWITCH: the type of its value into `pending`, empty if it has none.
_walt_value() {
    local i
    pending=
    for (( i = 1; i <= $#_walt_names; i++ )); do
        if [[ $_walt_names[i] == "$1" && $_walt_types[i] != - ]]; then
            pending=${_walt_types[i]:-NOTHING}
        fi
    done
}

_walt() {
    local -a _walt_names _walt_texts _walt_types _walt_args found
    local _walt_rest kind pending= plain= i
    local -i position=1
    case $CURRENT in
        2) _walt_table ''; _walt_show; return ;;
        3) _walt_table "$words[2]"; _walt_show; return ;;
    esac
    _walt_table "$words[2] $words[3]"
    for (( i = 4; i < CURRENT; i++ )); do
        if [[ -n $pending ]]; then
            pending=
        elif [[ -n $plain || $words[i] != -?* ]]; then
            (( position += 1 ))
        elif [[ $words[i] == -- ]]; then
            plain=1
        else
            _walt_value "$words[i]"
        fi
    done
    if [[ -n $pending ]]; then
        kind=$pending
    elif [[ -z $plain && $PREFIX == -* ]]; then
        _walt_show
        return
    elif (( position <= $#_walt_args )); then
        kind=$_walt_args[position]
    else
        kind=$_walt_rest
    fi
    case $kind in
        (''|NOTHING) ;;
        (TOPIC) _walt_table TOPIC; _walt_show ;;
        (DIRECTORY) _files -/ ;;
        (FILE) _files ;;
        (*)
            found=(${=$(walt-autocomplete-helper $kind "${(@)words[1,CURRENT-1]}" "$PREFIX" 2>/dev/null)})
            compadd -a found
            ;;
    esac
}

if [[ $funcstack[1] == _walt ]]; then
    _walt "$@"
else
    compdef _walt walt
fi
