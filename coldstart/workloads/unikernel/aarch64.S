/* The header of an arm64 Linux Image, then the MMU, then C. The MMU comes before anything is written: under KVM, what
 * is written without it goes past the caches, and what lies in them would be read instead. */
    .section .text.boot, "ax"
    .globl _start
_start:
    b begin
    .long 0
    .quad 0x80000               /* from the start of RAM */
    .quad image_size
    .quad 0x2                   /* little endian, pages of 4 KiB, near the start of RAM: it is linked for one address */
    .quad 0, 0, 0
    .ascii "ARM\x64"
    .long 0
begin:
    mov x19, x0                 /* the device tree */
    ldr x1, =exceptions
    msr vbar_el1, x1
    ldr x1, =0xff00             /* memory of kind 0: a device's, strictly ordered; of kind 1: normal, write-back */
    msr mair_el1, x1
    ldr x1, =0x100803520        /* 32 bits, walked through the caches, inner shareable, 4 KiB, no second table */
    msr tcr_el1, x1
    ldr x1, =page_table
    msr ttbr0_el1, x1
    dsb sy
    tlbi vmalle1
    dsb sy
    isb
    mrs x1, sctlr_el1
    ldr x2, =0x1005             /* MMU, data cache, instruction cache */
    orr x1, x1, x2
    bic x1, x1, #2              /* no alignment faults */
    msr sctlr_el1, x1
    isb
    ldr x1, =stack_top
    mov sp, x1
    ldr x1, =bss_begin          /* nobody has made it zero, and after a reset it is not */
    ldr x2, =bss_end
1:  stp xzr, xzr, [x1], #16
    cmp x1, x2
    b.lo 1b
    mov x0, x19
    bl start
2:  wfi
    b 2b

/* Interrupts stay masked, so all that can come is an error. */
    .align 11
exceptions:
    .skip 0x200
    b on_exception              /* synchronous */
    .align 7
    .skip 0x100
    b on_exception              /* asynchronous */
    .align 11

    .section .rodata
    .align 6
page_table:                     /* blocks of 1 GiB: the first for devices, the next three for RAM */
    .quad 0x00000000 | 0x401    /* accessed, kind 0 */
    .quad 0x40000000 | 0x705    /* accessed, inner shareable, kind 1 */
    .quad 0x80000000 | 0x705
    .quad 0xc0000000 | 0x705

    .section .bss.uninitialised, "aw", @nobits
    .align 4
    .skip 16384
stack_top:
    .section .note.GNU-stack, "", @progbits
