"""What holds for every test: no network, and one thread a process."""

import os

# The networks are tiny: more threads only wait for each other, and fight with whatever else runs on the machine.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
