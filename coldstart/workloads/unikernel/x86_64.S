/* PVH entry (32-bit protected mode, EBX = start info), identity map of the first 4 GiB, long mode. The loader has made
 * .bss zero: that is how ELF defines it. */
    .section .note.pvh, "a", @note
    .align 4
    .long 4, 4, 18              /* name size, descriptor size, XEN_ELFNOTE_PHYS32_ENTRY */
    .asciz "Xen"
    .long _start

    .section .text.boot, "ax"
    .code32
    .globl _start
_start:
    cli
    cld
    movl $stack_top, %esp
    movl $directory_pointers + 3, top_table /* 3: present, writable */
    movl $directories + 3, %eax
    movl $directory_pointers, %ecx
1:  movl %eax, (%ecx)           /* four page directories */
    addl $4096, %eax
    addl $8, %ecx
    cmpl $directory_pointers + 32, %ecx
    jne 1b
    movl $0x83, %eax            /* present, writable, 2 MiB page */
    movl $directories, %ecx
2:  movl %eax, (%ecx)
    addl $0x200000, %eax
    addl $8, %ecx
    cmpl $directories + 16384, %ecx
    jne 2b
    movl $top_table, %eax
    movl %eax, %cr3
    movl %cr4, %eax
    orl $0x20, %eax             /* PAE */
    movl %eax, %cr4
    movl $0xc0000080, %ecx      /* EFER */
    rdmsr
    orl $0x100, %eax            /* long mode */
    wrmsr
    movl %cr0, %eax
    orl $0x80000001, %eax       /* paging, protection */
    movl %eax, %cr0
    lgdt gdt_pointer
    ljmp $8, $start64
    .code64
start64:
    movl $16, %eax
    movl %eax, %ds
    movl %eax, %es
    movl %eax, %ss
    movl %ebx, %edi
    call start
    ud2

/* The device's interrupt has done its work by ending the sleep. */
    .globl interrupt_entry
interrupt_entry:
    pushq %rax
    movl $0xfee000b0, %eax      /* local APIC: end of interrupt */
    movl $0, (%rax)
    popq %rax
    .globl spurious_entry
spurious_entry:
    iretq

    .globl exception_entry
exception_entry:
    andq $-16, %rsp
    call on_exception
    ud2

    .section .rodata
    .align 8
gdt:
    .quad 0, 0x00af9b000000ffff, 0x00cf93000000ffff
gdt_pointer:
    .word 23
    .quad gdt

    .section .bss
    .align 4096
top_table:
    .skip 4096
directory_pointers:
    .skip 4096
directories:
    .skip 16384

    .section .bss.uninitialised, "aw", @nobits
    .align 16
    .skip 16384
stack_top:
    .section .note.GNU-stack, "", @progbits
