"""Train, evaluate and report one hashing run: `python train.py dataset=cifar10 bits=48`."""

import signal

if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # no traceback of the imports on Ctrl-C

from deephash.cli.train import main

if __name__ == "__main__":
    main()
