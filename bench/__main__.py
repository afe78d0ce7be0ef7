"""The measurements' command line. None of them is built yet, and it says so."""

import sys


def main(arguments: list[str]) -> int:
    """Say that there is nothing to measure yet; return the exit status."""
    is_asking = any(argument in {"-h", "--help"} for argument in arguments)
    (sys.stdout if is_asking else sys.stderr).write(
        "murmur: `./murmur bench`, which compares Murmur with its baselines, is not built yet; "
        "`./murmur test` checks that it is right.\n"
    )
    return 0 if is_asking else 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
