"""Settings of the whole suite: it runs in two processes, so each keeps to one thread, and so do those they start."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
