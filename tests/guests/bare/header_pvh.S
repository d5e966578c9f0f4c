// SPDX-License-Identifier: MIT
// The ELF note with the PVH entry point (owner "Xen", type 18: 32-bit physical entry).
    .section .note.GNU-stack, "", @progbits
    .section .note.pvh, "a", @note
    .align 4
    .long 4, 4, 18
    .asciz "Xen"
    .long start
