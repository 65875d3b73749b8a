/* What compilers call for structures, even where there is no library. */
void *memcpy(void *to, const void *from, unsigned long count);
void *memset(void *to, int value, unsigned long count);

void *memcpy(void *to, const void *from, unsigned long count)
{
    for (unsigned long i = 0; i < count; i++)
        ((char *)to)[i] = ((const char *)from)[i];
    return to;
}

void *memset(void *to, int value, unsigned long count)
{
    for (unsigned long i = 0; i < count; i++)
        ((char *)to)[i] = (char)value;
    return to;
}
