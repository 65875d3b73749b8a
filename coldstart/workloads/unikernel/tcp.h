/* A TCP that only answers. What it does and what it does not: docs/unikernel.md. */
#ifndef COLDSTART_TCP_H
#define COLDSTART_TCP_H

#include <stdint.h>

enum { TCP_HEADER = 20, TCP_CHECKSUM_AT = 16 };

/* A segment of at least TCP_HEADER bytes has come, its checksum is right. */
void tcp_input(uint32_t peer, const uint8_t *bytes, unsigned length);

#endif
