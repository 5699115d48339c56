"""How many processes are worth starting."""

import os


def usable_cpus() -> int:
    """CPUs that this process may use, where the platform tells, or else all there are."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
