"""Train, evaluate and report one hashing run: `python train.py dataset=cifar10 bits=48`."""

from deephash.cli.train import main

if __name__ == "__main__":
    main()
