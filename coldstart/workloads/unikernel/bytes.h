/* Numbers in network order, at any address; memory. */
#ifndef COLDSTART_BYTES_H
#define COLDSTART_BYTES_H

#include <stdint.h>

/* Of memory that holds whatever it holds when we start: nobody has to fill it first. */
#define UNINITIALISED __attribute__((section(".bss.uninitialised")))

static inline uint32_t get16(const uint8_t *at) { return (uint32_t)at[0] << 8 | at[1]; }

static inline uint32_t get32(const uint8_t *at) { return get16(at) << 16 | get16(at + 2); }

static inline void put16(uint8_t *at, uint32_t value)
{
    at[0] = (uint8_t)(value >> 8);
    at[1] = (uint8_t)value;
}

static inline void put32(uint8_t *at, uint32_t value)
{
    put16(at, value >> 16);
    put16(at + 2, value);
}

/* From the front on: `to` may lie before `from` in the same bytes. */
static inline void copy_bytes(void *to, const void *from, unsigned count)
{
    for (unsigned i = 0; i < count; i++)
        ((uint8_t *)to)[i] = ((const uint8_t *)from)[i];
}

#endif
