"""What was measured of the recipes. `make figures` writes this file from results/."""

MEASURED = {
    "digits-events": "98.3 ± 0.3 % (5 seeds), 48–51 s on 2 cores",
    "digits-events-plain": "98.1 ± 0.6 % (5 seeds)",
    "cifar100-resnet20-tiny-staa": "4.1 ± 0.4 % (3 seeds)",
    "cifar100-resnet20-tiny-plain": "3.5 ± 0.6 % (3 seeds)",
    "cifar100-resnet20-tiny-dta": "3.4 ± 0.8 % (3 seeds)",
    "cifar100-resnet20-tiny-ta": "1.2 ± 0.4 % (3 seeds): chance",
    "nmnist-vggsnn-staa": "96.8 ± 0.9 % (5 folds of 1,100 recordings; begun otherwise than now)",
    "nmnist-vggsnn-plain": "96.9 ± 0.6 % (5 folds of 1,100 recordings; begun otherwise than now)",
    "nmnist-stream": "98.0 % (1 seed, 1,000 + 100 recordings; begun otherwise than now)",
    "ring-spikestag": "R² 0.967 ± 0.002 (3 seeds), 25 s on one core; last value 0.59, least squares on all nodes 0.99",
}
