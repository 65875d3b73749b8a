/* What every machine has, each in its own way: x86_64.c, aarch64.c. */
#ifndef COLDSTART_PLATFORM_H
#define COLDSTART_PLATFORM_H

#include "virtio.h"

#include <stdint.h>

/* Ends as QEMU's isa-debug-exit makes them: status = value << 1 | 1. */
enum { EXIT_OK = 16, EXIT_FAILURE = 17 };

void console_put(char c);                 /* nowhere, if there is no console */
uint64_t ticks(void);                     /* of a counter that never stops */
uint64_t hardware_random(void);           /* as far as there is such a thing; else 0 */
void sleep_ms(unsigned ms);               /* busily: for faults only */
int interrupt_enable(unsigned line);      /* 0: there is no way, whoever waits must look again and again */
void wait_for_interrupt(void);            /* one that came since the last wait ends it at once */
void pause(void);                         /* while looking again and again */
const struct transport *find_network(void); /* 0: there is none */
_Noreturn void power_off(unsigned value); /* x86_64: with that value; aarch64 knows none */
_Noreturn void restart(void);
_Noreturn void halt(void);

/* main.c; called once, by the machine's own start. */
_Noreturn void unikernel(const char *command_line);

/* main.c; what went wrong, then the end. */
_Noreturn void fail(const char *why);

#endif
