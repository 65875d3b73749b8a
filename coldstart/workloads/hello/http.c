/* GET / is answered, everything else refused by status. Every answer closes the connection: keep-alive would only make
 * one boot's answer depend on another's. */
#include "http.h"

#if defined(__x86_64__)
#define ARCH "x86_64"
#elif defined(__aarch64__)
#define ARCH "aarch64"
#else
#error "the handler names its architecture: add it here"
#endif

struct answer {
    const char *status;
    const char *headers;
    const char *body;
};

static const struct answer OK = {"200 OK", "", "Serverless Unikernels!\n"};
static const struct answer NOT_FOUND = {"404 Not Found", "", "not found\n"};
static const struct answer NOT_ALLOWED = {"405 Method Not Allowed", "Allow: GET\r\n", "only GET here\n"};
static const struct answer TOO_LARGE = {"431 Request Header Fields Too Large", "", "request too large\n"};

static int starts_with(const char *text, unsigned length, const char *prefix)
{
    unsigned i;

    for (i = 0; prefix[i]; i++)
        if (i >= length || text[i] != prefix[i])
            return 0;
    return 1;
}

/* An empty line, ended by CRLF or, as people type it, by LF alone. */
static int head_is_complete(const char *request, unsigned length)
{
    for (unsigned i = 1; i < length; i++) {
        if (request[i] != '\n')
            continue;
        if (request[i - 1] == '\n' || (i >= 2 && request[i - 1] == '\r' && request[i - 2] == '\n'))
            return 1;
    }
    return 0;
}

static const struct answer *choose(const char *request, unsigned length)
{
    if (!head_is_complete(request, length))
        return &TOO_LARGE;
    if (!starts_with(request, length, "GET "))
        return &NOT_ALLOWED;
    if (starts_with(request, length, "GET / ") || starts_with(request, length, "GET /?"))
        return &OK;
    return &NOT_FOUND;
}

/* What does not fit is left out: a cut answer can be seen, a write past the end cannot. */
static void put(struct http_reply *reply, const char *text)
{
    while (*text && reply->length < HTTP_MAX_REPLY)
        reply->bytes[reply->length++] = *text++;
}

static void put_length(struct http_reply *reply, const char *body)
{
    char digits[3] = {'0', '0', 0};
    unsigned length = 0;

    while (body[length])
        length++;
    digits[0] = (char)('0' + length / 10); /* every body has 10 to 99 bytes */
    digits[1] = (char)('0' + length % 10);
    put(reply, digits);
}

enum http_result http_answer(const struct http_self *self, const char *request, unsigned length,
                             struct http_reply *reply)
{
    const struct answer *answer;

    if (length < HTTP_MAX_REQUEST && !head_is_complete(request, length))
        return HTTP_INCOMPLETE;
    answer = choose(request, length);
    reply->length = 0;
    put(reply, "HTTP/1.1 ");
    put(reply, answer->status);
    put(reply, "\r\nContent-Type: text/plain\r\nContent-Length: ");
    put_length(reply, answer->body);
    put(reply, "\r\nConnection: close\r\nX-Coldstart-Nonce: ");
    put(reply, self->nonce);
    put(reply, "\r\nX-Coldstart-Kind: ");
    put(reply, self->kind);
    put(reply, "-" ARCH "\r\n");
    put(reply, answer->headers);
    put(reply, "\r\n");
    put(reply, answer->body);
    return answer == &NOT_ALLOWED || answer == &TOO_LARGE ? HTTP_REFUSED : HTTP_ANSWERED;
}

void http_set_nonce(struct http_self *self, const char *nonce)
{
    unsigned length = 0;

    for (; *nonce && length < HTTP_MAX_NONCE; nonce++)
        if (*nonce >= ' ' && *nonce <= '~')
            self->nonce[length++] = *nonce;
    self->nonce[length] = 0;
}
