# SPDX-License-Identifier: MIT
# Turns `nm -n` of the first link pass into the table that arch/x86/symbols.c searches.
BEGIN {
    count = 0
    print "    .section .symbols, \"a\""
    print "    .balign 8"
}
function offset(hex) { return "0x" hex }
$3 == "text_start" { inside = 1; next }
$3 == "text_end" { inside = 0; end = $1 }
inside && $2 ~ /^[tTwW]$/ && $1 != last {
    address[count] = $1
    name[count] = $3
    last = $1
    count++
}
END {
    print "    .globl symbol_count, symbol_offsets, symbol_name_offsets, symbol_names"
    print "symbol_count:"
    print "    .long " count
    print "symbol_offsets:"
    for (i = 0; i < count; i++)
        print "    .long " offset(address[i])
    print "symbol_name_offsets:"
    for (i = 0; i < count; i++) {
        print "    .long " position + 0
        position += length(name[i]) + 1
    }
    print "symbol_names:"
    for (i = 0; i < count; i++)
        print "    .asciz \"" name[i] "\""
    print "    .hidden symbol_count, symbol_offsets, symbol_name_offsets, symbol_names"
}
