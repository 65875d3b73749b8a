/* A kernel in the multiboot format: 32 bits, loaded by QEMU itself. It says a line on the serial port and ends QEMU with
 * a code, which needs `-device isa-debug-exit,iobase=0xf4,iosize=0x04`: 42 becomes (42 << 1) | 1 = 85. */

#define MAGIC 0x1badb002
#define SERIAL 0x3f8
#define EXIT 0xf4

    .code32
    .globl _start
    .long MAGIC, 0, -MAGIC
_start:
    mov $line, %esi
    mov $SERIAL, %edx
say:
    lodsb
    out %al, %dx
    cmp $'\n', %al
    jne say
    mov $42, %eax
    out %eax, $EXIT
stop:
    hlt
    jmp stop

line:
    .ascii "the answer is 42\r\n" /* as a serial terminal wants it, and as Linux ends its lines */
