#!/usr/bin/env bash
# Prints the archive of this system's own packages, as one line of a sources.list for the suite SUITE:
#
#   tests/support/apt_mirror.sh SUITE [FOLDER]
#
# FOLDER is the configuration of apt; the default is /etc/apt. The script reads both of its forms, one-line and deb822. It
# drops the architecture options and keeps `signed-by`. It prefers an archive of the same suite, and otherwise uses the first
# one with a component "main", which must have the suite. It fails if there is none.
set -euo pipefail

suite=${1:?usage: tests/support/apt_mirror.sh SUITE [FOLDER]}
folder=${2:-/etc/apt}

# Prints each archive as "SUITE URI KEY COMPONENTS...". KEY is "-" if there is none or if the file itself contains it.
one_line() {
    awk '
        { sub(/#.*/, "") }
        $1 != "deb" { next }
        {
            key = "-"
            line = $0
            sub(/^[ \t]*deb[ \t]+/, "", line)
            if (match(line, /^\[[^]]*\]/)) {
                options = substr(line, 2, RLENGTH - 2)
                line = substr(line, RLENGTH + 1)
                count = split(options, option, /[ \t]+/)
                for (i = 1; i <= count; i++)
                    if (option[i] ~ /^signed-by=\//) key = substr(option[i], 11)
            }
            count = split(line, word, /[ \t]+/)
            first = word[1] == "" ? 2 : 1
            text = word[first + 1] " " word[first] " " key
            for (i = first + 2; i <= count; i++) text = text " " word[i]
            print text
        }
    ' "$@"
}

deb822() {
    awk '
        function flush(  i, j, uris, suites, count, total) {
            if ((" " field["types"] " ") ~ / deb / && tolower(field["enabled"]) !~ /^(no|false|0|off)$/) {
                key = field["signed-by"] ~ /^\/[^ ]*$/ ? field["signed-by"] : "-"
                count = split(field["uris"], uris, " ")
                total = split(field["suites"], suites, " ")
                for (i = 1; i <= count; i++)
                    for (j = 1; j <= total; j++)
                        print suites[j] " " uris[i] " " key " " field["components"]
            }
            split("", field)
            name = ""
        }
        FNR == 1 { flush() }
        /^#/ { next }
        /^[ \t]*$/ { flush(); next }
        /^[ \t]/ { if (name != "") { value = $0; sub(/^[ \t]+/, "", value); field[name] = field[name] " " value }; next }
        {
            name = tolower(substr($0, 1, index($0, ":") - 1))
            value = substr($0, index($0, ":") + 1)
            gsub(/^[ \t]+|[ \t]+$/, "", value)
            field[name] = value
        }
        END { flush() }
    ' "$@"
}

shopt -s nullglob
lists=("$folder"/sources.list.d/*.list)
[ ! -e "$folder/sources.list" ] || lists=("$folder/sources.list" "${lists[@]}")
stanzas=("$folder"/sources.list.d/*.sources)
{
    [ ${#lists[@]} -eq 0 ] || one_line "${lists[@]}"
    [ ${#stanzas[@]} -eq 0 ] || deb822 "${stanzas[@]}"
} | awk -v suite="$suite" '
    $2 !~ /^(https?|file|copy|ftp|mirror[+a-z]*):/ { next }
    (" " substr($0, index($0, $3) + length($3)) " ") !~ / main / { next }
    $1 == suite && same == "" { same = $2; same_key = $3 }
    any == "" { any = $2; any_key = $3 }
    END {
        uri = same != "" ? same : any
        key = same != "" ? same_key : any_key
        if (uri == "") exit 1
        print "deb" (key == "-" ? "" : " [signed-by=" key "]") " " uri " " suite " main"
    }
' || { echo "no archive with a component \"main\" in $folder; set BOOT_MIRROR to a mirror" >&2; exit 1; }
