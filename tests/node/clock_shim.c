/* Preloaded into a daemon: moves its clocks as a file says, without touching the machine's.
 *
 * The file that LOCUM_TEST_CLOCKS names holds two numbers of seconds: how far the wall clock is moved, and how far
 * CLOCK_BOOTTIME is. CLOCK_MONOTONIC stays, as it does while a machine is suspended.
 */
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static volatile const long *moved;

__attribute__((constructor)) static void begin(void)
{
	const char *path = getenv("LOCUM_TEST_CLOCKS");
	int file = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;

	if (file < 0)
		abort();
	moved = mmap(NULL, 2 * sizeof(long), PROT_READ, MAP_SHARED, file, 0);
	if (moved == MAP_FAILED)
		abort();
	close(file);
}

int clock_gettime(clockid_t clock, struct timespec *now)
{
	int failed = syscall(SYS_clock_gettime, clock, now);

	if (failed || !moved)
		return failed;
	if (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE)
		now->tv_sec += moved[0];
	else if (clock == CLOCK_BOOTTIME)
		now->tv_sec += moved[1];
	return 0;
}

time_t time(time_t *at)
{
	struct timespec now;

	clock_gettime(CLOCK_REALTIME, &now);
	if (at)
		*at = now.tv_sec;
	return now.tv_sec;
}

int gettimeofday(struct timeval *restrict now, void *restrict zone)
{
	struct timespec exact;

	(void)zone;
	clock_gettime(CLOCK_REALTIME, &exact);
	now->tv_sec = exact.tv_sec;
	now->tv_usec = exact.tv_nsec / 1000;
	return 0;
}
