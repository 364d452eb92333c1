/* Preloaded into a process: its wall clock goes ten minutes fast, its monotonic clock is right.
   Debian's libfaketime 0.9.10 can't be used: Python 3.11's sleep and locks fail or hang under it. */

#define _GNU_SOURCE
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#define OFFSET_SECONDS 600

int clock_gettime(clockid_t clock, struct timespec *result) {
  int failure = (int)syscall(SYS_clock_gettime, clock, result);
  if (!failure && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE))
    result->tv_sec += OFFSET_SECONDS;
  return failure;
}

int gettimeofday(struct timeval *restrict result, void *restrict zone) {
  (void)zone;
  struct timespec now;
  int failure = clock_gettime(CLOCK_REALTIME, &now);
  result->tv_sec = now.tv_sec;
  result->tv_usec = now.tv_nsec / 1000;
  return failure;
}

time_t time(time_t *result) {
  struct timespec now;
  clock_gettime(CLOCK_REALTIME, &now);
  if (result)
    *result = now.tv_sec;
  return now.tv_sec;
}
