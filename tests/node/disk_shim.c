/* Preloaded into a daemon: its syncs wait as long as the file exists that LOCUM_TEST_DISK names. */
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

static void wait_for_disk(void)
{
	const char *held = getenv("LOCUM_TEST_DISK");

	while (held && access(held, F_OK) == 0)
		usleep(5000);
}

int fdatasync(int file)
{
	wait_for_disk();
	return syscall(SYS_fdatasync, file);
}

int fsync(int file)
{
	wait_for_disk();
	return syscall(SYS_fsync, file);
}
