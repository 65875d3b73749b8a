/* The command line: `ip=A.B.C.D[/PREFIX] nonce=TEXT [port=NUMBER] [fault=FAULT]`; other words are ignored. */
#ifndef COLDSTART_OPTIONS_H
#define COLDSTART_OPTIONS_H

#include "http.h"

#include <stdint.h>

/* What goes wrong on purpose: the Linux program's, and two that only a machine can show. */
enum fault { NO_FAULT, DELAY, DEAF, MUTE, EXIT, STALE, PANIC, REBOOT, FAULTS };

struct options {
    uint32_t address;
    uint16_t port;
    enum fault fault;
    unsigned number; /* of `delay:MS` and `exit:CODE` */
    char nonce[HTTP_MAX_NONCE + 1];
};

/* Where a virtio-mmio device is, and which interrupt line it has. */
struct place {
    uint64_t base;
    unsigned interrupt;
};

/* 0, or what is wrong with it. */
const char *read_options(const char *command_line, struct options *options);

/* The next `virtio_mmio.device=SIZE@BASE:INTERRUPT` of a command line, which is advanced behind it; 0: no more. */
int next_place(const char **command_line, struct place *place);

#endif
