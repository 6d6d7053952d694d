"""The way into the `bridge` command, and into `python -m bridge`."""

import gc


def main() -> None:
    """Run the command line; looking for garbage while it is imported would find none, and take a tenth of a start."""
    gc.disable()
    from bridge import cli  # noqa: PLC0415 - not before the collector rests

    gc.enable()
    cli.main()


if __name__ == "__main__":
    main()
