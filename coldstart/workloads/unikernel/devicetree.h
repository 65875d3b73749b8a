/* What a flattened device tree says about the machine, as far as it is needed. */
#ifndef COLDSTART_DEVICETREE_H
#define COLDSTART_DEVICETREE_H

#include "options.h"

#include <stdint.h>

enum { MAX_PLACES = 32 };

/* An address is 0 where there is no such thing. */
struct machine {
    const char *command_line;
    uint64_t console;     /* a PL011 */
    int gic;              /* which version of interrupt controller: 2, 3 or none */
    uint64_t distributor;
    uint64_t interface;   /* 2: of the processor; 3: the redistributor */
    int firmware_by_smc;  /* else by hvc */
    unsigned places;
    struct place virtio[MAX_PLACES];
};

/* Of a tree at this address; it has been made by whoever made the machine, and is believed. */
void read_devicetree(const void *tree, struct machine *machine);

#endif
