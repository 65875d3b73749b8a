/* The one HTTP handler of every wrap: bytes in, bytes out. It opens, allocates and calls nothing, so that the Linux
 * program and the unikernel link the same code and differ only in what carries the bytes. */
#ifndef COLDSTART_HTTP_H
#define COLDSTART_HTTP_H

enum {
    HTTP_MAX_REQUEST = 2048,
    HTTP_MAX_REPLY = 512, /* the longest answer, with the longest nonce, has 280 bytes */
    HTTP_MAX_NONCE = 64,
};

/* HTTP_KEEP: the connection stays open for the next request. HTTP_CLOSE: the answer is the last thing to be sent, but
 * the peer may still be sending; whoever closes at once may send a reset that takes the answer with it: send, then read
 * until the peer closes. HTTP_QUIT: like HTTP_CLOSE, and once the peer has the answer the wrap ends. */
enum http_result { HTTP_INCOMPLETE, HTTP_KEEP, HTTP_CLOSE, HTTP_QUIT };

/* kind: which wrap this is (`linux`, `unikernel`); at most 16 characters. */
struct http_self {
    const char *kind;
    char nonce[HTTP_MAX_NONCE + 1];
};

/* consumed: how many bytes the request had; what follows them is the next one. */
struct http_reply {
    unsigned consumed;
    unsigned length;
    char bytes[HTTP_MAX_REPLY];
};

/* Copies what may stand in a header: printable ASCII, at most HTTP_MAX_NONCE of it. */
void http_set_nonce(struct http_self *self, const char *nonce);

/* Looks at all bytes received and not yet consumed; call it again with more of them while it says HTTP_INCOMPLETE,
 * which it never does once there are HTTP_MAX_REQUEST. */
enum http_result http_answer(const struct http_self *self, const char *request, unsigned length,
                             struct http_reply *reply);

#endif
