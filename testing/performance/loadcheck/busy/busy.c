/* A busy-polling client: the least that a client can add to what it measures.
 *
 *   busy PORT PATH RATE SECONDS CONNECTIONS
 *
 * One thread asks for PATH on an absolute schedule, each request on the
 * connection that has been idle longest, and never sleeps: it reads every
 * connection that waits for an answer, in turn. Times run from the due
 * instant to the read that ended the answer. Prints count, p50, p90, p99 and
 * max in nanoseconds. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

static int64_t now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return t.tv_sec * 1000000000LL + t.tv_nsec;
}
static int up(const void *a, const void *b) {
  int64_t x = *(int64_t *)a, y = *(int64_t *)b;
  return (x > y) - (x < y);
}
static void die(const char *what) { perror(what); exit(1); }

struct conn { int fd; int64_t due; int got, want; char buf[8192]; };

int main(int argc, char **argv) {
  if (argc != 6) { fprintf(stderr, "busy PORT PATH RATE SECONDS CONNECTIONS\n"); return 2; }
  int port = atoi(argv[1]), n = atoi(argv[5]);
  double rate = atof(argv[3]), seconds = atof(argv[4]);
  int64_t total = (int64_t)(rate * seconds), sent = 0, done = 0;
  char ask[2048];
  int asked = snprintf(ask, sizeof ask, "GET %s HTTP/1.1\r\nHost: 127.0.0.1:%d\r\n\r\n", argv[2], port);
  struct conn *conns = calloc(n, sizeof *conns);
  int *idle = calloc(n, sizeof *idle), head = 0, count = 0, ep = epoll_create1(0);
  int64_t *times = calloc(total, sizeof *times);
  struct epoll_event events[64];
  for (int i = 0; i < n; i++) {
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int one = 1;
    conns[i].fd = socket(AF_INET, SOCK_STREAM, 0);
    if (conns[i].fd < 0 || connect(conns[i].fd, (void *)&to, sizeof to)) die("connect");
    setsockopt(conns[i].fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    fcntl(conns[i].fd, F_SETFL, O_NONBLOCK);
    struct epoll_event e = {.events = EPOLLIN | EPOLLET, .data.u32 = i};
    if (epoll_ctl(ep, EPOLL_CTL_ADD, conns[i].fd, &e)) die("epoll_ctl");
    idle[(head + count++) % n] = i;
  }
  int64_t t0 = now() + 10000000, end = t0 + (int64_t)((seconds + 5) * 1e9);
  while (done < total && now() < end) {
    int64_t due = t0 + (int64_t)(sent * (1e9 / rate));
    if (sent < total && count > 0 && now() >= due) {
      struct conn *c = &conns[idle[head]];
      head = (head + 1) % n, count--, sent++;
      c->due = due, c->got = 0, c->want = 0;
      if (write(c->fd, ask, asked) != asked) die("write");
    }
    int k = epoll_wait(ep, events, 64, 0);
    for (int i = 0; i < k; i++) {
      struct conn *c = &conns[events[i].data.u32];
      ssize_t r = read(c->fd, c->buf + c->got, sizeof c->buf - 1 - c->got);
      if (r < 0 && errno == EAGAIN) continue;
      if (r <= 0) die("read");
      int64_t at = now();
      c->buf[c->got += r] = 0;
      char *body = strstr(c->buf, "\r\n\r\n"), *length = strcasestr(c->buf, "content-length:");
      if (!body || !length) continue;
      c->want = body + 4 - c->buf + atoi(length + 15);
      if (c->got < c->want) continue;
      times[done++] = at - c->due;
      idle[(head + count++) % n] = events[i].data.u32;
    }
  }
  if (done < total) { fprintf(stderr, "%ld of %ld were answered\n", (long)done, (long)total); return 1; }
  qsort(times, total, sizeof *times, up);
  printf("%ld %ld %ld %ld %ld\n", (long)total, (long)times[total / 2], (long)times[total * 9 / 10], (long)times[total * 99 / 100],
         (long)times[total - 1]);
  return 0;
}
