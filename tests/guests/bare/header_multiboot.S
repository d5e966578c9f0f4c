// SPDX-License-Identifier: MIT
// The Multiboot 1 header: no video, memory information wanted.
    .section .note.GNU-stack, "", @progbits
    .set MAGIC, 0x1badb002
    .set FLAGS, 2

    .section .header, "a"
    .align 4
    .long MAGIC, FLAGS, -(MAGIC + FLAGS)
