/* A disk that boots: the sector that a PC's firmware loads to 0x7c00 and starts in 16-bit mode. It writes to the disk,
 * reads back what it wrote, and says so on the serial port; a disk on which it finds its mark already it refuses. */

#define ADDRESS(label) (0x7c00 + label - _start)
#define READ 0x42
#define WRITE 0x43
#define SERIAL 0x3f8
#define MARK 0x6b72616d /* "mark" */

    .code16
    .globl _start
_start:
    xor %ax, %ax
    mov %ax, %ds
    mov %ax, %ss
    mov $0x7c00, %sp
    cld
    mov $READ, %ah
    call disk
    mov $ADDRESS(written), %si
    cmpl $MARK, ADDRESS(buffer)
    je say
    movl $MARK, ADDRESS(buffer)
    mov $WRITE, %ah
    call disk
    movl $0, ADDRESS(buffer)
    mov $READ, %ah
    call disk
    mov $ADDRESS(as_it_came), %si
    cmpl $MARK, ADDRESS(buffer)
    je say
failed:
    mov $ADDRESS(broken), %si
say:
    mov $SERIAL, %dx
    lodsb
    out %al, %dx
    cmp $'\n', %al
    jne say
stop:
    hlt
    jmp stop

/* AH: what to do with the second sector of the disk that was started from, which is DL. */
disk:
    mov $ADDRESS(packet), %si
    xor %al, %al
    int $0x13
    jc failed
    ret

packet:
    .byte 16, 0
    .word 1, ADDRESS(buffer), 0
    .quad 1
as_it_came:
    .ascii "the disk is as it came\n"
written:
    .ascii "the disk was written before\n"
broken:
    .ascii "the disk does not work\n"

    .org 510
    .word 0xaa55
buffer: /* behind the sector, in memory only */
