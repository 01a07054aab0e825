"""Real processes, real kills, real system calls."""
