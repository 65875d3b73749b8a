/* The one HTTP handler of every wrap: bytes in, bytes out. It opens, allocates and calls nothing, so that the Linux
 * program and the unikernel link the same code and differ only in what carries the bytes. */
#ifndef COLDSTART_HTTP_H
#define COLDSTART_HTTP_H

enum {
    HTTP_MAX_REQUEST = 2048,
    HTTP_MAX_REPLY = 512, /* the longest answer, with the longest nonce, has 260 bytes */
    HTTP_MAX_NONCE = 64,
};

/* HTTP_REFUSED: there is an answer, but more of the request may be under way. Whoever closes now may send a reset that
 * takes the answer with it: send, then read until the peer closes. */
enum http_result { HTTP_INCOMPLETE, HTTP_ANSWERED, HTTP_REFUSED };

/* kind: which wrap this is (`linux`, `unikernel`); at most 16 characters. */
struct http_self {
    const char *kind;
    char nonce[HTTP_MAX_NONCE + 1];
};

struct http_reply {
    unsigned length;
    char bytes[HTTP_MAX_REPLY];
};

/* Copies what may stand in a header: printable ASCII, at most HTTP_MAX_NONCE of it. */
void http_set_nonce(struct http_self *self, const char *nonce);

/* Looks at all bytes received so far; call it again with more of them while it says HTTP_INCOMPLETE. */
enum http_result http_answer(const struct http_self *self, const char *request, unsigned length,
                             struct http_reply *reply);

#endif
