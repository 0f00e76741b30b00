"""The entry point of the `charstat` command. Until it can say something, an interrupt ends it without a word."""

import signal

if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # not where a shell has it ignored
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def main() -> None:
    from charstat.cli import main as command

    command()


if __name__ == "__main__":
    main()
